//! What is written, and that it reads back as the same message.

mod common;

use kgw_h1::{
    BodyDecoder, BodyEncoder, BodyError, Framing, Headers, Limits, Request, RequestContext,
    Response, Status, Version, connection_option, response_framing, strip_hop_by_hop_request,
    write_chunk_end, write_chunk_head, write_continue, write_request_head, write_response_head,
    write_response_head_as,
};
use proptest::prelude::*;

fn parsed(text: &[u8]) -> Request {
    let mut request = Request::new();
    let status = request.parse(text, &Limits::REQUEST);
    assert_eq!(
        status,
        Ok(Status::Complete(text.len())),
        "{}",
        text.escape_ascii()
    );
    request
}

fn request_head(request: &Request, framing: Framing) -> String {
    let mut out = Vec::new();
    write_request_head(&mut out, request, framing);
    String::from_utf8(out).expect("heads of these tests are UTF-8")
}

#[test]
fn an_untouched_request_goes_out_as_it_came() {
    let text = "POST /a?b HTTP/1.1\r\nhOst: h\r\nX-A: 1\r\nContent-LENGTH: 3\r\nx-a:\r\nX-B: \u{e9}\r\n\r\n";
    let request = parsed(text.as_bytes());
    assert_eq!(
        request_head(&request, request.framing()),
        text.replace("x-a:\r\n", "x-a: \r\n")
    );
}

