//! Sending a request once more: whether that may be done, and the wait before it.
//!
//! The client has seen nothing of an answer yet: once it has, there is no way back.

use std::future::poll_fn;
use std::task::Poll;

use kgw_limit::{Slots, Tick};

use super::Conn;
use super::message::{Downstream, Lost};
use crate::clock::Nanos;
use crate::pipeline::exchange_log::{Dispatch, Exchange};
use crate::pipeline::reply::Reply;
use crate::runtime::Phase;
use crate::telemetry::flags::ResponseFlag;
use crate::upstream::acquire::poll_client_gone;

/// Whether a request whose attempt failed can be sent once more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admitted {
    /// It can, and the retry is counted.
    Yes,
    /// Not at all: its route has no retries, or its body is gone.
    No,
    /// The retries are used up.
    Exhausted,
    /// The service has had too many retries of late.
    OverBudget,
    /// As many retries as may be are under way to the cluster.
    Overflow,
}

/// What comes after an attempt that failed.
pub(super) enum After {
    Again,
    Answer(Reply),
    ClientGone(Lost),
}

/// Asks whether the request can be sent once more.
pub(super) fn admit<D>(
    conn: &Conn<D>,
    exchange: &mut Exchange<'_>,
    dispatch: &Dispatch<'_>,
) -> Admitted {
    let Some(retrying) = exchange.retrying.as_deref_mut() else {
        return Admitted::No;
    };
    // The retry under way has failed.
    retrying.slot = None;
    if !retrying.is_possible() {
        return Admitted::No;
    }
    let stats = conn.worker.stats();
    if !retrying.is_left() {
        stats.upstream_rq_retry_limit_exceeded.increment();
        exchange.flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        return Admitted::Exhausted;
    }
    // Behind the above: the last attempt keeps nothing.
    if !retrying.replay.is_whole() {
        return Admitted::No;
    }
    let now = Tick::from_nanos(conn.worker.now().0);
    let budget = dispatch.cluster.retry_budget.as_deref();
    if budget.is_some_and(|budget| !budget.retry(now)) {
        stats.upstream_rq_retry_overflow.increment();
        return Admitted::OverBudget;
    }
    // Envoy: a budget stands in place of the breaker.
    if let (Some(breaker), None) = (&dispatch.cluster.breaker, budget) {
        retrying.slot = Slots::take(&breaker.retries);
        if retrying.slot.is_none() {
            stats.upstream_rq_retry_overflow.increment();
            return Admitted::Overflow;
        }
    }
    Admitted::Yes
}

/// Decides what comes after an attempt that failed, for which `reply` is the answer.
pub(super) async fn after_failure<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    dispatch: &Dispatch<'_>,
    reply: Reply,
) -> After {
    let retry = dispatch.forward.retry.as_deref();
    let is_untouched = exchange.upstream_wire.header_sent == 0;
    if !reply.is_retriable
        || retry.is_some_and(|retry| !retry.covers_failure(reply.failure, is_untouched))
    {
        return After::Answer(reply);
    }
    match admit(conn, exchange, dispatch) {
        Admitted::Yes => Box::pin(wait(conn, exchange, dispatch)).await,
        Admitted::OverBudget => After::Answer(Reply::retry_overflow()),
        Admitted::Overflow => {
            exchange.flags.set(ResponseFlag::UpstreamOverflow);
            After::Answer(reply)
        }
        Admitted::No => After::Answer(reply),
        Admitted::Exhausted => {
            let retried = exchange.retrying.as_ref();
            let was_retried = retried.is_some_and(|retrying| retrying.made() > 0);
            After::Answer(if was_retried { reply.retried() } else { reply })
        }
    }
}

/// Waits for the time of a retry that was admitted, and prepares the request for it.
pub(super) async fn wait<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    dispatch: &Dispatch<'_>,
) -> After {
    let (Some(retry), Some(retrying)) = (&dispatch.forward.retry, &mut exchange.retrying) else {
        return After::Again;
    };
    let began = conn.worker.now();
    let until = Nanos(began.0.saturating_add(retrying.take(retry)));
    let waited = poll_fn(|cx| {
        conn.registration.update(cx);
        if let Some(lost) = poll_client_gone(&mut conn.down, exchange.request_complete, cx) {
            return Poll::Ready(After::ClientGone(lost));
        }
        if conn.worker.phase() == Phase::Closing {
            return Poll::Ready(After::ClientGone(Lost::Closed));
        }
        let route = exchange.route_deadline(dispatch.forward.timeout_ms);
        let call = exchange.call_deadline;
        conn.timer.poll(cx, until.min(route).min(call)).map(|()| {
            if until <= route && until <= call {
                After::Again
            } else if call <= route {
                After::Answer(Reply::duration_timed_out())
            } else {
                conn.worker.stats().upstream_rq_timeout.increment();
                After::Answer(Reply::request_timed_out())
            }
        })
    })
    .await;
    if matches!(waited, After::Again) {
        conn.worker.stats().upstream_rq_retry.increment();
        conn.response.clear();
        exchange.try_again();
        let now = conn.worker.now();
        if let Some(retrying) = &mut exchange.retrying {
            retrying.begin(now);
        }
    }
    waited
}
