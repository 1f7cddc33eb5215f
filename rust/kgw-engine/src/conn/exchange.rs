//! One exchange, from a request's head to the end of its answer.

use kgw_h1::{Method, PathOutcome, RequestError, TargetForm, Version, strip_hop_by_hop_request};

use super::filtering::Asked;
use super::message::Downstream;
use super::named_host;
use super::{
    Addressed, Conn, Target, attempt, local, mirror, request_filters, shadowing, waypoint,
};
use crate::clock::Nanos;
use crate::config::ir::Redirect;
use crate::config::snapshot::{Action, Backend, Cluster, OwnFilters, Route};
use crate::filter::cors::Cors;
use crate::filter::grpc_web::GrpcWeb;
use crate::filter::header_mutation::HeaderMutation;
use crate::filter::{RequestFilter, Slot};
use crate::pipeline::exchange_log::{Dispatch, Exchange};
use crate::pipeline::reply::Reply;
use crate::pipeline::rewrite::{is_named_by_endpoint, rewrite};
use crate::pipeline::route_view::RouteView;
use crate::pipeline::session::Pinned;
use crate::pipeline::{edge, grpc, redirect};
use crate::runtime::Pressure;
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

/// Answers what is no request.
pub(crate) async fn refuse<D: Downstream>(
    conn: &mut Conn<D>,
    target: &Target,
    began: Nanos,
    error: &RequestError,
) -> Next {
    conn.worker.stats().downstream_rq_malformed.increment();
    // A request that only lacks a host, or has a path that cannot be normalised, can be shown.
    let exchange = if error.flag_protocol_error() {
        Exchange::without_request(conn, target, began)
    } else {
        Exchange::new(conn, target, began)
    };
    let mut reply = Reply::malformed(*error);
    if conn.request.version() == Version::Http2 {
        reply.details = error.details_http2().into();
    }
    local::reply(conn, target, exchange, reply, &[]).await
}

