//! Every response case of the lab that a parser can decide.

mod common;

use common::{Answer, Data, Failures, Fault, answer, load};
use kgw_h1::RequestContext;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    expect: String,
    method: String,
    data: Data,
}

/// Faulty responses that are taken, because what reaches the client is well-formed and complete.
const TAKEN: &[(&str, &str)] = &[
    (
        "rs-noreason-nosp",
        "the reason phrase is not forwarded anyway",
    ),
    (
        "rs-extra-late",
        "bytes behind the response: the caller closes the connection",
    ),
    (
        "rs-304-body",
        "bytes behind the response: the caller closes the connection",
    ),
    ("rs-trailer-setcookie", "trailers are dropped"),
];

/// Faults a parser cannot see.
const BEYOND_PARSING: &[(&str, &str)] = &[(
    "rs-closedelim-rst",
    "a reset is seen by the socket's owner, who must not call finish_eof",
)];

fn judge(case: &Case) -> Option<String> {
    let bytes = case.data.bytes();
    let context = RequestContext {
        head: case.method == "HEAD",
        ..RequestContext::default()
    };
    let result = answer(&bytes, usize::MAX, context);
    for piece in [1, 7] {
        let same = answer(&bytes, piece, context);
        if same != result {
            return Some(format!("in pieces of {piece}: {same:?}, whole: {result:?}"));
        }
    }
    let taken = TAKEN.iter().any(|(id, _)| *id == case.id);
    match (case.expect.as_str(), &result) {
        ("valid", Ok(answer)) => {
            let no_body = case.method == "HEAD" || [304, 413].contains(&answer.status);
            let body: &[u8] = if no_body { b"" } else { b"hello" };
            (answer.body != body || !answer.leftover.is_empty()).then(|| format!("{answer:?}"))
        }
        ("clean", Ok(answer)) if taken => {
            let poisoned = contains(&answer.body, b"POISON");
            let reusable = answer.keep_alive && answer.leftover.is_empty();
            let must_close = contains(&bytes, b"POISON");
            (poisoned || (must_close && reusable)).then(|| format!("{answer:?}"))
        }
        ("clean", Err(_)) if !taken => None,
        ("incomplete" | "incomplete-or-repaired", Err(Fault::Body(_)))
        | ("5xx", Err(Fault::HeadTruncated)) => None,
        _ => Some(format!("expected {}: {result:?}", case.expect)),
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[test]
fn every_case_is_refused_or_harmless() {
    let cases: Vec<Case> = load("http1_responses.json");
    assert!(cases.len() >= 70, "cases are missing");
    let mut failures = Failures::default();
    for case in &cases {
        if BEYOND_PARSING.iter().any(|(id, _)| *id == case.id) {
            continue;
        }
        if let Some(fault) = judge(case) {
            failures.add(&case.id, fault);
        }
    }
    failures.check();
}

#[test]
fn statuses_without_a_body_have_none() {
    let take = |text: &str, context| answer(text.as_bytes(), usize::MAX, context);
    let plain = RequestContext::default();
    let head = RequestContext {
        head: true,
        ..plain
    };
    let upgrade = RequestContext {
        upgrade: true,
        ..plain
    };
    let connect = RequestContext {
        connect: true,
        ..plain
    };
    let leftover = |result: Result<Answer, Fault>| result.map(|answer| answer.leftover);
    for (text, context) in [
        ("HTTP/1.1 204 No Content\r\n\r\nx", plain),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\nx",
            plain,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nx",
            plain,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\nx",
            plain,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx",
            head,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", head),
        ("HTTP/1.1 200 OK\r\n\r\nx", head),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nx",
            upgrade,
        ),
        ("HTTP/1.1 200 Connection established\r\n\r\nx", connect),
    ] {
        assert_eq!(leftover(take(text, context)), Ok(b"x".to_vec()), "{text}");
    }
    for text in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        assert!(matches!(take(text, plain), Err(Fault::Head(_))), "{text}");
    }
}

#[test]
fn only_a_connection_at_a_known_end_is_kept() {
    let keep = |text: &str| {
        answer(text.as_bytes(), usize::MAX, RequestContext::default()).map(|a| a.keep_alive)
    };
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
            true,
        ),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
    ] {
        assert_eq!(keep(text), Ok(expected), "{text}");
    }
}
