//! Access log formats: any text compiles or is refused, and what compiles renders a valid line.
#![no_main]

use kgw_engine::telemetry::access_log::{FormatOptions, LogProgram, sample};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

// The input is settings, a path, a zero byte and a format.
fuzz_target!(|input: (u8, &[u8])| {
    let (settings, bytes) = input;
    let Some(end) = bytes.iter().position(|&byte| byte == 0) else {
        return;
    };
    let path = &bytes[..end];
    let Ok(format) = str::from_utf8(&bytes[end + 1..]) else {
        return;
    };
    let options = FormatOptions {
        omit_empty_values: settings & 1 != 0,
    };
    let mut out = Vec::new();
    if let Ok(program) = LogProgram::text(format, options) {
        sample(|record| program.render(record, &mut out));
    }
    let value = serde_json::from_str(format).unwrap_or(Value::String(format.to_owned()));
    let mut object = serde_json::Map::new();
    object.insert("value".to_owned(), value);
    if let Ok(program) = LogProgram::json(&Value::Object(object), options) {
        out.clear();
        sample(|record| {
            let mut record = *record;
            record.request.path = Some(path);
            program.render(&record, &mut out);
        });
        assert_eq!(out.pop(), Some(b'\n'));
        let line: Value = serde_json::from_slice(&out).expect("a line is valid JSON");
        assert!(line.is_object());
    }
});
