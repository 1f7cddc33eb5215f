//! One downstream connection: one task, which owns the upstream connection that it uses.

mod attempt;
mod authorizing;
mod detect;
mod exchange;
mod faulting;
mod filtered_body;
pub(crate) mod filtering;
pub(crate) mod h1_side;
mod head;
mod http1;
pub(crate) mod http2;
pub(crate) mod io;
mod lent;
mod limiting;
mod local;
pub(crate) mod message;
pub(crate) mod mirror;
mod named_host;
mod passwords;
pub(crate) mod pipe;
mod processing;
pub(crate) mod processor;
mod processor_stage;
mod proxy_header;
mod queueing;
mod relay;
pub(crate) mod replay;
mod request_filters;
mod retry;
mod shadowing;
mod splice;
mod tcp;
mod tls;
pub(crate) mod tunnel;
pub(crate) mod verifying;
mod waypoint;
mod whole_body;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kgw_h1::{Request, Response, Version};
use tokio::net::TcpStream;

use self::h1_side::Http1;
use self::io::Stream;
use self::lent::Lent;
use self::proxy_header::Expected;
use crate::clock::{Nanos, Timer};
use crate::config::ir::{Codec, TcpKeepalive};
use crate::config::snapshot::{Carries, Listener, Routes, Snapshot, Traffic};
use crate::listen::call::Within;
use crate::runtime::{Phase, Registration, Worker};
use crate::tls::TlsInfo;
use crate::tls::chain::{Action, Chains};
use crate::upstream::proxy_protocol::OwnedTlv;

/// State of what serves requests one after the other: a downstream connection, or one stream of it.
#[derive(Debug)]
pub(crate) struct Conn<D> {
    pub(crate) worker: Rc<Worker>,
    pub(crate) down: D,
    pub(crate) timer: Timer,
    pub(crate) registration: Registration,
    pub(crate) peers: Rc<Peers>,
    /// The request being served.
    pub(crate) request: Lent<Request>,
    /// The answer being sent, the proxy's own or the upstream's.
    pub(crate) response: Lent<Response>,
}

/// Who speaks to whom on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) connection_id: u64,
    /// When the connection was accepted.
    pub(crate) opened: Nanos,
    /// TLS ended here: requests are `https`.
    pub(crate) is_secure: bool,
    /// The client: the source in the PROXY header, else the socket's peer.
    pub(crate) remote: SocketAddr,
    /// Whether that is the client. A PROXY header may say that there is one, and not who.
    pub(crate) is_remote_known: bool,
    /// What the client addressed: the destination in the PROXY header, else the socket's own address.
    pub(crate) local: SocketAddr,
    /// The socket's peer and its own address, where something said otherwise.
    direct: Option<Box<(SocketAddr, SocketAddr)>>,
    /// The client's mesh identity, vouched for by ztunnel: a SPIFFE URI.
    pub(crate) principal: Option<Box<str>>,
    /// The TLVs of the PROXY header that a header towards an upstream may repeat.
    pub(crate) tlvs: Box<[OwnedTlv]>,
    /// What says where the connection goes.
    pub(crate) addressed: Addressed,
    /// The server name that the client asked for in TLS, in lower case.
    pub(crate) server_name: Option<Box<str>>,
    /// The TLS session that ends here.
    pub(crate) tls: Option<Rc<TlsInfo>>,
}

