//! How long a body is (RFC 9112 §6.3).

/// How the end of a message body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// Exactly this many bytes follow the head.
    Length(u64),
    /// Chunks follow, up to the last one of size zero and the trailer section.
    Chunked,
    /// Everything up to the end of the connection (responses only).
    UntilClose,
}

impl Framing {
    /// Returns whether no body byte can follow the head.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// Returns the body's length in bytes where the head tells it.
    pub fn length(self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Length(length) => Some(length),
            Self::Chunked | Self::UntilClose => None,
        }
    }
}

/// Parses a `Content-Length` value: `1*DIGIT`, at most `i64::MAX`.
///
/// RFC 9110 §8.6 sets no upper bound, but many recipients count in signed 64 bits, so a larger
/// value would be read differently further on.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > MAX_LENGTH_DIGITS {
        return None;
    }
    let mut length = 0_u64;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        length = length
            .checked_mul(10)?
            .checked_add(u64::from(byte - b'0'))?;
    }
    (length <= MAX_LENGTH).then_some(length)
}

/// The longest body that is accepted, in bytes; also the bound of a chunk.
pub(crate) const MAX_LENGTH: u64 = i64::MAX as u64;
const MAX_LENGTH_DIGITS: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_is_digits_only_and_bounded() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"0017"), Some(17));
        assert_eq!(content_length(b"9223372036854775807"), Some(MAX_LENGTH));
        for bad in [
            &b""[..],
            b"+1",
            b"-1",
            b"1 ",
            b"1,1",
            b"0x1",
            b"1_0",
            b"\xd9\xa5",
            b"9223372036854775808",
            b"18446744073709551621",
            b"00000000000000000001",
        ] {
            assert_eq!(content_length(bad), None, "{bad:?}");
        }
    }
}
