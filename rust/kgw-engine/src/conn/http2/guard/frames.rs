//! Frame headers in a stream of HTTP/2 bytes, without I/O.
//!
//! The scanner keeps in step with the frames at any split of the bytes. It looks at the nine bytes of
//! each frame's header and jumps over the payload, so its cost is per frame and per read, not per byte.

/// What a client sends first (RFC 9113 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length of a frame's header. Bytes.
pub(crate) const HEADER_BYTES: usize = 9;

/// `ACK` of SETTINGS and PING (RFC 9113 6.5, 6.7).
pub(crate) const ACK: u8 = 0x1;
/// `END_STREAM` of DATA and HEADERS (RFC 9113 6.1, 6.2).
pub(crate) const END_STREAM: u8 = 0x1;
/// `END_HEADERS` of HEADERS, `PUSH_PROMISE` and CONTINUATION (RFC 9113 6.2).
pub(crate) const END_HEADERS: u8 = 0x4;

/// Frame types (RFC 9113 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

/// The header of a frame (RFC 9113 4.1), without the stream, which no budget depends on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FrameHead {
    /// Payload. Bytes, below 2^24.
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
}

impl FrameHead {
    /// Whether the flags hold all of `flags`.
    pub(crate) fn has(self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether the frame is the last of its message.
    pub(crate) fn ends_stream(self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.has(END_STREAM)
    }
}

/// Where in the frames a stream of bytes is.
#[derive(Debug)]
pub(crate) struct FrameScanner {
    at: At,
}

#[derive(Debug)]
enum At {
    /// This many bytes of the preface have passed.
    Preface(usize),
    /// This many bytes of a frame's header have passed.
    Head([u8; HEADER_BYTES], usize),
    /// This many bytes of a payload are to come.
    Payload(usize),
    /// The preface was not one. Whoever reads the bytes refuses them.
    Lost,
}

impl FrameScanner {
    /// Scans what a client sends: a preface, then frames.
    pub(crate) fn of_client() -> Self {
        Self { at: At::Preface(0) }
    }

    /// Scans what a server sends: frames.
    pub(crate) fn of_server() -> Self {
        Self {
            at: At::Head([0; HEADER_BYTES], 0),
        }
    }

    /// Returns the next frame header that is complete with `input`, and leaves in `input` what follows
    /// it; none once all of `input` is taken.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Option<FrameHead> {
        while !input.is_empty() {
            match &mut self.at {
                At::Preface(passed) => {
                    let rest = &PREFACE[*passed..];
                    let count = rest.len().min(input.len());
                    let same = input[..count] == rest[..count];
                    *passed += count;
                    *input = &input[count..];
                    if !same {
                        self.at = At::Lost;
                    } else if count == rest.len() {
                        self.at = At::Head([0; HEADER_BYTES], 0);
                    }
                }
                At::Head(bytes, passed) => {
                    let count = (HEADER_BYTES - *passed).min(input.len());
                    bytes[*passed..*passed + count].copy_from_slice(&input[..count]);
                    *passed += count;
                    *input = &input[count..];
                    if *passed < HEADER_BYTES {
                        return None;
                    }
                    let &mut [high, middle, low, kind, flags, ..] = bytes;
                    let length = u32::from_be_bytes([0, high, middle, low]);
                    self.at = At::after_head(length as usize);
                    return Some(FrameHead {
                        length,
                        kind,
                        flags,
                    });
                }
                At::Payload(left) => {
                    let count = (*left).min(input.len());
                    *left -= count;
                    *input = &input[count..];
                    if *left == 0 {
                        self.at = At::Head([0; HEADER_BYTES], 0);
                    }
                }
                At::Lost => *input = &[],
            }
        }
        None
    }
}

impl At {
    fn after_head(length: usize) -> Self {
        if length == 0 {
            Self::Head([0; HEADER_BYTES], 0)
        } else {
            Self::Payload(length)
        }
    }
}
