//! Waiting for a request's head.

use std::future::poll_fn;
use std::task::Poll;

use kgw_h1::{Limits, RequestError, Status};

use super::Conn;
use crate::clock::Nanos;
use crate::config::ir::HttpOptions;
use crate::runtime::Phase;

/// How long an idle connection is kept open after draining began or its service went away: a request
/// may be on its way, and closing on it would lose it.
const DRAIN_IDLE_MS: u64 = 800;

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

/// Waits for the next request. An idle connection ends soon after `is_served` says no.
pub(crate) async fn read(
    conn: &mut Conn,
    options: &HttpOptions,
    is_served: impl Fn() -> bool,
) -> Head {
    let limits = Limits {
        max_head_bytes: options.max_head_bytes,
        max_fields: options.max_fields,
    };
    conn.request.clear();
    let idle_since = conn.worker.now();
    let mut began: Option<Nanos> = None;
    let mut draining_since: Option<Nanos> = None;
    let worker = std::rc::Rc::clone(&conn.worker);
    poll_fn(|cx| {
        conn.registration.update(cx);
        loop {
            if !conn.down.input().is_empty() {
                let began = *began.get_or_insert_with(|| worker.now());
                match conn.request.parse(conn.down.input(), &limits) {
                    Ok(Status::Complete(length)) => {
                        conn.down.consume(length);
                        return Poll::Ready(Head::Complete(began));
                    }
                    Ok(Status::Incomplete) if conn.down.eof => {
                        return Poll::Ready(Head::Abandoned(began));
                    }
                    Ok(Status::Incomplete) => {}
                    Err(error) => return Poll::Ready(Head::Malformed(began, error)),
                }
            } else if conn.down.eof {
                return Poll::Ready(Head::Closed);
            } else {
                conn.down.release_buffers();
            }
            match conn.down.poll_fill(cx, limits.max_head_bytes + 1) {
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(began.map_or(Head::Closed, Head::Abandoned));
                }
                Poll::Pending => {}
            }
            let deadline = match (began, worker.phase()) {
                (_, Phase::Closing) => return Poll::Ready(Head::Closed),
                (Some(began), _) => began.after_ms(options.request_head_timeout_ms),
                (None, Phase::Running) if is_served() => {
                    idle_since.after_ms(options.idle_timeout_ms)
                }
                (None, Phase::Running | Phase::Draining) => {
                    let since = *draining_since.get_or_insert_with(|| worker.now());
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
    .await
}
