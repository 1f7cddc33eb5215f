//! Any text is a template or none, and one is rendered, or not, in bounded time and space.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kgw_template::{Context, FUEL, Facts, Template};
use libfuzzer_sys::fuzz_target;

/// Far above what a render takes.
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Request;

impl Facts for Request {
    fn header(&self, name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    fn request_header(&self, _: &str) -> Option<String> {
        None
    }

    fn metadata(&self, _: &str) -> Option<serde_json::Value> {
        Some(serde_json::json!({"a": {"b": [1]}}))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((text, body)) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.split_once('\0'))
    else {
        return;
    };
    let Ok(template) = Template::compile(text) else {
        return;
    };
    let context = Context::with_json(Arc::new(Request), body.to_owned())
        .unwrap_or_else(|_| Context::with_text(Arc::new(Request), body.to_owned()));
    let began = Instant::now();
    if let Ok(made) = template.render(&context) {
        assert!(made.len() as u64 <= FUEL * 64 || template.is_plain());
    }
    assert!(began.elapsed() < LONGEST);
});
