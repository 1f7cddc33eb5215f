//! Filters that are tried out only: what they would do is counted and noted, and not done.
//!
//! A policy in shadow is asked as any other, so what it costs is seen as well: tokens of buckets are
//! taken, services are called. What it does to the message is undone.

use std::rc::Rc;

use serde_json::Value;

use super::filtering::Asked;
use super::message::Downstream;
use super::{Conn, request_filters};
use crate::config::ir::HttpOptions;
use crate::filter::{RequestFilter, Respond, ResponseView, Slot};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;

/// Under which name access logs have what policies in shadow would have done:
/// `%DYNAMIC_METADATA(kgw.shadow:namespace/name)%`.
const NAMESPACE: &str = "kgw.shadow";

/// Asks a filter about a request that is not to change.
pub(super) async fn on_request<'x, D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'x>,
    slot: &'x Slot<RequestFilter>,
    policy: &str,
    http: &HttpOptions,
) -> Asked {
    let (request, flags) = (conn.request.clone(), exchange.flags);
    let is_route_cleared = exchange.is_route_cleared;
    let edits = exchange.response_edits().len();
    let asked = request_filters::wait(conn, exchange, &slot.filter, http, false).await;
    *conn.request = request;
    exchange.flags = flags;
    exchange.is_route_cleared = is_route_cleared;
    exchange.truncate_response_edits(edits);
    match asked {
        Asked::Passed => Asked::Passed,
        Asked::Answered(reply) => {
            conn.worker.stats().shadow_denied.increment();
            note(exchange, policy, slot.kind, &reply);
            Asked::Passed
        }
        gone @ Asked::ClientGone(_) => gone,
    }
}

/// Asks a filter about an answer that is not to change.
pub(super) fn on_response(
    view: &mut ResponseView<'_, '_>,
    filter: &dyn Respond,
    (policy, kind): (&str, &'static str),
) {
    let worker = Rc::clone(view.worker);
    let (mut status, mut headers) = (*view.status, view.headers.clone());
    let mut copy = ResponseView {
        request: view.request,
        exchange: &mut *view.exchange,
        peers: view.peers,
        worker: view.worker,
        now: view.now,
        status: &mut status,
        headers: &mut headers,
        has_body: view.has_body,
    };
    match filter.on_response(&mut copy) {
        // What it would make of the body is not known.
        Ok(_) => {}
        Err(reply) => {
            worker.stats().shadow_denied.increment();
            note(view.exchange, policy, kind, &reply);
        }
    }
}

/// Notes an answer that was not given.
fn note(exchange: &mut Exchange<'_>, policy: &str, kind: &str, reply: &Reply) {
    let what = format!("{} {kind} {}", reply.status, reply.details);
    exchange.note(NAMESPACE, policy, Value::String(what));
}
