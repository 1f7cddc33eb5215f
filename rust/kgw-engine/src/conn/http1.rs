//! HTTP/1.1 on a downstream connection: request after request, answered in order.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use kgw_h1::{Method, RequestError, TargetForm, strip_hop_by_hop_request};

use super::head::{self, Head};
use super::{Conn, Target, attempt, local};
use crate::clock::Nanos;
use crate::config::snapshot::Action;
use crate::filter::header_mutation::HeaderMutation;
use crate::pipeline::exchange_log::{Exchange, Trigger};
use crate::pipeline::reply::Reply;
use crate::pipeline::route_view::RouteView;
use crate::pipeline::{edge, redirect};
use crate::runtime::{Phase, Worker};
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

/// Serves requests until the connection ends; `first` is what was read already.
pub(crate) async fn serve(
    conn: &mut Conn,
    listener: &str,
    mut target: Target,
    mut first: Option<Head>,
) {
    let worker = Rc::clone(&conn.worker);
    loop {
        let head = if let Some(head) = first.take() {
            head
        } else {
            let local = conn.peers.local;
            let is_served = || !matches!(target.newer(&worker, listener, local), Newer::Gone);
            head::read(conn, &target.listener.http, is_served).await
        };
        let mut serves_still = true;
        match target.newer(&worker, listener, conn.peers.local) {
            Newer::Same => {}
            Newer::Changed(newer) => target = newer,
            // Whatever served this address is gone. The request in hand is still answered as it
            // would have been when the client sent it; the connection then ends.
            Newer::Gone => serves_still = false,
        }
        let next = match head {
            Head::Closed => return,
            Head::Complete(began) => exchange(conn, &target, began, serves_still).await,
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

/// Whether a newer generation routes a connection elsewhere.
pub(crate) enum Newer {
    Same,
    Changed(Target),
    Gone,
}

impl Target {
    /// Looks whether a newer generation routes connections to `local` elsewhere: an atomic load if
    /// there is none.
    fn newer(&self, worker: &Worker, listener: &str, local: SocketAddr) -> Newer {
        let snapshot = worker.snapshot();
        if snapshot.generation == self.generation {
            return Newer::Same;
        }
        Self::find(&snapshot, listener, local).map_or(Newer::Gone, Newer::Changed)
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
async fn exchange(conn: &mut Conn, target: &Target, began: Nanos, serves_still: bool) -> Next {
    let mut exchange = Exchange::new(conn, target, began);
    exchange.keep_alive = conn.request.keep_alive() && serves_still && !conn.is_draining();
    let options = &target.listener.http;

    if let Err(error) = prepare(conn, options) {
        let reply = match error {
            Prepared::Malformed(error) => {
                conn.worker.stats().downstream_rq_malformed.increment();
                Reply::malformed(error)
            }
            Prepared::Answered(reply) => reply,
        };
        return local::reply(conn, target, exchange, reply, &[]).await;
    }
    edge::state_origin(&mut conn.request, options, conn.peers.remote.ip());

    let found = target
        .routes
        .table
        .find(&RouteView::new(&conn.request))
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
        if let Err(reply) = filter.on_request(&mut conn.request, began) {
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
                let trigger = Trigger {
                    forward,
                    cluster,
                    response_headers,
                };
                return attempt::forward(conn, target, exchange, &trigger).await;
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

/// Why a request goes no further.
enum Prepared {
    Malformed(RequestError),
    Answered(Reply),
}

/// Makes the request one that can be routed and passed on.
fn prepare(conn: &mut Conn, options: &crate::config::ir::HttpOptions) -> Result<(), Prepared> {
    let request = &mut conn.request;
    if request.method_kind() == Method::Connect {
        return Err(Prepared::Answered(Reply {
            close: true,
            ..Reply::no_route()
        }));
    }
    if request.target_form() == TargetForm::Asterisk {
        return Err(Prepared::Answered(Reply::no_path()));
    }
    if let Some(protocol) = request.upgrade() {
        // `h2c` is not offered, so it is not taken up (RFC 9110 7.8); another protocol is refused.
        if !protocol.eq_ignore_ascii_case(b"h2c") {
            return Err(Prepared::Answered(Reply::upgrade_refused()));
        }
    }
    if options.normalize_path {
        request
            .normalize_path(options.merge_slashes)
            .map_err(Prepared::Malformed)?;
    }
    strip_hop_by_hop_request(request, false);
    Ok(())
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