#[test]
fn edits_show_and_framing_is_rewritten() {
    let mut request = parsed(b"POST http://h/a HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\n");
    request.set_path(b"/new");
    assert!(request.set_authority(b"other:8080"));
    assert!(!request.set_authority(b"a\r\nb"));
    request.headers_mut().append(b"X", b"1\r\nY: 2");
    assert_eq!(
        request_head(&request, Framing::Chunked),
        "POST /new HTTP/1.1\r\nHost: other:8080\r\nX: 1  Y: 2\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let head = |text: &str| {
        let mut request = parsed(text.as_bytes());
        strip_hop_by_hop_request(&mut request, false);
        request_head(&request, request.framing())
    };
    assert_eq!(
        head("POST /a HTTP/1.1\r\nHost: h\r\n\r\n"),
        "POST /a HTTP/1.1\r\nHost: h\r\ncontent-length: 0\r\n\r\n"
    );
    for method in ["GET", "HEAD", "DELETE", "TRACE"] {
        let text = format!("{method} /a HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(head(&text), text);
    }
    assert_eq!(
        head("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"),
        "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"
    );
    let mut old = Request::new();
    old.set_accept_http_10(true);
    assert!(
        old.parse(b"GET / HTTP/1.0\r\n\r\n", &Limits::REQUEST)
            .is_ok()
    );
    assert_eq!(
        request_head(&old, old.framing()),
        "GET / HTTP/1.1\r\nhost: \r\n\r\n"
    );
}

#[test]
fn response_heads() {
    let mut headers = Headers::new();
    headers.append(b"Content-Length", b"99");
    headers.append(b"Server", b"kgw");
    let head = |status, framing, advertised| {
        let mut out = Vec::new();
        write_response_head(&mut out, status, &headers, framing, advertised);
        String::from_utf8(out).expect("heads of these tests are UTF-8")
    };
    for (status, framing, advertised, expected) in [
        (
            200,
            Framing::Length(5),
            None,
            "200 OK\r\nContent-Length: 5\r\nServer: kgw\r\n",
        ),
        (
            200,
            Framing::Chunked,
            None,
            "200 OK\r\nServer: kgw\r\ntransfer-encoding: chunked\r\n",
        ),
        (
            200,
            Framing::UntilClose,
            Some(5),
            "200 OK\r\nServer: kgw\r\n",
        ),
        (
            304,
            Framing::None,
            Some(99),
            "304 Not Modified\r\nContent-Length: 99\r\nServer: kgw\r\n",
        ),
        (
            304,
            Framing::None,
            None,
            "304 Not Modified\r\nServer: kgw\r\n",
        ),
        (
            204,
            Framing::Length(0),
            Some(0),
            "204 No Content\r\nServer: kgw\r\n",
        ),
        (
            103,
            Framing::None,
            Some(3),
            "103 Early Hints\r\nServer: kgw\r\n",
        ),
        (
            599,
            Framing::Length(0),
            None,
            "599 Unknown\r\nContent-Length: 0\r\nServer: kgw\r\n",
        ),
    ] {
        assert_eq!(
            head(status, framing, advertised),
            format!("HTTP/1.1 {expected}\r\n")
        );
    }
    let mut out = Vec::new();
    write_continue(&mut out);
    let mut response = Response::new();
    let status = response.parse(&out, &Limits::RESPONSE, RequestContext::default());
    assert_eq!(status, Ok(Status::Complete(out.len())));
    assert!(response.is_interim());
}

#[test]
fn the_encoder_keeps_to_what_was_announced() {
    let mut out = Vec::new();
    let mut encoder = BodyEncoder::new(Framing::Length(3));
    assert_eq!(encoder.encode(b"ab", &mut out), Ok(()));
    assert_eq!(encoder.encode(b"cd", &mut out), Err(BodyError::TooLong));
    assert_eq!(encoder.finish(&mut out), Err(BodyError::Truncated));
    assert_eq!(encoder.encode(b"c", &mut out), Ok(()));
    assert_eq!(encoder.finish(&mut out), Ok(()));
    assert_eq!(out, b"abc");
    let mut encoder = BodyEncoder::new(Framing::None);
    assert_eq!(encoder.encode(b"", &mut out), Ok(()));
    assert_eq!(encoder.encode(b"x", &mut out), Err(BodyError::TooLong));
    out.clear();
    let mut encoder = BodyEncoder::new(Framing::Chunked);
    assert_eq!(encoder.encode(b"", &mut out), Ok(()));
    assert_eq!(encoder.encode(&[b'x'; 17], &mut out), Ok(()));
    assert_eq!(encoder.finish(&mut out), Ok(()));
    assert_eq!(encoder.finish(&mut out), Ok(()));
    assert_eq!(encoder.encode(b"late", &mut out), Err(BodyError::TooLong));
    assert_eq!(out, b"11\r\nxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n");
    out.clear();
    write_chunk_head(&mut out, 0);
    write_chunk_head(&mut out, 0x1a0f);
    write_chunk_end(&mut out);
    assert_eq!(out, b"1a0f\r\n\r\n");
}

#[test]
fn chunk_bounds_are_exact() {
    let decode = |body: &[u8]| {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        let mut at = 0;
        loop {
            let step = decoder.decode(&body[at..])?;
            at += step.consumed;
            if step.done || at == body.len() {
                return decoder.finish_eof();
            }
        }
    };
    let extension = |len: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(len - 1));
    assert_eq!(decode(extension(255).as_bytes()), Ok(()));
    assert_eq!(
        decode(extension(256).as_bytes()),
        Err(BodyError::BadChunkExtension)
    );
    // Sixteen chunks of 250 bytes of extension fit, seventeen do not.
    let many = |chunks: usize| {
        let chunk = format!("1;{}\r\na\r\n", "e".repeat(248));
        format!("{}0\r\n\r\n", chunk.repeat(chunks))
    };
    assert_eq!(decode(many(16).as_bytes()), Ok(()));
    assert_eq!(
        decode(many(17).as_bytes()),
        Err(BodyError::BadChunkExtension)
    );
    let trailer = |len: usize| format!("0\r\na:{}\r\n\r\n", "v".repeat(len - 5));
    assert_eq!(decode(trailer(8190).as_bytes()), Ok(()));
    assert_eq!(decode(trailer(8193).as_bytes()), Err(BodyError::BadTrailer));
    let fields = |count: usize| format!("0\r\n{}\r\n", "a:\r\n".repeat(count));
    assert_eq!(decode(fields(64).as_bytes()), Ok(()));
    assert_eq!(decode(fields(65).as_bytes()), Err(BodyError::BadTrailer));
    for (size, fits) in [
        ("0000000000000001", true),
        ("00000000000000001", false),
        ("7fffffffffffffff", true),
        ("8000000000000000", false),
    ] {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        assert_eq!(
            decoder.decode(format!("{size}\r\n").as_bytes()).is_ok(),
            fits,
            "{size}"
        );
    }
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    assert_eq!(decoder.decode(b"x"), Err(BodyError::BadChunkSize));
    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(BodyError::BadChunkSize));
    assert_eq!(decoder.finish_eof(), Err(BodyError::BadChunkSize));
}