/// Answers the request in `conn.request`. The connection is kept for another only if `keep` says so.
pub(crate) async fn serve<D: Downstream>(
    conn: &mut Conn<D>,
    target: &Target,
    began: Nanos,
    keep: bool,
) -> Next {
    let mut exchange = Exchange::new(conn, target, began);
    let now = conn.worker.now();
    if conn.request.framing().is_empty() {
        exchange.request_received(now);
    }
    conn.down.begin_request(conn.request.framing());
    conn.down.limit_output(target.listener.http.buffer_bytes);
    exchange.keep_alive = conn.request.keep_alive() && keep && !conn.is_draining();
    let connect = conn.request.method_kind() == Method::Connect;
    // The client may already be sending what is for the other end of the tunnel.
    exchange.keep_alive &= !(connect && D::CONNECTION_FIELD);
    let options = &target.listener.http;

    if conn.worker.pressure() == Pressure::Overloaded {
        conn.worker.stats().downstream_rq_overloaded.increment();
        return local::reply(conn, target, exchange, Reply::overloaded(), &[]).await;
    }
    let refusal = refusal(conn, target);
    // `h2c` is not offered, so it is not taken up (RFC 9110 7.8). Nor is a switch in a request with a
    // body: whoever switches before its end would take the rest for the other protocol.
    let switching = conn.request.framing().is_empty()
        && conn
            .request
            .upgrade()
            .is_some_and(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"));
    strip_hop_by_hop_request(&mut conn.request, switching);
    let early = target.listener.early.as_deref();
    let certificate =
        early.and_then(|early| early.certificate_field(&conn.request, conn.peers.tls.as_deref()));
    if let Some(early) = early {
        early.normalize_host(&mut conn.request, conn.peers.local);
    }
    let trusted = &target.listener.trusted_proxies;
    let peer = conn.peers.remote.ip();
    let secure = conn.peers.is_secure;
    match edge::state_origin(&mut conn.request, options, trusted, peer, secure) {
        Ok(client) => exchange.client = client,
        Err(error) => {
            conn.worker.stats().downstream_rq_malformed.increment();
            return local::reply(conn, target, exchange, Reply::malformed(error), &[]).await;
        }
    }
    // Failures of calls are told with status 200, which says of a tunnel that it is there.
    let asks_for_tunnel = connect || conn.request.extended_connect();
    if !asks_for_tunnel && grpc::is_grpc(conn.request.headers()) {
        exchange.is_grpc = true;
        exchange.call_deadline = grpc::deadline(conn.request.headers(), began);
    }
    if let Some(reply) = refusal {
        return local::reply(conn, target, exchange, reply, &[]).await;
    }
    if !connect {
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
    }

    if let Some(early) = early {
        early.change(&mut conn.request, certificate.as_deref());
        if early.is_health_check(&conn.request) {
            let reply = Reply::health(conn.is_draining());
            return local::reply(conn, target, exchange, reply, &[]).await;
        }
    }
    let found = find(conn, target);
    if let Some(tracer) = &target.listener.tracing {
        exchange.span = tracer.begin(found, &mut conn.request, options);
    }
    let found =
        found.filter(|route| !connect || is_forwarded(route) && allows(target, route, b"connect"));
    let Some(route) = found else {
        conn.worker.stats().no_route.increment();
        return local::reply(conn, target, exchange, Reply::no_route(), &[]).await;
    };
    take_route(&mut exchange, route);
    let may_switch = switching
        && (is_forwarded(route) || !asks_for_tunnel)
        && conn
            .request
            .upgrade()
            .is_some_and(|protocol| allows(target, route, protocol));
    if (switching || conn.request.extended_connect()) && !may_switch {
        return local::reply(conn, target, exchange, Reply::upgrade_refused(), &[]).await;
    }
    // Calls are POST requests. An answer to HEAD has no room for the frame of trailers.
    if route.grpc_web && conn.request.method_kind() == Method::Post {
        exchange.grpc_web = GrpcWeb::on_request_head(conn.request.headers_mut());
        if exchange.grpc_web.is_some() {
            exchange.call_deadline = grpc::deadline(conn.request.headers(), began);
        }
    }
    // The cluster is logged even for requests that a filter answers, so it is picked first.
    let mut route = route;
    let mut chosen = Chosen::of(conn, route);
    exchange.cluster = chosen.cluster();
    if let Some(cors) = chosen.cors().filter(|_| !route.has_cors) {
        match cors.on_request(&conn.request) {
            Ok(sharing) => exchange.sharing = Some(sharing),
            Err(reply) => return preflight(conn, target, exchange, reply).await,
        }
    }
    let mut passed = Passed::default();
    let mut at = 0;
    while let Some(slot) = route.request_filters.get(at) {
        at += 1;
        if slot.filter.is_after_router() || passed.take(slot.kind) {
            continue;
        }
        if let RequestFilter::Cors(cors) = &slot.filter {
            match chosen.cors().unwrap_or(cors).on_request(&conn.request) {
                Ok(sharing) => exchange.sharing = Some(sharing),
                Err(reply) => return preflight(conn, target, exchange, reply).await,
            }
            continue;
        }
        // Boxed: only exchanges with such a filter pay for what waiting needs.
        let asked = if let Some(policy) = &slot.shadow {
            let asked = shadowing::on_request(conn, &mut exchange, slot, policy, options);
            Box::pin(asked).await
        } else {
            match request_filters::decide(conn, &mut exchange, &slot.filter) {
                Some(Ok(None)) => Asked::Passed,
                Some(Ok(Some(step))) => {
                    let RequestFilter::Native(filter) = &slot.filter else {
                        continue;
                    };
                    let asked = request_filters::on_body(
                        conn,
                        &mut exchange,
                        &**filter,
                        step,
                        options,
                        true,
                    );
                    Box::pin(asked).await
                }
                Some(Err(reply)) => Asked::Answered(reply),
                None => {
                    let filter = &slot.filter;
                    let asked = request_filters::wait(conn, &mut exchange, filter, options, true);
                    Box::pin(asked).await
                }
            }
        };
        match asked {
            Asked::Passed => {}
            Asked::Answered(reply) => {
                if reply.flag == Some(ResponseFlag::RateLimited) {
                    conn.worker.stats().rate_limited.increment();
                }
                let response_headers: &[&[HeaderMutation]] = &[&route.response_headers];
                return local::reply(conn, target, exchange, reply, response_headers).await;
            }
            Asked::ClientGone(lost) => {
                exchange.client_gone(lost, 0);
                exchange.finish(conn, target);
                return Next::Abort;
            }
        }
        if exchange.is_route_cleared {
            exchange.is_route_cleared = false;
            let protocol = protocol(conn, connect, switching);
            let found = find(conn, target).filter(|found| is_for(target, found, protocol));
            let Some(found) = found else {
                conn.worker.stats().no_route.increment();
                exchange.route = None;
                return local::reply(conn, target, exchange, Reply::no_route(), &[]).await;
            };
            if !std::ptr::eq(found, route) {
                passed.note(&route.request_filters[..at]);
                (route, at) = (found, 0);
                chosen = Chosen::of(conn, route);
                take_route(&mut exchange, route);
                exchange.cluster = chosen.cluster();
            }
        }
    }
    let response_headers: &[&[HeaderMutation]] = &[&route.response_headers];
    let Chosen {
        mut backend,
        mut pinned,
    } = chosen;
    if let (Action::Forward(forward), Some(name)) = (&route.action, exchange.chosen_backend()) {
        backend = forward.named(name);
        pinned = pinned.filter(|pinned| {
            let of_session = &raw const forward.backends[pinned.backend];
            backend.is_some_and(|backend| std::ptr::eq(of_session, backend))
        });
        exchange.cluster = backend.and_then(|backend| backend.cluster.as_deref());
    }
    let reply = match (&route.action, backend) {
        (Action::Forward(forward), Some(backend)) => match &backend.cluster {
            Some(cluster) => {
                for mutation in &backend.request_headers {
                    mutation.apply(conn.request.headers_mut());
                }
                let response_headers: &[&[HeaderMutation]] =
                    &[&backend.response_headers, &route.response_headers];
                let own = backend.own.as_deref();
                if let Some(redirect) = own.and_then(|own| own.redirect.as_ref()) {
                    let reply = redirected(conn, redirect);
                    return local::reply(conn, target, exchange, reply, response_headers).await;
                }
                let dispatch = Dispatch {
                    forward,
                    cluster,
                    response_headers,
                    session: forward.session_of(backend),
                    pinned: pinned.map(|pinned| pinned.endpoint),
                    named_by_endpoint: is_named_by_endpoint(
                        forward,
                        own.map(|own| &own.rewrite),
                        cluster,
                    ),
                };
                if connect {
                    let of_host = match named_host::of_request(conn, cluster) {
                        Ok(of_host) => of_host,
                        Err(reply) => {
                            let fields = response_headers;
                            return local::reply(conn, target, exchange, reply, fields).await;
                        }
                    };
                    let dispatch = dispatch.to(of_host.as_deref());
                    return Box::pin(attempt::tunnel(conn, target, exchange, &dispatch)).await;
                }
                rewrite(
                    &mut conn.request,
                    forward,
                    own.map(|own| &own.rewrite),
                    cluster,
                );
                if route.has_filters_after_router {
                    let filters = &route.request_filters;
                    let asked =
                        request_filters::after_router(conn, &mut exchange, filters, options);
                    match Box::pin(asked).await {
                        Asked::Passed => {}
                        Asked::Answered(reply) => {
                            let fields = response_headers;
                            return local::reply(conn, target, exchange, reply, fields).await;
                        }
                        Asked::ClientGone(lost) => {
                            exchange.client_gone(lost, 0);
                            exchange.finish(conn, target);
                            return Next::Abort;
                        }
                    }
                }
                let of_host = match named_host::of_request(conn, cluster) {
                    Ok(of_host) => of_host,
                    Err(reply) => {
                        let fields = response_headers;
                        return local::reply(conn, target, exchange, reply, fields).await;
                    }
                };
                let dispatch = dispatch.to(of_host.as_deref());
                if !switching {
                    copy(conn, target, &mut exchange, &dispatch, own);
                }
                named_host::state(conn, cluster);
                return attempt::forward(conn, target, exchange, &dispatch, switching).await;
            }
            None => Reply::no_backend(forward.unresolved_status),
        },
        (Action::Forward(forward), None) => Reply::no_backend(forward.unresolved_status),
        (Action::Redirect(redirect), _) => redirected(conn, redirect),
        (Action::Direct(direct), _) if direct.is_formed() => {
            let metadata = exchange.metadata();
            let mut record = exchange.record(conn, target, conn.worker.now());
            record.metadata = metadata.as_ref();
            direct.formed(record)
        }
        (Action::Direct(direct), _) => direct.fixed(),
    };
    local::reply(conn, target, exchange, reply, response_headers).await
}

/// Notes the route of a request.
fn take_route<'x>(exchange: &mut Exchange<'x>, route: &'x Route) {
    exchange.route = Some(route);
    if let Action::Forward(forward) = &route.action
        && let Some(idle_ms) = forward.stream_idle_timeout_ms
    {
        exchange.idle_timeout_ms = idle_ms;
    }
}

