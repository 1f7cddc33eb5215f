//! A connection that is passed on as bytes: one backend, one endpoint, one tunnel.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use kgw_limit::{Slot, Slots};
use tokio::sync::futures::Notified;

use super::detect::{Gone, Protocol, detect, is_http, poll_detect};
use super::io::{BODY_BUFFER, Stream};
use super::pipe::Pipe;
use super::tunnel::{self, End, Outcome};
use super::{Addressed, Peers};
use crate::clock::{Nanos, Timer};
use crate::config::snapshot::{Carries, Cluster, TcpForward, Traffic};
use crate::pipeline::connection_log::{Connection, Origin};
use crate::pipeline::reply::transport_failure;
use crate::runtime::{Phase, Registration, Worker};
use crate::telemetry::flags::ResponseFlag;
use crate::tls::chain::Action;
use crate::upstream::connect::{ConnectError, Opened, Waiting, connect, secure};
use crate::upstream::endpoint::Serving;
use crate::upstream::health::outlier::Outcome as Judged;

/// Endpoints tried for a connection, each once. Envoy tries one; a client of raw bytes cannot be told
/// to try again.
const MAX_ATTEMPTS: usize = 5;

/// Envoy's words (and spelling) for a connection that has no upstream: the number says why.
const CONNECT_FAILED: &str = "tcp_initializion_failure:0";
const NO_HEALTHY_UPSTREAM: &str = "tcp_initializion_failure:1";
const NO_ROUTE: &str = "tcp_initializion_failure:3";

/// Envoy's words for a connection on which nothing moved for too long.
const IDLE: &str = "tcp_session_idle_timeout";

/// The client's side of a connection that is passed on as bytes. Input may be there already.
#[derive(Debug)]
pub(crate) struct Client<'a, D> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) down: &'a mut D,
    pub(crate) timer: &'a mut Timer,
    pub(crate) registration: &'a Registration,
    pub(crate) peers: &'a Peers,
    /// When the connection was accepted.
    pub(crate) began: Nanos,
    /// The server name that the client asked for in TLS.
    pub(crate) server_name: Option<&'a [u8]>,
}

/// Serves the connection as bytes if that is what `listener` says it carries, or what its first bytes
/// tell. Returns whether it is over; if not, it carries HTTP, and nothing of it was consumed.
///
/// Dropping the future closes both sides.
pub(crate) async fn serve_unless_http<D: Pipe>(mut client: Client<'_, D>, listener: &str) -> bool {
    let Some((forward, origin, is_certain)) = way(client.worker, client.peers, listener) else {
        return false;
    };
    let mut decided = is_certain;
    if !decided {
        let Client {
            worker,
            down,
            timer,
            registration,
            ..
        } = &mut client;
        match detect(*down, timer, registration, worker).await {
            Ok(Some(Protocol::Tcp)) => decided = true,
            Ok(Some(Protocol::Http1 | Protocol::Http2)) => return false,
            Ok(None) => worker.stats().detect_timeout.increment(),
            Err(Gone) => return true,
        }
    }
    serve(client, &origin, forward, decided).await
}

/// Whether the connection may carry something else than HTTP.
pub(crate) fn carries_bytes(worker: &Worker, peers: &Peers, listener: &str) -> bool {
    way(worker, peers, listener).is_some()
}

/// Where the connection's bytes go if it carries no HTTP, and whether that is certain. None if it is
/// certain that it does.
fn way(worker: &Worker, peers: &Peers, listener: &str) -> Option<(Arc<TcpForward>, Origin, bool)> {
    let snapshot = worker.snapshot();
    let listener = snapshot.listeners.get(listener)?;
    let (forward, service, is_certain) = match &listener.traffic {
        // Datagrams make no connections.
        Traffic::Http(_) | Traffic::Udp(_) => return None,
        Traffic::Tcp(forward) => (forward, None, true),
        Traffic::Tls { chains, .. } => {
            let chain = chains.select(peers.server_name.as_deref())?;
            // A newer configuration may want of the connection what is too late for it.
            match &chain.action {
                Action::Passthrough(forward) if !peers.is_secure => {
                    (forward, Some(&chain.name), true)
                }
                Action::Tcp { forward, .. } if peers.is_secure => {
                    (forward, Some(&chain.name), true)
                }
                Action::Http { .. } | Action::Passthrough(_) | Action::Tcp { .. } => return None,
            }
        }
        // Only the host of a request could say where it goes.
        Traffic::Waypoint { .. } if peers.addressed == Addressed::Nothing => return None,
        Traffic::Waypoint { destinations, .. } => {
            let key = (peers.local.ip(), peers.local.port());
            let destination = destinations.get(&key)?;
            let service = Some(&destination.service);
            match destination.carries(peers.principal.as_deref()) {
                Carries::Http(_) => return None,
                Carries::Tcp(forward) => (forward, service, true),
                Carries::Either(_, forward) => (forward, service, false),
                Carries::Tls { chains, .. } => {
                    let chain = chains.select(peers.server_name.as_deref())?;
                    let Action::Passthrough(forward) = &chain.action else {
                        return None;
                    };
                    (forward, service, true)
                }
            }
        }
    };
    let origin = Origin::new(listener, service);
    Some((Arc::clone(forward), origin, is_certain))
}

