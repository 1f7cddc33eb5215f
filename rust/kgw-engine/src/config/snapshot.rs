//! The compiled configuration: immutable, fully resolved, shared by all workers.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use ipnet::IpNet;
use kgw_h1::Headers;
use kgw_limit::RetryBudget;
use kgw_proxyproto::MeshIdentity;
use tokio::sync::futures::Notified;

use super::ir::{self, HttpOptions, Redirect, UpstreamProtocol};
use crate::clock::Nanos;
use crate::filter::cors::Cors;
use crate::filter::header_mutation::HeaderMutation;
use crate::filter::jwt::remote::RemoteKeys;
use crate::filter::{RequestFilter, ResponseFilter, Slot};
use crate::listen::socket::BindKey;
use crate::pipeline::direct::Direct;
use crate::pipeline::early::Early;
use crate::pipeline::local_reply::LocalReplies;
use crate::pipeline::retry::Retry;
use crate::pipeline::session::{Pinned, Session};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::tracing::{RouteTracing, Tracer};
use crate::tls::{self, chain::Chains};
use crate::upstream::breaker::Breaker;
use crate::upstream::dns::{Endpoints, Host};
use crate::upstream::endpoint::{Changes, Endpoint};
use crate::upstream::forward_proxy::{ForwardProxy, Forwarding, IS_FORWARDED};
use crate::upstream::health::checks::Checks;
use crate::upstream::health::outlier::{Outcome, Outliers};
use crate::upstream::in_process;
use crate::upstream::options::Options;
use crate::upstream::pool::PoolKey;
use crate::upstream::proxy_protocol::ProxyProtocol;

pub(crate) type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
pub(crate) type FastSet<K> = hashbrown::HashSet<K, foldhash::fast::RandomState>;

/// Addresses by the names that Kubernetes DNS gives a service, and its port. None is a name that more
/// than one service has.
pub(crate) type ServiceNames = FastMap<(Box<[u8]>, u16), Option<SocketAddr>>;

/// One generation of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) listeners: FastMap<Arc<str>, Arc<Listener>>,
    /// Every endpoint that a cluster was given: pooled connections to others are dropped.
    pub(crate) endpoints: Arc<FastSet<PoolKey>>,
    /// The names of clusters, by their numbers: endpoints are what they are found at.
    pub(crate) hosts: Arc<FastMap<u64, Arc<Host>>>,
    /// Hosts that requests name.
    pub(crate) forwarding: Option<Arc<Forwarding>>,
    /// The clusters that somebody looks after.
    pub(crate) tended: Arc<[Arc<Cluster>]>,
    /// Keys that are fetched in the background, with the clusters of their servers.
    pub(crate) keys: Box<[KeyServer]>,
    /// What could not be compiled and was replaced or left out.
    pub(crate) problems: Vec<String>,
}

/// A server whose keys are fetched in the background.
#[derive(Debug)]
pub(crate) struct KeyServer {
    pub(crate) keys: Weak<RemoteKeys>,
    pub(crate) cluster: Arc<Cluster>,
}

impl Snapshot {
    /// The cluster of the server that has keys which are fetched in the background, if they are.
    pub(crate) fn cluster_of(&self, keys: &Arc<RemoteKeys>) -> Option<Arc<Cluster>> {
        let is_it = |one: &&KeyServer| std::ptr::eq(one.keys.as_ptr(), Arc::as_ptr(keys));
        let found = self.keys.iter().find(is_it);
        found.map(|one| Arc::clone(&one.cluster))
    }

    /// Whether a cluster has an endpoint of this address, reached in this way.
    pub(crate) fn has_endpoint(&self, key: &PoolKey) -> bool {
        if key.transport & IS_FORWARDED != 0 {
            return self.forwarding.as_ref().is_some_and(|all| all.has(key));
        }
        self.endpoints.contains(key)
            || self
                .hosts
                .get(&key.transport)
                .is_some_and(|host| host.has(&key.endpoint))
    }
}

