//! Replies of a Redis server: any split reads alike, within bounds.
#![no_main]

use kgw_engine::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    fuzzing::redis_reply(usize::from(piece), bytes);
});