/// Passes the connection on to one of the backends, to its end, and logs it. A newer configuration
/// does not touch it.
///
/// Unless it is `decided` that the connection carries bytes, it may still turn out to carry HTTP until
/// the server has spoken. Returns whether the connection is over; if not, it carries HTTP.
///
/// Dropping the future closes both sides.
pub(crate) async fn serve<D: Pipe>(
    mut client: Client<'_, D>,
    origin: &Origin,
    forward: Arc<TcpForward>,
    decided: bool,
) -> bool {
    let peers = client.peers;
    let mut log = Connection::new(
        client.worker,
        peers,
        client.server_name,
        &forward.name,
        client.began,
    );
    let backend = forward.pick();
    let cluster = backend.and_then(|backend| backend.cluster.as_deref());
    log.cluster = cluster;
    match (backend, cluster) {
        (None, _) => {
            client.worker.stats().tcp_cx_no_route.increment();
            log.closed_locally(&[ResponseFlag::NoRouteFound], NO_ROUTE);
        }
        (Some(_), None) => {
            client.worker.stats().tcp_cx_no_route.increment();
            log.closed_locally(&[ResponseFlag::NoClusterFound], NO_ROUTE);
        }
        (Some(_), Some(cluster)) => {
            let idle_ms = forward.idle_timeout_ms;
            // Both are taken until the connection ends.
            if let Some((mut up, _taken)) = reach(&mut client, &mut log, cluster).await {
                let first = if decided {
                    First::Bytes
                } else {
                    wait_for_first(&mut client, &mut up, idle_ms).await
                };
                let Client {
                    worker,
                    down,
                    timer,
                    registration,
                    ..
                } = &mut client;
                let outcome = match first {
                    First::Http => return false,
                    First::Bytes => {
                        tunnel::run(*down, &mut up, timer, registration, worker, idle_ms).await
                    }
                    First::Ended(end) => tunnel::end(end, *down, &mut up),
                };
                log.up_close_type = up.close_type();
                note(&mut log, client.worker, &outcome);
            } else if !decided && is_http(client.down) {
                return false;
            }
        }
    }
    log.down.consumed += client.down.input().len() as u64;
    log.finish(origin, client.down.close_type());
    true
}

/// Notes how a tunnel ended.
fn note(log: &mut Connection<'_>, worker: &Worker, outcome: &Outcome) {
    log.down = outcome.down;
    log.up = outcome.up;
    match outcome.end {
        // Envoy has no flags for these.
        End::Complete | End::DownstreamFailed => {}
        End::UpstreamFailed => {
            log.flags.set(ResponseFlag::UpstreamRemoteReset);
            log.reset_down = true;
        }
        End::Idle => {
            worker.stats().tcp_cx_idle_timeout.increment();
            log.closed_locally(&[], IDLE);
            log.up_close_reason = Some(IDLE);
        }
        End::Closing => log.closed_locally(&[], "drain"),
    }
}

/// What comes first on a connection of which nobody knows what it carries.
#[derive(Debug)]
enum First {
    /// The client sends HTTP.
    Http,
    /// The client sends something else, or the server speaks before it.
    Bytes,
    /// Nothing more comes.
    Ended(End),
}

/// Waits until the client has said enough or the server anything. The server gets none of the client's
/// bytes.
async fn wait_for_first<D: Pipe>(
    client: &mut Client<'_, D>,
    up: &mut Stream,
    idle_ms: u64,
) -> First {
    let deadline = client.worker.now().after_ms(idle_ms);
    poll_fn(|cx| {
        client.registration.update(cx);
        match poll_detect(client.down, cx) {
            Poll::Ready(Ok(Protocol::Http1 | Protocol::Http2)) => return Poll::Ready(First::Http),
            Poll::Ready(Ok(Protocol::Tcp)) => return Poll::Ready(First::Bytes),
            Poll::Ready(Err(Gone)) => return Poll::Ready(First::Ended(End::DownstreamFailed)),
            Poll::Pending => {}
        }
        // The server may wait for the PROXY header.
        let spoken = match up.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => up.poll_fill(cx, BODY_BUFFER),
        };
        match spoken {
            Poll::Ready(Ok(_)) => return Poll::Ready(First::Bytes),
            Poll::Ready(Err(_)) => return Poll::Ready(First::Ended(End::UpstreamFailed)),
            Poll::Pending => {}
        }
        if client.worker.phase() == Phase::Closing {
            return Poll::Ready(First::Ended(End::Closing));
        }
        client
            .timer
            .poll(cx, deadline)
            .map(|()| First::Ended(End::Idle))
    })
    .await
}

