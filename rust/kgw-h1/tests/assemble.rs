//! Heads from HTTP/2 fields: what is taken, how it reads, and what is refused.

use kgw_h1::{
    Framing, Limits, Method, Request, RequestContext, RequestError, RequestParts, Response,
    ResponseError, Status, TargetForm, Version, strip_hop_by_hop_request, write_request_head,
};

type Fields = &'static [(&'static str, &'static str)];

const GET: RequestParts<'static> = RequestParts {
    method: b"GET",
    scheme: Some(b"http"),
    authority: Some(b"a.test"),
    path: Some(b"/p?q"),
    protocol: None,
    end_stream: true,
};

const CONNECT: RequestParts<'static> = RequestParts {
    method: b"CONNECT",
    scheme: None,
    authority: Some(b"a.test:443"),
    path: None,
    protocol: None,
    end_stream: false,
};

const WEBSOCKET: RequestParts<'static> = RequestParts {
    method: b"CONNECT",
    protocol: Some(b"websocket"),
    end_stream: false,
    ..GET
};

fn bytes(fields: Fields) -> impl Iterator<Item = (&'static [u8], &'static [u8])> {
    fields
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

fn assemble(parts: &RequestParts<'_>, fields: Fields) -> Result<Request, RequestError> {
    let mut request = Request::new();
    request
        .assemble(parts, bytes(fields), &Limits::REQUEST)
        .map(|()| request)
}

#[test]
fn reads_as_if_it_had_been_parsed() {
    let request = assemble(
        &GET,
        &[("accept", "*/*"), ("te", "trailers"), ("x-empty", "")],
    )
    .unwrap();
    assert_eq!(request.method(), b"GET");
    assert_eq!(request.version().as_str(), "HTTP/2");
    assert_eq!(
        (request.path(), request.authority()),
        (&b"/p?q"[..], &b"a.test"[..])
    );
    assert_eq!(request.framing(), Framing::None);
    assert!(request.keep_alive() && !request.extended_connect() && request.upgrade().is_none());
    let fields: Vec<_> = request.headers().iter().collect();
    assert_eq!(
        fields,
        [
            (&b"host"[..], &b"a.test"[..]),
            (b"accept", b"*/*"),
            (b"te", b"trailers"),
            (b"x-empty", b""),
        ]
    );
}

#[test]
fn what_is_assembled_writes_a_head_that_parses_to_the_same() {
    let parts = RequestParts {
        method: b"POST",
        end_stream: false,
        ..GET
    };
    let mut request =
        assemble(&parts, &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]).unwrap();
    strip_hop_by_hop_request(&mut request, false);
    let mut wire = Vec::new();
    write_request_head(&mut wire, &request, request.framing());
    let mut parsed = Request::new();
    assert_eq!(
        parsed.parse(&wire, &Limits::REQUEST),
        Ok(Status::Complete(wire.len()))
    );
    assert_eq!(parsed.framing(), Framing::Chunked);
    assert_eq!(parsed.headers().get(b"cookie"), Some(&b"a=1; b=2"[..]));
    assert_eq!(
        (parsed.path(), parsed.authority()),
        (request.path(), request.authority())
    );
    assert_eq!(parsed.headers().len(), 4);
}

#[test]
fn framing_follows_the_length_and_the_end_of_the_stream() {
    let open = RequestParts {
        end_stream: false,
        ..GET
    };
    for (parts, fields, framing) in [
        (&GET, &[][..], Ok(Framing::None)),
        (&GET, &[("content-length", "0")][..], Ok(Framing::Length(0))),
        (
            &GET,
            &[("content-length", "1")][..],
            Err(RequestError::BadContentLength),
        ),
        (&open, &[][..], Ok(Framing::Chunked)),
        (
            &open,
            &[("content-length", "5")][..],
            Ok(Framing::Length(5)),
        ),
        (
            &open,
            &[("content-length", "5"), ("content-length", "5")][..],
            Err(RequestError::BadContentLength),
        ),
        (
            &open,
            &[("content-length", "5,5")][..],
            Err(RequestError::BadContentLength),
        ),
        (
            &open,
            &[("content-length", "+5")][..],
            Err(RequestError::BadContentLength),
        ),
        (
            &open,
            &[("content-length", "")][..],
            Err(RequestError::BadContentLength),
        ),
        (&CONNECT, &[][..], Ok(Framing::None)),
        (
            &CONNECT,
            &[("content-length", "5")][..],
            Err(RequestError::BadContentLength),
        ),
    ] {
        let found = assemble(parts, fields).map(|request| request.framing());
        assert_eq!(found, framing, "{fields:?}");
    }
}

