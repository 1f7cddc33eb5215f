//! HTTP/1.1 on a downstream connection: request after request, answered in order.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use kgw_h1::{Method, PathOutcome, RequestError, TargetForm, strip_hop_by_hop_request};

use super::head::{self, Head};
use super::{Addressed, Conn, Target, attempt, local, waypoint};
use crate::clock::Nanos;
use crate::config::snapshot::Action;
use crate::filter::header_mutation::HeaderMutation;
use crate::pipeline::exchange_log::{Dispatch, Exchange};
use crate::pipeline::reply::Reply;
use crate::pipeline::route_view::RouteView;
use crate::pipeline::{edge, redirect};
use crate::runtime::{Phase, Pressure};
use crate::telemetry::flags::ResponseFlag;

/// What becomes of the connection after an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// It carries the next request.
    KeepAlive,
    /// It is closed once the peer has had the chance to read the answer.
    Close,
    /// It is closed at once: the answer was cut short, or nobody is there to read one.
    Abort,
}

/// How much a peer may still send after the last answer, before the connection is reset on it. Bytes.
const LINGER_BYTES: usize = 64 * 1024;

/// How long a peer may still send after the last answer. Milliseconds.
const LINGER_MS: u64 = 1_000;

/// Serves requests until the connection ends.
pub(crate) async fn serve(conn: &mut Conn, listener: &str, mut target: Target) {
    let worker = Rc::clone(&conn.worker);
    loop {
        let head = head::read(conn, listener, &mut target).await;
        if matches!(head, Head::Complete(_)) && conn.peers.addressed == Addressed::Nothing {
            // Envoy closes such connections; the host of a request can say what their PROXY header
            // could not.
            let Some(address) = waypoint::named_address(&conn.request, &target.listener) else {
                worker.stats().proxy_header_no_destination.increment();
                return;
            };
            conn.peers.local = address;
            conn.peers.addressed = Addressed::ByHost;
            match Target::find(&worker.snapshot(), listener, &conn.peers) {
                Some(found) => target = found,
                None => return,
            }
        }
        // A request whose service went away is still answered as it would have been when the client
        // sent it; the connection then ends.
        let served = target.refresh(&worker, listener, &conn.peers);
        let next = match head {
            Head::Closed => return,
            Head::Complete(began) => exchange(conn, &target, began, served).await,
            Head::Abandoned(began) => {
                let mut exchange = Exchange::without_request(conn, &target, began);
                exchange.client_gone(0);
                exchange.finish(conn, &target);
                return;
            }
            Head::Malformed(began, error) => refuse(conn, &target, began, &error).await,
            Head::TimedOut(began) => {
                let exchange = Exchange::without_request(conn, &target, began);
                local::reply(conn, &target, exchange, Reply::head_timed_out(), &[]).await
            }
        };
        match next {
            Next::KeepAlive => {}
            Next::Close => return linger(conn).await,
            Next::Abort => return,
        }
    }
}

async fn refuse(conn: &mut Conn, target: &Target, began: Nanos, error: &RequestError) -> Next {
    conn.worker.stats().downstream_rq_malformed.increment();
    // A request that only lacks a host, or has a path that cannot be normalised, can be shown.
    let exchange = if error.flag_protocol_error() {
        Exchange::without_request(conn, target, began)
    } else {
        Exchange::new(conn, target, began)
    };
    local::reply(conn, target, exchange, Reply::malformed(*error), &[]).await
}