/// The route of the request as it is now.
fn find<'t, D>(conn: &Conn<D>, target: &'t Target) -> Option<&'t Route> {
    let routes = target.routes.as_deref()?;
    let found = routes.table.find(&RouteView::new(&conn.request))?;
    Some(found.value)
}

fn is_forwarded(route: &Route) -> bool {
    matches!(route.action, Action::Forward(_))
}

/// What the request asks to switch to, which has been allowed.
fn protocol<D>(conn: &Conn<D>, connect: bool, switching: bool) -> Option<&[u8]> {
    if connect {
        return Some(b"connect");
    }
    let asks = switching || conn.request.extended_connect();
    conn.request.upgrade().filter(|_| asks)
}

/// Whether another route than the one that was found first is for the request as well.
fn is_for(target: &Target, route: &Route, protocol: Option<&[u8]>) -> bool {
    protocol.is_none_or(|protocol| is_forwarded(route) && allows(target, route, protocol))
}

/// Answers what a browser asks before a request.
async fn preflight<D: Downstream>(
    conn: &mut Conn<D>,
    target: &Target,
    exchange: Exchange<'_>,
    reply: Reply,
) -> Next {
    // Envoy: the route's changes of header fields are not for these.
    conn.worker.stats().cors_preflight.increment();
    local::reply(conn, target, exchange, reply, &[]).await
}