impl Peers {
    /// Nobody: the proxy asks for itself.
    pub(crate) fn of_proxy(now: Nanos) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            connection_id: 0,
            opened: now,
            is_secure: false,
            remote: nowhere,
            is_remote_known: true,
            local: nowhere,
            direct: None,
            principal: None,
            tlvs: Box::default(),
            addressed: Addressed::ByConnection,
            server_name: None,
            tls: None,
        }
    }

    /// Takes over who speaks to whom as a PROXY header, or a request in its stead, says.
    pub(crate) fn state(&mut self, remote: SocketAddr, local: SocketAddr) {
        let direct = (self.direct_remote(), self.direct_local());
        self.direct = Some(Box::new(direct));
        self.remote = remote;
        self.local = local;
    }

    /// The socket's peer.
    pub(crate) fn direct_remote(&self) -> SocketAddr {
        self.direct.as_ref().map_or(self.remote, |direct| direct.0)
    }

    /// The socket's own address.
    pub(crate) fn direct_local(&self) -> SocketAddr {
        self.direct.as_ref().map_or(self.local, |direct| direct.1)
    }
}

/// What says where a connection goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Addressed {
    /// Its own addresses, or those in its PROXY header.
    ByConnection,
    /// The host of its first request: the PROXY header names no addresses.
    ByHost,
    /// The host of a request that has not come yet.
    Nothing,
}

/// What a connection's requests are routed by: looked up once per connection and generation.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Holds the rest of it: the engine sees who still uses a snapshot, and frees it elsewhere.
    snapshot: Arc<Snapshot>,
    pub(crate) listener: Arc<Listener>,
    /// None while nothing says where the connection goes.
    pub(crate) routes: Option<Arc<Routes>>,
    /// `%FILTER_CHAIN_NAME%`: the service on a waypoint, the chain under TLS.
    pub(crate) chain: Option<Arc<str>>,
}

/// Whether a newer generation routes a connection elsewhere.
enum Newer {
    Same,
    Changed(Target),
    Gone,
}

impl Target {
    /// Looks up where the requests of a connection go, if the snapshot says so.
    fn find(snapshot: &Arc<Snapshot>, listener: &str, peers: &Peers) -> Option<Self> {
        let listener = snapshot.listeners.get(listener)?;
        let (routes, chain) = match &listener.traffic {
            Traffic::Http(routes) => (Some(routes), None),
            Traffic::Tcp(_) | Traffic::Udp(_) => return None,
            Traffic::Tls { chains, .. } => {
                let chain = chains.select(peers.server_name.as_deref())?;
                match &chain.action {
                    Action::Http { routes, .. } if peers.is_secure => {
                        (Some(routes), Some(&chain.name))
                    }
                    Action::Http { .. } | Action::Passthrough(_) | Action::Tcp { .. } => {
                        return None;
                    }
                }
            }
            Traffic::Waypoint { .. } if peers.addressed == Addressed::Nothing => (None, None),
            Traffic::Waypoint { destinations, .. } => {
                let key = (peers.local.ip(), peers.local.port());
                let destination = destinations.get(&key)?;
                let routes = match destination.carries(peers.principal.as_deref()) {
                    Carries::Http(routes) | Carries::Either(routes, _) => routes,
                    Carries::Tcp(_) | Carries::Tls { .. } => return None,
                };
                (Some(routes), Some(&destination.service))
            }
        };
        Some(Self {
            snapshot: Arc::clone(snapshot),
            listener: Arc::clone(listener),
            routes: routes.map(Arc::clone),
            chain: chain.map(Arc::clone),
        })
    }

    /// Looks whether a newer generation routes the connection elsewhere: an atomic load if there is
    /// none.
    fn newer(&self, worker: &Worker, listener: &str, peers: &Peers) -> Newer {
        let snapshot = worker.snapshot();
        if snapshot.generation == self.snapshot.generation {
            return Newer::Same;
        }
        Self::find(&snapshot, listener, peers).map_or(Newer::Gone, Newer::Changed)
    }

    /// Moves on to the newest generation. Returns whether that serves the connection still; if not,
    /// the target stays what it was.
    pub(crate) fn refresh(&mut self, worker: &Worker, listener: &str, peers: &Peers) -> bool {
        match self.newer(worker, listener, peers) {
            Newer::Same => true,
            Newer::Changed(newer) => {
                *self = newer;
                true
            }
            Newer::Gone => false,
        }
    }
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) worker: Rc<Worker>,
    /// The id of the listener.
    pub(crate) listener: Arc<str>,
    pub(crate) socket: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) open: Open,
    /// What the caller vouches for, if this process itself is the caller.
    pub(crate) within: Option<Within>,
}

