//! Message framing as tables: bytes to their reading, or to the error that ends the connection.
//!
//! Every row is also fed one byte at a time. The rules are RFC 9112's, and where it lets a recipient
//! choose, the row says what is chosen here.

mod common;

use common::{End, Fault, answer, play};
use kgw_h1::{BodyError as B, RequestContext, RequestError as E, ResponseError as R};

/// How a row of bytes ends.
#[derive(Debug)]
enum Reading {
    /// These bodies, and the connection goes on.
    Keep(&'static [&'static str]),
    /// These bodies, and the client wants no more.
    Last(&'static [&'static str]),
    /// The bytes end inside a message.
    Waits,
    Head(E),
    Body(B),
}
use Reading::{Body, Head, Keep, Last, Waits};

const H: &str = "Host: h\r\n";

/// Rows of `(what, bytes, reading)`; `{H}` is a valid `Host` line.
#[rustfmt::skip]
const REQUESTS: &[(&str, &str, Reading)] = &[
    // No framing: no body (RFC 9112 §6.3, rule 7).
    ("no body", "GET / HTTP/1.1\r\n{H}\r\n", Keep(&[""])),
    ("a POST without a length has none either", "POST / HTTP/1.1\r\n{H}\r\nGET / HTTP/1.1\r\n{H}\r\n", Keep(&["", ""])),
    ("the last of a connection", "GET / HTTP/1.1\r\n{H}Connection: close\r\n\r\nGET / HTTP/1.1\r\n{H}\r\n", Last(&[""])),
    // Content-Length (RFC 9110 §8.6).
    ("a length", "POST / HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n{H}\r\n", Keep(&["abc", ""])),
    ("leading zeros", "POST / HTTP/1.1\r\n{H}Content-Length: 003\r\n\r\nabc", Keep(&["abc"])),
    ("length zero", "POST / HTTP/1.1\r\n{H}Content-Length: 0\r\n\r\n", Keep(&[""])),
    ("a GET with a body", "GET / HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc", Keep(&["abc"])),
    ("a short body", "POST / HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nab", Waits),
    ("twice, equal", "POST / HTTP/1.1\r\n{H}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Head(E::BadContentLength)),
    ("twice, different", "POST / HTTP/1.1\r\n{H}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", Head(E::BadContentLength)),
    ("a list, equal", "POST / HTTP/1.1\r\n{H}Content-Length: 3, 3\r\n\r\nabc", Head(E::BadContentLength)),
    ("a sign", "POST / HTTP/1.1\r\n{H}Content-Length: +3\r\n\r\nabc", Head(E::BadContentLength)),
    ("negative", "POST / HTTP/1.1\r\n{H}Content-Length: -3\r\n\r\nabc", Head(E::BadContentLength)),
    ("hexadecimal", "POST / HTTP/1.1\r\n{H}Content-Length: 0x3\r\n\r\nabc", Head(E::BadContentLength)),
    ("an exponent", "POST / HTTP/1.1\r\n{H}Content-Length: 3e0\r\n\r\nabc", Head(E::BadContentLength)),
    ("a blank inside", "POST / HTTP/1.1\r\n{H}Content-Length: 1 2\r\n\r\nabc", Head(E::BadContentLength)),
    ("empty", "POST / HTTP/1.1\r\n{H}Content-Length:\r\n\r\n", Head(E::BadContentLength)),
    ("beyond 63 bits", "POST / HTTP/1.1\r\n{H}Content-Length: 9223372036854775808\r\n\r\n", Head(E::BadContentLength)),
    ("beyond 64 bits", "POST / HTTP/1.1\r\n{H}Content-Length: 18446744073709551619\r\n\r\nabc", Head(E::BadContentLength)),
    ("another name", "POST / HTTP/1.1\r\n{H}Content_Length: 3\r\n\r\n", Keep(&[""])),
    // Transfer-Encoding (RFC 9112 §6.1): one `chunked`, in any case.
    ("chunks", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Keep(&["abc"])),
    ("any case", "POST / HTTP/1.1\r\n{H}tRANSFER-eNCODING: cHUNKED\r\n\r\n0\r\n\r\n", Keep(&[""])),
    ("blanks around", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: \t chunked \t\r\n\r\n0\r\n\r\n", Keep(&[""])),
    ("with a length", "POST / HTTP/1.1\r\n{H}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Head(E::LengthWithTransferEncoding)),
    ("with a length behind", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", Head(E::LengthWithTransferEncoding)),
    ("identity with a length", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", Head(E::LengthWithTransferEncoding)),
    ("identity", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: identity\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("gzip, chunked", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: gzip, chunked\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("chunked, gzip", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked, gzip\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("chunked twice in a list", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked, chunked\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("chunked on two lines", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("an empty line besides", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("a leading comma", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: ,chunked\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("a trailing comma", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked,\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("parameters", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked;a=b\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("quotes", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: \"chunked\"\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("a prefix", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: xchunked\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("empty", "POST / HTTP/1.1\r\n{H}Transfer-Encoding:\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("a byte beyond ASCII", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\u{a0}\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("in HTTP/1.0", "POST / HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Head(E::TransferEncodingInHttp10)),
    ("with CONNECT", "CONNECT h:1 HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n", Head(E::UnsupportedTransferEncoding)),
    ("a length with CONNECT", "CONNECT h:1 HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\n", Head(E::BadContentLength)),
    // Chunks (RFC 9112 §7.1).
    ("sizes in either case, leading zeros", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n00a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n", Keep(&["01234567890123456789"])),
    ("an extension", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1;a=b;c;d=\"e\\\"\"\r\nx\r\n0;z\r\n\r\n", Keep(&["x"])),
    ("no last chunk", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", Waits),
    ("no size", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n\r\nx\r\n", Body(B::BadChunkSize)),
    ("a signed size", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n", Body(B::BadChunkSize)),
    ("a 0x size", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n", Body(B::BadChunkSize)),
    ("a blank behind the size", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n", Body(B::BadChunkSize)),
    ("a blank before the size", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n 1\r\nx\r\n0\r\n\r\n", Body(B::BadChunkSize)),
    ("a size beyond 63 bits", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\n", Body(B::BadChunkSize)),
    ("a size beyond 64 bits", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx\r\n0\r\n\r\n", Body(B::BadChunkSize)),
    ("too many zeros", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n00000000000000001\r\nx\r\n0\r\n\r\n", Body(B::BadChunkSize)),
    ("LF behind the size", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", Body(B::BadChunkSize)),
    ("CR alone behind the size", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\rx\r\n0\r\n\r\n", Body(B::BadChunkSize)),
    ("LF in an extension", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1;a\nx\r\n0\r\n\r\n", Body(B::BadChunkExtension)),
    ("CRLF in a quoted extension", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1;a=\"\r\nx\r\n0\r\n\r\n", Body(B::BadChunkExtension)),
    ("NUL in an extension", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1;a\0\r\nx\r\n0\r\n\r\n", Body(B::BadChunkExtension)),
    ("data longer than its size", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n", Body(B::BadChunkEnd)),
    ("LF behind the data", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n", Body(B::BadChunkEnd)),
    // Trailers (RFC 9112 §7.1.2).
    ("trailers", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\na: b\r\nc:\r\n\r\nGET / HTTP/1.1\r\n{H}\r\n", Keep(&["", ""])),
    ("a blank before a trailer's colon", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\na : b\r\n\r\n", Body(B::BadTrailer)),
    ("a folded trailer", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\na: b\r\n c\r\n\r\n", Body(B::BadTrailer)),
    ("a trailer without a colon", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\nGET / HTTP/1.1\r\n\r\n", Body(B::BadTrailer)),
    ("LF behind a trailer", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\na: b\n\r\n", Body(B::BadTrailer)),
    ("NUL in a trailer", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\na: \0\r\n\r\n", Body(B::BadTrailer)),
    ("no end of the trailers", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\na: b\r\n", Waits),
    // Lines (RFC 9112 §2.2, §5).
    ("empty lines before", "\r\n\r\nGET / HTTP/1.1\r\n{H}\r\n", Keep(&[""])),
    ("an LF before", "\nGET / HTTP/1.1\r\n{H}\r\n", Head(E::BadStart)),
    ("a blank before", " GET / HTTP/1.1\r\n{H}\r\n", Head(E::BadStart)),
    ("LF behind the request line", "GET / HTTP/1.1\n{H}\r\n", Head(E::BareLf { line: 0 })),
    ("LF behind a field", "GET / HTTP/1.1\r\n{H}a: b\n\r\n", Head(E::BareLf { line: 2 })),
    ("LF for the empty line", "GET / HTTP/1.1\r\n{H}\n", Head(E::BareLf { line: 2 })),
    ("CR in a value", "GET / HTTP/1.1\r\n{H}a: b\rc\r\n\r\n", Head(E::BadField)),
    ("CR CR LF", "GET / HTTP/1.1\r\n{H}a: b\r\r\n\r\n", Head(E::BadField)),
    ("CR in the target", "GET /\rx HTTP/1.1\r\n{H}\r\n", Head(E::BadTarget)),
    ("a folded value", "GET / HTTP/1.1\r\n{H}a: b\r\n c\r\n\r\n", Head(E::BadField)),
    ("a fold with TAB", "GET / HTTP/1.1\r\n{H}a: b\r\n\tc\r\n\r\n", Head(E::BadField)),
    ("a first field that is folded", "GET / HTTP/1.1\r\n a: b\r\n{H}\r\n", Head(E::BadField)),
    ("a blank before the colon", "GET / HTTP/1.1\r\n{H}a : b\r\n\r\n", Head(E::BadField)),
    ("TAB before the colon", "GET / HTTP/1.1\r\n{H}Content-Length\t: 3\r\n\r\nabc", Head(E::BadField)),
    ("no colon", "GET / HTTP/1.1\r\n{H}a\r\n\r\n", Head(E::BadField)),
    ("no name", "GET / HTTP/1.1\r\n{H}: b\r\n\r\n", Head(E::BadField)),
    ("NUL in a value", "GET / HTTP/1.1\r\n{H}a: \0\r\n\r\n", Head(E::InvalidCharacter)),
    ("a control in a value", "GET / HTTP/1.1\r\n{H}a: \u{1}\r\n\r\n", Head(E::InvalidCharacter)),
    ("DEL in a value", "GET / HTTP/1.1\r\n{H}a: \u{7f}\r\n\r\n", Head(E::InvalidCharacter)),
    ("NUL in a name", "GET / HTTP/1.1\r\n{H}a\0: b\r\n\r\n", Head(E::InvalidCharacter)),
    ("bytes beyond ASCII in a name", "GET / HTTP/1.1\r\n{H}\u{e4}: b\r\n\r\n", Head(E::BadField)),
    ("bytes beyond ASCII in a value", "GET / HTTP/1.1\r\n{H}a: \u{e4}\r\n\r\n", Keep(&[""])),
    // Request lines and targets (RFC 9112 §3).
    ("two blanks", "GET  / HTTP/1.1\r\n{H}\r\n", Head(E::BadRequestLine)),
    ("TAB for a blank", "GET\t/ HTTP/1.1\r\n{H}\r\n", Head(E::BadRequestLine)),
    ("a blank at the end", "GET / HTTP/1.1 \r\n{H}\r\n", Head(E::BadRequestLine)),
    ("a blank in the target", "GET /a b HTTP/1.1\r\n{H}\r\n", Head(E::BadRequestLine)),
    ("HTTP/0.9", "GET /\r\n", Head(E::UnsupportedVersion)),
    ("HTTP/0.9 with fields", "GET /\r\n{H}\r\n", Head(E::UnsupportedVersion)),
    ("HTTP/1.2", "GET / HTTP/1.2\r\n{H}\r\n", Head(E::UnsupportedVersion)),
    ("HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Head(E::UnsupportedVersion)),
    ("a version in lower case", "GET / http/1.1\r\n{H}\r\n", Head(E::BadRequestLine)),
    ("a version of more digits", "GET / HTTP/1.10\r\n{H}\r\n", Head(E::BadRequestLine)),
    ("a method in lower case", "get / HTTP/1.1\r\n{H}\r\n", Head(E::UnknownMethod)),
    ("absolute form", "GET http://x/ HTTP/1.1\r\n{H}\r\n", Keep(&[""])),
    ("absolute form, empty path", "GET http://x HTTP/1.1\r\n{H}\r\n", Keep(&[""])),
    ("absolute form, no authority", "GET http:///x HTTP/1.1\r\n{H}\r\n", Head(E::InvalidUrl)),
    ("absolute form, user", "GET http://u@x/ HTTP/1.1\r\n{H}\r\n", Head(E::InvalidUrl)),
    ("absolute form, https in the clear", "GET https://x/ HTTP/1.1\r\n{H}\r\n", Head(E::HttpsOnPlaintext)),
    ("absolute form, another scheme", "GET ftp://x/ HTTP/1.1\r\n{H}\r\n", Head(E::InvalidScheme)),
    ("authority form", "CONNECT x:1 HTTP/1.1\r\n{H}\r\n", Keep(&[""])),
    ("authority form, no port", "CONNECT x HTTP/1.1\r\n{H}\r\n", Head(E::BadTarget)),
    ("authority form with GET", "GET x:1 HTTP/1.1\r\n{H}\r\n", Head(E::BadTarget)),
    ("asterisk form", "OPTIONS * HTTP/1.1\r\n{H}\r\n", Keep(&[""])),
    ("asterisk form with GET", "GET * HTTP/1.1\r\n{H}\r\n", Head(E::InvalidUrl)),
    ("a path without a slash", "GET a HTTP/1.1\r\n{H}\r\n", Head(E::BadTarget)),
    ("a query alone", "GET ?a HTTP/1.1\r\n{H}\r\n", Head(E::BadTarget)),
    // Host (RFC 9112 §3.2).
    ("no Host", "GET / HTTP/1.1\r\n\r\n", Head(E::MissingHost)),
    ("no Host with absolute form", "GET http://x/ HTTP/1.1\r\n\r\n", Head(E::MissingHost)),
    ("two Hosts", "GET / HTTP/1.1\r\n{H}Host: i\r\n\r\n", Head(E::MultipleHosts)),
    ("two equal Hosts", "GET / HTTP/1.1\r\n{H}{H}\r\n", Head(E::MultipleHosts)),
    ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", Head(E::InvalidAuthority)),
    ("a Host with a path", "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n", Head(E::InvalidAuthority)),
    ("a Host with a user", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", Head(E::InvalidAuthority)),
    ("a list of Hosts", "GET / HTTP/1.1\r\nHost: h,i\r\n\r\n", Head(E::InvalidAuthority)),
    ("a Host with a bad port", "GET / HTTP/1.1\r\nHost: h:x\r\n\r\n", Head(E::InvalidAuthority)),
    ("a Host in brackets", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Keep(&[""])),
    // Connection (RFC 9110 §7.6.1).
    ("nominating Host", "GET / HTTP/1.1\r\n{H}Connection: host\r\n\r\n", Head(E::ConnectionNominates)),
    ("nominating the length", "POST / HTTP/1.1\r\n{H}Connection: content-length\r\nContent-Length: 3\r\n\r\nabc", Head(E::ConnectionNominates)),
    ("nominating a credential", "GET / HTTP/1.1\r\n{H}Connection: close, Authorization\r\n\r\n", Head(E::ConnectionNominates)),
    ("nominating a forwarded field", "GET / HTTP/1.1\r\n{H}Connection: X-Forwarded-Port\r\n\r\n", Head(E::ConnectionNominates)),
    ("nominating another field", "GET / HTTP/1.1\r\n{H}Connection: x\r\nx: y\r\n\r\n", Keep(&[""])),
];

#[test]
fn requests() {
    let mut failures = common::Failures::default();
    for (what, text, reading) in REQUESTS {
        let bytes = common::latin1(&text.replace("{H}", H));
        // HTTP/1.0 is let in where the row is about it.
        let accept_http_10 = text.contains("HTTP/1.0");
        let (messages, end) = play(&bytes, usize::MAX, accept_http_10);
        if play(&bytes, 1, accept_http_10) != (messages.clone(), end.clone()) {
            failures.add(what, "depends on how the bytes arrive");
        }
        let bodies: Vec<_> = messages.iter().map(|message| &*message.body).collect();
        let is_right = match (reading, &end) {
            (Keep(expected), End::Clean) | (Last(expected), End::Closed) => {
                bodies
                    == expected
                        .iter()
                        .map(|body| body.as_bytes())
                        .collect::<Vec<_>>()
            }
            (Waits, End::Waiting) => true,
            (Head(expected), End::Head(error)) => expected == error && bodies.is_empty(),
            (Body(expected), End::Body(error)) => expected == error && bodies.len() == 1,
            _ => false,
        };
        if !is_right {
            failures.add(what, format!("{reading:?} expected: {end:?} {bodies:?}"));
        }
    }
    failures.check();
}

/// What a client asked.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Get,
    Head,
    Connect,
    Upgrade,
}

/// A body, whether the connection can be used again, and what stands behind the answer.
type Expected = Result<(&'static str, bool, &'static str), Fault>;

#[rustfmt::skip]
const RESPONSES: &[(&str, Asked, &str, Expected)] = &[
    ("a length", Asked::Get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Ok(("abc", true, ""))),
    ("chunks", Asked::Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Ok(("abc", true, ""))),
    ("until the close", Asked::Get, "HTTP/1.1 200 OK\r\n\r\nabc", Ok(("abc", false, ""))),
    ("the last one", Asked::Get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", Ok(("", false, ""))),
    ("HTTP/1.0", Asked::Get, "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", Ok(("abc", false, ""))),
    ("HTTP/1.0 that stays", Asked::Get, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", Ok(("abc", true, ""))),
    ("bytes behind", Asked::Get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n", Ok(("abc", true, "HTTP/1.1 200 OK\r\n"))),
    ("to HEAD", Asked::Head, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Ok(("", true, ""))),
    ("chunked to HEAD", Asked::Head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(("", true, ""))),
    ("304", Asked::Get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", Ok(("", true, ""))),
    ("204", Asked::Get, "HTTP/1.1 204 No Content\r\n\r\n", Ok(("", true, ""))),
    ("interim ones first", Asked::Get, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(("", true, ""))),
    ("a tunnel", Asked::Connect, "HTTP/1.1 200 OK\r\n\r\nbytes", Ok(("", true, "bytes"))),
    ("no tunnel", Asked::Connect, "HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nabc", Ok(("abc", true, ""))),
    ("an upgrade", Asked::Upgrade, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbytes", Ok(("", false, "bytes"))),
    ("no upgrade", Asked::Upgrade, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Ok(("abc", true, ""))),
    // What is refused.
    ("an upgrade nobody asked for", Asked::Get, "HTTP/1.1 101 Switching Protocols\r\n\r\n", Err(Fault::Head(R::UnexpectedUpgrade))),
    ("a short body", Asked::Get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Err(Fault::Body(B::Truncated))),
    ("short chunks", Asked::Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Err(Fault::Body(B::Truncated))),
    ("both framings", Asked::Get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Fault::Head(R::LengthWithTransferEncoding))),
    ("two lengths", Asked::Get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Err(Fault::Head(R::BadContentLength))),
    ("a bad length", Asked::Get, "HTTP/1.1 200 OK\r\nContent-Length: 3 \u{b}\r\n\r\nabc", Err(Fault::Head(R::BadField))),
    ("a negative length", Asked::Get, "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc", Err(Fault::Head(R::BadContentLength))),
    ("a list of lengths", Asked::Get, "HTTP/1.1 200 OK\r\nContent-Length: 3,3\r\n\r\nabc", Err(Fault::Head(R::BadContentLength))),
    ("gzip, chunked", Asked::Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(Fault::Head(R::UnsupportedTransferEncoding))),
    ("chunked in HTTP/1.0", Asked::Get, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Err(Fault::Head(R::UnsupportedTransferEncoding))),
    ("204 with a body", Asked::Get, "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", Err(Fault::Head(R::UnexpectedBody))),
    ("100 with a body", Asked::Get, "HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc", Err(Fault::Head(R::UnexpectedBody))),
    ("a tunnel with a length", Asked::Connect, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Err(Fault::Head(R::UnexpectedBody))),
    ("bare LF", Asked::Get, "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", Err(Fault::Head(R::BareLf { line: 0 }))),
    ("a fold", Asked::Get, "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", Err(Fault::Head(R::BadField))),
    ("CR in a value", Asked::Get, "HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n", Err(Fault::Head(R::BadField))),
    ("NUL in a value", Asked::Get, "HTTP/1.1 200 OK\r\na: \0\r\n\r\n", Err(Fault::Head(R::BadField))),
    ("a blank before the colon", Asked::Get, "HTTP/1.1 200 OK\r\na : b\r\n\r\n", Err(Fault::Head(R::BadField))),
    ("HTTP/0.9", Asked::Get, "<html>\r\n\r\n", Err(Fault::Head(R::BadStatusLine))),
    ("HTTP/2", Asked::Get, "HTTP/2 200 OK\r\n\r\n", Err(Fault::Head(R::BadStatusLine))),
    ("two digits", Asked::Get, "HTTP/1.1 99 OK\r\n\r\n", Err(Fault::Head(R::BadStatusLine))),
    ("four digits", Asked::Get, "HTTP/1.1 2000 OK\r\n\r\n", Err(Fault::Head(R::BadStatusLine))),
    ("status 600", Asked::Get, "HTTP/1.1 600 OK\r\n\r\n", Err(Fault::Head(R::BadStatusLine))),
    ("an empty line before", Asked::Get, "\r\nHTTP/1.1 200 OK\r\n\r\n", Err(Fault::Head(R::BadStatusLine))),
    ("an end in the head", Asked::Get, "HTTP/1.1 200 OK\r\nContent-Len", Err(Fault::HeadTruncated)),
];

#[test]
fn responses() {
    let mut failures = common::Failures::default();
    for (what, asked, text, expected) in RESPONSES {
        let context = RequestContext {
            head: matches!(asked, Asked::Head),
            connect: matches!(asked, Asked::Connect),
            upgrade: matches!(asked, Asked::Upgrade),
        };
        let bytes = common::latin1(text);
        let found = answer(&bytes, usize::MAX, context);
        if answer(&bytes, 1, context) != found {
            failures.add(what, "depends on how the bytes arrive");
        }
        let is_right = match (expected, &found) {
            (Ok((body, keep_alive, leftover)), Ok(answer)) => {
                answer.body == body.as_bytes()
                    && answer.keep_alive == *keep_alive
                    && answer.leftover == leftover.as_bytes()
            }
            (Err(expected), Err(fault)) => expected == fault,
            _ => false,
        };
        if !is_right {
            failures.add(what, format!("{expected:?} expected: {found:?}"));
        }
    }
    failures.check();
}
