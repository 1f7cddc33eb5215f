//! HTTP/2 frame headers: the scanner keeps in step at any split, and its budgets take any frames.
#![no_main]

use kgw_engine::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (settings, bytes) = input;
    fuzzing::h2_frames(usize::from(settings >> 1), settings & 1 != 0, bytes);
});