/// A listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) id: Arc<str>,
    pub(crate) bind: Vec<BindKey>,
    pub(crate) traffic: Traffic,
    /// A PROXY header in front of each connection; a waypoint has its own options.
    pub(crate) proxy_protocol: Option<ir::ProxyProtocol>,
    pub(crate) http: HttpOptions,
    /// Open connections at which accepting pauses, over all workers. 0 is none.
    pub(crate) max_connections: u64,
    /// Which worker serves a connection.
    pub(crate) balance: ir::Balance,
    /// `http.xff_trusted_cidrs`, parsed.
    pub(crate) trusted_proxies: Box<[IpNet]>,
    /// `http.early`, if it is anything.
    pub(crate) early: Option<Box<Early>>,
    pub(crate) tcp_keepalive: Option<ir::TcpKeepalive>,
    /// Shared: a long connection that is passed on as bytes keeps these and not the listener.
    pub(crate) logs: Arc<[AccessLog]>,
    /// What becomes of answers that the proxy makes itself.
    pub(crate) local_replies: Option<Box<LocalReplies>>,
    /// What traces requests.
    pub(crate) tracing: Option<Box<Tracer>>,
}

/// Where a connection's requests are routed.
#[derive(Debug)]
pub(crate) enum Traffic {
    Http(Arc<Routes>),
    Tcp(Arc<TcpForward>),
    Udp(Arc<UdpForward>),
    Tls {
        handshake_timeout_ms: u64,
        chains: Chains,
    },
    Waypoint {
        header_timeout_ms: u64,
        max_header_bytes: usize,
        accept_v1: bool,
        destinations: FastMap<(IpAddr, u16), Destination>,
        names: Arc<ServiceNames>,
    },
}

/// A service port of a waypoint.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) service: Arc<str>,
    /// What connections carry unless it is another thing for their clients.
    pub(crate) carries: Carries,
    /// What those of clients from some namespaces carry, by namespace.
    pub(crate) for_clients: Option<Box<FastMap<Box<str>, Carries>>>,
}

impl Destination {
    /// What the connections of a client carry, whose mesh identity is a SPIFFE URI.
    pub(crate) fn carries(&self, principal: Option<&str>) -> &Carries {
        // Most services have nothing for some clients, and then nobody asks who the client is.
        let own = self.for_clients.as_deref().and_then(|for_clients| {
            let identity = MeshIdentity::parse(principal?.as_bytes()).ok()?;
            for_clients.get(identity.namespace)
        });
        own.unwrap_or(&self.carries)
    }
}

/// What the connections to a service port carry.
#[derive(Clone, Debug)]
pub(crate) enum Carries {
    Http(Arc<Routes>),
    Tcp(Arc<TcpForward>),
    /// The first bytes tell.
    Either(Arc<Routes>, Arc<TcpForward>),
    /// TLS that does not end here: the server name tells where it goes.
    Tls {
        handshake_timeout_ms: u64,
        chains: Arc<Chains>,
    },
}

/// Passing bytes on to weighted backends.
#[derive(Debug)]
pub(crate) struct TcpForward {
    /// `%ROUTE_NAME%` in access logs.
    pub(crate) name: String,
    pub(crate) backends: Box<[TcpBackend]>,
    pub(crate) total_weight: u64,
    /// Milliseconds; 0 is none.
    pub(crate) idle_timeout_ms: u64,
}

/// A weighted backend of connections.
#[derive(Debug)]
pub(crate) struct TcpBackend {
    /// None is an unresolved reference: the connection is closed.
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) weight: u32,
}

impl TcpForward {
    /// Picks a backend by weight; none if no weight is positive.
    pub(crate) fn pick(&self) -> Option<&TcpBackend> {
        pick(&self.backends, self.total_weight, |backend| backend.weight)
    }
}

/// Passing datagrams on to weighted backends.
#[derive(Debug)]
pub(crate) struct UdpForward {
    /// `%ROUTE_NAME%` in access logs.
    pub(crate) name: String,
    pub(crate) backends: Box<[TcpBackend]>,
    pub(crate) total_weight: u64,
    /// Milliseconds; 0 is none.
    pub(crate) idle_timeout_ms: u64,
    /// Of each worker; 0 is no limit.
    pub(crate) max_sessions_per_client: u32,
}

impl UdpForward {
    /// Picks a backend by weight; none if no weight is positive.
    pub(crate) fn pick(&self) -> Option<&TcpBackend> {
        pick(&self.backends, self.total_weight, |backend| backend.weight)
    }

