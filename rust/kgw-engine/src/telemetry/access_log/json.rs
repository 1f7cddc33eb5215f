//! The JSON of access logs: how strings are escaped and numbers printed.

use serde_json::{Number, Value};

/// Quotes `out[start..]` as the inside of a JSON string, in place.
///
/// Envoy's rules: valid UTF-8 stays as it is, anything else is written byte by byte as Latin-1
/// (`\u00ff`), the whole piece at once; `"`, `\` and control characters are escaped, `/` is not.
pub(super) fn escape_tail(out: &mut Vec<u8>, start: usize) {
    // Without an early exit the compiler turns this into vector instructions.
    let special = out[start..]
        .iter()
        .filter(|&&byte| is_special(byte))
        .count();
    if special > 0 {
        escape_slowly(out, start);
    }
}

fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\' || byte >= 0x80
}

#[cold]
fn escape_slowly(out: &mut Vec<u8>, start: usize) {
    let raw = out.split_off(start);
    let keep_high = std::str::from_utf8(&raw).is_ok();
    for byte in raw {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ if byte < b' ' || (byte >= 0x80 && !keep_high) => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
}

/// Writes `text` as a JSON string, quotes included.
pub(super) fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.extend_from_slice(text);
    escape_tail(out, start);
    out.push(b'"');
}

/// Writes `value` compactly, keys sorted bytewise at every level.
pub(super) fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_string(out, text.as_bytes()),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(out, item);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| key.as_bytes());
            out.push(b'{');
            for (index, (key, item)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(out, key.as_bytes());
                out.push(b':');
                write_value(out, item);
            }
            out.push(b'}');
        }
    }
}

/// Writes a number; one without a fraction is written as an integer, as protobuf's `Struct` does.
pub(super) fn write_number(out: &mut Vec<u8>, number: &Number) {
    let text = number.to_string();
    let integer = text.strip_suffix(".0").unwrap_or(&text);
    out.extend_from_slice(integer.as_bytes());
}

/// Writes a decimal number.
pub(super) fn write_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &[u8]) -> String {
        let mut out = Vec::new();
        write_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_json_cannot_hold_is_escaped_and_a_slash_is_not() {
        assert_eq!(quoted(b"a\"b\\c\td/"), r#""a\"b\\c\td/""#);
        assert_eq!(quoted(b"\n\r\x08\x0c\x01\x1f"), r#""\n\r\b\f\u0001\u001f""#);
    }

    #[test]
    fn utf8_stays_and_anything_else_becomes_latin1() {
        assert_eq!(quoted("café".as_bytes()), "\"café\"");
        assert_eq!(
            quoted(b"caf\xc3\xa9 \xff\x80"),
            r#""caf\u00c3\u00a9 \u00ff\u0080""#
        );
    }

    #[test]
    fn values_are_compact_and_sorted_bytewise() {
        let value: Value =
            serde_json::from_str(r#"{"b": [1, 2.0, 2.5, null], "a": {"z": true, "B": "x"}}"#)
                .unwrap();
        let mut out = Vec::new();
        write_value(&mut out, &value);
        assert_eq!(out, br#"{"a":{"B":"x","z":true},"b":[1,2,2.5,null]}"#);
    }
}