#[test]
fn chunk_lines_keep_to_the_grammar() {
    for (body, expected) in [
        ("5\r\nhellox\n0\r\n\r\n", BodyError::BadChunkEnd),
        ("5\r\nhello\rx0\r\n\r\n", BodyError::BadChunkEnd),
        ("5\rxhello\r\n0\r\n\r\n", BodyError::BadChunkSize),
        ("5 ;a\r\nhello\r\n0\r\n\r\n", BodyError::BadChunkSize),
        ("\r\n0\r\n\r\n", BodyError::BadChunkSize),
        ("5; a\r\nhello\r\n0\r\n\r\n", BodyError::BadChunkExtension),
        ("5;a=\r\nhello\r\n0\r\n\r\n", BodyError::BadChunkExtension),
        ("5;=b\r\nhello\r\n0\r\n\r\n", BodyError::BadChunkExtension),
        (
            "5;a=b=c\r\nhello\r\n0\r\n\r\n",
            BodyError::BadChunkExtension,
        ),
        (
            "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
            BodyError::BadChunkExtension,
        ),
        (
            "5;a=b\"c\"\r\nhello\r\n0\r\n\r\n",
            BodyError::BadChunkExtension,
        ),
        (
            "5;a=\"\\\r\"\r\nhello\r\n0\r\n\r\n",
            BodyError::BadChunkExtension,
        ),
        ("0\r\na\r\n\r\n", BodyError::BadTrailer),
        ("0\r\n:a\r\n\r\n", BodyError::BadTrailer),
        ("0\r\na: b\rx\r\n\r\n", BodyError::BadTrailer),
        ("0\r\n\rx", BodyError::BadTrailer),
        ("0\r\n\r", BodyError::Truncated),
    ] {
        let mut text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        text.extend_from_slice(body.as_bytes());
        for piece in [usize::MAX, 1] {
            let result = common::answer(&text, piece, RequestContext::default());
            assert_eq!(result, Err(common::Fault::Body(expected)), "{body:?}");
        }
    }
    let text = "5;a;b=c;d=\"e \\\"f\"\r\nhello\r\n0;g\r\nX-A: b\r\nX-B:\r\n\r\n";
    let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{text}");
    let answer = common::answer(text.as_bytes(), 1, RequestContext::default()).unwrap();
    assert_eq!(answer.body, b"hello");
}

fn field_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}",
        proptest::sample::select(vec!["Cookie", "TE", "x-request-id", "Accept", "Via"])
            .prop_map(str::to_owned),
    ]
    .prop_filter("decides framing or life time", |name| {
        ![
            "host",
            "connection",
            "content-length",
            "transfer-encoding",
            "te",
        ]
        .contains(&name.to_ascii_lowercase().as_str())
    })
}

fn field_value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![0x20_u8..0x7f, Just(b'\t'), 0x80_u8..];
    proptest::collection::vec(byte, 0..20)
}

fn framing() -> impl Strategy<Value = Framing> {
    prop_oneof![
        (0..u64::MAX >> 1).prop_map(Framing::Length),
        Just(Framing::Chunked),
        Just(Framing::None)
    ]
}

