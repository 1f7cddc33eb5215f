//! The filters of a request, one after the other.

use super::filtering::{self, Asked};
use super::message::Downstream;
use super::whole_body::{Collected, Uncollected, Wanted, collect};
use super::{
    Conn, authorizing, faulting, limiting, passwords, processing, queueing, shadowing, verifying,
};
use crate::bridge::Failure;
use crate::config::ir::HttpOptions;
use crate::filter::jwt::{Decision, Waited};
use crate::filter::{Decide, RequestFilter, RequestView, Slot, Step};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;

/// What the filters of a request may know of it.
pub(super) fn view<'v, 'x, D>(
    conn: &'v mut Conn<D>,
    exchange: &'v mut Exchange<'x>,
) -> RequestView<'v, 'x> {
    let is_tunnel = super::whole_body::is_tunnel(conn);
    RequestView {
        now: conn.worker.now(),
        request: &mut conn.request,
        exchange,
        peers: &conn.peers,
        worker: &conn.worker,
        is_tunnel,
    }
}

/// Asks a filter that decides at once. None if it waits for something, or for the body.
pub(super) fn decide<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &RequestFilter,
) -> Option<Result<Option<Step>, Reply>> {
    match filter {
        RequestFilter::Native(native) => {
            let decided = native.on_request(&mut view(conn, exchange));
            Some(decided.map(|step| match step {
                Step::Pass => None,
                step => Some(step),
            }))
        }
        RequestFilter::LocalRateLimit(limit) if limit.queues() => None,
        RequestFilter::LocalRateLimit(limit) => {
            let counted = limit.on_request(&mut view(conn, exchange));
            Some(counted.map(|_| None))
        }
        RequestFilter::Headers(_) => {
            let now = conn.worker.now();
            let key = exchange.rate_limit_key();
            Some(filter.on_head(&mut conn.request, now, key).map(|()| None))
        }
        RequestFilter::BasicAuth(auth) => {
            passwords::decide(conn, auth).map(|decided| decided.map(|()| None))
        }
        RequestFilter::Cors(_) => Some(Ok(None)),
        RequestFilter::Jwt(jwt) => match jwt.decide(&mut view(conn, exchange), Waited::default()) {
            Decision::Passed => Some(Ok(None)),
            Decision::Refused(reply) => Some(Err(reply)),
            Decision::Waits(..) => None,
        },
        RequestFilter::Python(_)
        | RequestFilter::ExtAuthz(_)
        | RequestFilter::ExtProc(_)
        | RequestFilter::Fault(_)
        | RequestFilter::GlobalRateLimit(_) => None,
    }
}

/// Asks a filter, and waits for what it waits for. `is_enforced` says that it may change the body.
pub(super) async fn wait<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &RequestFilter,
    http: &HttpOptions,
    is_enforced: bool,
) -> Asked {
    match filter {
        RequestFilter::Python(filter) => filtering::on_request(conn, exchange, filter, http).await,
        RequestFilter::Fault(filter) => faulting::on_request(conn, exchange, filter).await,
        RequestFilter::ExtAuthz(filter) => {
            authorizing::on_request(conn, exchange, filter, http).await
        }
        RequestFilter::ExtProc(filter) => {
            processing::on_request(conn, exchange, filter, http, is_enforced).await
        }
        RequestFilter::LocalRateLimit(limit) => {
            queueing::on_request(conn, exchange, limit, is_enforced).await
        }
        RequestFilter::GlobalRateLimit(filter) => {
            limiting::on_request(conn, exchange, filter).await
        }
        RequestFilter::Jwt(filter) => verifying::on_request(conn, exchange, filter).await,
        RequestFilter::BasicAuth(auth) => passwords::on_request(conn, exchange, auth).await,
        RequestFilter::Native(native) => match native.on_request(&mut view(conn, exchange)) {
            Ok(step) => on_body(conn, exchange, &**native, step, http, is_enforced).await,
            Err(reply) => Asked::Answered(reply),
        },
        filter => match decide(conn, exchange, filter) {
            Some(Err(reply)) => Asked::Answered(reply),
            Some(Ok(_)) | None => Asked::Passed,
        },
    }
}

/// Asks the filters whose place is behind the router.
pub(super) async fn after_router<'x, D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'x>,
    slots: &'x [Slot<RequestFilter>],
    http: &HttpOptions,
) -> Asked {
    for slot in slots.iter().filter(|slot| slot.filter.is_after_router()) {
        let asked = match &slot.shadow {
            Some(policy) => shadowing::on_request(conn, exchange, slot, policy, http).await,
            None => wait(conn, exchange, &slot.filter, http, true).await,
        };
        match asked {
            Asked::Passed => {}
            asked => return asked,
        }
    }
    // The router has chosen already.
    exchange.is_route_cleared = false;
    Asked::Passed
}

/// Does with a request's body as a filter wants it.
pub(super) async fn on_body<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &dyn Decide,
    step: Step,
    http: &HttpOptions,
    is_enforced: bool,
) -> Asked {
    let most = match step {
        // The pace is that of answers.
        Step::Pass | Step::Pace(_) => return Asked::Passed,
        Step::Stage(stage) => {
            if is_enforced && super::whole_body::has_request_body(conn, exchange) {
                exchange.add_request_stage(stage);
            }
            return Asked::Passed;
        }
        Step::Whole(most) => most,
    };
    let wanted = Wanted {
        most,
        held: conn.worker.body_room().hold(),
        beginning_will_do: false,
    };
    let collected = match collect(conn, exchange, wanted, http).await {
        Ok(collected) => collected,
        Err(Uncollected::Failed(Failure::TooLarge)) => {
            return Asked::Answered(Reply::payload_too_large());
        }
        // There is no room for the body.
        Err(Uncollected::Failed(_)) => return Asked::Answered(Reply::overloaded()),
        Err(Uncollected::Answered(reply)) => return Asked::Answered(reply),
        Err(Uncollected::ClientGone(lost)) => return Asked::ClientGone(lost),
    };
    let Collected { bytes, .. } = collected.unwrap_or_default();
    match filter.on_body(&mut view(conn, exchange), bytes) {
        Ok(Some(body)) if is_enforced => exchange.replace_request_body(&body),
        Ok(_) => {}
        Err(reply) => return Asked::Answered(reply),
    }
    Asked::Passed
}
