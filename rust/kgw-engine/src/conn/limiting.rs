//! Asking whoever keeps a global rate limit.
//!
//! The connection's task waits, as for services that authorize: its worker goes on with others, and what
//! was asked is dropped when the client is gone. Without a decision the request goes on, unless the filter
//! says that it does not, or the proxy counts by itself meanwhile.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;

use bytes::Bytes;
use kgw_h1::Headers;
use kgw_limit::Tick;

use super::filtering::{Asked, while_client_waits};
use super::message::{Downstream, Lost};
use super::{Conn, Peers};
use crate::bridge::Answer;
use crate::clock::{Nanos, Timer};
use crate::config::ir::RateLimitRetry;
use crate::filter::global_rate_limit::descriptor::Subject;
use crate::filter::global_rate_limit::redis::Redis;
use crate::filter::global_rate_limit::service::{self, Service};
use crate::filter::global_rate_limit::{
    Counter, Decision, GlobalRateLimit, NAMESPACE, Question, Status,
};
use crate::filter::rate_limit_headers::{Quota, x_rate_limit};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::runtime::Worker;
use crate::upstream::call::{Call, CallError, call};

/// Status of the answer to a request that is over a limit.
const OVER_LIMIT: u16 = 429;

/// Why there is no decision.
#[derive(Clone, Copy, Debug)]
enum Unknown {
    /// Who is asked was not reached, or did not answer as it should.
    Failed,
    TimedOut,
    /// The engine closes.
    Closing,
}

/// Asks whether a request is within its limits.
pub(super) async fn on_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &GlobalRateLimit,
) -> Asked {
    let worker = Rc::clone(&conn.worker);
    let peers = Rc::clone(&conn.peers);
    let subject = Subject {
        request: &conn.request,
        client: exchange.remote(conn),
        is_secure: peers.is_secure,
        principal: peers.principal.as_deref(),
        noted: exchange.noted_by_all(),
    };
    let Some(question) = filter.question(&subject) else {
        return Asked::Passed;
    };
    let now = worker.now();
    let deadline = now.after_ms(filter.timeout_ms);
    let mut asking: Pin<Box<dyn Future<Output = Result<Decision, Unknown>>>> = match &filter.counter
    {
        Counter::Nobody => {
            worker.stats().ratelimit_error.increment();
            return Asked::Answered(Reply::limit_unknown());
        }
        Counter::Service(service) => {
            let deadline = deadline.min(exchange.call_deadline);
            let asked = ask_service(&worker, &peers, service, &question, deadline);
            Box::pin(asked)
        }
        Counter::Redis(redis) => Box::pin(ask_redis(&worker, redis, &question)),
    };
    let asked = while_client_waits(conn, exchange, deadline, |cx| asking.as_mut().poll(cx)).await;
    drop(asking);
    let decided = match asked {
        Ok(decided) => decided.unwrap_or(Err(Unknown::TimedOut)),
        Err(lost) => return Asked::ClientGone(lost),
    };
    let stats = worker.stats();
    let decided = match decided {
        Err(Unknown::Closing) => return Asked::ClientGone(Lost::Closed),
        Err(unknown) => {
            stats.ratelimit_error.increment();
            if matches!(unknown, Unknown::TimedOut) {
                stats.ratelimit_timeout.increment();
            }
            let locally = match &filter.counter {
                Counter::Redis(redis) => {
                    let now = Tick::from_nanos(worker.now().0);
                    redis.locally(&redis.asked(&question), now)
                }
                Counter::Service(_) | Counter::Nobody => None,
            };
            if locally.is_some() {
                stats.ratelimit_local_fallback.increment();
            }
            locally
        }
        Ok(decision) => Some(decision),
    };
    match decided {
        Some(decision) if decision.is_over_limit => {
            stats.ratelimit_over_limit.increment();
            Asked::Answered(over_limit(exchange, filter, decision))
        }
        Some(decision) => {
            stats.ratelimit_ok.increment();
            allow(conn, exchange, filter, decision);
            Asked::Passed
        }
        None if filter.failure_mode_deny => Asked::Answered(Reply::limit_unknown()),
        None => {
            stats.ratelimit_failure_mode_allowed.increment();
            Asked::Passed
        }
    }
}