/// Bytes near the edge of what is a message.
fn near_message() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        "GET ",
        "POST ",
        "/",
        "/a?b",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\r\n",
        "\r",
        "\n",
        " ",
        "\t",
        "Host: h\r\n",
        "Host:h\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "a",
        "Connection: close, x\r\n",
        ":",
        "\0",
        "\u{7f}",
        "X-A: b\r\n",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "abc",
        "5;a=\"b\"\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: h\r\n",
    ]);
    proptest::collection::vec(piece, 1..16).prop_map(|pieces| pieces.concat().into_bytes())
}

#[test]
fn a_name_that_comes_back_after_others_keeps_its_place() {
    let mut headers = Headers::new();
    for name in ["|", "-", "#", "0", "A", "|", "a"] {
        assert!(headers.append(name.as_bytes(), b""));
    }
    let mut out = Vec::new();
    write_response_head(&mut out, 205, &headers, Framing::Length(0), None);
    let mut response = Response::new();
    let complete = response.parse(&out, &Limits::RESPONSE, RequestContext::default());
    assert_eq!(complete, Ok(Status::Complete(out.len())));
    let theirs: Vec<_> = response
        .headers()
        .iter()
        .map(|(name, _)| name.to_vec())
        .collect();
    assert_eq!(theirs.concat(), b"|-#0A|acontent-length");
}

