//! What a connection carries, told by its first bytes: HTTP/1, HTTP/2, or something else.
//!
//! For ports of which nobody said what they carry. kgateway and Envoy pass those on as bytes; looking
//! keeps routes and limits for those that turn out to be HTTP. A byte is only looked at: whoever
//! serves the connection finds it all.
//!
//! HTTP/1 is what starts like a request: a method that is widely used, a space, and `/` or `*`; or
//! else a whole first line that ends in `HTTP/1.0` or `HTTP/1.1`. HTTP/2 is its connection preface.
//! TLS is none of the two, as is anything else. Each byte is judged when it is there, so that clients
//! of other protocols wait for nothing.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::http2::guard::frames::PREFACE;
use super::pipe::Pipe;
use crate::clock::Timer;
use crate::runtime::{Phase, Registration, Worker};

/// Time for a client to say enough. Milliseconds. After it the client is connected, as clients of
/// databases and mail servers want to be, which wait for the server to speak first. Whatever it says
/// before the server does is still looked at, so the time decides nothing, and can be short.
pub(crate) const TIMEOUT_MS: u64 = 300;

/// Longest first line that is waited for. Bytes.
const MAX_LINE: usize = 8 * 1024;

/// Longest method. Bytes.
const MAX_METHOD: usize = 32;

/// Empty lines that may come before a request (RFC 9112 2.2).
const MAX_EMPTY_LINES: usize = 8;

/// Methods that settle it without the rest of the line.
const METHODS: [&[u8]; 9] = [
    b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT",
];

/// What a connection carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// Anything else: bytes.
    Tcp,
}

/// Why nothing was detected.
#[derive(Debug)]
pub(crate) struct Gone;

/// Looks at the first bytes of `down` until they tell what it carries. None if they do not within
/// [`TIMEOUT_MS`]. A client that has finished sending by then carries TCP.
///
/// # Errors
///
/// [`Gone`] if the connection failed or the engine closes.
///
/// Dropping the future loses nothing.
pub(crate) async fn detect<D: Pipe>(
    down: &mut D,
    timer: &mut Timer,
    registration: &Registration,
    worker: &Worker,
) -> Result<Option<Protocol>, Gone> {
    let deadline = worker.now().after_ms(TIMEOUT_MS);
    poll_fn(|cx| {
        registration.update(cx);
        if let Poll::Ready(detected) = poll_detect(down, cx) {
            return Poll::Ready(detected.map(Some));
        }
        if worker.phase() == Phase::Closing {
            return Poll::Ready(Err(Gone));
        }
        timer.poll(cx, deadline).map(|()| Ok(None))
    })
    .await
}

/// Receives until the first bytes of `down` tell what it carries.
pub(super) fn poll_detect<D: Pipe>(
    down: &mut D,
    cx: &mut Context<'_>,
) -> Poll<Result<Protocol, Gone>> {
    loop {
        if let Some(protocol) = look(down.input()) {
            return Poll::Ready(Ok(protocol));
        }
        match down.poll_fill(cx, 2 * MAX_LINE) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Protocol::Tcp)),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Whether what has arrived of `down` tells that it carries HTTP.
pub(super) fn is_http<D: Pipe>(down: &D) -> bool {
    matches!(look(down.input()), Some(Protocol::Http1 | Protocol::Http2))
}

