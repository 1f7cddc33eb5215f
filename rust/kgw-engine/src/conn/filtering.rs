//! Asking the filters that are waited for, those in Python, on the way of an exchange.
//!
//! The connection's task waits; its worker goes on with others. It stops waiting when the filter's time
//! is over or the client is gone, and the filter is then cancelled. What happens without a decision is
//! the filter's `on_error`, with flag `PFE` either way.
//!
//! Response filters see every answer of their route, the upstream's and the proxy's own, the way back:
//! the last filter of the chain first. An answer that one of them makes is not shown to the others.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde_json::{Map, Value};

use super::Conn;
use super::message::{Downstream, Lost};
use crate::bridge::{About, Edits, Failure, Message, RequestHead, ResponseHead, Verdict, Waiting};
use crate::clock::Nanos;
use crate::config::ir::OnError;
use crate::filter::python::PythonFilter;
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::runtime::Phase;
use crate::telemetry::flags::ResponseFlag;
use crate::upstream::acquire::poll_client_gone;

/// The namespace of what filters note: `%DYNAMIC_METADATA(kgw.python:KEY)%`.
const NAMESPACE: &str = "kgw.python";

/// What came of asking.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The message goes on.
    Passed,
    /// The client gets this instead.
    Answered(Reply),
    /// Nobody waits for an answer.
    ClientGone(Lost),
}

/// How far the response filters of an exchange are.
#[derive(Debug, Default)]
pub(crate) struct ResponseFilters {
    /// The place of the next one.
    next: usize,
    /// The one that is being asked, and until when.
    asked: Option<(Waiting, Nanos)>,
}

/// What filters leave with an exchange. Boxed, since most exchanges have none.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    pub(crate) metadata: Vec<(String, String)>,
    responses: ResponseFilters,
    /// The answer has been shown to the filters that it is for.
    is_answer_seen: bool,
}

impl Filtered {
    /// Whether a filter is looking at the answer still.
    pub(crate) fn is_being_asked(&self) -> bool {
        self.responses.asked.is_some()
    }

    /// What filters noted, in the form of access logs: under one namespace.
    pub(crate) fn log_metadata(&self) -> Option<Map<String, Value>> {
        if self.metadata.is_empty() {
            return None;
        }
        let noted = self.metadata.iter();
        let noted = noted.map(|(key, value)| (key.clone(), Value::from(value.as_str())));
        let noted = Value::Object(noted.collect());
        Some(Map::from_iter([(NAMESPACE.to_owned(), noted)]))
    }
}

/// Asks a filter about the request.
pub(crate) async fn on_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &Arc<PythonFilter>,
) -> Asked {
    let worker = Rc::clone(&conn.worker);
    if !filter.is_for(&conn.request) {
        worker.stats().python_filter_skipped.increment();
        return Asked::Passed;
    }
    let message = Message::RequestHead(request_head(conn, exchange, filter));
    let deadline = worker.now().after_ms(filter.timeout_ms);
    let verdict = match ask(conn, filter, message) {
        Err(failure) => Verdict::Failed(failure),
        Ok(mut waiting) => {
            let verdict = poll_fn(|cx| {
                conn.registration.update(cx);
                if let Poll::Ready(verdict) = waiting.poll(cx) {
                    return Poll::Ready(Ok(verdict));
                }
                let complete = exchange.request_complete;
                if let Some(lost) = poll_client_gone(&mut conn.down, complete, cx) {
                    return Poll::Ready(Err(lost));
                }
                if worker.phase() == Phase::Closing {
                    return Poll::Ready(Err(Lost::Closed));
                }
                let late = conn.timer.poll(cx, deadline);
                late.map(|()| Ok(Verdict::Failed(Failure::Timeout)))
            });
            match verdict.await {
                Ok(verdict) => verdict,
                Err(lost) => {
                    worker.stats().python_filter_abandoned.increment();
                    return Asked::ClientGone(lost);
                }
            }
        }
    };
    match settle(conn, exchange, filter, verdict) {
        Ok(Some(edits)) => {
            edits.apply_to_request(&mut conn.request);
            note_metadata(exchange, *edits);
            Asked::Passed
        }
        Ok(None) => Asked::Passed,
        Err(reply) => Asked::Answered(reply),
    }
}

/// Shows the proxy's own answer, whose fields are in `conn.response`, to the response filters.
pub(crate) async fn on_reply<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
) -> Asked {
    let worker = Rc::clone(&conn.worker);
    poll_fn(|cx| {
        conn.registration.update(cx);
        if let Poll::Ready(replaced) = poll_response(cx, conn, exchange, &mut reply.status) {
            return Poll::Ready(replaced.map_or(Asked::Passed, Asked::Answered));
        }
        let complete = exchange.request_complete;
        if let Some(lost) = poll_client_gone(&mut conn.down, complete, cx) {
            return Poll::Ready(Asked::ClientGone(lost));
        }
        if worker.phase() == Phase::Closing {
            return Poll::Ready(Asked::ClientGone(Lost::Closed));
        }
        Poll::Pending
    })
    .await
}