/// The backend that a route has for a request.
struct Chosen<'t> {
    backend: Option<&'t Backend>,
    /// Of the request's session.
    pinned: Option<Pinned>,
}

impl<'t> Chosen<'t> {
    fn of<D>(conn: &Conn<D>, route: &'t Route) -> Self {
        let Action::Forward(forward) = &route.action else {
            return Self {
                backend: None,
                pinned: None,
            };
        };
        let mut pinned = None;
        if !forward.sessions.is_empty() {
            let wall = conn.worker.clock().wall_nanos(conn.worker.now());
            pinned = forward.session(conn.request.headers(), wall / 1_000_000_000);
        }
        let of_session = pinned.map(|pinned| &forward.backends[pinned.backend]);
        Self {
            backend: of_session.or_else(|| forward.pick()),
            pinned,
        }
    }

    fn cluster(&self) -> Option<&'t Cluster> {
        self.backend.and_then(|backend| backend.cluster.as_deref())
    }

    fn cors(&self) -> Option<&'t Cors> {
        self.backend?.own.as_deref()?.cors.as_deref()
    }
}

/// The types of the filters that a request has passed on routes that it is not of any more.
#[derive(Default)]
struct Passed(Vec<&'static str>);

impl Passed {
    /// Whether a filter of this type was passed instead of the one at hand.
    fn take(&mut self, kind: &str) -> bool {
        let at = self.0.iter().position(|passed| *passed == kind);
        at.map(|at| self.0.swap_remove(at)).is_some()
    }

    fn note(&mut self, slots: &[Slot<RequestFilter>]) {
        let early = slots.iter().filter(|slot| !slot.filter.is_after_router());
        self.0.extend(early.map(|slot| slot.kind));
    }
}

/// Sends copies of a request to the mirrors of its rule and of its backend. As in Envoy there are none
/// where nobody is there to serve the request itself.
fn copy<D: Downstream>(
    conn: &Conn<D>,
    target: &Target,
    exchange: &mut Exchange<'_>,
    dispatch: &Dispatch<'_>,
    own: Option<&OwnFilters>,
) {
    let of_rule = &*dispatch.forward.mirrors;
    let own = own.map_or(&[][..], |own| &own.mirrors);
    if of_rule.is_empty() && own.is_empty() {
        return;
    }
    let cluster = dispatch.cluster;
    // Whoever is looked up may be there.
    if cluster.endpoints().is_empty() && cluster.awaited().is_none() {
        return;
    }
    let framing = attempt::body_framing(&conn.request, exchange);
    mirror::start(conn, target, exchange, framing, of_rule.iter().chain(own));
}

/// The answer that sends a client elsewhere.
fn redirected<D>(conn: &Conn<D>, redirect: &Redirect) -> Reply {
    let scheme = if conn.peers.is_secure {
        "https"
    } else {
        "http"
    };
    let port = conn.peers.local.port();
    let location = redirect::location(redirect, &conn.request, scheme, port);
    Reply::redirect(redirect.status, location)
}

/// What answers a request that is none for a route: no path, a host that the connection does not lead
/// to.
fn refusal<D>(conn: &Conn<D>, target: &Target) -> Option<Reply> {
    let request = &conn.request;
    if request.target_form() == TargetForm::Asterisk {
        return Some(Reply::no_path());
    }
    if conn.peers.addressed == Addressed::ByHost
        && waypoint::named_address(request, &target.listener) != Some(conn.peers.local)
    {
        return Some(Reply::misdirected());
    }
    None
}

/// Whether requests of a route may switch to a protocol.
fn allows(target: &Target, route: &Route, protocol: &[u8]) -> bool {
    let of_route = match &route.action {
        Action::Forward(forward) => &*forward.upgrades,
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    target
        .listener
        .http
        .upgrades
        .iter()
        .chain(of_route)
        .any(|allowed| protocol.eq_ignore_ascii_case(allowed.as_bytes()))
}
