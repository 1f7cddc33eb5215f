use std::future::{Future, poll_fn};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::frames::{END_HEADERS, END_STREAM, FrameHead, PREFACE, kind};
use super::settings::{client_builder, server_builder};
use super::*;
use crate::config::ir::{Http2Options, HttpOptions};

const MAX_HEAD: usize = 60 * 1024;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const UNKNOWN: u8 = 0xbe;
/// `GET /` of host `a`, by the static table (RFC 7541 appendix A).
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn heads(scanner: &mut FrameScanner, mut bytes: &[u8]) -> Vec<FrameHead> {
    std::iter::from_fn(|| scanner.next(&mut bytes)).collect()
}

fn guard(role: Role) -> (Guarded<()>, Clock) {
    let clock = Clock::manual();
    let mut guarded = Guarded::new((), role, MAX_HEAD, clock.clone());
    if role == Role::Server {
        assert_eq!(guarded.scan_received(PREFACE), PREFACE.len());
    }
    guarded.greeting = Greeting::Heard;
    (guarded, clock)
}

/// Feeds frames until one is too much. Returns which, if any of the first `limit`.
fn flooded_at(guarded: &mut Guarded<()>, limit: u32, make: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    (0..limit).find(|&index| {
        let bytes = make(index);
        guarded.scan_received(&bytes) < bytes.len()
    })
}

// === frames ===

#[test]
fn heads_are_found_behind_the_preface() {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(kind::SETTINGS, 0, 0, &[0; 12]));
    bytes.extend(frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, GET));
    bytes.extend(frame(kind::DATA, 0, u32::MAX, &vec![7; 70_000]));
    bytes.extend(frame(UNKNOWN, 0xff, 0, b""));
    let found = heads(&mut FrameScanner::of_client(), &bytes);
    let expected = [
        (12, kind::SETTINGS, 0),
        (6, kind::HEADERS, END_HEADERS | END_STREAM),
        (70_000, kind::DATA, 0),
        (0, UNKNOWN, 0xff),
    ];
    let expected = expected.map(|(length, kind, flags)| FrameHead {
        length,
        kind,
        flags,
    });
    assert_eq!(found, expected);
    assert_eq!(heads(&mut FrameScanner::of_server(), &bytes[24..]), found);
}

#[test]
fn nothing_is_found_behind_what_is_no_preface() {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx".to_vec();
    bytes.extend(frame(kind::PING, 0, 0, &[0; 8]));
    let mut scanner = FrameScanner::of_client();
    assert_eq!(heads(&mut scanner, &bytes), []);
    assert_eq!(heads(&mut scanner, PREFACE), []);
}

proptest! {
    #[test]
    fn a_split_changes_nothing(
        frames in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u32>(), 0_usize..40), 0..20),
        cuts in prop::collection::vec(0_usize..1000, 0..40),
    ) {
        let mut bytes = PREFACE.to_vec();
        let mut expected = Vec::new();
        for (kind, flags, stream, length) in frames {
            bytes.extend(frame(kind, flags, stream, &vec![0; length]));
            expected.push(FrameHead { length: length as u32, kind, flags });
        }
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut scanner = FrameScanner::of_client();
        let found: Vec<_> = cuts
            .windows(2)
            .flat_map(|pair| heads(&mut scanner, &bytes[pair[0]..pair[1]]))
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_flood_is_cut_before_the_frame_that_is_too_much(chunk in 1_usize..60) {
        let (mut guarded, _clock) = guard(Role::Server);
        let bytes = frame(kind::PING, 0, 0, b"12345678").repeat(300);
        let mut passed = 0;
        for piece in bytes.chunks(chunk) {
            let count = guarded.scan_received(piece);
            passed += count;
            if count < piece.len() {
                break;
            }
        }
        // The header of the frame that is too much may have begun in an earlier piece.
        prop_assert_eq!(passed / 17, 200);
        prop_assert!(passed % 17 < HEADER_BYTES);
        prop_assert_eq!(guarded.state.flood(), Some(Flood::Ping));
    }
}

// === floods ===

