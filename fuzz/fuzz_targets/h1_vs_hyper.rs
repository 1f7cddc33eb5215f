//! A client's bytes: what kgw-h1 and hyper both accept they read alike, and what would be forwarded
//! reads alike to 576 lax models of backends.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../rust/kgw-h1/tests/oracle/mod.rs"]
mod oracle;

fuzz_target!(|bytes: &[u8]| {
    oracle::check(bytes);
});