/// Shows the answer in `conn.response` to the response filters of the route, one after the other. Ready
/// once all have seen it, with the answer that one of them made instead.
pub(crate) fn poll_response<D>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    status: &mut u16,
) -> Poll<Option<Reply>> {
    let Some(route) = exchange.route else {
        return Poll::Ready(None);
    };
    let mut filtered = exchange.filtered.take().unwrap_or_default();
    let responses = &mut filtered.responses;
    let outcome = loop {
        let Some(filter) = route.response_filters.get(responses.next) else {
            break Poll::Ready(None);
        };
        let verdict = if let Some((waiting, deadline)) = &mut responses.asked {
            match waiting.poll(cx) {
                Poll::Ready(verdict) => verdict,
                Poll::Pending => match conn.timer.poll(cx, *deadline) {
                    Poll::Ready(()) => Verdict::Failed(Failure::Timeout),
                    Poll::Pending => break Poll::Pending,
                },
            }
        } else if filter.is_for(&conn.request) {
            let head = ResponseHead::new(*status, conn.response.headers());
            let request = request_head(conn, exchange, filter);
            let message = Message::ResponseHead(request, Box::new(head));
            match ask(conn, filter, message) {
                Ok(waiting) => {
                    let deadline = conn.worker.now().after_ms(filter.timeout_ms);
                    responses.asked = Some((waiting, deadline));
                    continue;
                }
                Err(failure) => Verdict::Failed(failure),
            }
        } else {
            conn.worker.stats().python_filter_skipped.increment();
            responses.next += 1;
            continue;
        };
        responses.asked = None;
        responses.next += 1;
        match settle(conn, exchange, filter, verdict) {
            Ok(Some(edits)) => edits.apply_to_response(status, conn.response.headers_mut()),
            Ok(None) => {}
            Err(reply) => break Poll::Ready(Some(reply)),
        }
    };
    filtered.is_answer_seen |= outcome.is_ready();
    exchange.filtered = Some(filtered);
    outcome
}

impl Exchange<'_> {
    /// Whether there are filters that have to see the answer before the client does.
    pub(crate) fn awaits_response_filters(&self) -> bool {
        self.route
            .is_some_and(|route| !route.response_filters.is_empty())
            && !self
                .filtered
                .as_ref()
                .is_some_and(|filtered| filtered.is_answer_seen)
    }
}

fn ask<D>(conn: &Conn<D>, filter: &PythonFilter, message: Message) -> Result<Waiting, Failure> {
    conn.worker.stats().python_filter_total.increment();
    let waiting = filter.bridge.ask(filter.index, message)?;
    conn.worker.wake_soon(&filter.bridge);
    Ok(waiting)
}

fn request_head<D>(
    conn: &Conn<D>,
    exchange: &Exchange<'_>,
    filter: &PythonFilter,
) -> Box<RequestHead> {
    let filtered = exchange.filtered.as_ref();
    let about = About {
        client: exchange.client,
        peer: conn.peers.remote,
        secure: conn.peers.is_secure,
        principal: conn.peers.principal.clone(),
        route: Arc::clone(&filter.route),
        metadata: filtered.map_or_else(Vec::new, |filtered| filtered.metadata.clone()),
    };
    Box::new(RequestHead::new(&conn.request, about))
}

/// Counts a verdict. The edits if the message goes on, else what the client gets instead.
fn settle<D>(
    conn: &Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &PythonFilter,
    verdict: Verdict,
) -> Result<Option<Box<Edits>>, Reply> {
    let stats = conn.worker.stats();
    let failure = match verdict {
        Verdict::Continue(edits) => return Ok(edits),
        Verdict::Respond(answer) => {
            stats.python_filter_responded.increment();
            return Err(Reply::by_filter(&filter.name, *answer));
        }
        Verdict::Failed(failure) => failure,
    };
    match failure {
        Failure::Exception | Failure::Invalid => stats.python_filter_error.increment(),
        Failure::Timeout => stats.python_filter_timeout.increment(),
        Failure::Overflow => stats.python_filter_overflow.increment(),
        Failure::Closed => stats.python_filter_closed.increment(),
    }
    exchange.flags.set(ResponseFlag::PythonFilterError);
    match filter.on_error {
        OnError::Allow => {
            stats.python_filter_failure_allowed.increment();
            Ok(None)
        }
        OnError::Deny => Err(Reply::filter_failed(&filter.name, failure)),
    }
}

fn note_metadata(exchange: &mut Exchange<'_>, edits: Edits) {
    if edits.metadata.is_empty() {
        return;
    }
    let filtered = exchange.filtered.get_or_insert_default();
    for (key, value) in edits.metadata {
        crate::bridge::note(&mut filtered.metadata, key, value);
    }
}
