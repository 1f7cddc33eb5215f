//! Decompressing a body piece by piece.

use std::fmt;
use std::io::{self, Write};

use bytes::BytesMut;
use flate2::write::MultiGzDecoder;

use crate::config::ir::Coding;

/// How much more may come of a body than came in, as in Envoy.
const RATIO: u64 = 100;

/// How much may come of it in any case. Bytes.
const IN_ANY_CASE: u64 = 64 << 10;

/// The largest window that a Zstandard frame may ask for, as a power of two (RFC 8878 recommends 8 MiB).
const ZSTD_WINDOW: u32 = 23;

/// A body that is being decompressed.
pub(super) struct Decoder {
    inner: Inner,
    taken: u64,
}

enum Inner {
    Gzip(Box<MultiGzDecoder<Bounded>>),
    Brotli(Box<brotli::DecompressorWriter<Bounded>>),
    Zstd(Box<zstd::stream::raw::Decoder<'static>>, Bounded, bool),
    Broken,
}

/// Why a body cannot be decompressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// Too much comes of it.
    TooLarge,
    /// It is not of the coding, or not all of it is there.
    Malformed,
}

/// What came of a body and was not passed on, within bounds.
#[derive(Debug, Default)]
struct Bounded {
    data: Vec<u8>,
    /// How much more may come. Bytes.
    left: u64,
    is_exceeded: bool,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    pub(super) fn new(coding: Coding) -> Self {
        let bounded = Bounded {
            left: IN_ANY_CASE,
            ..Bounded::default()
        };
        let inner = match coding {
            Coding::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(bounded))),
            Coding::Brotli => {
                Inner::Brotli(Box::new(brotli::DecompressorWriter::new(bounded, 4096)))
            }
            Coding::Zstd => zstd_decoder().map_or(Inner::Broken, |decoder| {
                Inner::Zstd(Box::new(decoder), bounded, true)
            }),
        };
        Self { inner, taken: 0 }
    }

    /// Appends to `out` what comes of a piece.
    pub(super) fn decode(
        &mut self,
        data: &[u8],
        end: bool,
        out: &mut BytesMut,
    ) -> Result<(), Fault> {
        self.taken += data.len() as u64;
        // No body at all is not one of the coding, and means nothing.
        if end && self.taken == 0 {
            return Ok(());
        }
        let more = RATIO.saturating_mul(data.len() as u64);
        let (done, bounded) = match &mut self.inner {
            Inner::Gzip(writer) => {
                writer.get_mut().left += more;
                let mut done = writer.write_all(data);
                if end {
                    done = done.and_then(|()| writer.try_finish());
                }
                (done.and_then(|()| writer.flush()), writer.get_mut())
            }
            Inner::Brotli(writer) => {
                writer.get_mut().left += more;
                let mut done = writer.write_all(data);
                if end {
                    done = done.and_then(|()| writer.close());
                }
                (done.and_then(|()| writer.flush()), writer.get_mut())
            }
            Inner::Zstd(decoder, bounded, is_whole) => {
                bounded.left += more;
                let done = zstd_decode(decoder, data, bounded, is_whole);
                let done = match done {
                    Ok(()) if end && !*is_whole => Err(io::ErrorKind::UnexpectedEof.into()),
                    done => done,
                };
                (done, bounded)
            }
            Inner::Broken => return Err(Fault::Malformed),
        };
        out.extend_from_slice(&bounded.data);
        bounded.data.clear();
        match done {
            Ok(()) => Ok(()),
            Err(_) if bounded.is_exceeded => Err(Fault::TooLarge),
            Err(_) => Err(Fault::Malformed),
        }
    }
}

fn zstd_decoder() -> io::Result<zstd::stream::raw::Decoder<'static>> {
    let mut decoder = zstd::stream::raw::Decoder::new()?;
    decoder.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW))?;
    Ok(decoder)
}

/// Decompresses a piece. `is_whole` says whether a frame ended with it.
fn zstd_decode(
    decoder: &mut zstd::stream::raw::Decoder<'static>,
    data: &[u8],
    bounded: &mut Bounded,
    is_whole: &mut bool,
) -> io::Result<()> {
    use zstd::stream::raw::Operation;

    let mut buffer = [0; 16 << 10];
    let mut rest = data;
    loop {
        let status = decoder.run_on_buffers(rest, &mut buffer)?;
        rest = &rest[status.bytes_read..];
        bounded.write_all(&buffer[..status.bytes_written])?;
        if status.bytes_read > 0 || status.bytes_written > 0 {
            *is_whole = status.remaining == 0;
        }
        let is_full = status.bytes_written == buffer.len();
        if rest.is_empty() && !is_full {
            return Ok(());
        }
        if status.bytes_read == 0 && status.bytes_written == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = data.len() as u64;
        if count > self.left {
            self.is_exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.left -= count;
        self.data.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
