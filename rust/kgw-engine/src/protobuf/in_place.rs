//! Writing messages into a buffer that has something in it already: what is written of each request.
//!
//! The length of a part stands in front of it and is not known before. Most are short, so one byte is left
//! for it, and longer parts are moved.

/// A message at the end of a buffer.
#[derive(Debug)]
pub(crate) struct Message<'b>(pub(crate) &'b mut Vec<u8>);

impl Message<'_> {
    /// Adds a number, if it is not the default.
    pub(crate) fn int(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.tag(number, VARINT);
            varint(self.0, value);
        }
    }

    /// Adds a number of eight bytes, if it is not the default.
    pub(crate) fn fixed64(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.tag(number, FIXED_64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Adds a number with a fraction, even if it is the default.
    pub(crate) fn present_double(&mut self, number: u32, value: f64) {
        self.tag(number, FIXED_64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Adds a truth value, even if it is the default.
    pub(crate) fn present_bool(&mut self, number: u32, value: bool) {
        self.tag(number, VARINT);
        self.0.push(u8::from(value));
    }

    /// Adds text, if there is any. What is no UTF-8 is replaced, as protobuf wants it.
    pub(crate) fn text(&mut self, number: u32, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        if !value.is_empty() {
            self.rendered(number, |out| out.extend_from_slice(value));
        }
    }

    /// Adds bytes, if there are any.
    pub(crate) fn bytes(&mut self, number: u32, value: &[u8]) {
        if !value.is_empty() {
            self.part(number, |part| part.0.extend_from_slice(value));
        }
    }

    /// Adds the text that `render` appends, even if that is none.
    pub(crate) fn rendered(&mut self, number: u32, render: impl FnOnce(&mut Vec<u8>)) {
        self.part(number, |part| {
            let start = part.0.len();
            render(part.0);
            if std::str::from_utf8(&part.0[start..]).is_err() {
                let text = super::text(&part.0[start..]);
                part.0.truncate(start);
                part.0.extend_from_slice(text.as_bytes());
            }
        });
    }

    /// Adds a part, which may be empty.
    pub(crate) fn part(&mut self, number: u32, write: impl FnOnce(&mut Message<'_>)) {
        self.tag(number, BYTES);
        let at = self.0.len();
        self.0.push(0);
        let start = self.0.len();
        write(&mut Message(self.0));
        let length = self.0.len() - start;
        if let Ok(length @ ..0x80) = u8::try_from(length) {
            self.0[at] = length;
            return;
        }
        let mut prefix = Vec::with_capacity(MAX_VARINT);
        varint(&mut prefix, length as u64);
        self.0.splice(at..start, prefix);
    }

    /// Adds a member of a map, of which `write` is the value.
    pub(crate) fn entry(&mut self, number: u32, key: &str, write: impl FnOnce(&mut Message<'_>)) {
        self.part(number, |entry| {
            entry.text(1, key);
            write(entry);
        });
    }

    fn tag(&mut self, number: u32, kind: u64) {
        varint(self.0, u64::from(number) << 3 | kind);
    }
}

/// Appends a number.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const MAX_VARINT: usize = 10;

#[cfg(test)]
mod tests {
    use super::super::wire::Writer;
    use super::*;

    #[test]
    fn parts_are_what_the_other_writer_makes_of_them() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000] {
            let value = vec![b'x'; length];
            let mut found = b"before".to_vec();
            let mut message = Message(&mut found);
            message.part(3, |part| {
                part.int(1, 300);
                part.part(200, |part| part.text(2, &value));
                part.int(4, 0);
            });
            let mut expected = Writer::default();
            expected.message(3, |part| {
                part.int(1, 300);
                part.message(200, |part| part.bytes(2, &value));
            });
            let expected = [b"before", &*expected.into_bytes()].concat();
            assert!(found == expected, "{length}");
        }
    }

    #[test]
    fn text_is_utf8_and_may_be_empty_where_that_says_something() {
        let mut found = Vec::new();
        let mut message = Message(&mut found);
        message.text(1, b"a\xff");
        message.text(2, "");
        message.rendered(3, |_| {});
        message.bytes(4, b"\xff");
        assert_eq!(found, b"\x0a\x02a!\x1a\x00\x22\x01\xff");
    }

    #[test]
    fn numbers_have_their_forms() {
        let mut found = Vec::new();
        let mut message = Message(&mut found);
        message.fixed64(1, 2);
        message.present_double(2, 1.0);
        message.present_bool(3, false);
        let expected = b"\x09\x02\0\0\0\0\0\0\0\x11\0\0\0\0\0\0\xf0\x3f\x18\0";
        assert_eq!(found, expected);
    }
}
