//! Any text is a token or none, and any other a set of keys or none; what was signed with nothing is
//! verified by nothing.
#![no_main]

use kgw_jwt::{KeySet, Token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((token, keys)) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.split_once('\0'))
    else {
        return;
    };
    let keys = KeySet::parse(keys);
    let Ok(token) = Token::parse(token) else {
        return;
    };
    if let Ok(keys) = keys {
        let _ = keys.lacks_key_of(&token);
        let _ = keys.verify(&token);
    }
    let claims = token.into_claims();
    let _ = claims.check_time(1_700_000_000, 60);
    let _ = claims.check_audience(&["api.example"]);
    for name in claims.payload().keys() {
        let _ = claims.header_value(name);
    }
});