proptest! {
    // No file of failures: what was found becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_written_request_reads_back_as_the_same(
        method in proptest::sample::select(vec!["GET", "POST", "DELETE", "PATCH", "REPORT"]),
        path in "/[!-~]{0,20}",
        fields in proptest::collection::vec((field_name(), field_value()), 0..8),
        framing in framing(),
    ) {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: h:1\r\n").into_bytes();
        for (name, value) in &fields {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b":");
            text.extend_from_slice(value);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        let request = parsed(&text);
        let mut out = Vec::new();
        write_request_head(&mut out, &request, framing);
        let again = parsed(&out);
        prop_assert_eq!(again.method(), request.method());
        prop_assert_eq!(again.path(), request.path());
        prop_assert_eq!(again.authority(), request.authority());
        match framing {
            Framing::None if !request.method_kind().has_no_body_by_default() => {
                prop_assert_eq!(again.framing(), Framing::Length(0));
            }
            framing => prop_assert_eq!(again.framing(), framing),
        }
        let ours: Vec<_> = request.headers().iter().collect();
        let theirs: Vec<_> = again
            .headers()
            .iter()
            .filter(|(name, _)| *name != b"content-length" && *name != b"transfer-encoding")
            .collect();
        prop_assert_eq!(ours, theirs);
        let mut twice = Vec::new();
        write_request_head(&mut twice, &again, framing);
        prop_assert_eq!(out, twice);
    }

    #[test]
    fn a_written_response_reads_back_as_the_same(
        status in 200_u16..600,
        fields in proptest::collection::vec((field_name(), field_value()), 0..8),
        framing in framing(),
        head in any::<bool>(),
    ) {
        let mut headers = Headers::new();
        for (name, value) in &fields {
            prop_assert!(headers.append(name.as_bytes(), value));
        }
        let no_body = head || [204, 304].contains(&status) || framing == Framing::None;
        let framing = if no_body { Framing::None } else { framing };
        let advertised = (head && status != 204).then_some(7);
        let mut out = Vec::new();
        write_response_head(&mut out, status, &headers, framing, advertised);
        let mut response = Response::new();
        let context = RequestContext { head, ..RequestContext::default() };
        let complete = response.parse(&out, &Limits::RESPONSE, context);
        prop_assert_eq!(complete, Ok(Status::Complete(out.len())));
        prop_assert_eq!(response.status(), status);
        let has_none = head || [204, 304].contains(&status);
        if framing == Framing::None && !has_none {
            prop_assert_eq!(response.framing(), Framing::UntilClose);
        } else {
            prop_assert_eq!(response.framing(), framing);
        }
        prop_assert_eq!(response.content_length(), match framing {
            Framing::Length(length) => Some(length),
            _ => advertised,
        });
        let ours: Vec<_> = headers.iter().collect();
        let theirs: Vec<_> = response
            .headers()
            .iter()
            .filter(|(name, _)| *name != b"content-length" && *name != b"transfer-encoding")
            .collect();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn a_body_survives_encoding_and_any_split(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        chunked in any::<bool>(),
        step in 1_usize..9,
    ) {
        let body = pieces.concat();
        let framing = if chunked {
            Framing::Chunked
        } else {
            Framing::Length(body.len() as u64)
        };
        let mut wire = Vec::new();
        let mut encoder = BodyEncoder::new(framing);
        for piece in &pieces {
            prop_assert_eq!(encoder.encode(piece, &mut wire), Ok(()));
        }
        prop_assert_eq!(encoder.finish(&mut wire), Ok(()));
        wire.extend_from_slice(b"NEXT");
        let mut decoder = BodyDecoder::new(framing);
        let (mut at, mut got) = (0, Vec::new());
        while !decoder.is_done() {
            prop_assert!(at < wire.len());
            let end = wire.len().min(at + step);
            let input = &wire[at..end];
            let decoded = decoder.decode(input).unwrap();
            got.extend_from_slice(&input[decoded.data.clone()]);
            prop_assert!(decoded.consumed > 0 || decoded.done);
            prop_assert!(decoded.data.end <= decoded.consumed);
            at += decoded.consumed;
        }
        prop_assert_eq!(got, body);
        prop_assert_eq!(&wire[at..], b"NEXT");
    }

    #[test]
    fn data_may_be_taken_off_the_connection_unseen(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        chunked: bool,
        most in 1_u64..30,
        step in 1_usize..9,
    ) {
        let body = pieces.concat();
        let framing = if chunked {
            Framing::Chunked
        } else {
            Framing::Length(body.len() as u64)
        };
        let mut wire = Vec::new();
        let mut encoder = BodyEncoder::new(framing);
        for piece in &pieces {
            prop_assert_eq!(encoder.encode(piece, &mut wire), Ok(()));
        }
        prop_assert_eq!(encoder.finish(&mut wire), Ok(()));
        wire.extend_from_slice(b"NEXT");
        let mut decoder = BodyDecoder::new(framing);
        let (mut at, mut got) = (0, Vec::new());
        while !decoder.is_done() {
            let taken = decoder.data_ahead().min(most);
            prop_assert_eq!(
                decoder.skip_data(decoder.data_ahead() + 1),
                Err(BodyError::TooLong)
            );
            prop_assert_eq!(decoder.skip_data(taken), Ok(()));
            got.extend_from_slice(&wire[at..at + taken as usize]);
            at += taken as usize;
            // Framing, and maybe some of the data, is decoded as usual.
            let input = &wire[at..wire.len().min(at + step)];
            let decoded = decoder.decode(input).unwrap();
            got.extend_from_slice(&input[decoded.data.clone()]);
            at += decoded.consumed;
        }
        prop_assert_eq!(got, body);
        prop_assert_eq!(&wire[at..], b"NEXT");
    }

    #[test]
    fn the_split_of_a_connection_does_not_matter(bytes in near_message(), step in 1_usize..7) {
        let whole = common::play(&bytes, usize::MAX, false);
        prop_assert_eq!(common::play(&bytes, step, false), whole);
        let context = RequestContext::default();
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        answer.extend_from_slice(&bytes);
        let whole = common::answer(&answer, usize::MAX, context);
        prop_assert_eq!(common::answer(&answer, step, context), whole);
    }
}

#[test]
fn a_body_that_ends_with_the_connection_has_data_ahead_for_ever() {
    let mut decoder = BodyDecoder::new(Framing::UntilClose);
    assert_eq!(decoder.data_ahead(), u64::MAX);
    assert_eq!(decoder.skip_data(1 << 40), Ok(()));
    assert_eq!(decoder.data_ahead(), u64::MAX);
    assert_eq!(decoder.finish_eof(), Ok(()));
    assert_eq!(decoder.data_ahead(), 0);
    assert_eq!(decoder.skip_data(1), Err(BodyError::TooLong));
}

