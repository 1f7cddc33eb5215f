//! Access log formats: any text compiles or is refused, and what compiles renders a valid line.
#![no_main]

use kgw_engine::telemetry::access_log::{FormatOptions, LogProgram, sample};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: (&str, &[u8], bool)| {
    let (format, path, omit_empty_values) = data;
    let options = FormatOptions { omit_empty_values };
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
