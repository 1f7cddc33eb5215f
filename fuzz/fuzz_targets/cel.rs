//! Any text is a rule or none, and a rule is done with any value in bounded time.
#![no_main]

use std::time::{Duration, Instant};

use kgw_cel::{Names, Program};
use kgw_schema::{Schema, Value, Write};
use libfuzzer_sys::fuzz_target;

/// Far above what the budget of a rule takes.
const LONGEST: Duration = Duration::from_secs(10);

fuzz_target!(|bytes: &[u8]| {
    let Some((rule, json)) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.split_once('\0'))
    else {
        return;
    };
    let schema = serde_json::json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-validations": [{"rule": rule, "messageExpression": rule, "optionalOldSelf": true}],
    });
    let is_rule = Program::compile(rule.trim(), Names::Variables(&["self", "oldSelf"])).is_ok();
    let Ok(schema) = Schema::compile(&schema) else {
        assert!(!is_rule);
        return;
    };
    assert!(is_rule);
    let Ok(object) = serde_json::from_str::<serde_json::Value>(json) else {
        return;
    };
    let began = Instant::now();
    let value = Value::from(&object);
    for before in [None, Some(value.clone())] {
        for violation in schema.validate(value.clone(), before, Write::Object) {
            assert!(!violation.to_string().is_empty());
        }
    }
    assert!(began.elapsed() < LONGEST);
});
