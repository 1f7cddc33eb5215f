//! What a refused request is answered with, in Envoy 1.40's words, and what is read from others.

mod common;

use common::latin1;
use kgw_h1::{
    Framing, Known, Limits, Method, Request, RequestError, Status, TargetForm, Version,
    strip_hop_by_hop_request, strip_hop_by_hop_response,
};

fn parse(text: &str) -> Result<Request, RequestError> {
    let mut request = Request::new();
    let bytes = latin1(text);
    match request.parse(&bytes, &Limits::REQUEST)? {
        Status::Complete(len) => {
            assert_eq!(request.head_bytes(), len);
            Ok(request)
        }
        Status::Incomplete => panic!("incomplete: {text:?}"),
    }
}

/// A GET for `/x` with these field lines behind `Host`.
fn get(fields: &str) -> Result<Request, RequestError> {
    parse(&format!("GET /x HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
}

/// A request whose line is given.
fn line(line: &str) -> Result<Request, RequestError> {
    parse(&format!("{line}\r\nHost: h\r\n\r\n"))
}

/// Observed on Envoy 1.40 (listener as kgateway configures it).
#[test]
fn refusals_as_envoy_words_them() {
    const CODEC: &str = "http1.codec_error";
    let many = "a: b\r\n".repeat(100);
    let large = format!("a: {}\r\n", "v".repeat(62 * 1024));
    for (result, status, details) in [
        (line("GET /x HTTP/1.0"), 426, "low_version"),
        (line("GET /x HTTP/0.9"), 426, "low_version"),
        (line("GET /x HTTP/1.2"), 426, "low_version"),
        (line("GET /x HTTP/2.0"), 426, "low_version"),
        (line("GET /x http/1.1"), 400, CODEC),
        (line("GET http://a b/ HTTP/1.1"), 400, CODEC),
        (
            line("GET https://h/ HTTP/1.1"),
            403,
            "http1.https_url_on_plaintext_connection",
        ),
        (line("GET ftp://h/ HTTP/1.1"), 400, "http1.invalid_scheme"),
        (line("GET * HTTP/1.1"), 400, "http1.invalid_url"),
        (line("GET ?x=1 HTTP/1.1"), 400, CODEC),
        (line("GET x HTTP/1.1"), 400, CODEC),
        (line("FOO / HTTP/1.1"), 400, CODEC),
        (line("get / HTTP/1.1"), 400, CODEC),
        (line(&format!("{} / HTTP/1.1", "A".repeat(300))), 400, CODEC),
        (line(" GET / HTTP/1.1"), 400, CODEC),
        (line("GET /a b HTTP/1.1"), 400, CODEC),
        (line("GET /\u{e9} HTTP/1.1"), 400, CODEC),
        (line("GET /\u{1} HTTP/1.1"), 400, "http1.invalid_characters"),
        (line("GET /\0 HTTP/1.1"), 400, "http1.invalid_characters"),
        (get("a: \0\r\n"), 400, "http1.invalid_characters"),
        (get("a: \u{7f}\r\n"), 400, "http1.invalid_characters"),
        (get("a\u{1}: b\r\n"), 400, "http1.invalid_characters"),
        (get("a : b\r\n"), 400, CODEC),
        (get("a\r\n"), 400, CODEC),
        (get(": a\r\n"), 400, CODEC),
        (get("x(a): b\r\n"), 400, CODEC),
        (get(":path: b\r\n"), 400, CODEC),
        (
            get("Content-Length: 1\r\nContent-Length: 1\r\n"),
            400,
            CODEC,
        ),
        (get("Content-Length: 3, 3\r\n"), 400, CODEC),
        (get("Content-Length: +3\r\n"), 400, CODEC),
        (get("Content-Length: \r\n"), 400, CODEC),
        (
            get("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            400,
            "http1.content_length_and_chunked_not_allowed",
        ),
        (
            get("Transfer-Encoding: identity\r\n"),
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            get("Transfer-Encoding: gzip, chunked\r\n"),
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            501,
            "http1.invalid_transfer_encoding",
        ),
        (get(&many), 431, "http1.too_many_headers"),
        (get(&large), 431, "http1.headers_too_large"),
        (
            parse("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n"),
            400,
            "http.invalid_authority",
        ),
        (
            parse("GET /x HTTP/1.1\r\nHost: <a>\r\n\r\n"),
            400,
            "http.invalid_authority",
        ),
        (
            get("Connection: :authority\r\n"),
            400,
            "http1.connection_header_rejected",
        ),
        (
            get("Connection: x-forwarded-for\r\n"),
            400,
            "http1.connection_header_rejected",
        ),
    ] {
        let error = result
            .map(|request| request.head_bytes())
            .expect_err(details);
        assert_eq!(
            (error.status(), error.details()),
            (status, details),
            "{error}"
        );
        let body = match status {
            403 => "Forbidden",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            _ => "Bad Request",
        };
        assert_eq!(error.body(), body);
        assert!(error.flag_protocol_error());
    }
}

/// Envoy takes these; kgw does not, because others may read them differently.
#[test]
fn refusals_beyond_envoys() {
    for (result, expected) in [
        (
            parse("GET / HTTP/1.1\r\nHost: \r\n\r\n"),
            RequestError::InvalidAuthority,
        ),
        (get("Host: h\r\n"), RequestError::MultipleHosts),
        (
            parse("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
            RequestError::InvalidAuthority,
        ),
        (
            parse("GET / HTTP/1.1\r\nHost: h,g\r\n\r\n"),
            RequestError::InvalidAuthority,
        ),
        (line("GET http://u:p@h/ HTTP/1.1"), RequestError::InvalidUrl),
        (line("GET  / HTTP/1.1"), RequestError::BadRequestLine),
        (line("GET / HTTP/1.1 "), RequestError::BadRequestLine),
        (line("GET\t/ HTTP/1.1"), RequestError::BadRequestLine),
        (get("a: b\rc\r\n"), RequestError::BadField),
        (get("a: b\r\n c\r\n"), RequestError::BadField),
        (
            get("Connection: host\r\n"),
            RequestError::ConnectionNominates,
        ),
        (
            get("Connection: close, Authorization\r\n"),
            RequestError::ConnectionNominates,
        ),
        (
            get("Connection: X-Envoy-Internal\r\n"),
            RequestError::ConnectionNominates,
        ),
        (
            get("Connection: transfer-encoding\r\n"),
            RequestError::ConnectionNominates,
        ),
        (
            get("Connection: a b\r\n"),
            RequestError::ConnectionNominates,
        ),
        (
            parse("GET / HTTP/1.1\nHost: h\r\n\r\n"),
            RequestError::BareLf { line: 0 },
        ),
        (get("a: b\n"), RequestError::BareLf { line: 2 }),
        (
            parse(&format!("{}GET / HTTP/1.1\r\n\r\n", "\r\n".repeat(5))),
            RequestError::BadStart,
        ),
    ] {
        assert_eq!(result.map(|request| request.head_bytes()), Err(expected));
    }
}

#[test]
fn a_request_without_host_stays_readable_for_the_log() {
    let mut request = Request::new();
    let error = request.parse(b"GET /x?y HTTP/1.1\r\nA: b\r\n\r\n", &Limits::REQUEST);
    assert_eq!(error, Err(RequestError::MissingHost));
    let error = RequestError::MissingHost;
    assert_eq!(
        (error.status(), error.body(), error.details()),
        (400, "", "missing_host_header")
    );
    assert!(!error.flag_protocol_error());
    assert_eq!(
        (request.method(), request.path()),
        (&b"GET"[..], &b"/x?y"[..])
    );
    // Any other error leaves nothing behind.
    assert!(
        request
            .parse(b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", &Limits::REQUEST)
            .is_err()
    );
    assert_eq!((request.method(), request.path()), (&b""[..], &b""[..]));
}

#[test]
fn field_count_and_size_limits_are_exact() {
    let head = |fields: usize| {
        let mut head = String::from("GET / HTTP/1.1\r\nHost: h\r\n");
        head.push_str(&"a: b\r\n".repeat(fields - 1));
        head + "\r\n"
    };
    assert_eq!(
        parse(&head(100)).map(|request| request.headers().len()),
        Ok(100)
    );
    assert_eq!(parse(&head(101)).err(), Some(RequestError::TooManyFields));
    let text = head(3);
    let limits = |max_head_bytes| Limits {
        max_head_bytes,
        max_fields: 3,
    };
    let with = |limits: &Limits| Request::new().parse(text.as_bytes(), limits);
    assert_eq!(with(&limits(text.len())), Ok(Status::Complete(text.len())));
    assert_eq!(
        with(&limits(text.len() - 1)),
        Err(RequestError::HeadTooLarge)
    );
    // An empty line in front does not count against the limit.
    let late = format!("\r\n{text}");
    assert_eq!(
        Request::new().parse(late.as_bytes(), &limits(text.len())),
        Ok(Status::Complete(late.len()))
    );
}

#[test]
fn garbage_is_refused_before_its_head_ends() {
    for start in [
        &b"\x16\x03\x01\x00\xc8"[..],
        b"FOO / HTTP/1.1\r\n",
        b"GET / HTTP/3.0\r\n",
        b"GET / HTTP/1.1\n",
        b"\n",
        b"\rG",
        b" GET",
    ] {
        assert!(
            Request::new().parse(start, &Limits::REQUEST).is_err(),
            "{start:?}"
        );
    }
    let waiting = Request::new().parse(b"GET / HTTP/1.1\r\nHost", &Limits::REQUEST);
    assert_eq!(waiting, Ok(Status::Incomplete));
}

#[test]
fn target_forms() {
    let request = line("GET http://EVIL.test:81/p?q HTTP/1.1").unwrap();
    assert_eq!(request.target_form(), TargetForm::Absolute);
    assert_eq!(
        (request.path(), request.authority()),
        (&b"/p?q"[..], &b"EVIL.test:81"[..])
    );
    assert_eq!(request.headers().get(b"host"), Some(&b"EVIL.test:81"[..]));
    assert_eq!(line("GET http://h?q HTTP/1.1").unwrap().path(), b"/?q");
    assert_eq!(line("GET http://h HTTP/1.1").unwrap().path(), b"/");
    let request = line("OPTIONS * HTTP/1.1").unwrap();
    assert_eq!(
        (request.target_form(), request.path()),
        (TargetForm::Asterisk, &b"*"[..])
    );
    let request = line("CONNECT other:443 HTTP/1.1").unwrap();
    assert_eq!(request.target_form(), TargetForm::Authority);
    assert_eq!(
        (request.path(), request.authority()),
        (&b""[..], &b"other:443"[..])
    );
    let request = line("PROPFIND /a?b=c?d HTTP/1.1").unwrap();
    assert_eq!(request.method_kind(), Method::Other);
    assert_eq!(
        (request.path_only(), request.query()),
        (&b"/a"[..], Some(&b"b=c?d"[..]))
    );
}

#[test]
fn life_time_expectation_and_upgrade() {
    let keep = |fields: &str| get(fields).unwrap().keep_alive();
    assert!(keep(""));
    assert!(keep("Connection: keep-alive\r\n"));
    assert!(!keep("Connection: Close\r\n"));
    assert!(!keep(
        "Connection: te\r\nConnection: keep-alive , close\r\n"
    ));
    let expects = |fields: &str| get(fields).unwrap().expects_continue();
    assert!(expects("Expect: 100-Continue\r\nContent-Length: 1\r\n"));
    assert!(!expects("Expect: 100-continue\r\n"));
    assert!(!expects("Expect: y 100-continue\r\nContent-Length: 1\r\n"));
    let request = get("Connection: Upgrade\r\nUpgrade: websocket\r\n").unwrap();
    assert_eq!(request.upgrade(), Some(&b"websocket"[..]));
    assert_eq!(get("Upgrade: websocket\r\n").unwrap().upgrade(), None);
    let mut old = Request::new();
    old.set_accept_http_10(true);
    for (fields, keep) in [("", false), ("Connection: keep-alive\r\n", true)] {
        let text = format!("GET / HTTP/1.0\r\n{fields}\r\n");
        assert!(matches!(
            old.parse(text.as_bytes(), &Limits::REQUEST),
            Ok(Status::Complete(_))
        ));
        assert_eq!((old.version(), old.keep_alive()), (Version::Http10, keep));
    }
    let chunked = b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        old.parse(chunked, &Limits::REQUEST),
        Err(RequestError::TransferEncodingInHttp10)
    );
}

#[test]
fn normalisation_of_a_request() {
    let mut request = line("GET /a/./b/../c?x=/../ HTTP/1.1").unwrap();
    request.normalize_path(true).unwrap();
    assert_eq!(request.path(), b"/a/c?x=/../");
    let mut request = line("GET http://h//x HTTP/1.1").unwrap();
    request.normalize_path(false).unwrap();
    assert_eq!(request.path(), b"//x");
    request.normalize_path(true).unwrap();
    assert_eq!(request.path(), b"/x");
    let mut request = line("GET /a%00b HTTP/1.1").unwrap();
    let error = request.normalize_path(true).unwrap_err();
    assert_eq!((error.status(), error.body()), (400, ""));
    assert_eq!(error.details(), "path_normalization_failed");
    assert!(!error.flag_protocol_error());
    assert_eq!(request.path(), b"/a%00b");
    let mut request = line("OPTIONS * HTTP/1.1").unwrap();
    assert_eq!(request.normalize_path(true), Ok(()));
    request.set_path(b"a b/../c");
    assert_eq!(request.path(), b"/a%20b/../c");
}

#[test]
fn hop_by_hop_fields_go() {
    let mut request = get(
        "Connection: x-hop, te, Keep-Alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: a\r\n\
         TE: gzip, trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AA\r\nProxy-Authorization: b\r\nX-Keep: 1\r\n",
    )
    .unwrap();
    assert_eq!(request.framing(), Framing::Chunked);
    strip_hop_by_hop_request(&mut request, true);
    let left: Vec<_> = request.headers().iter().collect();
    assert_eq!(
        left,
        [
            (&b"Host"[..], &b"h"[..]),
            (b"TE", b"trailers"),
            (b"X-Keep", b"1")
        ]
    );
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    for keep in [true, false] {
        let mut request = get(upgrade).unwrap();
        strip_hop_by_hop_request(&mut request, keep);
        assert_eq!(request.headers().get_known(Known::Upgrade).is_some(), keep);
        let connection = request.headers().get_known(Known::Connection);
        assert_eq!(connection, keep.then_some(&b"Upgrade"[..]));
    }
    let mut response = kgw_h1::Response::new();
    let text = b"HTTP/1.1 407 x\r\nConnection: X-Secret\r\nX-Secret: 1\r\nUpgrade: h2c\r\n\
        Proxy-Authenticate: Basic\r\nContent-Length: 0\r\nKeep-Alive: 5\r\n\r\n";
    let complete = response.parse(text, &Limits::RESPONSE, kgw_h1::RequestContext::default());
    assert_eq!(complete, Ok(Status::Complete(text.len())));
    strip_hop_by_hop_response(&mut response, true);
    let left: Vec<_> = response.headers().iter().map(|(name, _)| name).collect();
    assert_eq!(left, [&b"Proxy-Authenticate"[..], b"Content-Length"]);
}

#[test]
fn a_limit_for_targets_answers_414() {
    let mut request = Request::new();
    request.set_max_target_bytes(8);
    let mut parse = |target: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        request.parse(head.as_bytes(), &Limits::REQUEST)
    };
    assert!(parse("/1234567").is_ok());
    let error = parse("/12345678").expect_err("nine bytes");
    assert_eq!(
        (error, error.status(), error.body()),
        (RequestError::TargetTooLong, 414, "URI Too Long")
    );
    assert!(
        parse("/1234567").is_ok(),
        "a later request is judged by itself"
    );
}