    /// The cluster of a name, if it has an endpoint that datagrams go to, or went to before its weight
    /// became zero.
    pub(crate) fn cluster(&self, name: &str, endpoint: SocketAddr) -> Option<&Arc<Cluster>> {
        let mut clusters = self.backends.iter().filter_map(|one| one.cluster.as_ref());
        clusters.find(|one| one.name == name && one.endpoint(endpoint).is_some())
    }
}

/// Picks one of `backends` by weight; none if no weight is positive.
fn pick<B>(backends: &[B], total_weight: u64, weight: impl Fn(&B) -> u32) -> Option<&B> {
    match backends {
        [only] if weight(only) > 0 => Some(only),
        _ if total_weight == 0 => None,
        backends => {
            let mut point = fastrand::u64(..total_weight);
            backends.iter().find(|backend| {
                let weight = u64::from(weight(backend));
                let found = point < weight;
                point = point.saturating_sub(weight);
                found
            })
        }
    }
}

/// A route table.
pub(crate) struct Routes {
    pub(crate) table: kgw_route::RouteTable<Route>,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

/// What happens to a matched request: a policy, under the route's own name. There may be a hundred
/// thousand routes, and few policies.
///
/// Tables have it in their candidates, so that a request reads no memory of the route itself unless it
/// is logged.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    policy: Arc<Policy>,
    names: Arc<Names>,
}

/// The id of a route, and its name in access logs.
#[derive(Debug)]
struct Names {
    /// The id, and behind it the name if the id does not hold it.
    text: Box<str>,
    id_len: u32,
    name_at: u32,
    name_len: u32,
}

impl Route {
    pub(crate) fn new(id: &str, name: &str, policy: Arc<Policy>) -> Self {
        let name_in_id = id.find(name);
        let text: Box<str> = match name_in_id {
            Some(_) => id.into(),
            None => [id, name].concat().into(),
        };
        let names = Names {
            text,
            id_len: id.len() as u32,
            name_at: name_in_id.unwrap_or(id.len()) as u32,
            name_len: name.len() as u32,
        };
        Self {
            policy,
            names: Arc::new(names),
        }
    }

    /// The same route with another policy.
    pub(crate) fn with_policy(&self, policy: Arc<Policy>) -> Self {
        Self {
            policy,
            names: Arc::clone(&self.names),
        }
    }

    /// The id in the configuration.
    pub(crate) fn id(&self) -> &str {
        &self.names.text[..self.names.id_len as usize]
    }

    /// `%ROUTE_NAME%` in access logs.
    pub(crate) fn name(&self) -> &str {
        let names = &*self.names;
        &names.text[names.name_at as usize..][..names.name_len as usize]
    }

    pub(crate) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }
}

impl Deref for Route {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

/// What happens to the requests of routes.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) request_filters: Box<[Slot<RequestFilter>]>,
    pub(crate) response_headers: Box<[HeaderMutation]>,
    /// Filters that see the answer before the client does, in the order in which they are asked.
    pub(crate) response_filters: Box<[Slot<ResponseFilter>]>,
    /// gRPC-Web requests are translated.
    pub(crate) grpc_web: bool,
    /// What it says about traces.
    pub(crate) tracing: Option<Box<RouteTracing>>,
    /// Some of the request filters have their place behind the router.
    pub(crate) has_filters_after_router: bool,
    /// One of the request filters is the rule's CORS.
    pub(crate) has_cors: bool,
    pub(crate) action: Action,
}

/// Where a matched request goes.
#[derive(Debug)]
pub(crate) enum Action {
    Forward(Forward),
    Redirect(Redirect),
    Direct(Direct),
}

/// Forwarding to weighted backends.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) backends: Box<[Backend]>,
    pub(crate) total_weight: u64,
    /// The route's time-out, or the backend's if that is smaller and the only attempt's. Milliseconds;
    /// 0 is none.
    pub(crate) timeout_ms: u64,
    pub(crate) retry: Option<Box<Retry>>,
    /// In the order in which requests are asked for them.
    pub(crate) sessions: Box<[Session]>,
    pub(crate) rewrite: ir::Rewrite,
    /// In paths that are not rewritten otherwise.
    pub(crate) path_regex: Option<Box<kgw_route::Substitution>>,
    pub(crate) auto_host_rewrite: bool,
    /// In place of the listener's. Milliseconds; 0 is none.
    pub(crate) stream_idle_timeout_ms: Option<u64>,
    /// Protocols that requests may switch to, beside the listener's.
    pub(crate) upgrades: Box<[String]>,
    /// Status where there is no backend to go to.
    pub(crate) unresolved_status: u16,
    pub(crate) mirrors: Box<[Arc<Mirror>]>,
}

