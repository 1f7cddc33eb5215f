//! Decodes message bodies, without buffering a byte of them but trailers.

use std::ops::Range;

use crate::chars;
use crate::error::BodyError;
use crate::framing::{Framing, MAX_LENGTH};
use crate::headers::Headers;

/// Finds the body's data in the bytes behind a head.
///
/// Chunk lines follow the grammar of RFC 9112 §7.1 without its optional white space; extensions are
/// checked, bounded and dropped. Trailers are checked and bounded, and those that may be one
/// ([`may_be_trailer`](crate::may_be_trailer)) are kept. Any error means that the connection must be
/// closed: what follows is not known to be the next message.
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    state: State,
    /// Data bytes left of the length or of the chunk.
    remaining: u64,
    /// Extension bytes in this chunk and in the whole body.
    chunk_extension: usize,
    extensions: usize,
    /// Trailer bytes and lines so far.
    trailer_bytes: usize,
    trailer_fields: usize,
    /// Most bodies have none, and every idle connection has a decoder: no room is kept for them.
    trailers: Option<Box<Trailers>>,
}

/// Trailer fields, with the line that is being read.
#[derive(Debug, Clone, Default)]
struct Trailers {
    line: Vec<u8>,
    name_len: usize,
    fields: Headers,
}

/// One step of [`BodyDecoder::decode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that are dealt with, data included.
    pub consumed: usize,
    /// Where the data is in the input; empty when there is none in this step.
    pub data: Range<usize>,
    /// The body is complete; what follows in the input belongs to the next message.
    pub done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length,
    UntilClose,
    /// Chunk size, with the number of digits so far.
    Size(u8),
    /// LF behind the chunk size or its extensions.
    SizeLf,
    ExtensionName {
        empty: bool,
    },
    ExtensionValue {
        empty: bool,
    },
    Quoted,
    QuotedPair,
    QuotedEnd,
    Data,
    DataCr,
    DataLf,
    /// First byte of a trailer line, or the CR of the empty line that ends the body.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed(BodyError),
}

// === impl BodyDecoder ===

impl BodyDecoder {
    /// Returns a decoder for a body with this framing.
    pub fn new(framing: Framing) -> Self {
        let (state, remaining) = match framing {
            Framing::None | Framing::Length(0) => (State::Done, 0),
            Framing::Length(length) => (State::Length, length),
            Framing::Chunked => (State::Size(0), 0),
            Framing::UntilClose => (State::UntilClose, 0),
        };
        Self {
            state,
            remaining,
            chunk_extension: 0,
            extensions: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
            trailers: None,
        }
    }

    /// Returns whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns the trailer fields received so far, which are all of them once the body is complete,
    /// or `None` where there are none. Fields that must not be trailers are not among them (RFC 9110
    /// §6.5.1).
    pub fn trailers(&self) -> Option<&Headers> {
        let trailers = self.trailers.as_deref()?;
        (!trailers.fields.is_empty()).then_some(&trailers.fields)
    }