/// What a connection that starts with `bytes` carries, if they tell.
fn look(bytes: &[u8]) -> Option<Protocol> {
    if bytes.starts_with(PREFACE) {
        return Some(Protocol::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    let line = skip_empty_lines(bytes)?;
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let method_end = line.iter().position(|byte| !is_token(byte));
    let method = &line[..method_end.unwrap_or(line.len())];
    if method.len() > MAX_METHOD {
        return Some(Protocol::Tcp);
    }
    let rest = &line[method_end?..];
    if method.is_empty() || rest[0] != b' ' {
        return Some(Protocol::Tcp);
    }
    let first = rest.get(1)?;
    if matches!(first, b'/' | b'*') && METHODS.contains(&method) {
        return Some(Protocol::Http1);
    }
    // An unusual method or a whole URI as the target: the version tells. A request line has no
    // control bytes; lines of other protocols end without a version.
    match rest.iter().take(MAX_LINE).position(u8::is_ascii_control) {
        None if rest.len() >= MAX_LINE => Some(Protocol::Tcp),
        None => None,
        Some(end) => {
            let is_line_end = matches!(rest[end], b'\r' | b'\n');
            let is_http =
                rest[..end].ends_with(b" HTTP/1.1") || rest[..end].ends_with(b" HTTP/1.0");
            Some(if is_line_end && is_http {
                Protocol::Http1
            } else {
                Protocol::Tcp
            })
        }
    }
}

/// The bytes after empty lines; none if there may be more of those. Too many of them are kept, and
/// are no request.
fn skip_empty_lines(bytes: &[u8]) -> Option<&[u8]> {
    let empty = bytes
        .iter()
        .take(2 * MAX_EMPTY_LINES)
        .take_while(|&&byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let line = &bytes[empty..];
    if line.is_empty() { None } else { Some(line) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLES: [(&[u8], Option<Protocol>); 34] = [
        (b"GET / HTTP/1.1\r\n", Some(Protocol::Http1)),
        (b"GET /", Some(Protocol::Http1)),
        (b"OPTIONS *", Some(Protocol::Http1)),
        (b"\r\nPOST /x", Some(Protocol::Http1)),
        (b"BREW /pot HTTP/1.1\r\n", Some(Protocol::Http1)),
        (b"get / HTTP/1.0\n", Some(Protocol::Http1)),
        (b"GET http://a/ HTTP/1.1\r\n", Some(Protocol::Http1)),
        (b"CONNECT a:443 HTTP/1.1\r\n", Some(Protocol::Http1)),
        (b"PROPFIND /x HTTP/1.1\r\n", Some(Protocol::Http1)),
        (b"PRI * HTTP/1.1\r\n", Some(Protocol::Http1)),
        (PREFACE.as_slice(), Some(Protocol::Http2)),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some(Protocol::Tcp)),
        (b"PRI * HTTP/2.0\r\nhost: a", Some(Protocol::Tcp)),
        (b"\x16\x03\x01\x02\x00\x01", Some(Protocol::Tcp)),
        (b"*1\r\n$4\r\nPING\r\n", Some(Protocol::Tcp)),
        (b"PING\r\n", Some(Protocol::Tcp)),
        (b"GET key\r\n", Some(Protocol::Tcp)),
        (b"get key\r\n", Some(Protocol::Tcp)),
        (b"NICK kgw\r\n", Some(Protocol::Tcp)),
        (b"CONNECT {\"verbose\":false}\r\n", Some(Protocol::Tcp)),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Some(Protocol::Tcp)),
        (b"GET  / HTTP/2.0\r\n", Some(Protocol::Tcp)),
        (b"GET\t/", Some(Protocol::Tcp)),
        (b"BREW /\x00pot HTTP/1.1\r\n", Some(Protocol::Tcp)),
        (b" GET /", Some(Protocol::Tcp)),
        (b"\x00", Some(Protocol::Tcp)),
        (b"\xff\xfe", Some(Protocol::Tcp)),
        (&[b'\n'; 40], Some(Protocol::Tcp)),
        (&[b'A'; 40], Some(Protocol::Tcp)),
        (b"", None),
        (b"G", None),
        (b"GET ", None),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
        (b"BREW /pot HTTP/1.1", None),
    ];

    #[test]
    fn protocols_are_told_apart() {
        for (bytes, expected) in SAMPLES {
            assert_eq!(look(bytes), expected, "{:?}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_line_that_never_ends_is_not_waited_for() {
        let mut line = b"BREW ".to_vec();
        line.resize(MAX_LINE - 1, b'x');
        assert_eq!(look(&line), None);
        line.resize(2 * MAX_LINE, b'x');
        assert_eq!(look(&line), Some(Protocol::Tcp));
    }

    /// More bytes never change a decision, so it does not depend on how they are cut.
    fn check_prefixes(bytes: &[u8]) {
        let first = (0..=bytes.len()).find_map(|end| look(&bytes[..end]).map(|found| (end, found)));
        for end in 0..=bytes.len() {
            let expected = first.filter(|(at, _)| end >= *at).map(|(_, found)| found);
            assert_eq!(look(&bytes[..end]), expected, "{end} bytes");
        }
    }

    #[test]
    fn no_cut_of_a_sample_changes_the_decision() {
        for (bytes, _) in SAMPLES {
            check_prefixes(bytes);
            check_prefixes(&[bytes, b" HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n"].concat());
        }
    }

    proptest! {
        #[test]
        fn no_cut_changes_the_decision(
            sample in 0..SAMPLES.len(),
            at in 0..64_usize,
            inserted in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let bytes = SAMPLES[sample].0;
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            check_prefixes(&[head, &inserted, tail].concat());
        }
    }
}
