//! `traceparent`: what is read is written as it was.
#![no_main]

use kgw_engine::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| fuzzing::traceparent(value));