/// Copies of requests to a cluster.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) cluster: Arc<Cluster>,
    /// Of this share of the requests there is a copy.
    pub(crate) numerator: u32,
    pub(crate) denominator: u32,
    /// The host that copies ask for, in place of the request's.
    pub(crate) hostname: Option<Box<str>>,
    /// Copies ask for the request's host with `-shadow` behind its name.
    pub(crate) append_shadow: bool,
    /// What a copy is forwarded with: a time-out.
    pub(crate) forward: Forward,
}

/// Time for a copy of a request whose route has no time-out: nobody waits for the answer, so nobody else
/// ends it. Milliseconds; kgateway's time-out of a route.
const COPY_TIMEOUT_MS: u64 = 15_000;

impl Forward {
    /// What a copy of a request is forwarded with, which may take as long as the request itself, as in
    /// Envoy.
    pub(crate) fn of_copy(timeout_ms: u64) -> Self {
        Self {
            backends: Box::default(),
            total_weight: 0,
            timeout_ms: match timeout_ms {
                0 => COPY_TIMEOUT_MS,
                given => given,
            },
            retry: None,
            sessions: Box::default(),
            rewrite: ir::Rewrite::default(),
            path_regex: None,
            auto_host_rewrite: false,
            stream_idle_timeout_ms: None,
            upgrades: Box::default(),
            unresolved_status: 500,
            mirrors: Box::default(),
        }
    }

    /// Picks a backend by weight; none if no weight is positive.
    pub(crate) fn pick(&self) -> Option<&Backend> {
        pick(&self.backends, self.total_weight, |backend| backend.weight)
    }

    /// Where the session leads that a request is of, if it is of one.
    pub(crate) fn session(&self, headers: &Headers, now_s: u64) -> Option<Pinned> {
        let mut sessions = self.sessions.iter();
        sessions.find_map(|session| session.find(headers, now_s))
    }

    /// The sessions that requests to a backend are of.
    pub(crate) fn session_of(&self, backend: &Backend) -> Option<&Session> {
        let mut sessions = self.sessions.iter();
        sessions.find(|session| {
            let mut places = session.backends.iter();
            places.any(|&place| std::ptr::eq(&raw const self.backends[place], backend))
        })
    }

    /// The first backend of this name, whatever its weight.
    pub(crate) fn named(&self, name: &str) -> Option<&Backend> {
        let mut backends = self.backends.iter();
        backends.find(|backend| backend.name().is_some_and(|known| known == name))
    }
}

impl Policy {
    /// The clusters that its requests, copies of them, and questions about them go to.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        let forward = match &self.action {
            Action::Forward(forward) => Some(forward),
            Action::Redirect(_) | Action::Direct(_) => None,
        };
        let backends = forward.into_iter().flat_map(|forward| &forward.backends);
        let of_backends = backends
            .clone()
            .filter_map(|backend| backend.cluster.as_deref());
        let of_rule = forward.into_iter().flat_map(|forward| &forward.mirrors);
        let own = backends.filter_map(|backend| backend.own.as_deref());
        let mirrors = of_rule.chain(own.flat_map(|own| &own.mirrors));
        let filters = self.request_filters.iter();
        let keys = filters.clone().flat_map(|slot| slot.filter.key_clusters());
        let asked = filters.filter_map(|slot| slot.filter.cluster());
        of_backends
            .chain(mirrors.map(|mirror| &*mirror.cluster))
            .chain(asked)
            .chain(keys)
    }

    /// The names of the backends that exist.
    pub(crate) fn backend_names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let backends: &[Backend] = match &self.action {
            Action::Forward(forward) => &forward.backends,
            Action::Redirect(_) | Action::Direct(_) => &[],
        };
        backends.iter().filter_map(Backend::name)
    }
}

