//! Asking the services that decide about requests.
//!
//! The connection's task waits, as for the filters in Python: its worker goes on with others, and the
//! call is cancelled when the client is gone. Without a decision the request is refused, unless the filter
//! says that it goes on.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Conn;
use super::filtering::{Asked, while_client_waits};
use super::message::{Downstream, Lost};
use super::whole_body::{Collected, Uncollected, Wanted, collect};
use crate::bridge::Failure;
use crate::clock::Nanos;
use crate::config::ir::{AuthorizationRetry, HttpOptions};
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
    let identity = conn.peers.principal.as_deref();
    let cached = filter.cache.as_ref();
    let cached = cached.map(|cache| {
        let digest = cache.digest(&conn.request, exchange.client, identity);
        (cache, digest)
    });
    let now = worker.now();
    let known = cached.and_then(|(cache, digest)| cache.get(&digest, now));
    let decided = match known {
        Some(decision) => {
            worker.stats().ext_authz_cached.increment();
            Ok(decision)
        }
        None => match body(conn, exchange, filter, http).await {
            Ok(body) => decide(conn, exchange, filter, cluster, body)
                .await
                .map(Arc::new)
                .inspect(|decision| {
                    if let Some((cache, digest)) = cached {
                        cache.put(digest, decision, worker.now());
                    }
                }),
            Err(Uncollected::Failed(Failure::TooLarge)) => {
                worker.stats().ext_authz_too_large.increment();
                return Asked::Answered(Reply::payload_too_large());
            }
            // There is no room for the body.
            Err(Uncollected::Failed(_)) => Err(Unknown::Failed),
            Err(Uncollected::Answered(reply)) => return Asked::Answered(reply),
            Err(Uncollected::ClientGone(lost)) => return Asked::ClientGone(lost),
        },
    };
    let stats = worker.stats();
    let counts = filter.counts.as_deref();
    match decided.as_deref() {
        Ok(Decision::Allowed(changes)) => {
            stats.ext_authz_ok.increment();
            if let Some(counts) = counts {
                counts.ok.increment();
            }
            allow(conn, exchange, changes, filter.clear_route_cache);
            Asked::Passed
        }
        Ok(Decision::Denied { answer, metadata }) => {
            stats.ext_authz_denied.increment();
            if let Some(counts) = counts {
                counts.denied.increment();
            }
            note(exchange, metadata);
            Asked::Answered(Reply::unauthorized(answer.clone()))
        }
        Err(Unknown::ClientGone(lost)) => Asked::ClientGone(*lost),
        Err(unknown) => {
            let timed_out = matches!(unknown, Unknown::TimedOut);
            stats.ext_authz_error.increment();
            if timed_out {
                stats.ext_authz_timeout.increment();
            }
            if let Some(counts) = counts {
                counts.error.increment();
                if timed_out {
                    counts.timeout.increment();
                }
            }
            if !filter.failure_mode_allow {
                return Asked::Answered(Reply::authorization_failed(filter.status_on_error));
            }
            stats.ext_authz_failure_mode_allowed.increment();
            if let Some(counts) = counts {
                counts.failure_mode_allowed.increment();
            }
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
    let record = exchange.live_record(&conn.request, &peers, worker.clock());
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
        record: &record,
    };
    let question = filter.question(&subject).ok_or(Unknown::Failed)?;
    let asked = Call {
        cluster,
        peers: &peers,
        head: &question.head,
        body: Bytes::clone(&question.body),
        deadline: worker
            .now()
            .after_ms(filter.timeout_ms)
            .min(exchange.call_deadline),
        max_answer: MAX_ANSWER,
    };
    let mut attempt = 0;
    loop {
        let mut calling = pin!(call(&worker, &asked));
        // The call has the deadline.
        let called =
            while_client_waits(conn, exchange, Nanos::NEVER, |cx| calling.as_mut().poll(cx)).await;
        let called = called.map_err(Unknown::ClientGone)?;
        match called.unwrap_or(Err(CallError::TimedOut)) {
            Ok(answer) => {
                if let Ok(decision) = filter.decision(&answer) {
                    return Ok(decision);
                }
            }
            Err(CallError::TimedOut) => return Err(Unknown::TimedOut),
            Err(CallError::Closing) => return Err(Unknown::ClientGone(Lost::Closed)),
            Err(_) => {}
        }
        let retry = filter.retry.filter(|retry| attempt < retry.attempts);
        let pause = retry.map(|retry| pause(&retry, attempt));
        let again = pause.map(|pause| Nanos(worker.now().0.saturating_add(pause)));
        let Some(again) = again.filter(|again| *again < asked.deadline) else {
            return Err(Unknown::Failed);
        };
        let waited = while_client_waits(conn, exchange, again, |_| Poll::<()>::Pending).await;
        waited.map_err(Unknown::ClientGone)?;
        worker.stats().ext_authz_retry.increment();
        attempt += 1;
    }
}

/// The pause behind an attempt: exponential, with full jitter, as in Envoy. Nanoseconds.
fn pause(retry: &AuthorizationRetry, attempt: u32) -> u64 {
    let factor = 1_u64.checked_shl(attempt).unwrap_or(u64::MAX);
    let longest = retry.base_interval_ms.saturating_mul(factor);
    let longest = longest.min(retry.max_interval_ms);
    fastrand::u64(0..=longest.saturating_mul(1_000_000))
}

/// Lets the request pass, as the service wants it.
fn allow<D>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    changes: &Changes,
    clears_route: bool,
) {
    changes.apply(&mut conn.request);
    if clears_route && !changes.leave_request() {
        exchange.is_route_cleared = true;
    }
    for edit in &changes.response {
        exchange.add_response_edit(edit.clone());
    }
    note(exchange, &changes.metadata);
}

fn note(exchange: &mut Exchange<'_>, metadata: &Map<String, Value>) {
    for (key, value) in metadata {
        exchange.note(NAMESPACE, key, value.clone());
    }
}