#[test]
fn a_peer_that_does_not_begin_with_settings_is_not_heard() {
    let settings = frame(kind::SETTINGS, 0, 0, b"");
    let acknowledgement = frame(kind::SETTINGS, 1, 0, b"");
    let ping = frame(kind::PING, 0, 0, b"12345678");
    for (first, greeting) in [
        (&settings, Greeting::Heard),
        (&acknowledgement, Greeting::Missed),
        (&ping, Greeting::Missed),
    ] {
        let mut guarded = Guarded::new((), Role::Client, MAX_HEAD, Clock::manual());
        guarded.scan_received(first);
        assert_eq!(guarded.greeting, greeting);
    }
}

#[test]
fn each_flood_ends_after_a_bounded_count() {
    type Make = fn(u32) -> Vec<u8>;
    let cases: [(&str, Flood, u32, Make); 12] = [
        ("ping", Flood::Ping, 200, |_| {
            frame(kind::PING, 0, 0, b"12345678")
        }),
        ("ping acknowledgement", Flood::Ping, 200, |_| {
            frame(kind::PING, 1, 0, b"12345678")
        }),
        ("settings", Flood::Settings, 200, |_| {
            frame(kind::SETTINGS, 0, 0, b"")
        }),
        ("settings of many", Flood::Settings, 7, |_| {
            frame(
                kind::SETTINGS,
                0,
                0,
                &[0, 4, 0, 0, 255, 255].repeat(16_384 / 60),
            )
        }),
        ("goaway", Flood::Settings, 200, |_| {
            frame(kind::GOAWAY, 0, 0, &[0; 8])
        }),
        ("priority", Flood::Priority, 1000, |index| {
            frame(kind::PRIORITY, 0, 2 * (index % 1000) + 1, &[0, 0, 0, 0, 16])
        }),
        ("window update", Flood::WindowUpdate, 1000, |_| {
            frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])
        }),
        ("unknown", Flood::Unknown, 1000, |_| {
            frame(UNKNOWN, 0, 0, &[0; 8])
        }),
        ("empty data", Flood::EmptyData, 50, |_| {
            frame(kind::DATA, 0, 1, b"")
        }),
        ("empty headers", Flood::EmptyHeaders, 10, |index| {
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 2 * index + 1, b"")
        }),
        ("rapid reset", Flood::Reset, 200, |index| {
            let stream = 2 * index + 1;
            let mut bytes = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, GET);
            bytes.extend(frame(kind::RST_STREAM, 0, stream, &CANCEL));
            bytes
        }),
        ("rapid reset, posts", Flood::Reset, 200, |index| {
            let stream = 2 * index + 1;
            let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, POST);
            bytes.extend(frame(kind::DATA, END_STREAM, stream, b"x"));
            bytes.extend(frame(kind::RST_STREAM, 0, stream, &CANCEL));
            bytes
        }),
    ];
    for (name, flood, allowed, make) in cases {
        let (mut guarded, _clock) = guard(Role::Server);
        let at = flooded_at(&mut guarded, 10_000, make);
        assert_eq!(at, Some(allowed), "{name}");
        assert_eq!(guarded.state.flood(), Some(flood), "{name}");
        if flood != Flood::Reset {
            let (mut guarded, _clock) = guard(Role::Client);
            let at = flooded_at(&mut guarded, 100_000, make).expect(name);
            assert!(at >= allowed * 9, "{name}: an upstream has more: {at}");
        }
    }
}

#[test]
fn header_blocks_are_bounded_in_frames_and_bytes() {
    let (mut guarded, _clock) = guard(Role::Server);
    guarded.scan_received(&frame(kind::HEADERS, END_STREAM, 1, GET));
    let field = [0; 110];
    let at = flooded_at(&mut guarded, 1000, |_| {
        frame(kind::CONTINUATION, 0, 1, &field)
    });
    assert_eq!(at, Some(8));
    assert_eq!(guarded.state.flood(), Some(Flood::Continuation));

    let (mut empty, _clock) = guard(Role::Server);
    empty.scan_received(&frame(kind::HEADERS, END_STREAM, 1, GET));
    let at = flooded_at(&mut empty, 1000, |_| frame(kind::CONTINUATION, 0, 1, b""));
    assert_eq!(at, Some(1));

    let (mut large, _clock) = guard(Role::Server);
    large.scan_received(&frame(kind::HEADERS, END_STREAM, 1, GET));
    let large_frame = vec![0; 60_000];
    let at = flooded_at(&mut large, 1000, |_| {
        frame(kind::CONTINUATION, 0, 1, &large_frame)
    });
    assert_eq!(at, Some(2));
}