/// What serves a connection before it is known what it carries.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) worker: Rc<Worker>,
    pub(crate) stream: Stream,
    pub(crate) timer: Timer,
    pub(crate) registration: Registration,
    pub(crate) peers: Peers,
}

/// Serves a connection to its end.
///
/// A task is as large as all that it may ever wait for at once, and most connections sit idle in
/// HTTP/1: what only their beginning, or other connections, need is boxed, here and elsewhere.
pub(crate) async fn serve(incoming: Box<Incoming>) {
    if let Some(mut session) = Box::pin(begin(incoming)).await {
        http1::serve(&mut session).await;
    }
}

/// Has the system look whether the other side of a connection is still there. What it does not take is
/// left as it is: the connection works without.
pub(crate) fn keep_alive(socket: &TcpStream, wanted: &TcpKeepalive) {
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    let mut probes = socket2::TcpKeepalive::new();
    if let Some(time_s) = wanted.time_s {
        probes = probes.with_time(seconds(time_s));
    }
    if let Some(interval_s) = wanted.interval_s {
        probes = probes.with_interval(seconds(interval_s));
    }
    if let Some(count) = wanted.probes {
        probes = probes.with_retries(count);
    }
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&probes);
}

/// Finds out what a connection carries, and serves it to its end if that is not HTTP/1.
async fn begin(incoming: Box<Incoming>) -> Option<Box<Session>> {
    let Incoming {
        worker,
        listener,
        socket,
        peer,
        local,
        open,
        within,
    } = *incoming;
    let configuration = worker.snapshot().listeners.get(&listener).map(Arc::clone)?;
    if let Some(keepalive) = configuration
        .tcp_keepalive
        .as_ref()
        .filter(|_| within.is_none())
    {
        keep_alive(&socket, keepalive);
    }
    let mut accepted = Accepted {
        stream: match within {
            None => Stream::new(socket),
            Some(_) => Stream::within(socket),
        },
        timer: Timer::new(worker.clock().clone()),
        registration: worker.register(),
        peers: Peers {
            connection_id: worker.next_connection_id(),
            opened: worker.now(),
            is_secure: false,
            remote: peer,
            is_remote_known: true,
            local,
            direct: None,
            principal: None,
            tlvs: Box::default(),
            addressed: Addressed::ByConnection,
            server_name: None,
            tls: None,
        },
        worker,
    };
    let is_within = within.is_some();
    if let Some(within) = within {
        let peers = &mut accepted.peers;
        peers.is_secure = within.is_secure;
        peers.server_name = within.server_name;
        if let Traffic::Waypoint { .. } = configuration.traffic {
            // No ztunnel says which service is meant; the requests do.
            peers.addressed = Addressed::Nothing;
        }
    } else if let Some(expected) = Expected::of(&configuration) {
        proxy_header::read(
            &mut accepted.stream,
            &mut accepted.timer,
            &accepted.registration,
            &accepted.worker,
            &mut accepted.peers,
            &expected,
        )
        .await
        .ok()?;
    }
    if !is_within && let Some((timeout_ms, chains)) = tls_chains(&configuration, &accepted.peers) {
        accepted = Box::pin(tls::begin(accepted, timeout_ms, chains)).await?;
    }
    drop(configuration);
    let client = tcp::Client {
        worker: &accepted.worker,
        down: &mut accepted.stream,
        timer: &mut accepted.timer,
        registration: &accepted.registration,
        peers: &accepted.peers,
        began: accepted.peers.opened,
        server_name: accepted.peers.server_name.as_deref().map(str::as_bytes),
    };
    if tcp::carries_bytes(client.worker, client.peers, &listener)
        && Box::pin(tcp::serve_unless_http(client, &listener)).await
    {
        return None;
    }
    let found = Target::find(&accepted.worker.snapshot(), &listener, &accepted.peers);
    let Some(mut target) = found else {
        let stats = accepted.worker.stats();
        stats.proxy_header_no_destination.increment();
        return None;
    };
    let negotiated = accepted.peers.tls.as_deref().and_then(tls::version);
    let version = match (negotiated, target.listener.http.codec) {
        _ if is_within => Version::Http11,
        (Some(version), _) => version,
        (None, Codec::Http1) => Version::Http11,
        (None, Codec::Http2) => Version::Http2,
        (None, Codec::Auto) => head::detect(&mut accepted, &listener, &mut target).await?,
    };
    if version == Version::Http2 {
        Box::pin(http2::server::serve(accepted, &listener, target)).await;
        return None;
    }
    Some(Box::new(Session {
        conn: Conn {
            down: Http1::new(accepted.stream),
            worker: accepted.worker,
            timer: accepted.timer,
            registration: accepted.registration,
            peers: Rc::new(accepted.peers),
            request: Lent::none(),
            response: Lent::none(),
        },
        listener,
        target,
        requests: 0,
        _open: open,
    }))
}