/// Connects to one of the cluster's endpoints, which has the connection as long as that is kept. None if there is no connection: the log says why.
async fn reach<D: Pipe>(
    client: &mut Client<'_, D>,
    log: &mut Connection<'_>,
    cluster: &Cluster,
) -> Option<(Stream, (Serving, Option<Slot>))> {
    let worker = Rc::clone(client.worker);
    let stats = worker.stats();
    if let Some(told) = cluster.awaited() {
        let deadline = worker.now();
        let deadline = deadline.after_ms(cluster.connect_timeout.as_millis() as u64);
        Box::pin(until_resolved(client, told, deadline)).await?;
    }
    let slot = match &cluster.breaker {
        None => None,
        Some(breaker) => {
            let slot = Slots::take(&breaker.connections);
            if slot.is_none() {
                stats.upstream_cx_overflow.increment();
                log.closed_locally(&[ResponseFlag::UpstreamOverflow], NO_HEALTHY_UPSTREAM);
                return None;
            }
            slot
        }
    };
    let endpoints = cluster.endpoints_in_turn(worker.index());
    let mut tried = false;
    for endpoint in endpoints.take(MAX_ATTEMPTS) {
        tried = true;
        let began = worker.now();
        let address = endpoint.address;
        let serving = endpoint.serve();
        log.attempt(address, began);
        let deadline = began.after_ms(cluster.connect_timeout.as_millis() as u64);
        match open(client, cluster, address, deadline).await {
            Ok(opened) => {
                cluster.note(serving.endpoint(), Judged::Reached, worker.now());
                log.connected(opened.id, opened.local, worker.now());
                log.upstream_tls = opened.tls;
                return Some((opened.stream, (serving, slot)));
            }
            Err(ConnectError::ClientGone) => return None,
            Err(ConnectError::Failed(error)) => {
                cluster.note(serving.endpoint(), Judged::Lost, worker.now());
                log.transport_failure = Some(transport_failure(&error));
            }
            Err(ConnectError::Tls(error)) => {
                cluster.note(serving.endpoint(), Judged::Lost, worker.now());
                log.transport_failure = Some(error.reason());
            }
            Err(ConnectError::TimedOut) => {
                cluster.note(serving.endpoint(), Judged::Lost, worker.now());
                stats.upstream_cx_connect_timeout.increment();
                log.transport_failure = None;
            }
        }
    }
    if tried {
        stats.tcp_cx_connect_attempts_exceeded.increment();
        let flags = [
            ResponseFlag::UpstreamConnectionFailure,
            ResponseFlag::UpstreamRetryLimitExceeded,
        ];
        log.closed_locally(&flags, CONNECT_FAILED);
    } else {
        log.closed_locally(&[ResponseFlag::NoHealthyUpstream], NO_HEALTHY_UPSTREAM);
    }
    None
}

/// Waits until the endpoints were looked up, or the deadline. None if the client is gone.
async fn until_resolved<D: Pipe>(
    client: &mut Client<'_, D>,
    told: Notified<'_>,
    deadline: Nanos,
) -> Option<()> {
    let mut told = pin!(told);
    poll_fn(|cx| {
        client.registration.update(cx);
        if told.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(()));
        }
        if is_gone(client.down, cx) || client.worker.phase() == Phase::Closing {
            return Poll::Ready(None);
        }
        client.timer.poll(cx, deadline).map(Some)
    })
    .await
}

/// Whether the client is gone. One that has finished sending is not; what it sends is taken up to a
/// limit.
fn is_gone<D: Pipe>(down: &mut D, cx: &mut Context<'_>) -> bool {
    while !down.has_ended() {
        match down.poll_fill(cx, BODY_BUFFER) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return true,
            Poll::Pending => break,
        }
    }
    false
}

/// Opens a connection that is ready for the client's bytes, while the client is there. A client that
/// has finished sending is; what it sends meanwhile is taken up to a limit.
async fn open<D: Pipe>(
    client: &mut Client<'_, D>,
    cluster: &Cluster,
    endpoint: SocketAddr,
    deadline: Nanos,
) -> Result<Opened, ConnectError> {
    let down = &mut *client.down;
    let waiting = Waiting {
        worker: client.worker,
        registration: client.registration,
        timer: client.timer,
    };
    let mut is_client_gone = |cx: &mut Context<'_>| is_gone(down, cx);
    let opened = connect(waiting, endpoint, cluster, deadline, &mut is_client_gone);
    let mut opened = opened.await?;
    if let Some(proxy_protocol) = &cluster.proxy_protocol {
        let preamble = proxy_protocol
            .preamble(client.peers)
            .map_err(|error| ConnectError::Failed(std::io::Error::other(error)))?;
        let output = opened.stream.output();
        output.extend_from_slice(preamble.as_bytes());
    }
    let Some(tls) = &cluster.tls else {
        return Ok(opened);
    };
    let waiting = Waiting {
        worker: client.worker,
        registration: client.registration,
        timer: client.timer,
    };
    secure(waiting, opened, tls, deadline, is_client_gone).await
}