#[test]
fn large_heads_one_after_the_other_are_no_flood() {
    let (mut guarded, _clock) = guard(Role::Server);
    let part = vec![0; 16_384];
    for index in 0..1000 {
        let stream = 2 * index + 1;
        let mut bytes = frame(kind::HEADERS, END_STREAM, stream, &part);
        bytes.extend(frame(kind::CONTINUATION, 0, stream, &part));
        bytes.extend(frame(kind::CONTINUATION, 0, stream, &part));
        bytes.extend(frame(kind::CONTINUATION, END_HEADERS, stream, b""));
        assert_eq!(guarded.scan_received(&bytes), bytes.len());
    }
}

#[test]
fn an_upstream_may_refuse_more_than_a_client_may_reset() {
    let (mut upstream, _clock) = guard(Role::Client);
    let at = flooded_at(&mut upstream, 10_000, |index| {
        frame(kind::RST_STREAM, 0, 2 * index + 1, &[0, 0, 0, 7])
    });
    assert_eq!(at, Some(2000));
}

#[test]
fn resets_that_a_peer_provokes_are_charged_to_it() {
    for (provocation, payload) in [
        (kind::WINDOW_UPDATE, &[0; 4][..]),
        (kind::DATA, b"x"),
        (kind::PRIORITY, &[0, 0, 0, 1, 16]),
    ] {
        let (mut guarded, _clock) = guard(Role::Server);
        let at = flooded_at(&mut guarded, 1000, |index| {
            let mut bytes = frame(kind::HEADERS, END_HEADERS, 2 * index + 1, POST);
            bytes.extend(frame(provocation, 0, 2 * index + 1, payload));
            bytes
        });
        assert_eq!(at, None);
        for index in 0..1000 {
            guarded.scan_sent(&frame(kind::RST_STREAM, 0, 2 * index + 1, &[0, 0, 0, 1]));
            if guarded.state.flood().is_some() {
                assert_eq!(index, 200);
                break;
            }
        }
        assert_eq!(guarded.state.flood(), Some(Flood::Reset));
    }
    let (mut upstream, _clock) = guard(Role::Client);
    for index in 0..100_000 {
        upstream.scan_sent(&frame(kind::RST_STREAM, 0, 2 * index + 1, &CANCEL));
    }
    assert_eq!(upstream.state.flood(), None);
}

#[test]
fn budgets_leak_with_time() {
    let (mut guarded, clock) = guard(Role::Server);
    let ping = frame(kind::PING, 0, 0, b"12345678");
    for _ in 0..200 {
        assert_eq!(guarded.scan_received(&ping), ping.len());
    }
    // 50 a second for ever.
    for _ in 0..5000 {
        clock.advance(Duration::from_millis(20));
        assert_eq!(guarded.scan_received(&ping), ping.len());
    }
    // After a quiet hour: at most twice the burst.
    clock.advance(Duration::from_secs(3600));
    let at = flooded_at(&mut guarded, 10_000, |_| ping.clone()).expect("a flood");
    assert!((200..=400).contains(&at), "{at}");
}

#[test]
fn a_slow_flood_ends_too() {
    let (mut guarded, clock) = guard(Role::Server);
    let ping = frame(kind::PING, 0, 0, b"12345678");
    let at = (0..2000).find(|_| {
        clock.advance(Duration::from_millis(10));
        guarded.scan_received(&ping) < ping.len()
    });
    let at = at.expect("100 a second are more than 50");
    assert!((390..=410).contains(&at), "{at}");
}

// === honest peers ===

#[test]
fn a_download_pays_for_its_window_updates_and_pings() {
    let (mut guarded, _clock) = guard(Role::Server);
    for _ in 0..20_000 {
        guarded.scan_sent(&frame(kind::DATA, 0, 1, &[0; 16_384]));
        // A client that reads 1 KiB at a time and acknowledges each, on the stream and the connection.
        for _ in 0..32 {
            let update = frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 4, 0]);
            assert_eq!(guarded.scan_received(&update), update.len());
        }
        let ping = frame(kind::PING, 0, 0, b"12345678");
        assert_eq!(guarded.scan_received(&ping), ping.len());
    }
}