/// A weighted backend.
#[derive(Debug)]
pub(crate) struct Backend {
    /// None is an unresolved reference: 500.
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) weight: u32,
    pub(crate) request_headers: Box<[HeaderMutation]>,
    pub(crate) response_headers: Box<[HeaderMutation]>,
    /// Its other filters, which few have.
    pub(crate) own: Option<Box<OwnFilters>>,
}

/// Filters of one backend that are not changes of header fields.
#[derive(Debug, Default)]
pub(crate) struct OwnFilters {
    /// In place of the rule's.
    pub(crate) cors: Option<Box<Cors>>,
    pub(crate) redirect: Option<Redirect>,
    /// What it has is in place of the rule's.
    pub(crate) rewrite: ir::Rewrite,
    /// Beside the rule's.
    pub(crate) mirrors: Box<[Arc<Mirror>]>,
}

impl Backend {
    /// The name that filters choose it by: `namespace/name:port` of a Service, whose cluster is called
    /// `kube_namespace_name_port`, else the cluster's name. None has no name.
    fn name(&self) -> Option<Cow<'_, str>> {
        let cluster = self.cluster.as_ref()?.name.as_str();
        let service = || {
            // No part of it has an underscore: they are DNS names. Behind `@` is the Gateway it is for.
            let (service, _) = cluster.split_once('@').unwrap_or((cluster, ""));
            let mut parts = service.strip_prefix("kube_")?.split('_');
            let (namespace, name, port) = (parts.next()?, parts.next()?, parts.next()?);
            // Requests that go there in another version than the port's have a cluster of their own.
            let variant = (parts.next(), parts.next());
            let is_service = matches!(variant, (None | Some("auto" | "http2"), None));
            is_service.then(|| Cow::Owned(format!("{namespace}/{name}:{port}")))
        };
        Some(service().unwrap_or(Cow::Borrowed(cluster)))
    }
}

/// Endpoints of equal standing.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) endpoints: Box<[Arc<Endpoint>]>,
    /// What has endpoints in place of these: a name.
    pub(crate) host: Option<Arc<Host>>,
    /// What has clusters in place of this one: the hosts that requests name.
    pub(crate) forward_proxy: Option<Arc<ForwardProxy>>,
    /// What serves in place of the one endpoint, which is its address.
    pub(crate) in_process: Option<Arc<in_process::Backend>>,
    pub(crate) connect_timeout: Duration,
    /// Which version of HTTP the endpoints speak.
    pub(crate) protocol: UpstreamProtocol,
    /// A PROXY header that starts each connection; connections are then their client's alone.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// TLS to the endpoints.
    pub(crate) tls: Option<Arc<tls::Client>>,
    /// The number of the way in which endpoints are reached; 0 is plain TCP. Clusters with equal ones
    /// share connections.
    pub(crate) transport: u64,
    /// Requests after which a connection is not used again. 0 is none.
    pub(crate) max_requests_per_connection: u64,
    /// How many of the requests may be retries.
    pub(crate) retry_budget: Option<Arc<RetryBudget>>,
    /// How connections behave.
    pub(crate) options: Arc<Options>,
    /// How much may be under way at once.
    pub(crate) breaker: Option<Arc<Breaker>>,
    /// What its endpoints are ejected for.
    pub(crate) outliers: Option<Arc<Outliers>>,
    /// How its endpoints are checked.
    pub(crate) checks: Option<Arc<Checks>>,
    /// Time for a request and its answer. Milliseconds; 0 is no limit.
    pub(crate) max_stream_duration_ms: u64,
    /// Whose turn it is, for each worker: no worker waits for another's cache line.
    pub(crate) turns: Arc<[Turn]>,
    /// What is told of changes to endpoints.
    pub(crate) changes: Arc<Changes>,
}

/// A worker's place in the round, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Turn(AtomicUsize);

impl Turn {
    /// Those of so many workers. Each starts anywhere, so that many workers favour no endpoint.
    pub(crate) fn random(workers: usize) -> Arc<[Self]> {
        let turn = || Self(AtomicUsize::new(fastrand::usize(..)));
        (0..workers).map(|_| turn()).collect()
    }
}

