//! `google.protobuf.Struct`: JSON, which metadata is.

use serde_json::{Map, Value as Json};

use super::Malformed;
use super::wire::{Field, Value, Writer, pair, read};

/// How deep it may be nested.
const MAX_DEPTH: usize = 32;

/// The fields of a `google.protobuf.Struct`.
///
/// # Errors
/// It is none, or nested too deep.
pub(crate) fn fields(message: &[u8]) -> Result<Map<String, Json>, Malformed> {
    fields_within(message, MAX_DEPTH)
}

fn fields_within(message: &[u8], depth: usize) -> Result<Map<String, Json>, Malformed> {
    let mut found = Map::new();
    read(message, |Field { number, value }| {
        if number == 1 {
            let (name, of) = pair(value.bytes())?;
            let name = String::from_utf8_lossy(name).into_owned();
            found.insert(name, json(of, depth)?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Writes the fields of a `google.protobuf.Struct`.
pub(crate) fn write_fields(message: &mut Writer, fields: &Map<String, Json>) {
    for (name, value) in fields {
        message.message(1, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.message(2, |of| write_json(of, value));
        });
    }
}

fn write_json(message: &mut Writer, value: &Json) {
    match value {
        Json::Null => message.present_int(1, 0),
        Json::Number(number) => message.present_double(2, number.as_f64().unwrap_or_default()),
        Json::String(text) => message.present_bytes(3, text.as_bytes()),
        Json::Bool(truth) => message.present_int(4, (*truth).into()),
        Json::Object(fields) => message.message(5, |of| write_fields(of, fields)),
        Json::Array(items) => message.message(6, |list| {
            for item in items {
                list.message(1, |of| write_json(of, item));
            }
        }),
    }
}

/// A `google.protobuf.Value`.
fn json(message: &[u8], depth: usize) -> Result<Json, Malformed> {
    let deeper = depth.checked_sub(1).ok_or(Malformed)?;
    let mut found = Json::Null;
    read(message, |Field { number, value }| {
        found = match (number, value) {
            (2, Value::Double(number)) => number.into(),
            (3, Value::Bytes(text)) => String::from_utf8_lossy(text).into_owned().into(),
            (4, Value::Varint(truth)) => (truth != 0).into(),
            (5, Value::Bytes(of)) => Json::Object(fields_within(of, deeper)?),
            (6, Value::Bytes(of)) => {
                let mut list = Vec::new();
                read(of, |Field { number, value }| {
                    if number == 1 {
                        list.push(json(value.bytes(), deeper)?);
                    }
                    Ok(())
                })?;
                Json::Array(list)
            }
            _ => Json::Null,
        };
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"a": 1.5, "b": ["x", true, null], "c": {"d": "e"}}`, as other encoders write it.
    const STRUCT: &[u8] = b"\x0a\x0e\x0a\x01a\x12\x09\x11\0\0\0\0\0\0\xf8\x3f\
        \x0a\x14\x0a\x01b\x12\x0f\x32\x0d\x0a\x03\x1a\x01x\x0a\x02\x20\x01\x0a\x02\x08\0\
        \x0a\x11\x0a\x01c\x12\x0c\x2a\x0a\x0a\x08\x0a\x01d\x12\x03\x1a\x01e";

    #[test]
    fn what_is_written_is_read() {
        let written = serde_json::json!({
            "a": [1.5, true, null, {}], "b": {"c": "", "d": false}, "e": -2.0
        });
        let mut writer = Writer::default();
        write_fields(&mut writer, written.as_object().unwrap());
        let read = fields(&writer.into_bytes()).unwrap();
        assert_eq!(Json::Object(read), written);
    }

    #[test]
    fn metadata_is_read() {
        let read = Json::Object(fields(STRUCT).unwrap());
        let expected = r#"{"a":1.5,"b":["x",true,null],"c":{"d":"e"}}"#;
        assert_eq!(read.to_string(), expected);
    }

    #[test]
    fn metadata_is_not_nested_without_end() {
        let mut nested: Vec<u8> = Vec::new();
        for _ in 0..1_000 {
            let mut writer = Writer::default();
            writer.message(6, |list| list.message(1, |value| value.raw(&nested)));
            nested = writer.into_bytes();
        }
        assert_eq!(json(&nested, MAX_DEPTH), Err(Malformed));
    }
}
