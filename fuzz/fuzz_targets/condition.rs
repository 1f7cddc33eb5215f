//! Any text is a condition on requests or none.
#![no_main]

use kgw_engine::cel::{Moment, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let in_time = check(text, Moment::Request).is_ok();
    // Access logs know what requests know, and more.
    assert!(!in_time || check(text, Moment::Log).is_ok());
});