#[test]
fn requests_pay_for_their_priorities() {
    let (mut guarded, _clock) = guard(Role::Server);
    for tree in 0..6 {
        let bytes = frame(kind::PRIORITY, 0, 2 * tree + 3, &[0, 0, 0, 0, 200]);
        assert_eq!(guarded.scan_received(&bytes), bytes.len());
    }
    for index in 0..100_000 {
        let stream = 2 * index + 13;
        let mut bytes = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, GET);
        bytes.extend(frame(kind::PRIORITY, 0, stream, &[0, 0, 0, 3, 10]).repeat(4));
        bytes.extend(frame(0x10, 0, 0, b"\0\0\0\x01u=3").repeat(4));
        assert_eq!(guarded.scan_received(&bytes), bytes.len());
        guarded.scan_sent(&frame(
            kind::HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            b"\x89",
        ));
    }
}

#[test]
fn a_client_may_reset_what_was_answered() {
    let (mut guarded, _clock) = guard(Role::Server);
    for index in 0..100_000 {
        let stream = 2 * index + 1;
        let request = frame(kind::HEADERS, END_HEADERS, stream, POST);
        assert_eq!(guarded.scan_received(&request), request.len());
        guarded.scan_sent(&frame(kind::HEADERS, END_HEADERS, stream, b"\x88"));
        let reset = frame(kind::RST_STREAM, 0, stream, &CANCEL);
        assert_eq!(guarded.scan_received(&reset), reset.len());
    }
}

