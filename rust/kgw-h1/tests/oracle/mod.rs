//! Two readers to hold against this crate: hyper's server, and a panel of lax models of backends.
//!
//! Shared by the property test and the fuzz target of that name.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each user takes its part"
)]

mod panel;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use kgw_h1::{
    BodyDecoder, BodyEncoder, Limits, PathOptions, Request, Status, TargetForm,
    strip_hop_by_hop_request, write_request_head,
};

/// A request as a reader understood it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub method: Vec<u8>,
    pub path: Vec<u8>,
    pub host: Vec<u8>,
    /// Names in lower case and values, sorted, without `host`.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    /// The body came to its end.
    pub complete: bool,
}

/// Holds `bytes`, as a client would send them, against both readers.
///
/// # Panics
/// When a reader that accepts what this crate accepts reads something else.
pub fn check(bytes: &[u8]) {
    compared(bytes);
}

/// Same as [`check`]; returns how many requests both this crate and hyper accepted.
pub fn compared(bytes: &[u8]) -> usize {
    let mut compared = 0;
    let ours = read_ours(bytes);
    let theirs = read_hyper(bytes);
    for (our, their) in ours.iter().zip(&theirs) {
        if !our.message.complete || !their.complete {
            break;
        }
        assert_eq!(&our.message, their, "of {}", bytes.escape_ascii());
        compared += 1;
    }
    for our in ours.iter().filter(|our| our.message.complete) {
        let Some((wire, sent)) = &our.forwarded else {
            continue;
        };
        // A backend may refuse what is forwarded; it must not see another message, or more of them.
        let mut wire_and_next = wire.clone();
        wire_and_next.extend_from_slice(NEXT);
        let read = read_hyper(&wire_and_next);
        if let Some(first) = read.first() {
            assert_eq!(first, sent, "forwarded as {}", wire.escape_ascii());
            let next = read.get(1).expect("the next request is seen");
            assert_eq!(next.path, b"/next", "behind {}", wire.escape_ascii());
            assert_eq!(read.len(), 2, "behind {}", wire.escape_ascii());
        }
        panel::check(&wire_and_next, &sent.path, &sent.body);
    }
    compared
}

/// What follows a forwarded request on a connection to a backend.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nhost: next\r\n\r\n";

struct Ours {
    message: Message,
    /// The bytes that a backend gets, and what they mean; none for what is not forwarded.
    forwarded: Option<(Vec<u8>, Message)>,
}

fn message(request: &Request) -> Message {
    let mut fields: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
        .filter(|(name, _)| name != b"host")
        .collect();
    fields.sort();
    Message {
        method: request.method().to_vec(),
        path: request.path().to_vec(),
        host: request.authority().to_ascii_lowercase(),
        fields,
        body: Vec::new(),
        complete: false,
    }
}

/// Reads requests with this crate, and writes each one as it would go to a backend.
fn read_ours(bytes: &[u8]) -> Vec<Ours> {
    let limits = Limits {
        max_head_bytes: 16 * 1024,
        max_fields: 64,
    };
    let mut request = Request::new();
    request.set_accept_http_10(true);
    request.set_secure(true);
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(Status::Complete(len)) = request.parse(&bytes[at..], &limits) {
        at += len;
        if request.canonicalize_path(PathOptions::default()).is_err() {
            break;
        }
        let mut one = message(&request);
        let mut decoder = BodyDecoder::new(request.framing());
        while !decoder.is_done() {
            match decoder.decode(&bytes[at..]) {
                Ok(step) => {
                    one.body.extend_from_slice(&bytes[at..][step.data]);
                    at += step.consumed;
                    if step.consumed == 0 {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        one.complete = decoder.is_done();
        let goes_on = one.complete && request.keep_alive();
        let tunnel = request.target_form() == TargetForm::Authority;
        // An HTTP/1.0 request without a host gets one, or 400, before it is forwarded.
        let is_forwarded = one.complete && !tunnel && !one.host.is_empty();
        let forwarded = is_forwarded.then(|| forward(&mut request, &one));
        found.push(Ours {
            message: one,
            forwarded,
        });
        if !goes_on || tunnel {
            break;
        }
    }
    found
}

fn forward(request: &mut Request, received: &Message) -> (Vec<u8>, Message) {
    strip_hop_by_hop_request(request, false);
    let framing = request.framing();
    let mut wire = Vec::new();
    write_request_head(&mut wire, request, framing);
    let mut encoder = BodyEncoder::new(framing);
    encoder
        .encode(&received.body, &mut wire)
        .expect("the length is the received one");
    encoder.finish(&mut wire).expect("the body is complete");
    let mut again = Request::new();
    again.set_secure(true);
    let read = again.parse(&wire, &Limits::REQUEST);
    assert!(
        matches!(read, Ok(Status::Complete(_))),
        "{}",
        wire.escape_ascii()
    );
    let mut sent = message(&again);
    assert_eq!(
        (&sent.method, &sent.path),
        (&received.method, &received.path)
    );
    assert_eq!(sent.host, received.host);
    sent.body.clone_from(&received.body);
    sent.complete = true;
    (wire, sent)
}

// === hyper ===

/// A connection that has received everything it will receive.
struct Memory {
    input: Vec<u8>,
    at: usize,
}

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let rest = &self.input[self.at..];
        let take = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..take]);
        self.at += take;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A body of nothing.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

/// Reads requests with hyper's server, answering each with an empty 200.
fn read_hyper(bytes: &[u8]) -> Vec<Message> {
    let found = Rc::new(RefCell::new(Vec::new()));
    let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
        let found = Rc::clone(&found);
        async move {
            let (head, mut body) = request.into_parts();
            let mut fields: Vec<_> = head
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect();
            fields.sort();
            let named = head
                .headers
                .get("host")
                .map(|host| host.as_bytes().to_vec());
            let authority = head
                .uri
                .authority()
                .map(|one| one.as_str().as_bytes().to_vec());
            fields.retain(|(name, _)| name != b"host");
            let path = head
                .uri
                .path_and_query()
                .map(hyper::http::uri::PathAndQuery::as_str);
            let mut message = Message {
                method: head.method.as_str().as_bytes().to_vec(),
                path: origin_form(path.unwrap_or_default()),
                host: authority.or(named).unwrap_or_default().to_ascii_lowercase(),
                fields,
                ..Message::default()
            };
            message.complete = loop {
                match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    None => break true,
                    Some(Err(_)) => break false,
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            message.body.extend_from_slice(&data);
                        }
                    }
                }
            };
            found.borrow_mut().push(message);
            Ok::<_, std::convert::Infallible>(hyper::Response::new(Nothing))
        }
    });
    let io = Memory {
        input: bytes.to_vec(),
        at: 0,
    };
    let mut connection = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(io, service)
    );
    let mut cx = Context::from_waker(Waker::noop());
    // All input is there, so progress never waits for anything outside; the bound is for a surprise.
    for _ in 0..10_000 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            break;
        }
    }
    found.take()
}

/// A path with query as it stands in a request line: an empty path is `/` (RFC 9112 3.2.1), which
/// hyper leaves out behind an authority.
fn origin_form(path: &str) -> Vec<u8> {
    let slash = if path.starts_with('?') { "/" } else { "" };
    [slash, path].concat().into_bytes()
}