#[test]
fn clients_of_http_10_get_its_version_and_no_chunks() {
    let head = |client, keep_alive, received| {
        let mut headers = Headers::new();
        headers.append(b"x", b"y");
        let framing = response_framing(client, received);
        let keep_alive = keep_alive && framing != Framing::UntilClose;
        if let Some(option) = connection_option(client, keep_alive) {
            headers.append(b"connection", option);
        }
        let mut out = Vec::new();
        write_response_head_as(&mut out, client, 200, &headers, framing, None);
        String::from_utf8(out).unwrap()
    };
    for (client, keep_alive, received, expected) in [
        (
            Version::Http10,
            false,
            Framing::Length(3),
            "HTTP/1.0 200 OK\r\nx: y\r\nconnection: close\r\ncontent-length: 3\r\n\r\n",
        ),
        (
            Version::Http10,
            true,
            Framing::Length(3),
            "HTTP/1.0 200 OK\r\nx: y\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\n",
        ),
        (
            Version::Http10,
            true,
            Framing::Chunked,
            "HTTP/1.0 200 OK\r\nx: y\r\nconnection: close\r\n\r\n",
        ),
        (
            Version::Http11,
            true,
            Framing::UntilClose,
            "HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            Version::Http11,
            false,
            Framing::Chunked,
            "HTTP/1.1 200 OK\r\nx: y\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
    ] {
        assert_eq!(head(client, keep_alive, received), expected);
    }
    assert_eq!(connection_option(Version::Http2, false), None);
    // Chunks are not announced to HTTP/1.0 even when the caller forgets.
    let mut out = Vec::new();
    write_response_head_as(
        &mut out,
        Version::Http10,
        200,
        &Headers::new(),
        Framing::Chunked,
        None,
    );
    assert_eq!(out, b"HTTP/1.0 200 OK\r\n\r\n");
}

/// What is written for a field by itself.
fn lines(headers: &Headers) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in headers {
        lines.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    }
    lines
}

proptest! {
    /// Fields that lie one after the other are written in one piece; nobody can tell.
    #[test]
    fn edited_heads_are_written_field_by_field(
        received in prop::collection::vec(("[A-Za-z-]{1,12}", ":[ \t]{0,2}", "[!-~]{0,3}( [!-~]{1,3})?", "[ \t]?"), 0..8),
        edits in prop::collection::vec((0..4_u8, "[a-z-]{1,12}", "[ -~\t\n]{0,8}"), 0..12),
    ) {
        let mut text = "GET / HTTP/1.1\r\nhost: h\r\n".to_owned();
        for (name, colon, value, space) in &received {
            // Neither framing nor connection options: those are written by other rules.
            text.extend(["x", name, colon, value, space, "\r\n"]);
        }
        text.push_str("\r\n");
        let mut request = parsed(text.as_bytes());
        for (kind, name, value) in &edits {
            // Half of the names are those of received fields.
            let name = match received.get(name.len() / 2) {
                Some((received, ..)) if name.len() % 2 == 0 => format!("x{received}"),
                _ => format!("x{name}"),
            };
            let headers = request.headers_mut();
            match kind {
                0 => { headers.append(name.as_bytes(), value.as_bytes()); }
                1 => { headers.set(name.as_bytes(), value.as_bytes()); }
                2 => { headers.remove(name.as_bytes()); }
                _ => { headers.set(b"server", value.as_bytes()); }
            }
        }
        let mut written = Vec::new();
        write_request_head(&mut written, &request, Framing::None);
        let expected = [b"GET / HTTP/1.1\r\n", &*lines(request.headers()), b"\r\n"].concat();
        prop_assert_eq!(written.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}