impl Cluster {
    /// One that nothing is known of but its name.
    #[cfg(test)]
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoints: Box::default(),
            host: None,
            forward_proxy: None,
            in_process: None,
            connect_timeout: Duration::from_secs(1),
            protocol: ir::UpstreamProtocol::Http1,
            proxy_protocol: None,
            transport: 0,
            tls: None,
            max_requests_per_connection: 0,
            retry_budget: None,
            options: Arc::default(),
            breaker: None,
            outliers: None,
            checks: None,
            max_stream_duration_ms: 0,
            turns: Arc::default(),
            changes: Arc::default(),
        }
    }

    /// The cluster of one of the hosts that requests name, otherwise like this.
    pub(crate) fn of_host(&self, host: Arc<Host>, tls: Option<Arc<tls::Client>>) -> Self {
        Self {
            transport: host.transport,
            changes: Arc::clone(host.changes()),
            host: Some(host),
            tls,
            forward_proxy: None,
            // What is known of the endpoints of one host says nothing of another's.
            outliers: None,
            checks: None,
            ..self.clone()
        }
    }

    /// Whether somebody looks after it: there is something to tell of it beside its requests.
    pub(crate) fn is_tended(&self) -> bool {
        self.breaker.is_some() || self.is_watched()
    }

    /// Whether endpoints of it may be out of use.
    fn is_watched(&self) -> bool {
        self.outliers.is_some() || self.checks.is_some()
    }

    /// Notes what a request to an endpoint came to.
    pub(crate) fn note(&self, endpoint: &Arc<Endpoint>, outcome: Outcome, now: Nanos) {
        if let Some(outliers) = &self.outliers {
            outliers.note(self, endpoint, outcome, now);
        }
    }

    /// Which connections to an endpoint of the cluster are as good as each other.
    pub(crate) fn pool_key(&self, endpoint: SocketAddr) -> PoolKey {
        PoolKey {
            endpoint,
            transport: self.transport,
        }
    }

    /// The next available endpoint in the worker's turn.
    pub(crate) fn next_endpoint(&self, worker: usize) -> Option<Arc<Endpoint>> {
        self.endpoints_in_turn(worker).next()
    }

    /// The next available endpoint in the worker's turn that is not among `tried`, if there is one, else
    /// one that was not the last to be tried, else that one.
    pub(crate) fn next_endpoint_but(
        &self,
        worker: usize,
        tried: &[SocketAddr],
    ) -> Option<Arc<Endpoint>> {
        let in_turn = || self.endpoints_in_turn(worker);
        in_turn()
            .find(|endpoint| !tried.contains(&endpoint.address))
            .or_else(|| in_turn().find(|endpoint| Some(&endpoint.address) != tried.last()))
            .or_else(|| in_turn().next())
    }

    /// Every available endpoint, or all if too few are, once, from the next one in the worker's turn on.
    pub(crate) fn endpoints_in_turn(&self, worker: usize) -> impl Iterator<Item = Arc<Endpoint>> {
        let endpoints = self.endpoints();
        let count = endpoints.len();
        let next = if count > 1 {
            let turn = &self.turns[worker].0;
            let next = turn.load(Ordering::Relaxed);
            turn.store(next.wrapping_add(1), Ordering::Relaxed);
            next % count
        } else {
            0
        };
        let panics = !self.is_watched() || is_panic(&endpoints);
        (0..count)
            .map(move |at| Arc::clone(&endpoints[(next + at) % count]))
            .filter(move |endpoint| panics || endpoint.is_available())
    }

    /// The endpoints, available or not.
    pub(crate) fn endpoints(&self) -> Endpoints<'_> {
        match &self.host {
            None => Endpoints::Given(&self.endpoints),
            Some(host) => Endpoints::Found(host.endpoints()),
        }
    }

    /// The endpoint of an address, available or not.
    pub(crate) fn endpoint(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints();
        let found = endpoints.iter().find(|one| one.address == address);
        found.map(Arc::clone)
    }

    /// What tells when its endpoints were looked up for the first time, if they were not yet.
    pub(crate) fn awaited(&self) -> Option<Notified<'_>> {
        self.host.as_ref()?.awaited()
    }
}

/// Whether so few endpoints are available that the others are used nevertheless: less than half of them.
/// Envoy's `healthy_panic_threshold`.
fn is_panic(endpoints: &[Arc<Endpoint>]) -> bool {
    let available = endpoints.iter().filter(|one| one.is_available()).count();
    available * 2 < endpoints.len()
}