/// What tells by the server name what is done with a connection, if it carries TLS, and how long a
/// client has for its part. Milliseconds.
fn tls_chains<'a>(listener: &'a Listener, peers: &Peers) -> Option<(u64, &'a Chains)> {
    match &listener.traffic {
        Traffic::Tls {
            handshake_timeout_ms,
            chains,
        } => Some((*handshake_timeout_ms, chains)),
        Traffic::Waypoint { destinations, .. } if peers.addressed == Addressed::ByConnection => {
            let key = (peers.local.ip(), peers.local.port());
            let destination = destinations.get(&key)?;
            match destination.carries(peers.principal.as_deref()) {
                Carries::Tls {
                    handshake_timeout_ms,
                    chains,
                } => Some((*handshake_timeout_ms, chains)),
                Carries::Http(_) | Carries::Tcp(_) | Carries::Either(..) => None,
            }
        }
        Traffic::Waypoint { .. } | Traffic::Http(_) | Traffic::Tcp(_) | Traffic::Udp(_) => None,
    }
}

/// A connection that carries HTTP/1.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) conn: Conn<Http1>,
    /// The id of the listener.
    pub(crate) listener: Arc<str>,
    pub(crate) target: Target,
    /// Requests so far.
    pub(crate) requests: u64,
    _open: Open,
}

/// Counts a connection while it is open, and as panicked if its task ends by unwinding.
#[derive(Debug)]
pub(crate) struct Open {
    worker: Rc<Worker>,
}

impl Open {
    pub(crate) fn new(worker: &Rc<Worker>) -> Self {
        worker.stats().downstream_cx_total.increment();
        worker.stats().downstream_cx_active.increment();
        Self {
            worker: Rc::clone(worker),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.stats().downstream_cx_active.decrement();
        self.worker.end_if_done();
        if std::thread::panicking() {
            self.worker.stats().downstream_cx_panicked.increment();
        }
    }
}

impl<D> Conn<D> {
    /// Whether answers must close their connections.
    pub(crate) fn is_draining(&self) -> bool {
        self.worker.phase() != Phase::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_task<F, Task>(_: F) -> usize
    where
        F: Fn(Box<Incoming>) -> Task,
    {
        size_of::<Task>()
    }

    /// Every connection has a task of its own, most of them idle: what only some of them need is boxed.
    #[test]
    fn an_idle_connection_needs_little() {
        let task = size_of_task(serve);
        assert!(task <= 152, "{task}");
        let session = size_of::<Session>();
        assert!(session <= 400, "{session}");
        let peers = size_of::<Peers>();
        assert!(peers <= 152, "{peers}");
    }
}