#[test]
fn expectations_count_only_with_a_body() {
    let open = RequestParts {
        end_stream: false,
        ..GET
    };
    assert!(
        assemble(&open, &[("expect", "100-continue")])
            .unwrap()
            .expects_continue()
    );
    assert!(
        !assemble(&GET, &[("expect", "100-continue")])
            .unwrap()
            .expects_continue()
    );
}

#[test]
fn targets() {
    let connect = assemble(&CONNECT, &[]).unwrap();
    assert_eq!(connect.target_form(), TargetForm::Authority);
    assert_eq!(
        (connect.authority(), connect.path()),
        (&b"a.test:443"[..], &b""[..])
    );
    let asterisk = RequestParts {
        method: b"OPTIONS",
        path: Some(b"*"),
        ..GET
    };
    assert_eq!(
        assemble(&asterisk, &[]).unwrap().target_form(),
        TargetForm::Asterisk
    );
    let custom = RequestParts {
        method: b"BREW",
        ..GET
    };
    let custom = assemble(&custom, &[]).unwrap();
    assert_eq!(
        (custom.method(), custom.method_kind()),
        (&b"BREW"[..], Method::Other)
    );
    for (parts, error) in [
        (
            RequestParts { method: b"", ..GET },
            RequestError::BadRequestLine,
        ),
        (
            RequestParts {
                method: b"G T",
                ..GET
            },
            RequestError::BadRequestLine,
        ),
        (
            RequestParts {
                method: b"GET\r\n",
                ..GET
            },
            RequestError::BadRequestLine,
        ),
        (
            RequestParts {
                scheme: Some(b"ftp"),
                ..GET
            },
            RequestError::InvalidScheme,
        ),
        (
            RequestParts {
                scheme: Some(b""),
                ..GET
            },
            RequestError::InvalidScheme,
        ),
        (
            RequestParts {
                scheme: Some(b"http\r\n"),
                ..GET
            },
            RequestError::InvalidScheme,
        ),
        (RequestParts { path: None, ..GET }, RequestError::BadTarget),
        (
            RequestParts {
                path: Some(b""),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: Some(b"*"),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: Some(b"a"),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: Some(b"http://b/"),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: Some(b"\\a"),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: Some(b"/a b"),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: Some(b"/a\r\nx: y"),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: Some(b"/\xc3\xa4"),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: Some(b"/a\0"),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                authority: Some(b""),
                ..GET
            },
            RequestError::InvalidAuthority,
        ),
        (
            RequestParts {
                authority: Some(b"u@a"),
                ..GET
            },
            RequestError::InvalidAuthority,
        ),
        (
            RequestParts {
                authority: Some(b"a,b"),
                ..GET
            },
            RequestError::InvalidAuthority,
        ),
        (
            RequestParts {
                authority: Some(b"a\r\nb"),
                ..GET
            },
            RequestError::InvalidAuthority,
        ),
        (
            RequestParts {
                authority: None,
                ..GET
            },
            RequestError::MissingHost,
        ),
        (
            RequestParts {
                authority: Some(b"a.test"),
                ..CONNECT
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                authority: None,
                ..CONNECT
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: Some(b"/"),
                ..CONNECT
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                protocol: Some(b"websocket"),
                ..GET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                path: None,
                ..WEBSOCKET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                authority: None,
                ..WEBSOCKET
            },
            RequestError::BadTarget,
        ),
        (
            RequestParts {
                protocol: Some(b"a b"),
                ..WEBSOCKET
            },
            RequestError::BadTarget,
        ),
    ] {
        assert_eq!(assemble(&parts, &[]).map(|_| ()), Err(error), "{parts:?}");
    }
}

