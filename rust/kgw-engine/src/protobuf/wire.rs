//! The encoding of protobuf, as far as a few messages need it.

use super::Malformed;

/// Writes a message.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Adds a number, if it is not the default.
    pub(crate) fn int(&mut self, number: u32, value: i64) {
        if value != 0 {
            self.present_int(number, value);
        }
    }

    /// Adds a number, even if it is the default.
    pub(crate) fn present_int(&mut self, number: u32, value: i64) {
        self.tag(number, VARINT);
        self.varint(value.cast_unsigned());
    }

    /// Adds text or bytes, if there are any.
    pub(crate) fn bytes(&mut self, number: u32, value: &[u8]) {
        if !value.is_empty() {
            self.present_bytes(number, value);
        }
    }

    /// Adds a part, which may be empty.
    pub(crate) fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        let mut part = Self::default();
        write(&mut part);
        self.present_bytes(number, &part.0);
    }

    /// Adds an entry of a map of text.
    pub(crate) fn entry(&mut self, number: u32, key: &str, value: &str) {
        self.message(number, |entry| {
            entry.bytes(1, key.as_bytes());
            entry.bytes(2, value.as_bytes());
        });
    }

    /// Adds what was written elsewhere.
    #[cfg(test)]
    pub(crate) fn raw(&mut self, written: &[u8]) {
        self.0.extend_from_slice(written);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Adds a number, even if it is the default.
    pub(crate) fn present_double(&mut self, number: u32, value: f64) {
        self.tag(number, FIXED_64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Adds text or bytes, even if there are none.
    pub(crate) fn present_bytes(&mut self, number: u32, value: &[u8]) {
        self.tag(number, BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn tag(&mut self, number: u32, kind: u64) {
        self.varint(u64::from(number) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A field that was received.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    pub(crate) value: Value<'a>,
}

/// What it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Double(f64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// Of a kind that nothing here has.
    Other,
}

impl<'a> Value<'a> {
    /// Text, bytes or a message; nothing of other kinds, as where the field is left out.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => b"",
        }
    }

    /// A number; 0 of other kinds.
    pub(crate) fn int(self) -> i64 {
        match self {
            Self::Varint(value) => value.cast_signed(),
            _ => 0,
        }
    }
}

/// Calls `take` with each field of a message.
///
/// # Errors
/// It is not one, or `take` says so.
pub(crate) fn read<'a>(
    mut message: &'a [u8],
    mut take: impl FnMut(Field<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            VARINT => Value::Varint(varint(&mut message)?),
            FIXED_64 => {
                let bytes = cut(&mut message, 8)?.try_into();
                Value::Double(f64::from_le_bytes(bytes.map_err(|_| Malformed)?))
            }
            BYTES => {
                let length = varint(&mut message)?;
                Value::Bytes(cut(&mut message, length)?)
            }
            FIXED_32 => {
                cut(&mut message, 4)?;
                Value::Other
            }
            _ => return Err(Malformed),
        };
        take(Field {
            number: tag >> 3,
            value,
        })?;
    }
    Ok(())
}

/// Two texts: an entry of a map, or a parameter.
///
/// # Errors
/// It is no message.
pub(crate) fn pair(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut found: (&[u8], &[u8]) = (b"", b"");
    read(message, |Field { number, value }| {
        match number {
            1 => found.0 = value.bytes(),
            2 => found.1 = value.bytes(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

fn varint(message: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for at in 0..10 {
        let (&byte, rest) = message.split_first().ok_or(Malformed)?;
        *message = rest;
        // What does not fit is cut off, as other readers do.
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn cut<'a>(message: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (part, rest) = message.split_at_checked(length).ok_or(Malformed)?;
    *message = rest;
    Ok(part)
}

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, Malformed> {
        let mut found = Vec::new();
        read(message, |field| {
            found.push(field);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.int(1, 0);
        writer.int(2, 300);
        writer.int(3, -1);
        writer.present_int(4, 0);
        writer.bytes(5, b"");
        writer.bytes(16, b"abc");
        writer.message(7, |_| {});
        let bytes = writer.into_bytes();
        // 300 is the example of the encoding's documentation.
        assert_eq!(&bytes[..3], b"\x10\xac\x02");
        let int = |number, value: i64| Field {
            number,
            value: Value::Varint(value.cast_unsigned()),
        };
        let text = |number, value| Field {
            number,
            value: Value::Bytes(value),
        };
        let expected = [
            int(2, 300),
            int(3, -1),
            int(4, 0),
            text(16, b"abc"),
            text(7, b""),
        ];
        assert_eq!(fields(&bytes).unwrap(), expected);
    }

    #[test]
    fn other_kinds_are_passed_over() {
        let found = fields(b"\x0d\0\0\0\0\x11\0\0\0\0\0\0\xf0\x3f\x08\x01").unwrap();
        let values: Vec<_> = found.iter().map(|field| field.value).collect();
        assert_eq!(values, [Value::Other, Value::Double(1.0), Value::Varint(1)]);
    }

    #[test]
    fn what_is_cut_short_or_malformed_is_refused() {
        for message in [
            &b"\x08"[..],
            b"\x08\xff",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0a\x02a",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x0b",
            b"\x0c",
            b"\x0d\0\0\0",
            b"\x09\0",
            b"\x80",
        ] {
            assert_eq!(fields(message), Err(Malformed), "{message:?}");
        }
    }
}