/// Answers the request in `conn.request`.
async fn exchange(conn: &mut Conn, target: &Target, began: Nanos, served: bool) -> Next {
    let mut exchange = Exchange::new(conn, target, began);
    let now = conn.worker.now();
    if conn.request.framing().is_empty() {
        exchange.request_received(now);
    }
    exchange.keep_alive = conn.request.keep_alive() && served && !conn.is_draining();
    let options = &target.listener.http;

    if conn.worker.pressure() == Pressure::Overloaded {
        conn.worker.stats().downstream_rq_overloaded.increment();
        return local::reply(conn, target, exchange, Reply::overloaded(), &[]).await;
    }
    let refusal = refusal(conn, target);
    strip_hop_by_hop_request(&mut conn.request, false);
    let trusted = &target.listener.trusted_proxies;
    let peer = conn.peers.remote.ip();
    if let Err(error) = edge::state_origin(&mut conn.request, options, trusted, peer, false) {
        conn.worker.stats().downstream_rq_malformed.increment();
        return local::reply(conn, target, exchange, Reply::malformed(error), &[]).await;
    }
    if let Some(reply) = refusal {
        return local::reply(conn, target, exchange, reply, &[]).await;
    }
    match conn.request.canonicalize_path(edge::path_options(options)) {
        Ok(PathOutcome::Normal) => {}
        Ok(PathOutcome::Redirect) => {
            let reply = Reply::redirect_to_path(conn.request.path().to_vec());
            return local::reply(conn, target, exchange, reply, &[]).await;
        }
        Err(error) => {
            conn.worker.stats().downstream_rq_malformed.increment();
            return local::reply(conn, target, exchange, Reply::malformed(error), &[]).await;
        }
    }

    let found = target
        .routes
        .as_deref()
        .and_then(|routes| routes.table.find(&RouteView::new(&conn.request)))
        .and_then(|found| found.value.as_ref());
    let Some(route) = found else {
        conn.worker.stats().no_route.increment();
        return local::reply(conn, target, exchange, Reply::no_route(), &[]).await;
    };
    exchange.route = Some(route);
    let response_headers: &[&[HeaderMutation]] = &[&route.response_headers];

    // The cluster is logged even for requests that a filter answers, so it is picked first.
    let backend = match &route.action {
        Action::Forward(forward) => forward.pick(),
        Action::Redirect(_) | Action::Direct { .. } => None,
    };
    exchange.cluster = backend.and_then(|backend| backend.cluster.as_deref());

    for filter in &route.request_filters {
        if let Err(reply) = filter.on_request(&mut conn.request, now) {
            if reply.flag == Some(ResponseFlag::RateLimited) {
                conn.worker.stats().rate_limited.increment();
            }
            return local::reply(conn, target, exchange, reply, response_headers).await;
        }
    }
    let reply = match (&route.action, backend) {
        (Action::Forward(forward), Some(backend)) => match &backend.cluster {
            Some(cluster) => {
                for mutation in &backend.request_headers {
                    mutation.apply(conn.request.headers_mut());
                }
                let response_headers: &[&[HeaderMutation]] =
                    &[&backend.response_headers, &route.response_headers];
                let dispatch = Dispatch {
                    forward,
                    cluster,
                    response_headers,
                };
                return attempt::forward(conn, target, exchange, &dispatch).await;
            }
            None => Reply::no_backend(),
        },
        (Action::Forward(_), None) => Reply::no_backend(),
        (Action::Redirect(redirect), _) => {
            let port = conn.peers.local.port();
            let location = redirect::location(redirect, &conn.request, port);
            Reply::redirect(redirect.status, location)
        }
        (Action::Direct { status, body }, _) => Reply::direct(*status, body.clone()),
    };
    local::reply(conn, target, exchange, reply, response_headers).await
}

/// What answers a request that is none for a route: no path, a switch of protocols, a host that the
/// connection does not lead to.
fn refusal(conn: &Conn, target: &Target) -> Option<Reply> {
    let request = &conn.request;
    if request.method_kind() == Method::Connect {
        let reply = Reply::no_route();
        return Some(Reply {
            close: true,
            ..reply
        });
    }
    if request.target_form() == TargetForm::Asterisk {
        return Some(Reply::no_path());
    }
    // `h2c` is not offered, so it is not taken up (RFC 9110 7.8); another protocol is refused.
    if request
        .upgrade()
        .is_some_and(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))
    {
        return Some(Reply::upgrade_refused());
    }
    if conn.peers.addressed == Addressed::ByHost
        && waypoint::named_address(request, &target.listener) != Some(conn.peers.local)
    {
        return Some(Reply::misdirected());
    }
    None
}

/// Tells the peer that nothing more comes, and waits for it to be done: closing with bytes unread
/// would reset the connection and could take the answer with it (RFC 9112 9.6).
async fn linger(conn: &mut Conn) {
    let deadline = conn.worker.now().after_ms(LINGER_MS);
    let mut discarded = 0;
    let mut shut = false;
    let worker = Rc::clone(&conn.worker);
    poll_fn(|cx| {
        conn.registration.update(cx);
        if !shut {
            match conn.down.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        loop {
            let waiting = conn.down.input().len();
            discarded += waiting;
            conn.down.consume(waiting);
            if conn.down.eof || discarded > LINGER_BYTES || worker.phase() == Phase::Closing {
                return Poll::Ready(());
            }
            match conn.down.poll_fill(cx, LINGER_BYTES) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return conn.timer.poll(cx, deadline),
            }
        }
    })
    .await;
}
