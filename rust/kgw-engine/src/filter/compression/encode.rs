//! Compressing a body piece by piece.

use std::fmt;
use std::io::{self, Write};

use bytes::BytesMut;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::ir::Coding;

/// What Envoy takes by default, for Brotli and Zstandard.
const BROTLI_QUALITY: u32 = 3;
/// The window that Brotli looks back in, as a power of two: memory of each body that is under way.
const BROTLI_WINDOW: u32 = 18;
const ZSTD_LEVEL: i32 = 3;

/// A body that is being compressed.
pub(super) struct Encoder(Inner);

enum Inner {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// It is over, or could not begin.
    Over,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    pub(super) fn new(coding: Coding) -> Self {
        Self(match coding {
            Coding::Gzip => Inner::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
            Coding::Brotli => {
                let (quality, window) = (BROTLI_QUALITY, BROTLI_WINDOW);
                let writer = brotli::CompressorWriter::new(Vec::new(), 4096, quality, window);
                Inner::Brotli(Box::new(writer))
            }
            Coding::Zstd => zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)
                .map_or(Inner::Over, Inner::Zstd),
        })
    }

    /// Appends to `out` what a piece comes to, all of it.
    pub(super) fn encode(&mut self, data: &[u8], end: bool, out: &mut BytesMut) -> io::Result<()> {
        if end {
            let made = match std::mem::replace(&mut self.0, Inner::Over) {
                Inner::Gzip(mut writer) => {
                    writer.write_all(data)?;
                    writer.finish()?
                }
                Inner::Brotli(mut writer) => {
                    writer.write_all(data)?;
                    writer.into_inner()
                }
                Inner::Zstd(mut writer) => {
                    writer.write_all(data)?;
                    writer.finish()?
                }
                Inner::Over => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            out.extend_from_slice(&made);
            return Ok(());
        }
        let made = match &mut self.0 {
            Inner::Gzip(writer) => {
                writer.write_all(data)?;
                writer.flush()?;
                writer.get_mut()
            }
            Inner::Brotli(writer) => {
                writer.write_all(data)?;
                writer.flush()?;
                writer.get_mut()
            }
            Inner::Zstd(writer) => {
                writer.write_all(data)?;
                writer.flush()?;
                writer.get_mut()
            }
            Inner::Over => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        out.extend_from_slice(made);
        made.clear();
        Ok(())
    }
}