    /// Takes one step: reads framing up to the next run of data and returns that run.
    ///
    /// Call again with the rest of the input while it is not empty and the body is not done. An
    /// error repeats on every later call.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return Ok(self.step(at, at..at)),
                State::Failed(error) => return Err(error),
                State::UntilClose => return Ok(self.step(input.len(), at..input.len())),
                State::Length | State::Data => {
                    let available = input.len() - at;
                    let take = usize::try_from(self.remaining)
                        .unwrap_or(usize::MAX)
                        .min(available);
                    if take == 0 {
                        return Ok(self.step(at, at..at));
                    }
                    self.count_data(take as u64);
                    return Ok(self.step(at + take, at..at + take));
                }
                _ => {}
            }
            let Some(&byte) = input.get(at) else {
                return Ok(self.step(at, at..at));
            };
            at += 1;
            self.state = match self.framing_byte(byte) {
                Ok(state) => state,
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            };
        }
    }

    /// Returns how many bytes of data come next with no framing among them: the rest of the length or
    /// of the chunk, [`u64::MAX`] for a body that ends with the connection, 0 where framing comes next
    /// or nothing does.
    pub fn data_ahead(&self) -> u64 {
        match self.state {
            State::Length | State::Data => self.remaining,
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// Counts data that the caller took off the connection itself, instead of [`decode`](Self::decode):
    /// at most [`data_ahead`](Self::data_ahead) bytes.
    ///
    /// # Errors
    /// [`BodyError::TooLong`] when it is more; nothing is counted then.
    pub fn skip_data(&mut self, len: u64) -> Result<(), BodyError> {
        if len > self.data_ahead() {
            return Err(BodyError::TooLong);
        }
        if self.state != State::UntilClose {
            self.count_data(len);
        }
        Ok(())
    }

    /// Counts data of a length or of a chunk, no more of it than is left.
    fn count_data(&mut self, len: u64) {
        self.remaining -= len;
        if self.remaining == 0 {
            self.state = match self.state {
                State::Length => State::Done,
                State::Data => State::DataCr,
                other => other,
            };
        }
    }

    /// Tells that the connection has ended in an orderly way (FIN; not a reset).
    ///
    /// # Errors
    /// [`BodyError::Truncated`] unless the body is complete or delimited by the close.
    pub fn finish_eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => {
                self.state = State::Failed(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    fn step(&self, consumed: usize, data: Range<usize>) -> Decoded {
        Decoded {
            consumed,
            data,
            done: self.is_done(),
        }
    }

    /// Takes one byte of chunk framing and returns the next state.
    fn framing_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        match self.state {
            State::Size(digits) => self.size_byte(byte, digits),
            State::SizeLf => match byte {
                b'\n' if self.remaining == 0 => Ok(State::TrailerStart),
                b'\n' => Ok(State::Data),
                _ => Err(BodyError::BadChunkSize),
            },
            State::ExtensionName { .. }
            | State::ExtensionValue { .. }
            | State::Quoted
            | State::QuotedPair
            | State::QuotedEnd => self.extension_byte(byte),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => {
                self.chunk_extension = 0;
                Ok(State::Size(0))
            }
            State::DataCr | State::DataLf => Err(BodyError::BadChunkEnd),
            State::TrailerStart
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerLf
            | State::EndLf => self.trailer_byte(byte),
            // Handled before a byte is taken.
            state @ (State::Length
            | State::UntilClose
            | State::Data
            | State::Done
            | State::Failed(_)) => Ok(state),
        }
    }

    fn size_byte(&mut self, byte: u8, digits: u8) -> Result<State, BodyError> {
        if let Some(digit) = chars::hex_value(byte) {
            let size = (self.remaining << 4) | u64::from(digit);
            if digits == MAX_CHUNK_SIZE_DIGITS || size > MAX_LENGTH {
                return Err(BodyError::BadChunkSize);
            }
            self.remaining = size;
            return Ok(State::Size(digits + 1));
        }
        match byte {
            _ if digits == 0 => Err(BodyError::BadChunkSize),
            b'\r' => Ok(State::SizeLf),
            b';' => {
                self.count_extension()?;
                Ok(State::ExtensionName { empty: true })
            }
            _ => Err(BodyError::BadChunkSize),
        }
    }

    fn count_extension(&mut self) -> Result<(), BodyError> {
        self.chunk_extension += 1;
        self.extensions += 1;
        if self.chunk_extension > MAX_CHUNK_EXTENSION_BYTES
            || self.extensions > MAX_EXTENSION_BYTES_PER_BODY
        {
            return Err(BodyError::BadChunkExtension);
        }
        Ok(())
    }

    /// `chunk-ext = *( ";" token [ "=" ( token / quoted-string ) ] )` (RFC 9112 §7.1.1).
    fn extension_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        self.count_extension()?;
        let next = match (self.state, byte) {
            (State::ExtensionName { .. }, _) if chars::is_token(byte) => {
                State::ExtensionName { empty: false }
            }
            (State::ExtensionName { empty: false }, b'=') => State::ExtensionValue { empty: true },
            (State::ExtensionValue { .. }, _) if chars::is_token(byte) => {
                State::ExtensionValue { empty: false }
            }
            (State::ExtensionValue { empty: true }, b'"') => State::Quoted,
            (State::Quoted, b'"') => State::QuotedEnd,
            (State::Quoted, b'\\') => State::QuotedPair,
            (State::Quoted | State::QuotedPair, _) if chars::is_value(byte) => State::Quoted,
            (
                State::ExtensionName { empty: false }
                | State::ExtensionValue { empty: false }
                | State::QuotedEnd,
                b';',
            ) => State::ExtensionName { empty: true },
            (
                State::ExtensionName { empty: false }
                | State::ExtensionValue { empty: false }
                | State::QuotedEnd,
                b'\r',
            ) => State::SizeLf,
            _ => return Err(BodyError::BadChunkExtension),
        };
        Ok(next)
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(BodyError::BadTrailer);
        }
        // A body without trailers, which are most, gets by without a box for them.
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => return Ok(State::EndLf),
            (State::EndLf, b'\n') => return Ok(State::Done),
            (State::EndLf, _) => return Err(BodyError::BadTrailer),
            _ => {}
        }
        let trailers = self.trailers.get_or_insert_default();
        match (self.state, byte) {
            (State::TrailerStart, _) if chars::is_token(byte) => {
                self.trailer_fields += 1;
                if self.trailer_fields > MAX_TRAILER_FIELDS {
                    return Err(BodyError::BadTrailer);
                }
                trailers.line.clear();
                trailers.line.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => {
                trailers.name_len = trailers.line.len();
                Ok(State::TrailerValue)
            }
            (State::TrailerName, _) if chars::is_token(byte) => {
                trailers.line.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if chars::is_value(byte) => {
                trailers.line.push(byte);
                Ok(State::TrailerValue)
            }
            (State::TrailerLf, b'\n') => {
                let (name, value) = trailers.line.split_at(trailers.name_len);
                if crate::may_be_trailer(name) {
                    trailers.fields.append(name, value);
                }
                Ok(State::TrailerStart)
            }
            _ => Err(BodyError::BadTrailer),
        }
    }
}

/// Hexadecimal digits of a chunk size, leading zeros included.
pub const MAX_CHUNK_SIZE_DIGITS: u8 = 16;
/// Extension bytes of one chunk, from the first `;` to the CR.
pub const MAX_CHUNK_EXTENSION_BYTES: usize = 256;
/// Extension bytes of a whole body.
pub const MAX_EXTENSION_BYTES_PER_BODY: usize = 4096;
/// Bytes of the trailer section, final CRLF included.
pub const MAX_TRAILER_BYTES: usize = 8192;
/// Lines of the trailer section.
pub const MAX_TRAILER_FIELDS: usize = 64;