/// Makes the call, and makes it again if it fails and is to be made again.
async fn ask_service(
    worker: &Rc<Worker>,
    peers: &Peers,
    service: &Service,
    question: &Question<'_>,
    deadline: Nanos,
) -> Result<Decision, Unknown> {
    let mut timer = Timer::new(worker.clock().clone());
    let mut made = 0;
    loop {
        let now = worker.clock().now();
        let of_call = now.after_ms(service.request_timeout_ms).min(deadline);
        let timeout_ms = of_call.since(now).div_ceil(1_000_000).max(1);
        let message = service
            .message(question, timeout_ms)
            .ok_or(Unknown::Failed)?;
        let asked = Call {
            cluster: &service.cluster,
            peers,
            head: &message.head,
            body: Bytes::clone(&message.body),
            deadline: of_call,
            max_answer: service::MAX_ANSWER,
        };
        let failed = match pin!(call(worker, &asked)).await {
            Ok(answer) => match service::decision(&answer) {
                Ok(decision) => return Ok(decision),
                Err(_) if service::is_unavailable(&answer) => Unknown::Failed,
                Err(_) => return Err(Unknown::Failed),
            },
            Err(CallError::Closing) => return Err(Unknown::Closing),
            Err(CallError::TimedOut) => Unknown::TimedOut,
            Err(CallError::TooLarge | CallError::Protocol) => return Err(Unknown::Failed),
            Err(
                CallError::NoEndpoint
                | CallError::NotConnected
                | CallError::Overflow
                | CallError::Lost,
            ) => Unknown::Failed,
        };
        let retry = service.retry.filter(|retry| made < retry.attempts);
        let Some(retry) = retry else {
            return Err(failed);
        };
        let again = worker.clock().now().after_ms(wait_ms(retry, made));
        if again >= deadline {
            return Err(failed);
        }
        poll_fn(|cx| timer.poll(cx, again)).await;
        made += 1;
    }
}

/// How long to wait before a call is made again that was made again so often before: fully jittered, as
/// Envoy's back-off is. Milliseconds, at least 1.
fn wait_ms(retry: RateLimitRetry, made: u32) -> u64 {
    let most = retry
        .base_interval_ms
        .saturating_mul((2_u64 << made.min(32)) - 1)
        .min(retry.max_interval_ms);
    fastrand::u64(0..=most).max(1)
}

/// Takes from the buckets.
async fn ask_redis(
    worker: &Rc<Worker>,
    redis: &Redis,
    question: &Question<'_>,
) -> Result<Decision, Unknown> {
    let asked = redis.asked(question);
    if asked.wanted.is_empty() {
        return Ok(Decision::default());
    }
    let taken = redis.server.take(worker, &asked.wanted).await;
    taken
        .map(|taken| asked.decision(&taken))
        .map_err(|_| Unknown::Failed)
}

/// Lets the request pass, as who keeps the limit wants it.
fn allow<D>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &GlobalRateLimit,
    decision: Decision,
) {
    for edit in &decision.request {
        edit.apply(conn.request.headers_mut());
    }
    for edit in decision.response_edits() {
        exchange.add_response_edit(edit);
    }
    tell(exchange, filter, &decision.statuses);
    note(exchange, decision);
}

/// What a client gets that is over a limit.
fn over_limit(exchange: &mut Exchange<'_>, filter: &GlobalRateLimit, decision: Decision) -> Reply {
    tell(exchange, filter, &decision.statuses);
    let mut headers = Headers::new();
    headers.append(b"x-envoy-ratelimited", b"true");
    if let Some(seconds) = decision.retry_after {
        let mut number = itoa::Buffer::new();
        headers.append(b"retry-after", number.format(seconds).as_bytes());
    }
    for (name, value) in &decision.response {
        headers.append(name, value);
    }
    let answer = Answer {
        status: OVER_LIMIT,
        headers,
        body: decision.body.clone(),
    };
    note(exchange, decision);
    Reply::over_limit(answer)
}

/// Lets the answer say how far limits are used: what is left of the one of which the least is left.
fn tell(exchange: &mut Exchange<'_>, filter: &GlobalRateLimit, statuses: &[Status]) {
    if !filter.x_ratelimit_headers {
        return;
    }
    let quotas: Vec<Quota<'_>> = statuses.iter().map(Status::quota).collect();
    let Some(tightest) = quotas.iter().min_by_key(|quota| quota.remaining) else {
        return;
    };
    // Envoy: a limit whose window is not known is none to tell of.
    let policies: Vec<Quota<'_>> = quotas
        .iter()
        .filter(|quota| quota.window.is_some())
        .copied()
        .collect();
    for edit in x_rate_limit(tightest, &policies) {
        exchange.add_response_edit(edit);
    }
}

fn note(exchange: &mut Exchange<'_>, decision: Decision) {
    for (key, value) in decision.metadata {
        exchange.note(NAMESPACE, key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound() {
        let retry = RateLimitRetry {
            attempts: 9,
            base_interval_ms: 10,
            max_interval_ms: 50,
        };
        for (made, most) in [(0, 10), (1, 30), (2, 50), (40, 50)] {
            for _ in 0..50 {
                assert!((1..=most).contains(&wait_ms(retry, made)), "{made}");
            }
        }
    }
}
