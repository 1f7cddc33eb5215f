//! Heads from HTTP/2 fields: whatever gets through is written as HTTP/1.1 that reads back the same.
#![no_main]

use arbitrary::Arbitrary;
use kgw_h1::{
    Framing, Limits, Request, RequestContext, RequestParts, Response, Status, TargetForm,
    strip_hop_by_hop_request, write_request_head, write_response_head,
};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Head<'a> {
    method: &'a [u8],
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
    end_stream: bool,
    status: u16,
    head_request: bool,
    fields: Vec<(&'a [u8], &'a [u8])>,
}

const LIMITS: Limits = Limits {
    max_head_bytes: 4096,
    max_fields: 20,
};

fuzz_target!(|head: Head| {
    request(&head);
    response(&head);
});

fn request(head: &Head) {
    let parts = RequestParts {
        method: head.method,
        scheme: head.scheme,
        authority: head.authority,
        path: head.path,
        protocol: head.protocol,
        end_stream: head.end_stream,
    };
    let mut request = Request::new();
    if request
        .assemble(&parts, head.fields.iter().copied(), &LIMITS)
        .is_err()
    {
        return;
    }
    let keep_upgrade = request.upgrade().is_some();
    strip_hop_by_hop_request(&mut request, keep_upgrade);
    let mut out = Vec::new();
    write_request_head(&mut out, &request, request.framing());
    let mut again = Request::new();
    let parsed = again.parse(&out, &Limits::REQUEST);
    // HTTP/2 takes any token for a method.
    if parsed == Err(kgw_h1::RequestError::UnknownMethod) {
        return;
    }
    assert_eq!(parsed, Ok(Status::Complete(out.len())));
    assert_eq!(again.method(), request.method());
    assert_eq!(again.path(), request.path());
    assert_eq!(again.authority(), request.authority());
    assert_eq!(
        again.target_form() == TargetForm::Authority,
        request.target_form() == TargetForm::Authority
    );
    assert_eq!(again.framing().length(), request.framing().length());
    assert_eq!(again.upgrade(), request.upgrade());
    for (name, value) in request.headers() {
        let kept = again.headers().get_all(name).any(|other| other == value);
        assert!(kept || name.eq_ignore_ascii_case(b"content-length"));
    }
}

fn response(head: &Head) {
    let context = RequestContext {
        head: head.head_request,
        ..RequestContext::default()
    };
    let mut response = Response::new();
    let taken = response.assemble(
        head.status,
        head.fields.iter().copied(),
        &LIMITS,
        context,
        head.end_stream,
    );
    if taken.is_err() {
        return;
    }
    let framing = response.framing();
    let mut out = Vec::new();
    write_response_head(
        &mut out,
        response.status(),
        response.headers(),
        framing,
        response.content_length(),
    );
    let mut again = Response::new();
    let parsed = again.parse(
        &out,
        &Limits {
            max_head_bytes: 8192,
            max_fields: 40,
        },
        context,
    );
    assert_eq!(parsed, Ok(Status::Complete(out.len())));
    assert_eq!(again.status(), response.status());
    if framing != Framing::None {
        assert_eq!(again.framing(), framing);
    }
}
