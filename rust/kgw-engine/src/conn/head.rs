//! Waiting for a request's head.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use kgw_h1::{Limits, MAX_LEADING_EMPTY_LINES, RequestError, Status, Version};

use super::http2::guard::frames::PREFACE;
use super::{Accepted, Session, Target};
use crate::clock::Nanos;
use crate::config::ir::HttpOptions;
use crate::runtime::Phase;

/// How long an idle connection is kept open after draining began or its service went away: a request
/// may be on its way, and closing on it would lose it.
pub(crate) const DRAIN_IDLE_MS: u64 = 800;

/// What came of waiting.
pub(crate) enum Head {
    /// `conn.request` is a request, whose first byte arrived at this moment.
    Complete(Nanos),
    /// The connection is over; nobody waits for an answer.
    Closed,
    /// The peer went away in the middle of a head that began at this moment.
    Abandoned(Nanos),
    /// The bytes are no request.
    Malformed(Nanos, RequestError),
    /// A head was begun at this moment and not finished in time.
    TimedOut(Nanos),
}

/// Waits until the first bytes tell which version of HTTP a connection carries. None if there is
/// nothing to serve.
pub(crate) async fn detect(
    accepted: &mut Accepted,
    listener: &str,
    target: &mut Target,
) -> Option<Version> {
    let worker = Rc::clone(&accepted.worker);
    let opened = worker.now();
    let mut began = None;
    let mut ending_since = None;
    poll_fn(|cx| {
        accepted.registration.update(cx);
        loop {
            let served = target.refresh(&worker, listener, &accepted.peers);
            let input = accepted.stream.input();
            let known = input.len().min(PREFACE.len());
            if input[..known] != PREFACE[..known] {
                return Poll::Ready(Some(Version::Http11));
            }
            if known == PREFACE.len() {
                return Poll::Ready(Some(Version::Http2));
            }
            if accepted.stream.eof {
                // The beginning of a preface is the beginning of no request.
                return Poll::Ready((known > 0).then_some(Version::Http11));
            }
            if known > 0 {
                began.get_or_insert_with(|| worker.now());
            } else {
                accepted.stream.release_buffers();
            }
            match accepted.stream.poll_fill(cx, PREFACE.len()) {
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            let options = &target.listener.http;
            let deadline = match (began, worker.phase()) {
                (_, Phase::Closing) => return Poll::Ready(None),
                (Some(began), _) => Nanos::after_ms(began, options.request_head_timeout_ms),
                (None, Phase::Running | Phase::LameDuck) if served && !worker.must_shrink() => {
                    idle_deadline(options, opened, opened)
                }
                (None, _) => {
                    let since = *ending_since.get_or_insert_with(|| worker.now());
                    Nanos::after_ms(since, DRAIN_IDLE_MS)
                }
            };
            return match accepted.timer.poll(cx, deadline) {
                Poll::Pending => Poll::Pending,
                // What was begun is answered as a request that was not finished in time.
                Poll::Ready(()) => Poll::Ready(began.map(|_| Version::Http11)),
            };
        }
    })
    .await
}

/// Waits for the next request, while `target` follows the configuration. A connection that nothing
/// serves any longer, or whose worker drains, ends soon if it is idle.
///
/// Idle connections are in here: no `async fn`, which would have its variables and references to them.
pub(crate) fn read(session: &mut Session) -> impl Future<Output = Head> {
    session.conn.request.give_back();
    session.conn.response.give_back();
    let idle_since = session.conn.worker.now();
    let mut began: Option<Nanos> = None;
    let mut ending_since: Option<Nanos> = None;
    poll_fn(move |cx| {
        let Session {
            conn,
            listener,
            target,
            ..
        } = &mut *session;
        let worker = Rc::clone(&conn.worker);
        conn.registration.update(cx);
        loop {
            let served = target.refresh(&worker, listener, &conn.peers);
            let options = &target.listener.http;
            let limits = Limits {
                max_head_bytes: options.max_head_bytes,
                max_fields: options.max_fields,
            };
            if is_begun(conn.down.stream.input()) {
                conn.request.set_accept_http_10(options.accept_http_10);
                conn.request.set_max_target_bytes(options.max_target_bytes);
                conn.request.set_secure(conn.peers.is_secure);
                let began = *began.get_or_insert_with(|| worker.now());
                match conn.request.parse(conn.down.stream.input(), &limits) {
                    Ok(Status::Complete(length)) => {
                        conn.down.stream.consume(length);
                        return Poll::Ready(Head::Complete(began));
                    }
                    Ok(Status::Incomplete) if conn.down.stream.eof => {
                        return Poll::Ready(Head::Abandoned(began));
                    }
                    Ok(Status::Incomplete) => {}
                    Err(error) => return Poll::Ready(Head::Malformed(began, error)),
                }
            } else if conn.down.stream.eof {
                return Poll::Ready(Head::Closed);
            } else {
                conn.down.stream.release_buffers();
            }
            // The limit does not count empty lines before the head.
            let empty_lines = 2 * (MAX_LEADING_EMPTY_LINES + 1);
            match conn
                .down
                .stream
                .poll_fill(cx, limits.max_head_bytes + empty_lines + 1)
            {
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(began.map_or(Head::Closed, Head::Abandoned));
                }
                Poll::Pending => {}
            }
            let deadline = match (began, worker.phase()) {
                (_, Phase::Closing) => return Poll::Ready(Head::Closed),
                (Some(began), _) => began
                    .after_ms(options.request_head_timeout_ms)
                    .min(began.after_ms(options.request_timeout_ms)),
                (None, Phase::Running | Phase::LameDuck) if served && !worker.must_shrink() => {
                    idle_deadline(options, conn.peers.opened, idle_since)
                }
                (None, _) => {
                    let since = *ending_since.get_or_insert_with(|| worker.now());
                    since.after_ms(DRAIN_IDLE_MS)
                }
            };
            return match (conn.timer.poll(cx, deadline), began) {
                (Poll::Pending, _) => Poll::Pending,
                (Poll::Ready(()), Some(began)) => Poll::Ready(Head::TimedOut(began)),
                (Poll::Ready(()), None) => Poll::Ready(Head::Closed),
            };
        }
    })
}

/// When a connection without a request is closed: after its idle time, or once it has lived its own
/// and a client that was just about to ask has had a moment for it.
fn idle_deadline(options: &HttpOptions, opened: Nanos, idle_since: Nanos) -> Nanos {
    let lived = opened.after_ms(options.max_connection_duration_ms);
    let idle = idle_since.after_ms(options.idle_timeout_ms);
    idle.min(idle_since.max(lived).after_ms(DRAIN_IDLE_MS))
}

/// Whether there is more than empty lines, which may come before a request (RFC 9112 2.2); too many
/// of them are for the parser to refuse.
fn is_begun(input: &[u8]) -> bool {
    input.len() > 2 * MAX_LEADING_EMPTY_LINES
        || input.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
}
