//! Event streams, whole and in pieces.

use kgw_template::{Change, EventStream, EventTooLong, Framing};
use proptest::prelude::*;

fn upper(data: &[u8]) -> Change {
    Change::Replace(String::from_utf8_lossy(data).to_uppercase())
}

/// What comes out of a body that comes in in pieces that end at `cuts`.
fn streamed(
    framing: Framing,
    body: &[u8],
    cuts: &[usize],
    limit: usize,
    mut transform: impl FnMut(&[u8]) -> Change,
) -> Result<Vec<u8>, EventTooLong> {
    let mut stream = EventStream::new(framing, limit);
    let mut out = Vec::new();
    let mut from = 0;
    for &cut in cuts.iter().filter(|&&cut| cut <= body.len()) {
        if cut >= from {
            stream.push(&body[from..cut], false, &mut out, &mut transform)?;
            assert!(stream.waiting() <= limit);
            from = cut;
        }
    }
    stream.push(&body[from..], true, &mut out, &mut transform)?;
    assert_eq!(stream.waiting(), 0);
    Ok(out)
}

/// In one piece, and byte by byte.
#[track_caller]
fn check(framing: Framing, body: &str, expected: &str, transform: fn(&[u8]) -> Change) {
    let each: Vec<usize> = (0..body.len()).collect();
    for cuts in [&[][..], &each] {
        let out = streamed(framing, body.as_bytes(), cuts, 1_000, transform).expect("short events");
        assert_eq!(String::from_utf8_lossy(&out), expected, "of {body:?}");
    }
}

#[test]
fn the_data_of_server_sent_events_is_transformed() {
    for (body, expected) in [
        ("data: a\n\n", "data: A\n\n"),
        ("data:a\r\n\r\n", "data: A\r\n\r\n"),
        ("data: a\r\rdata: b\r\r", "data: A\r\rdata: B\r\r"),
        ("data: a\n\ndata: b\n\n", "data: A\n\ndata: B\n\n"),
        (
            "event: x\ndata: a\nid: 1\n\n",
            "event: x\ndata: A\nid: 1\n\n",
        ),
        ("data: a\ndata: b\n\n", "data: A\ndata: B\n\n"),
        ("data: a\nid: 1\ndata: b\n\n", "data: A\ndata: B\nid: 1\n\n"),
        ("data\n\n", "data: \n\n"),
        ("data:  a\n\n", "data:  A\n\n"),
        // No data.
        (": comment\n\n", ": comment\n\n"),
        ("event: x\n\n", "event: x\n\n"),
        ("dataset: a\n\n", "dataset: a\n\n"),
        ("\n\n\r\n", "\n\n\r\n"),
        ("", ""),
        // The end of a stream of completions.
        ("data: a\n\ndata: [DONE]\n\n", "data: A\n\ndata: [DONE]\n\n"),
        // What is left at the end.
        ("data: a\n\ndata: b", "data: A\n\ndata: B"),
        ("data: a\n", "data: A\n"),
        ("data: a\ndata: b", "data: A\ndata: B\n"),
    ] {
        check(Framing::ServerSent, body, expected, upper);
    }
}

#[test]
fn events_can_be_left_out_or_get_more_lines() {
    let drop = |data: &[u8]| {
        if data == b"b" {
            Change::Drop
        } else {
            Change::Keep
        }
    };
    check(
        Framing::ServerSent,
        "data: a\r\n\r\nid: 1\r\ndata: b\r\n\r\ndata: c\r\n\r\n",
        "data: a\r\n\r\ndata: c\r\n\r\n",
        drop,
    );
    check(Framing::JsonLines, "a\nb\nc\n", "a\nc\n", drop);
    let lines = |_: &[u8]| Change::Replace("x\ny\r\nz".to_owned());
    check(
        Framing::ServerSent,
        "data: a\n\n",
        "data: x\ndata: y\ndata: z\n\n",
        lines,
    );
    check(Framing::JsonLines, "a\n", "x y  z\n", lines);
}

#[test]
fn lines_of_json_are_transformed() {
    for (body, expected) in [
        ("{\"a\"}\n{\"b\"}\n", "{\"A\"}\n{\"B\"}\n"),
        ("a\r\nb\r\n", "A\r\nB\r\n"),
        ("\n \n", "\n \n"),
        ("a\nb", "A\nB"),
        ("[DONE]\n", "[DONE]\n"),
        ("", ""),
    ] {
        check(Framing::JsonLines, body, expected, upper);
    }
}

#[test]
fn an_event_goes_on_with_its_last_byte() {
    let mut stream = EventStream::new(Framing::ServerSent, 100);
    let mut out = Vec::new();
    stream
        .push(b"data: a\n", false, &mut out, upper)
        .expect("short");
    assert_eq!((out.as_slice(), stream.waiting()), (&b""[..], 8));
    stream.push(b"\n", false, &mut out, upper).expect("short");
    assert_eq!((out.as_slice(), stream.waiting()), (&b"data: A\n\n"[..], 0));
}

#[test]
fn long_events_are_refused() {
    let long = EventTooLong { limit: 9 };
    for (framing, body) in [
        (Framing::ServerSent, "data: abc\n\n"),
        (Framing::ServerSent, "data: a\n: b"),
        (Framing::JsonLines, "123456789\n"),
        (Framing::JsonLines, "1234567890"),
    ] {
        assert_eq!(
            streamed(framing, body.as_bytes(), &[], 9, upper),
            Err(long),
            "{body:?}"
        );
    }
    let many = "data: a\n\n".repeat(9);
    assert!(streamed(Framing::ServerSent, many.as_bytes(), &[], 9, upper).is_ok());
}

#[test]
fn media_types() {
    for (framing, content_type, is) in [
        (Framing::ServerSent, "text/event-stream", true),
        (
            Framing::ServerSent,
            "Text/Event-Stream ; charset=utf-8",
            true,
        ),
        (Framing::ServerSent, "text/event-streams", false),
        (Framing::ServerSent, "application/x-ndjson", false),
        (Framing::JsonLines, "application/x-ndjson", true),
        (Framing::JsonLines, "application/json", false),
        (Framing::JsonLines, "", false),
    ] {
        assert_eq!(framing.is_of(content_type.as_bytes()), is, "{content_type}");
    }
}

proptest! {
    #[test]
    fn what_comes_out_does_not_depend_on_the_pieces(
        body in proptest::collection::vec(
            prop_oneof![
                Just("data: a"), Just("data:b"), Just("data"), Just("id: 1"), Just(": c"), Just("x"),
                Just("\n"), Just("\r"), Just("\r\n"), Just("\n\n"), Just("[DONE]"), Just("ä"),
            ],
            0..40,
        ),
        cuts in proptest::collection::vec(0_usize..200, 0..12),
        is_sse: bool,
    ) {
        let body = body.concat();
        let framing = if is_sse { Framing::ServerSent } else { Framing::JsonLines };
        let mut cuts = cuts;
        cuts.sort_unstable();
        let some = |data: &[u8]| match data.len() % 3 {
            0 => Change::Drop,
            1 => Change::Replace("x\ny".to_owned()),
            _ => Change::Keep,
        };
        let whole = streamed(framing, body.as_bytes(), &[], 1_000, some);
        prop_assert_eq!(&whole, &streamed(framing, body.as_bytes(), &cuts, 1_000, some));
        // What is kept is passed on byte for byte.
        let kept = streamed(framing, body.as_bytes(), &cuts, 1_000, |_| Change::Keep);
        prop_assert_eq!(kept, Ok(body.into_bytes()));
    }
}
