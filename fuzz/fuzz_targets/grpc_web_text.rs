//! gRPC-Web text: any split decodes alike.
#![no_main]

use kgw_engine::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, text) = input;
    fuzzing::grpc_web_text(usize::from(piece), text);
});