// === the connection ===

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Serves a connection as its task is to: answers the first `answered` requests, holds the others, and
/// ends floods. Returns the guard's state and how many requests there were.
async fn serve(io: DuplexStream, answered: usize, clock: Clock) -> (Rc<GuardState>, usize) {
    let http = HttpOptions::default();
    let guarded = Guarded::new(io, Role::Server, http.max_head_bytes, clock);
    let state = guarded.state();
    let mut connection = server_builder(&http.http2, &http)
        .handshake::<_, Bytes>(guarded)
        .await
        .expect("a handshake");
    let mut held = Vec::new();
    let mut requests = 0;
    let mut told = false;
    poll_fn(|cx| {
        loop {
            let polled = connection.poll_accept(cx);
            if state.flood().is_some() && !told {
                told = true;
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            match polled {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    requests += 1;
                    if requests <= answered {
                        let answer = http::Response::new(());
                        let mut body = respond.send_response(answer, false).expect("an answer");
                        body.send_data(Bytes::from_static(&[0; 1000]), true)
                            .expect("a body");
                    } else {
                        held.push((request, respond));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    (state, requests)
}

/// Sends a preface and `bytes`, and returns the codes of the GOAWAY frames that come back.
async fn flood(mut io: DuplexStream, bytes: Vec<u8>) -> Vec<u32> {
    let mut received = Vec::new();
    let (mut reader, mut writer) = tokio::io::split(&mut io);
    let write = async {
        let mut all = PREFACE.to_vec();
        all.extend(frame(kind::SETTINGS, 0, 0, b""));
        all.extend(bytes);
        // The rest may find the connection closed.
        let _closed = writer.write_all(&all).await;
    };
    let read = reader.read_to_end(&mut received);
    let ((), read) = tokio::join!(write, read);
    read.expect("the end of the stream");
    let mut codes = Vec::new();
    let mut rest = &received[..];
    while let [a, b, c, frame_kind, _, _, _, _, _, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if *frame_kind == kind::GOAWAY {
            codes.push(u32::from_be_bytes([after[4], after[5], after[6], after[7]]));
        }
        rest = &after[length..];
    }
    codes
}

#[test]
fn a_flood_ends_in_goaway() {
    let resets: Vec<u8> = (0..2000)
        .flat_map(|index| {
            let stream = 2 * index + 1;
            let mut bytes = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, GET);
            bytes.extend(frame(kind::RST_STREAM, 0, stream, &CANCEL));
            bytes
        })
        .collect();
    let made: Vec<u8> = (0..2000)
        .flat_map(|index| {
            let stream = 2 * index + 1;
            let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, POST);
            // A stream that depends on itself is a fault of the stream (RFC 7540 5.3.1).
            let [a, b, c, d] = stream.to_be_bytes();
            let self_dependency = [a, b, c, d, 16];
            bytes.extend(frame(kind::PRIORITY, 0, stream, &self_dependency));
            bytes
        })
        .collect();
    let opened: Vec<u8> = (0..5000)
        .flat_map(|index| frame(kind::HEADERS, END_HEADERS | END_STREAM, 2 * index + 1, GET))
        .collect();
    let mut continued = frame(kind::HEADERS, END_STREAM, 1, GET);
    continued.extend(frame(kind::CONTINUATION, 0, 1, b"").repeat(5000));
    let mut empty = frame(kind::HEADERS, END_HEADERS, 1, POST);
    empty.extend(frame(kind::DATA, 0, 1, b"").repeat(5000));
    for (name, flood_bytes) in [
        ("ping", frame(kind::PING, 0, 0, b"12345678").repeat(5000)),
        ("settings", frame(kind::SETTINGS, 0, 0, b"").repeat(5000)),
        (
            "priority",
            frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).repeat(5000),
        ),
        (
            "window update",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(5000),
        ),
        ("unknown", frame(UNKNOWN, 0, 0, &[0; 8]).repeat(5000)),
        ("empty data", empty),
        ("continuation", continued),
        ("rapid reset", resets),
        ("made you reset", made),
        ("streams opened", opened),
    ] {
        let (client, server) = tokio::io::duplex(16 * 1024);
        let (codes, (state, requests)) = run(async {
            let serve = serve(server, 0, Clock::manual());
            tokio::join!(flood(client, flood_bytes), serve)
        });
        assert_eq!(codes, [11], "{name}");
        assert!(requests <= 320, "{name}: {requests}");
        // The h2 crate is quicker where it counts itself.
        let by_h2 = matches!(name, "rapid reset" | "made you reset" | "streams opened");
        assert!(state.flood().is_some() || by_h2, "{name}");
    }
}

#[test]
fn honest_clients_are_not_ended() {
    let (client, server) = tokio::io::duplex(16 * 1024);
    let clock = Clock::manual();
    let guarded = Guarded::new(client, Role::Client, MAX_HEAD, clock.clone());
    let upstream = guarded.state();
    let requests = async {
        let (sender, mut connection) = client_builder(&Http2Options::default())
            .handshake::<_, Bytes>(guarded)
            .await
            .expect("a handshake");
        let mut pings = connection.ping_pong().expect("pings");
        let workers = futures_of(100, move || {
            let mut sender = sender.clone();
            async move {
                for _ in 0..50 {
                    sender = sender.ready().await.expect("room for a stream");
                    let request = http::Request::get("http://a/").body(()).expect("a request");
                    let (answer, _) = sender.send_request(request, true).expect("a stream");
                    let mut body = answer.await.expect("an answer").into_body();
                    let mut length = 0;
                    while let Some(data) = body.data().await {
                        let data = data.expect("data");
                        length += data.len();
                        body.flow_control()
                            .release_capacity(data.len())
                            .expect("capacity");
                    }
                    assert_eq!(length, 1000);
                }
            }
        });
        let pinging = async {
            for _ in 0..150 {
                pings.ping(h2::Ping::opaque()).await.expect("a pong");
            }
        };
        let work = async {
            tokio::join!(workers, pinging);
        };
        let ((), ended) = tokio::join!(work, connection);
        ended.expect("a good end");
    };
    let ((), (state, served)) =
        run(async { tokio::join!(requests, serve(server, usize::MAX, clock)) });
    assert_eq!(served, 5000);
    assert_eq!(state.flood(), None);
    assert_eq!(upstream.flood(), None);
}

/// Runs `count` futures side by side.
async fn futures_of<F: Future<Output = ()>>(count: usize, make: impl Fn() -> F) {
    let mut running: Vec<_> = (0..count).map(|_| Some(Box::pin(make()))).collect();
    poll_fn(|cx| {
        for slot in &mut running {
            if slot
                .as_mut()
                .is_some_and(|future| future.as_mut().poll(cx).is_ready())
            {
                *slot = None;
            }
        }
        if running.iter().all(Option::is_none) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[test]
fn a_peer_that_reads_nothing_is_given_up() {
    run(async {
        let clock = Clock::manual();
        let (mut peer, io) = tokio::io::duplex(10);
        let mut guarded = Guarded::new(io, Role::Server, MAX_HEAD, clock.clone());
        let state = guarded.state();
        guarded.write_all(&[0; 10]).await.expect("room");
        assert_eq!(state.deadline(5000), Nanos::NEVER);
        clock.advance(Duration::from_secs(1));
        let mut blocked = Box::pin(guarded.write_all(&[0; 10]));
        assert!(poll_once(&mut blocked).await.is_pending());
        clock.advance(Duration::from_secs(1));
        assert!(poll_once(&mut blocked).await.is_pending());
        assert_eq!(state.deadline(5000), Nanos(6_000_000_000));
        assert_eq!(state.deadline(0), Nanos::NEVER);
        peer.read_exact(&mut [0; 4]).await.expect("bytes");
        assert!(poll_once(&mut blocked).await.is_pending());
        assert_eq!(state.deadline(5000), Nanos(7_000_000_000));
        let mut rest = [0; 16];
        let (read, wrote) = tokio::join!(peer.read_exact(&mut rest), blocked);
        read.expect("bytes");
        wrote.expect("room");
        assert_eq!(state.deadline(5000), Nanos::NEVER);
    });
}

#[test]
fn malformed_requests_among_sound_ones_are_no_flood() {
    let (guarded, clock) = guard(Role::Server);
    let state = guarded.state();
    for _ in 0..1000 {
        state.saw_head(false, clock.now());
        state.saw_head(true, clock.now());
    }
    for _ in 0..MOST_MALFORMED {
        state.saw_head(false, clock.now());
    }
    assert_eq!(state.flood(), None);
    state.saw_head(false, clock.now());
    assert_eq!(state.flood(), Some(Flood::Malformed));
}

#[test]
fn a_turn_reads_no_more_than_its_share() {
    run(async {
        let (mut peer, io) = tokio::io::duplex(128 * 1024);
        let mut guarded = Guarded::new(io, Role::Client, MAX_HEAD, Clock::manual());
        let state = guarded.state();
        guarded.greeting = Greeting::Heard;
        let payload = vec![0; 100_000];
        peer.write_all(&frame(kind::DATA, 0, 1, &payload))
            .await
            .expect("room");
        let mut space = vec![0; 8192];
        for _turn in 0..2 {
            state.begin_turn();
            for _ in 0..READ_AT_ONCE / 8192 {
                assert_eq!(guarded.read(&mut space).await.expect("bytes"), 8192);
            }
            let mut more = Box::pin(guarded.read(&mut space));
            assert!(poll_once(&mut more).await.is_pending());
        }
    });
}

#[test]
fn after_a_flood_what_is_under_way_is_dropped() {
    run(async {
        let clock = Clock::manual();
        let (mut peer, io) = tokio::io::duplex(64 * 1024);
        let mut guarded = Guarded::new(io, Role::Client, MAX_HEAD, clock.clone());
        guarded.greeting = Greeting::Heard;
        let state = guarded.state();
        clock.advance(Duration::from_secs(1));
        peer.write_all(&frame(UNKNOWN, 0, 0, b"").repeat(3000))
            .await
            .expect("room");
        let mut space = vec![0; 32 * 1024];
        let first = guarded.read(&mut space[..9000 * 3]).await.expect("bytes");
        assert_eq!(first, 27_000);
        // 100, and what leaked in a second.
        let empty = frame(kind::HEADERS, END_HEADERS, 1, b"").repeat(200);
        peer.write_all(&empty).await.expect("room");
        assert_eq!(guarded.read(&mut space).await.expect("bytes"), 110 * 9);
        assert_eq!(state.flood(), Some(Flood::EmptyHeaders));
        assert_eq!(state.deadline(0), Nanos(2_000_000_000));
        let mut end = Box::pin(guarded.shutdown());
        assert!(poll_once(&mut end).await.is_pending());
        assert_eq!(peer.read(&mut space).await.expect("the end"), 0);
        drop(peer);
        end.await.expect("the end");
    });
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}
