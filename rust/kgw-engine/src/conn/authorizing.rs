//! Asking the services that decide about requests.
//!
//! The connection's task waits, as for the filters in Python: its worker goes on with others, and the
//! call is cancelled when the client is gone. Without a decision the request is refused, unless the filter
//! says that it goes on.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;

use super::Conn;
use super::filtering::{Asked, while_client_waits};
use super::message::{Downstream, Lost};
use super::whole_body::{Collected, Uncollected, Wanted, collect};
use crate::bridge::Failure;
use crate::clock::Nanos;
use crate::config::ir::HttpOptions;
use crate::config::snapshot::Cluster;
use crate::filter::ext_authz::{
    Changes, Decision, ExtAuthz, MAX_ANSWER, NAMESPACE, Subject, SubjectBody,
};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::upstream::call::{Call, CallError, call};

/// Why there is no decision.
enum Unknown {
    /// The service was not reached, or did not answer in time or as it should.
    Failed,
    TimedOut,
    ClientGone(Lost),
}

/// Asks a service about the request.
pub(crate) async fn on_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &ExtAuthz,
    http: &HttpOptions,
) -> Asked {
    let worker = Rc::clone(&conn.worker);
    let Some(cluster) = &filter.cluster else {
        worker.stats().ext_authz_error.increment();
        return Asked::Answered(Reply::no_authorizer());
    };
    let decided = match body(conn, exchange, filter, http).await {
        Ok(body) => decide(conn, exchange, filter, cluster, body).await,
        Err(Uncollected::Failed(Failure::TooLarge)) => {
            worker.stats().ext_authz_too_large.increment();
            return Asked::Answered(Reply::payload_too_large());
        }
        // There is no room for the body.
        Err(Uncollected::Failed(_)) => Err(Unknown::Failed),
        Err(Uncollected::Answered(reply)) => return Asked::Answered(reply),
        Err(Uncollected::ClientGone(lost)) => return Asked::ClientGone(lost),
    };
    let stats = worker.stats();
    match decided {
        Ok(Decision::Allowed(changes)) => {
            stats.ext_authz_ok.increment();
            allow(conn, exchange, *changes);
            Asked::Passed
        }
        Ok(Decision::Denied(answer)) => {
            stats.ext_authz_denied.increment();
            Asked::Answered(Reply::unauthorized(answer))
        }
        Err(Unknown::ClientGone(lost)) => Asked::ClientGone(lost),
        Err(unknown) => {
            stats.ext_authz_error.increment();
            if matches!(unknown, Unknown::TimedOut) {
                stats.ext_authz_timeout.increment();
            }
            if !filter.failure_mode_allow {
                return Asked::Answered(Reply::authorization_failed(filter.status_on_error));
            }
            stats.ext_authz_failure_mode_allowed.increment();
            if filter.failure_mode_allow_header_add {
                let headers = conn.request.headers_mut();
                headers.set(b"x-envoy-auth-failure-mode-allowed", b"true");
            }
            Asked::Passed
        }
    }
}

/// Receives as much of the request's body as the service is told.
async fn body<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &ExtAuthz,
    http: &HttpOptions,
) -> Result<Option<Collected>, Uncollected> {
    let Some(wanted) = filter.body else {
        return Ok(None);
    };
    let wanted = Wanted {
        most: wanted.max_bytes,
        held: conn.worker.body_room().hold(),
        beginning_will_do: wanted.allow_partial,
    };
    collect(conn, exchange, wanted, http).await
}

/// Makes the call.
async fn decide<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &ExtAuthz,
    cluster: &Cluster,
    body: Option<Collected>,
) -> Result<Decision, Unknown> {
    let (worker, peers) = (Rc::clone(&conn.worker), Rc::clone(&conn.peers));
    let length = conn.request.framing().length();
    let subject = Subject {
        request: &conn.request,
        length: length.or_else(|| body.as_ref().map(|body| body.bytes.len() as u64)),
        body: body.map(|body| SubjectBody {
            bytes: body.bytes,
            is_partial: body.is_beginning,
        }),
        source: exchange.remote(conn),
        destination: peers.local,
        principal: peers.principal.as_deref(),
        server_name: peers.server_name.as_deref(),
        is_secure: peers.is_secure,
        began: worker.clock().wall_nanos(exchange.began),
    };
    let question = filter.question(&subject).ok_or(Unknown::Failed)?;
    let now = worker.now();
    let asked = Call {
        cluster,
        peers: &peers,
        head: &question.head,
        body: Bytes::clone(&question.body),
        deadline: now.after_ms(filter.timeout_ms).min(exchange.call_deadline),
        max_answer: MAX_ANSWER,
    };
    let mut calling = pin!(call(&worker, &asked));
    // The call has the deadline.
    let called =
        while_client_waits(conn, exchange, Nanos::NEVER, |cx| calling.as_mut().poll(cx)).await;
    let called = called.map_err(Unknown::ClientGone)?;
    match called.unwrap_or(Err(CallError::TimedOut)) {
        Ok(answer) => filter.decision(&answer).map_err(|_| Unknown::Failed),
        Err(CallError::TimedOut) => Err(Unknown::TimedOut),
        Err(CallError::Closing) => Err(Unknown::ClientGone(Lost::Closed)),
        Err(_) => Err(Unknown::Failed),
    }
}

/// Lets the request pass, as the service wants it.
fn allow<D>(conn: &mut Conn<D>, exchange: &mut Exchange<'_>, changes: Changes) {
    changes.apply(&mut conn.request);
    if changes.response.is_empty() && changes.metadata.is_empty() {
        return;
    }
    let filtered = exchange.filtered.get_or_insert_default();
    filtered.response_edits.extend(changes.response);
    let noted = filtered.service_metadata.entry(NAMESPACE).or_default();
    noted.extend(changes.metadata);
}
