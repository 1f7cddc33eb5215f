//! Making faults on purpose: the waits.

use std::task::Poll;

use super::Conn;
use super::filtering::{Asked, while_client_waits};
use super::message::Downstream;
use crate::filter::fault::Fault;
use crate::pipeline::exchange_log::Exchange;
use crate::telemetry::flags::ResponseFlag;

/// Lets a request wait, or answers it, as the faults of its route want it.
pub(super) async fn on_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    fault: &Fault,
) -> Asked {
    let (delay, abort, pace) = (fault.delay_ms(), fault.abort(), fault.bytes_per_second());
    if delay.is_none() && abort.is_none() && pace.is_none() {
        return Asked::Passed;
    }
    let stats = conn.worker.stats();
    let Some(active) = fault.begin() else {
        stats.fault_overflow.increment();
        return Asked::Passed;
    };
    exchange.begin_fault(active, pace);
    if let Some(delay_ms) = delay {
        stats.fault_delayed.increment();
        exchange.flags.set(ResponseFlag::DelayInjected);
        let until = conn.worker.now().after_ms(delay_ms);
        let waited = while_client_waits(conn, exchange, until, |_| Poll::<()>::Pending).await;
        if let Err(lost) = waited {
            return Asked::ClientGone(lost);
        }
    }
    let Some(reply) = abort else {
        return Asked::Passed;
    };
    conn.worker.stats().fault_aborted.increment();
    Asked::Answered(reply)
}