#[test]
fn hosts() {
    let bare = RequestParts {
        authority: None,
        scheme: None,
        ..GET
    };
    let request = assemble(&bare, &[("host", "b.test")]).unwrap();
    assert_eq!(request.authority(), b"b.test");
    let request = assemble(&GET, &[("host", "A.test")]).unwrap();
    assert_eq!(request.authority(), b"a.test");
    assert_eq!(request.headers().len(), 1);
    for (parts, fields, error) in [
        (
            &GET,
            &[("host", "b.test")][..],
            RequestError::ConflictingHost,
        ),
        (
            &GET,
            &[("host", "a.test"), ("host", "a.test")][..],
            RequestError::MultipleHosts,
        ),
        (
            &bare,
            &[("host", "b"), ("host", "b")][..],
            RequestError::MultipleHosts,
        ),
        (
            &bare,
            &[("host", "b c")][..],
            RequestError::InvalidAuthority,
        ),
        (&bare, &[("host", "")][..], RequestError::InvalidAuthority),
    ] {
        assert_eq!(
            assemble(parts, fields).map(|_| ()),
            Err(error),
            "{fields:?}"
        );
    }
}

#[test]
fn an_extended_connect_reads_as_an_upgrade() {
    let mut request = assemble(&WEBSOCKET, &[("sec-websocket-version", "13")]).unwrap();
    assert!(request.extended_connect());
    assert_eq!(
        (request.method(), request.path()),
        (&b"GET"[..], &b"/p?q"[..])
    );
    assert_eq!(request.upgrade(), Some(&b"websocket"[..]));
    assert_eq!(request.framing(), Framing::None);
    strip_hop_by_hop_request(&mut request, true);
    let mut wire = Vec::new();
    write_request_head(&mut wire, &request, request.framing());
    assert_eq!(
        wire,
        b"GET /p?q HTTP/1.1\r\nhost: a.test\r\nsec-websocket-version: 13\r\n\
          upgrade: websocket\r\nconnection: Upgrade\r\n\r\n"
    );
    // Nothing of it stays for the next message.
    request.assemble(&GET, [], &Limits::REQUEST).unwrap();
    assert!(!request.extended_connect() && request.upgrade().is_none());
}

#[test]
fn fields_that_are_refused() {
    for (name, value, error) in [
        ("X-A", "b", RequestError::BadField),
        ("", "b", RequestError::BadField),
        (":path", "/b", RequestError::BadField),
        ("x a", "b", RequestError::BadField),
        ("x: y", "b", RequestError::BadField),
        ("x\u{e4}", "b", RequestError::BadField),
        ("x\r\ny", "b", RequestError::InvalidCharacter),
        ("x", "a\r\nb: c", RequestError::InvalidCharacter),
        ("x", "a\nb", RequestError::InvalidCharacter),
        ("x", "a\0", RequestError::InvalidCharacter),
        ("x", "a\u{1}", RequestError::InvalidCharacter),
        ("x", "a\u{7f}", RequestError::InvalidCharacter),
        ("x", " a", RequestError::BadField),
        ("x", "a\t", RequestError::BadField),
        ("connection", "close", RequestError::ConnectionField),
        ("keep-alive", "1", RequestError::ConnectionField),
        ("proxy-connection", "close", RequestError::ConnectionField),
        (
            "transfer-encoding",
            "chunked",
            RequestError::ConnectionField,
        ),
        ("upgrade", "websocket", RequestError::ConnectionField),
        ("te", "gzip", RequestError::ConnectionField),
        ("te", "trailers, gzip", RequestError::ConnectionField),
    ] {
        let fields = [(name.as_bytes(), value.as_bytes())];
        let found = Request::new().assemble(&GET, fields, &Limits::REQUEST);
        assert_eq!(found, Err(error), "{name}: {value}");
        if name == "te" {
            continue;
        }
        let found = Response::new().assemble(
            200,
            fields,
            &Limits::RESPONSE,
            RequestContext::default(),
            true,
        );
        let expected = match error {
            RequestError::ConnectionField => ResponseError::ConnectionField,
            _ => ResponseError::BadField,
        };
        assert_eq!(found, Err(expected), "{name}: {value}");
    }
}

