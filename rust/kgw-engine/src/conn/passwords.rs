//! Waiting for a password to be checked.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use super::Conn;
use super::filtering::{Asked, while_client_waits};
use super::message::Downstream;
use crate::clock::Nanos;
use crate::filter::basic_auth::{BasicAuth, Verdict};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;

/// Decides about a request, if it needs no check of its password.
pub(super) fn decide<D>(conn: &Conn<D>, filter: &BasicAuth) -> Option<Result<(), Reply>> {
    let decided = match filter.verdict(&conn.request) {
        Verdict::Passed => Ok(()),
        Verdict::Refused(reply) => Err(reply),
        Verdict::Wait(..) => return None,
    };
    count(conn, decided.is_ok());
    Some(decided)
}

/// Decides about a request.
pub(super) async fn on_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &Exchange<'_>,
    filter: &BasicAuth,
) -> Asked {
    let (user, password) = match filter.verdict(&conn.request) {
        Verdict::Passed => {
            count(conn, true);
            return Asked::Passed;
        }
        Verdict::Refused(reply) => {
            count(conn, false);
            return Asked::Answered(reply);
        }
        Verdict::Wait(user, password) => (user, password),
    };
    let worker = Rc::clone(&conn.worker);
    worker.stats().basic_auth_checked.increment();
    let Ok(checking) = filter.checks.check(Arc::clone(&user), password) else {
        worker.stats().basic_auth_overflow.increment();
        return Asked::Answered(Reply::passwords_overloaded());
    };
    let mut checking = pin!(checking);
    // Few wait at a time, so none waits for long.
    let never = Nanos::NEVER;
    let checked = while_client_waits(conn, exchange, never, |cx| checking.as_mut().poll(cx));
    match checked.await {
        Err(lost) => Asked::ClientGone(lost),
        Ok(Some(Ok(is_right))) => {
            let decided = filter.checked(&conn.request, &user, is_right);
            count(conn, decided.is_ok());
            match decided {
                Ok(()) => Asked::Passed,
                Err(reply) => Asked::Answered(reply),
            }
        }
        // The engine ends.
        Ok(Some(Err(_)) | None) => {
            worker.stats().basic_auth_overflow.increment();
            Asked::Answered(Reply::passwords_overloaded())
        }
    }
}

fn count<D>(conn: &Conn<D>, is_allowed: bool) {
    let stats = conn.worker.stats();
    if is_allowed {
        stats.basic_auth_allowed.increment();
    } else {
        stats.basic_auth_denied.increment();
    }
}
