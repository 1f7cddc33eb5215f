//! A backend's bytes: the split must not matter, and what is written must read back the same.
#![no_main]

use kgw_h1::{
    Framing, Limits, RequestContext, Response, Status, strip_hop_by_hop_response,
    write_response_head,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (settings, bytes) = input;
    let context = RequestContext {
        head: settings & 1 != 0,
        connect: settings & 2 != 0,
        upgrade: settings & 4 != 0,
    };
    let limits = Limits {
        max_head_bytes: 4096,
        max_fields: 20,
    };
    let mut response = Response::new();
    let whole = response.parse(bytes, &limits, context);

    let mut split = Response::new();
    let step = usize::from(settings >> 3) + 1;
    let mut len = 0;
    let pieces = loop {
        len = bytes.len().min(len + step);
        let result = split.parse(&bytes[..len], &limits, context);
        if result != Ok(Status::Incomplete) || len == bytes.len() {
            break result;
        }
    };
    assert_eq!(pieces, whole);

    if !matches!(whole, Ok(Status::Complete(_))) {
        return;
    }
    strip_hop_by_hop_response(&mut response, context.upgrade);
    let mut out = Vec::new();
    let advertised = response.content_length();
    write_response_head(
        &mut out,
        response.status(),
        response.headers(),
        response.framing(),
        advertised,
    );
    let mut again = Response::new();
    let parsed = again.parse(&out, &Limits::RESPONSE, context);
    assert_eq!(parsed, Ok(Status::Complete(out.len())));
    assert_eq!(again.status(), response.status());
    assert_eq!(again.framing(), response.framing());
    if response.framing() != Framing::None {
        assert_eq!(again.content_length(), advertised);
    }
});