#[test]
fn limits_bound_what_the_head_would_take_as_http1() {
    let fields: Fields = &[("x", "1"), ("y", "2")];
    let request = assemble(&GET, fields).unwrap();
    let mut wire = Vec::new();
    write_request_head(&mut wire, &request, request.framing());
    assert_eq!(request.head_bytes(), wire.len());
    for (max_head_bytes, max_fields, expected) in [
        (wire.len(), 3, Ok(())),
        (wire.len() - 1, 3, Err(RequestError::HeadTooLarge)),
        (wire.len(), 2, Err(RequestError::TooManyFields)),
    ] {
        let limits = Limits {
            max_head_bytes,
            max_fields,
        };
        assert_eq!(
            Request::new().assemble(&GET, bytes(fields), &limits),
            expected
        );
    }
    let mut request = Request::new();
    request.set_max_target_bytes(3);
    let found = request.assemble(&GET, [], &Limits::REQUEST);
    assert_eq!(found, Err(RequestError::TargetTooLong));
}

#[test]
fn responses() {
    let none = RequestContext::default();
    let head = RequestContext { head: true, ..none };
    let connect = RequestContext {
        connect: true,
        ..none
    };
    for (status, fields, context, end_stream, expected) in [
        (200, &[][..], none, true, Ok(Framing::None)),
        (200, &[][..], none, false, Ok(Framing::Chunked)),
        (
            200,
            &[("content-length", "5")][..],
            none,
            false,
            Ok(Framing::Length(5)),
        ),
        (
            200,
            &[("content-length", "5")][..],
            none,
            true,
            Err(ResponseError::BadContentLength),
        ),
        (
            200,
            &[("content-length", "5"), ("content-length", "5")][..],
            none,
            false,
            Err(ResponseError::BadContentLength),
        ),
        (
            200,
            &[("content-length", "x")][..],
            none,
            false,
            Err(ResponseError::BadContentLength),
        ),
        (
            200,
            &[("content-length", "5")][..],
            head,
            true,
            Ok(Framing::None),
        ),
        (
            304,
            &[("content-length", "5")][..],
            none,
            true,
            Ok(Framing::None),
        ),
        (
            204,
            &[("content-length", "5")][..],
            none,
            true,
            Err(ResponseError::UnexpectedBody),
        ),
        (200, &[][..], connect, false, Ok(Framing::None)),
        (404, &[][..], connect, false, Ok(Framing::Chunked)),
        (100, &[][..], none, false, Ok(Framing::None)),
        (
            101,
            &[][..],
            none,
            false,
            Err(ResponseError::UnexpectedUpgrade),
        ),
        (99, &[][..], none, false, Err(ResponseError::BadStatusLine)),
        (600, &[][..], none, false, Err(ResponseError::BadStatusLine)),
    ] {
        let mut response = Response::new();
        let found = response
            .assemble(
                status,
                bytes(fields),
                &Limits::RESPONSE,
                context,
                end_stream,
            )
            .map(|()| response.framing());
        assert_eq!(found, expected, "{status} {fields:?}");
        if found.is_ok() {
            assert_eq!(
                (response.status(), response.version()),
                (status, Version::Http2)
            );
            assert!(response.keep_alive());
        }
    }
}
