//! Messages of Envoy's services: their encoding, and the parts that several of them have.
//!
//! A few messages are not worth a code generator, or a derive macro that every build compiles. Each is in
//! the module of the filter whose service it is for; numbers are those of Envoy's public API, version 3.
//! What is not named there is skipped in what is received, as protobuf wants it. Text that is received is
//! taken as bytes: what is done with it does not need it to be UTF-8.

pub(crate) mod header;
pub(crate) mod in_place;
pub(crate) mod json;
pub(crate) mod unary;
pub(crate) mod wire;

/// What was received is no message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// Bytes as text, which protobuf wants to be UTF-8: of other ones each that is none is `!`, as Envoy has
/// it.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_protobuf_takes() {
        assert_eq!(text(b"a\xff\xfeb\xc3\xbc"), "a!!b\u{fc}");
    }
}
