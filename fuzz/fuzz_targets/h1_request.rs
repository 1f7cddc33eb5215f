//! A client's bytes: the split must not matter, and what is written must read back the same.
#![no_main]

use kgw_h1::{
    BodyDecoder, Limits, Request, Status, TargetForm, strip_hop_by_hop_request, write_request_head,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (settings, bytes) = input;
    let fresh = || {
        let mut request = Request::new();
        request.set_accept_http_10(settings & 1 != 0);
        request.set_secure(settings & 2 != 0);
        request
    };
    let limits = Limits {
        max_head_bytes: 4096,
        max_fields: 20,
    };
    let mut request = fresh();
    let whole = request.parse(bytes, &limits);

    let mut split = fresh();
    let step = usize::from(settings >> 2) + 1;
    let mut len = 0;
    let pieces = loop {
        len = bytes.len().min(len + step);
        let result = split.parse(&bytes[..len], &limits);
        if result != Ok(Status::Incomplete) || len == bytes.len() {
            break result;
        }
    };
    assert_eq!(pieces, whole);

    let Ok(Status::Complete(end)) = whole else {
        return;
    };
    if request.normalize_path(settings & 4 != 0).is_err() {
        return;
    }
    let normal = request.path().to_vec();
    assert_eq!(request.normalize_path(settings & 4 != 0), Ok(()));
    assert_eq!(request.path(), normal);

    let mut decoder = BodyDecoder::new(request.framing());
    let _ = decoder.decode(&bytes[end..]);

    strip_hop_by_hop_request(&mut request, settings & 8 != 0);
    let mut out = Vec::new();
    write_request_head(&mut out, &request, request.framing());
    if request.authority().is_empty() {
        return; // only HTTP/1.0, and then `Host` is empty
    }
    let mut again = Request::new();
    let parsed = again.parse(&out, &Limits::REQUEST);
    assert_eq!(parsed, Ok(Status::Complete(out.len())));
    assert_eq!(again.method(), request.method());
    assert_eq!(again.path(), request.path());
    assert_eq!(again.authority(), request.authority());
    assert_eq!(
        again.target_form() == TargetForm::Authority,
        request.target_form() == TargetForm::Authority
    );
    assert_eq!(again.framing().length(), request.framing().length());
});
