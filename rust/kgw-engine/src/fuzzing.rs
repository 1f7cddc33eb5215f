//! Doors for the fuzzers, to parsers that are the engine's own. Built for them alone.

use crate::clock::Clock;
use crate::conn::http2::guard::budget::{Meter, Role};
use crate::conn::http2::guard::frames::{FrameHead, FrameScanner};
use crate::filter::grpc_web::TextDecoder;
use crate::telemetry::tracing::TraceParent;
use crate::upstream::redis::resp::{MAX_REPLY, read_reply};

/// HTTP/2 bytes in pieces of `piece` bytes have the frames that they have as a whole, and no frame upsets
/// the budgets.
pub fn h2_frames(piece: usize, server: bool, bytes: &[u8]) {
    let scan = |piece: usize| {
        let mut scanner = if server {
            FrameScanner::of_server()
        } else {
            FrameScanner::of_client()
        };
        let mut heads = Vec::new();
        for mut part in bytes.chunks(piece.max(1)) {
            heads.extend(std::iter::from_fn(|| scanner.next(&mut part)));
            assert!(part.is_empty());
        }
        heads
    };
    let heads: Vec<FrameHead> = scan(piece);
    assert_eq!(heads, scan(bytes.len()));
    let clock = Clock::manual();
    for role in [Role::Server, Role::Client] {
        let mut meter = Meter::new(role, piece, clock.now());
        for &head in &heads {
            let received = meter.received(head, &clock);
            let sent = meter.sent(head, &clock);
            clock.advance(std::time::Duration::from_millis(u64::from(head.flags)));
            if received.or(sent).is_err() {
                break;
            }
        }
    }
}

/// What is read of a `traceparent` is written as it was, but for what later versions add.
pub fn traceparent(value: &[u8]) {
    if let Some(one) = TraceParent::parse(value) {
        let written = one.render();
        assert_eq!(written[2..53], value[2..53]);
        assert_eq!(TraceParent::parse(&written), Some(one));
    }
}

/// gRPC-Web text in pieces of `piece` bytes decodes to what it decodes to as a whole.
pub fn grpc_web_text(piece: usize, text: &[u8]) {
    let decode = |piece: usize| {
        let mut decoder = TextDecoder::default();
        let mut out = Vec::new();
        for part in text.chunks(piece.max(1)) {
            decoder.decode(part, &mut out)?;
        }
        decoder.finish().map(|()| out)
    };
    let decoded = decode(piece);
    assert!(decoded.as_ref().is_ok_and(|out| out.len() <= text.len()) || decoded.is_err());
    assert_eq!(decoded, decode(text.len()));
}

/// Replies of a Redis server that come in pieces of `piece` bytes are those that come at once, and no more is
/// held of one than one may have.
pub fn redis_reply(piece: usize, bytes: &[u8]) {
    let replies = |piece: usize| {
        let (mut held, mut found) = (Vec::new(), Vec::new());
        for part in bytes.chunks(piece.max(1)) {
            held.extend_from_slice(part);
            loop {
                match read_reply(&held) {
                    Ok(Some((reply, length))) => {
                        assert!((1..=MAX_REPLY).contains(&length));
                        held.drain(..length);
                        found.push(reply);
                    }
                    Ok(None) => break,
                    Err(_) => return (found, None),
                }
            }
            assert!(held.len() < MAX_REPLY);
        }
        (found, Some(held))
    };
    assert_eq!(replies(piece), replies(bytes.len()));
}
