//! Waiting for the tokens of a rate limit.
//!
//! The connection's task waits, by the engine's clock: its worker goes on with others. A request whose
//! client is gone gives its tokens back, and those behind it go earlier.

use std::rc::Rc;

use super::Conn;
use super::filtering::{Asked, while_client_waits};
use super::message::Downstream;
use super::request_filters::view;
use crate::filter::local_rate_limit::LocalRateLimit;
use crate::pipeline::exchange_log::Exchange;
use crate::runtime::Worker;

/// Counts a request, and lets it wait if it is to wait. One that is tried out only does not wait: it is
/// noted whether it would have been let pass in the end.
pub(super) async fn on_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    limit: &LocalRateLimit,
    is_enforced: bool,
) -> Asked {
    let counted = limit.on_request(&mut view(conn, exchange));
    let mut ticket = match counted {
        Ok(Some(ticket)) => ticket,
        Ok(None) => return Asked::Passed,
        Err(reply) => return Asked::Answered(reply),
    };
    if !is_enforced {
        ticket.serve();
        return Asked::Passed;
    }
    let worker = Rc::clone(&conn.worker);
    let _waits = Waits::new(&worker);
    loop {
        let ready = ticket.ready();
        let called = while_client_waits(conn, exchange, ready, |cx| {
            ticket.poll_called(worker.now(), cx)
        });
        match called.await {
            // Others have given up: it waits until an earlier time, or no longer.
            Ok(Some(())) => {}
            Ok(None) => break,
            Err(lost) => {
                worker.stats().rate_limit_abandoned.increment();
                return Asked::ClientGone(lost);
            }
        }
    }
    ticket.serve();
    Asked::Passed
}

/// A request that waits, as it is counted.
struct Waits<'w>(&'w Worker);

impl<'w> Waits<'w> {
    fn new(worker: &'w Worker) -> Self {
        worker.stats().rate_limit_queued.increment();
        worker.stats().rate_limit_queue_active.increment();
        Self(worker)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.stats().rate_limit_queue_active.decrement();
    }
}
