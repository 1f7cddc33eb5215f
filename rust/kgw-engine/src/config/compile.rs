//! From intermediate representation to snapshot.
//!
//! The configuration layer checks everything it writes, so a problem here is unexpected; still, one
//! bad route must not take the others down. What cannot be compiled on its own answers 500 (a route),
//! matches nothing (a rule) or is left out (an access log), and is reported. Only a configuration
//! that contradicts itself, or a version this engine does not know, is refused as a whole.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use ipnet::IpNet;
use kgw_limit::{Tick, TokenBucket};

use super::delta::Delta;
use super::ir;
use super::snapshot::{
    Action, Backend, Carries, Cluster, Destination, FastMap, FastSet, Forward, Listener, Redirect,
    Route, Routes, Snapshot, TcpBackend, TcpForward, Traffic, Turn,
};
use crate::bridge::Bridge;
use crate::filter::RequestFilter;
use crate::filter::header_mutation::HeaderMutation;
use crate::filter::local_rate_limit::LocalRateLimit;
use crate::filter::python::Chain as PythonChain;
use crate::listen::socket::BindKey;
use crate::telemetry::access_log::{AccessLog, LogWriter};
use crate::tls::chain::{self, Chain, Chains};
use crate::tls::intern::Interned;
use crate::tls::{Inside, Server};
use crate::upstream::pool::PoolKey;
use crate::upstream::proxy_protocol::ProxyProtocol;

/// Why a configuration is refused as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Two listeners of one id, or of one address.
    #[error("two listeners have the {what} {value}")]
    Duplicate {
        /// `id` or `address`.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// The bytes are not the IR.
    #[error("the configuration is not in the form this engine reads: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A listener or destination names a route table that is not there.
    #[error("{place} names route table {id:?}, which is not there")]
    NoRouteTable {
        /// The listener.
        place: String,
        /// The table's id.
        id: String,
    },
    /// A route table as a whole cannot be built: it is too large.
    #[error("route table {id:?}: {error}")]
    RouteTable {
        /// The table's id.
        id: String,
        /// Why not.
        error: Box<kgw_route::BuildError>,
    },
    /// A limit that would be none.
    #[error("{place}: {what} is {value}, more than {MAX_HEAD_BYTES}")]
    TooLarge {
        /// The listener.
        place: String,
        /// The option.
        what: &'static str,
        /// Its value.
        value: usize,
    },
    /// Changes to another generation than the newest one.
    #[error("stale base: the changes are to generation {base}, the newest one is {newest}")]
    StaleBase {
        /// What the changes are to.
        base: u64,
        /// The newest generation.
        newest: u64,
    },
    /// Another version of the IR.
    #[error(
        "the configuration has version {found}, this engine reads version {}",
        ir::VERSION
    )]
    Version {
        /// The version found.
        found: u32,
    },
}

/// Compiles configurations, and remembers what has identity across them.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    /// Token buckets by id and rate: an unrelated change must not refill them, nor may taking a limit
    /// away and putting it back. A bucket is forgotten once it is out of use and full, since it then
    /// equals a new one.
    buckets: HashMap<BucketKey, Arc<TokenBucket>>,
    /// TLS by its configuration: what did not change keeps its sessions.
    tls: Interned,
    /// What is served: what deltas are to.
    current: ir::Config,
    /// What was compiled last, and is not served yet.
    next: Option<ir::Config>,
    /// Where filters in Python are asked.
    bridge: Option<Arc<Bridge>>,
}

/// Most bytes that a head may be allowed to have.
const MAX_HEAD_BYTES: usize = 1024 * 1024;

type BucketKey = (String, u64, u64, u64);

/// What a compilation works with.
struct Compilation<'a> {
    compiler: &'a mut Compiler,
    clusters: BTreeMap<&'a str, Arc<Cluster>>,
    routes: BTreeMap<&'a str, Arc<Route>>,
    problems: Vec<String>,
}

impl Compiler {
    /// Makes a compiler for routes whose Python filters are those of `bridge`.
    pub(crate) fn new(bridge: Option<Arc<Bridge>>) -> Self {
        Self {
            bridge,
            ..Self::default()
        }
    }

    /// Compiles `bytes` into a snapshot. Its addresses are not bound yet: that is the engine's part.
    pub(crate) fn compile(
        &mut self,
        bytes: &[u8],
        logs: &LogWriter,
        workers: usize,
        generation: u64,
        now: Tick,
    ) -> Result<Snapshot, CompileError> {
        let config: ir::Config = serde_json::from_slice(bytes)?;
        check_version(config.version)?;
        self.compile_config(config, logs, workers, generation, now)
    }

    /// Compiles the configuration that is served with the changes of `bytes`.
    pub(crate) fn compile_delta(
        &mut self,
        bytes: &[u8],
        logs: &LogWriter,
        workers: usize,
        generation: u64,
        now: Tick,
    ) -> Result<Snapshot, CompileError> {
        let delta: Delta = serde_json::from_slice(bytes)?;
        check_version(delta.version)?;
        let newest = generation - 1;
        if delta.base != newest {
            let base = delta.base;
            return Err(CompileError::StaleBase { base, newest });
        }
        let mut config = self.current.clone();
        merge(&mut config, delta);
        self.compile_config(config, logs, workers, generation, now)
    }

    /// Makes what was compiled last what the next delta is to.
    pub(crate) fn commit(&mut self) {
        if let Some(next) = self.next.take() {
            self.current = next;
        }
    }

    fn compile_config(
        &mut self,
        config: ir::Config,
        logs: &LogWriter,
        workers: usize,
        generation: u64,
        now: Tick,
    ) -> Result<Snapshot, CompileError> {
        let mut problems = Vec::new();
        let mut compilation = Compilation {
            clusters: clusters(&config, workers, &mut self.tls, &mut problems),
            routes: BTreeMap::new(),
            problems,
            compiler: self,
        };
        for (id, route) in &config.routes {
            let compiled = compilation.route(id, route);
            compilation.routes.insert(id, Arc::new(compiled));
        }
        let mut tables = BTreeMap::new();
        for (id, table) in &config.route_tables {
            tables.insert(id.as_str(), Arc::new(compilation.table(id, table)?));
        }
        let mut listeners = HashMap::default();
        let mut addresses = HashSet::new();
        for listener in &config.listeners {
            let compiled = compilation.listener(listener, &tables, logs)?;
            for key in &compiled.bind {
                if !addresses.insert(key.clone()) {
                    let value = key.requested.to_string();
                    return Err(CompileError::Duplicate {
                        what: "address",
                        value,
                    });
                }
            }
            if listeners
                .insert(Arc::clone(&compiled.id), Arc::new(compiled))
                .is_some()
            {
                let value = listener.id.clone();
                return Err(CompileError::Duplicate { what: "id", value });
            }
        }
        let endpoints: FastSet<PoolKey> = compilation
            .clusters
            .values()
            .flat_map(|cluster| cluster.endpoints.iter().map(|&at| cluster.pool_key(at)))
            .collect();
        let problems = compilation.problems;
        drop(compilation.routes);
        self.tls.forget_unused();
        self.buckets.retain(|(_, max_tokens, ..), bucket| {
            Arc::strong_count(bucket) > 1 || bucket.remaining(now) < *max_tokens
        });
        self.next = Some(config);
        Ok(Snapshot {
            generation,
            listeners,
            endpoints,
            problems,
        })
    }

    fn bucket(
        &mut self,
        id: &str,
        max_tokens: u64,
        tokens_per_fill: u64,
        fill_interval_ns: u64,
    ) -> Result<Arc<TokenBucket>, kgw_limit::Error> {
        let key = (id.to_owned(), max_tokens, tokens_per_fill, fill_interval_ns);
        if let Some(bucket) = self.buckets.get(&key) {
            return Ok(Arc::clone(bucket));
        }
        let interval = Duration::from_nanos(fill_interval_ns);
        let bucket = Arc::new(TokenBucket::new(max_tokens, tokens_per_fill, interval)?);
        self.buckets.insert(key, Arc::clone(&bucket));
        Ok(bucket)
    }
}

fn check_version(found: u32) -> Result<(), CompileError> {
    if found == ir::VERSION {
        Ok(())
    } else {
        Err(CompileError::Version { found })
    }
}

fn merge(config: &mut ir::Config, delta: Delta) {
    fn change<V>(values: &mut BTreeMap<String, V>, changes: BTreeMap<String, Option<V>>) {
        for (id, change) in changes {
            match change {
                Some(value) => {
                    values.insert(id, value);
                }
                None => {
                    values.remove(&id);
                }
            }
        }
    }
    if let Some(listeners) = delta.listeners {
        config.listeners = listeners;
    }
    change(&mut config.routes, delta.routes);
    change(&mut config.clusters, delta.clusters);
    for (id, table) in delta.route_tables {
        let Some(table) = table else {
            config.route_tables.remove(&id);
            continue;
        };
        let hosts = &mut config.route_tables.entry(id).or_default().hosts;
        for mut change in table.hosts {
            if change.removed {
                hosts.retain(|host| host.hostname != change.hostname);
                continue;
            }
            let same = |host: &ir::VirtualHost| host.hostname == change.hostname;
            let at = hosts.iter().position(same).unwrap_or_else(|| {
                hosts.push(ir::VirtualHost {
                    hostname: change.hostname.clone(),
                    rules: Vec::new(),
                });
                hosts.len() - 1
            });
            let changed = change.rules.iter().map(|rule| rule.route.clone());
            let changed: HashSet<_> = changed.chain(change.removed_rules).collect();
            let rules = &mut hosts[at].rules;
            rules.retain(|rule| !changed.contains(&rule.route));
            rules.append(&mut change.rules);
        }
    }
}

fn max_header_bytes(listener: &ir::Listener) -> usize {
    match listener.traffic {
        ir::Traffic::Http { .. } | ir::Traffic::Tcp { .. } | ir::Traffic::Tls { .. } => listener
            .proxy_protocol
            .as_ref()
            .map_or(0, |options| options.max_header_bytes),
        ir::Traffic::Waypoint {
            max_header_bytes, ..
        } => max_header_bytes,
    }
}

fn clusters<'a>(
    config: &'a ir::Config,
    workers: usize,
    tls: &mut Interned,
    problems: &mut Vec<String>,
) -> BTreeMap<&'a str, Arc<Cluster>> {
    let mut clusters = BTreeMap::new();
    for (id, cluster) in &config.clusters {
        let mut endpoints = cluster.endpoints.clone().into_boxed_slice();
        let proxy_protocol = cluster.proxy_protocol.as_ref().map(ProxyProtocol::compile);
        let proxy_protocol = proxy_protocol.transpose().unwrap_or_else(|problem| {
            problems.push(format!("cluster {id}: {problem}"));
            // An endpoint that wants a header would take what comes instead for one.
            endpoints = Box::default();
            None
        });
        let tls = cluster
            .tls
            .as_ref()
            .map(|tls_of_it| tls.client(tls_of_it, cluster.protocol));
        let tls = tls.transpose().unwrap_or_else(|problem| {
            problems.push(format!("cluster {id}: TLS: {problem}"));
            // What is meant for TLS is never sent without it.
            endpoints = Box::default();
            None
        });
        let compiled = Cluster {
            name: id.clone(),
            endpoints,
            connect_timeout: Duration::from_millis(cluster.connect_timeout_ms),
            protocol: cluster.protocol,
            proxy_protocol,
            transport: tls.as_ref().map_or(0, |tls| tls.id),
            tls,
            max_requests_per_connection: cluster.max_requests_per_connection,
            turns: (0..workers).map(|_| Turn::random()).collect(),
        };
        clusters.insert(id.as_str(), Arc::new(compiled));
    }
    clusters
}

impl Compilation<'_> {
    fn listener(
        &mut self,
        listener: &ir::Listener,
        tables: &BTreeMap<&str, Arc<Routes>>,
        logs: &LogWriter,
    ) -> Result<Listener, CompileError> {
        let table = |id: &String| {
            tables
                .get(id.as_str())
                .cloned()
                .ok_or_else(|| CompileError::NoRouteTable {
                    place: listener.id.clone(),
                    id: id.clone(),
                })
        };
        let traffic = match &listener.traffic {
            ir::Traffic::Http { route_table } => Traffic::Http(table(route_table)?),
            ir::Traffic::Tcp { forward } => Traffic::Tcp(self.tcp_forward(&listener.id, forward)),
            ir::Traffic::Tls {
                handshake_timeout_ms,
                chains,
            } => {
                let mut compiled = Chains::default();
                for chain in chains {
                    let place = format!("{}: chain {}", listener.id, chain.name);
                    let action = match &chain.action {
                        ir::TlsAction::Passthrough { forward } => {
                            chain::Action::Passthrough(self.tcp_forward(&place, forward))
                        }
                        ir::TlsAction::Http { tls, route_table } => chain::Action::Http {
                            routes: table(route_table)?,
                            tls: self.server_tls(&place, tls, Inside::Http(listener.http.codec)),
                        },
                        ir::TlsAction::Tcp { tls, forward } => chain::Action::Tcp {
                            tls: self.server_tls(&place, tls, Inside::Bytes),
                            forward: self.tcp_forward(&place, forward),
                        },
                    };
                    let name = Arc::from(chain.name.as_str());
                    let taken = compiled.add(Chain { name, action }, &chain.server_names);
                    for name in taken {
                        let problem = format!("{place}: server name {name:?} is taken");
                        self.problems.push(problem);
                    }
                }
                Traffic::Tls {
                    handshake_timeout_ms: *handshake_timeout_ms,
                    chains: compiled,
                }
            }
            ir::Traffic::Waypoint {
                header_timeout_ms,
                max_header_bytes,
                accept_v1,
                destinations,
            } => {
                let mut compiled = HashMap::default();
                for destination in destinations {
                    let key = (destination.address, destination.port);
                    let service = Arc::from(destination.service.as_str());
                    let routes = destination.route_table.as_ref().map(table).transpose()?;
                    let place = || format!("{}: {}", listener.id, SocketAddr::from(key));
                    let tcp = destination.tcp.as_ref();
                    let tcp = tcp.map(|forward| self.tcp_forward(&place(), forward));
                    let carries = match (routes, tcp) {
                        (Some(routes), None) => Carries::Http(routes),
                        (None, Some(tcp)) => Carries::Tcp(tcp),
                        (Some(routes), Some(tcp)) => Carries::Either(routes, tcp),
                        (None, None) => {
                            let problem = format!("{}: neither routes nor backends", place());
                            self.problems.push(problem);
                            continue;
                        }
                    };
                    if compiled
                        .insert(key, Destination { service, carries })
                        .is_some()
                    {
                        let value = SocketAddr::from(key).to_string();
                        return Err(CompileError::Duplicate {
                            what: "destination",
                            value,
                        });
                    }
                }
                Traffic::Waypoint {
                    header_timeout_ms: *header_timeout_ms,
                    max_header_bytes: *max_header_bytes,
                    accept_v1: *accept_v1,
                    destinations: compiled,
                    names: names(destinations),
                }
            }
        };
        for (what, value) in [
            ("max_head_bytes", listener.http.max_head_bytes),
            ("max_header_bytes", max_header_bytes(listener)),
        ] {
            if value > MAX_HEAD_BYTES {
                return Err(CompileError::TooLarge {
                    place: listener.id.clone(),
                    what,
                    value,
                });
            }
        }
        let mut access_logs = Vec::with_capacity(listener.access_logs.len());
        for log in &listener.access_logs {
            match AccessLog::new(log, logs) {
                Ok(log) => access_logs.push(log),
                Err(error) => self.problems.push(format!("{}: {error}", listener.id)),
            }
        }
        Ok(Listener {
            id: Arc::from(listener.id.as_str()),
            bind: listener
                .bind
                .iter()
                .map(|&at| BindKey::new(&listener.id, at))
                .collect(),
            traffic,
            proxy_protocol: listener.proxy_protocol.clone(),
            http: listener.http.clone(),
            max_connections: listener.max_connections,
            balance: listener.balance,
            trusted_proxies: self.networks(&listener.id, &listener.http.xff_trusted_cidrs),
            logs: Arc::from(access_logs),
        })
    }

    /// Compiles how the TLS of clients ends. A chain without it refuses its clients.
    fn server_tls(
        &mut self,
        place: &str,
        tls: &ir::ServerTls,
        inside: Inside,
    ) -> Option<Arc<Server>> {
        let compiled = self.compiler.tls.server(tls, inside);
        compiled
            .map_err(|problem| self.problems.push(format!("{place}: TLS: {problem}")))
            .ok()
    }

    /// Compiles where bytes go. What `place` names that is not there closes its connections.
    fn tcp_forward(&mut self, place: &str, forward: &ir::TcpForward) -> Arc<TcpForward> {
        let backends: Box<[TcpBackend]> = forward
            .backends
            .iter()
            .map(|backend| {
                let cluster = backend.cluster.as_deref().and_then(|id| {
                    let cluster = self.clusters.get(id).cloned();
                    if cluster.is_none() {
                        self.problems.push(format!("{place}: no cluster {id:?}"));
                    }
                    cluster
                });
                if !backend.filters.is_empty() {
                    let problem = format!("{place}: backends of connections have no filters");
                    self.problems.push(problem);
                }
                TcpBackend {
                    cluster,
                    weight: backend.weight,
                }
            })
            .collect();
        Arc::new(TcpForward {
            name: forward.name.clone(),
            total_weight: backends
                .iter()
                .map(|backend| u64::from(backend.weight))
                .sum(),
            backends,
            idle_timeout_ms: forward.idle_timeout_ms,
        })
    }

    /// Parses networks; an address alone is the network of it. One that is none is left out, which
    /// trusts nobody too many.
    fn networks(&mut self, listener: &str, networks: &[String]) -> Box<[IpNet]> {
        let mut parsed = Vec::with_capacity(networks.len());
        for network in networks {
            let one = network
                .parse::<IpNet>()
                .or_else(|_| network.parse::<IpAddr>().map(IpNet::from));
            match one {
                Ok(one) => parsed.push(one),
                Err(_) => self
                    .problems
                    .push(format!("{listener}: {network:?} is no network")),
            }
        }
        parsed.into_boxed_slice()
    }

    fn table(&mut self, id: &str, table: &ir::RouteTable) -> Result<Routes, CompileError> {
        let mut builder = kgw_route::Builder::new();
        for host in &table.hosts {
            if host.rules.is_empty() {
                // A host without rules is still the most specific one for its requests: 404.
                let nothing = kgw_route::Rule::new(kgw_route::PathMatch::Prefix("/".to_owned()));
                if let Err(error) = builder.add(&host.hostname, nothing, None) {
                    self.problems.push(format!("{id}: {error}"));
                }
            }
            for rule in &host.rules {
                let route = self
                    .routes
                    .get(rule.route.as_str())
                    .cloned()
                    .unwrap_or_else(|| {
                        self.problems
                            .push(format!("{id}: no route {:?}", rule.route));
                        Arc::new(broken(rule.route.clone()))
                    });
                if let Err(error) = builder.add(&host.hostname, rule_of(rule), Some(route)) {
                    self.problems.push(format!("{id}: {error}"));
                }
            }
        }
        let table = builder.build().map_err(|error| CompileError::RouteTable {
            id: id.to_owned(),
            error: Box::new(error),
        })?;
        Ok(Routes { table })
    }

    fn route(&mut self, id: &str, route: &ir::Route) -> Route {
        self.try_route(route).unwrap_or_else(|problem| {
            self.problems.push(format!("route {id}: {problem}"));
            broken(route.name.clone())
        })
    }

    fn try_route(&mut self, route: &ir::Route) -> Result<Route, String> {
        let mut request_filters = Vec::new();
        let mut response_headers = Vec::new();
        let mut grpc_web = false;
        let mut python = PythonChain::of(&route.name, self.compiler.bridge.clone());
        for filter in &route.filters {
            match filter {
                ir::Filter::LocalRateLimit {
                    bucket,
                    max_tokens,
                    tokens_per_fill,
                    fill_interval_ns,
                } => {
                    let bucket = self
                        .compiler
                        .bucket(bucket, *max_tokens, *tokens_per_fill, *fill_interval_ns)
                        .map_err(|error| error.to_string())?;
                    let limit = LocalRateLimit { bucket };
                    request_filters.push(RequestFilter::LocalRateLimit(limit));
                }
                ir::Filter::RequestHeaders(mutation) => {
                    let mutation = HeaderMutation::compile(mutation)?;
                    request_filters.push(RequestFilter::Headers(mutation));
                }
                ir::Filter::ResponseHeaders(mutation) => {
                    response_headers.push(HeaderMutation::compile(mutation)?);
                }
                ir::Filter::GrpcWeb => grpc_web = true,
                ir::Filter::Python(filter) => python.add(filter, &mut request_filters)?,
            }
        }
        python.attach(&mut request_filters)?;
        Ok(Route {
            name: route.name.clone(),
            request_filters: request_filters.into_boxed_slice(),
            response_headers: response_headers.into_boxed_slice(),
            response_filters: python.responses(),
            grpc_web,
            action: self.action(&route.action)?,
        })
    }

    fn action(&self, action: &ir::Action) -> Result<Action, String> {
        match action {
            ir::Action::Forward {
                backends,
                request_timeout_ms,
                backend_request_timeout_ms,
                rewrite,
                upgrades,
            } => {
                if let Some(hostname) = &rewrite.hostname
                    && !kgw_h1::is_valid_authority(hostname.as_bytes())
                {
                    return Err(format!("{hostname:?} is not a host"));
                }
                if let Some(path) = &rewrite.path {
                    check_path(path)?;
                }
                let backends = backends
                    .iter()
                    .map(|backend| self.backend(backend))
                    .collect::<Result<Box<[_]>, _>>()?;
                let timeout_ms = [*request_timeout_ms, *backend_request_timeout_ms]
                    .into_iter()
                    .filter(|&milliseconds| milliseconds > 0)
                    .min()
                    .unwrap_or(0);
                Ok(Action::Forward(Forward {
                    total_weight: backends
                        .iter()
                        .map(|backend| u64::from(backend.weight))
                        .sum(),
                    backends,
                    timeout_ms,
                    hostname: rewrite.hostname.clone(),
                    path: rewrite.path.clone(),
                    upgrades: upgrades.clone().into_boxed_slice(),
                }))
            }
            ir::Action::Redirect {
                scheme,
                hostname,
                port,
                path,
                status,
            } => {
                if let Some(hostname) = hostname
                    && !kgw_h1::is_valid_authority(hostname.as_bytes())
                {
                    return Err(format!("{hostname:?} is not a host"));
                }
                if let Some(path) = path {
                    check_path(path)?;
                }
                if !(300..400).contains(status) {
                    return Err(format!("{status} is not the status of a redirect"));
                }
                Ok(Action::Redirect(Redirect {
                    scheme: scheme.clone(),
                    hostname: hostname.clone(),
                    port: *port,
                    path: path.clone(),
                    status: *status,
                }))
            }
            ir::Action::Direct { status, body } => {
                if !(200..600).contains(status) {
                    return Err(format!("{status} is not the status of a final answer"));
                }
                Ok(Action::Direct {
                    status: *status,
                    body: body.clone(),
                })
            }
        }
    }

    fn backend(&self, backend: &ir::Backend) -> Result<Backend, String> {
        let cluster = match &backend.cluster {
            None => None,
            Some(id) => match self.clusters.get(id.as_str()) {
                Some(cluster) => Some(Arc::clone(cluster)),
                None => return Err(format!("no cluster {id:?}")),
            },
        };
        let mut request_headers = Vec::new();
        let mut response_headers = Vec::new();
        for filter in &backend.filters {
            match filter {
                ir::Filter::RequestHeaders(mutation) => {
                    request_headers.push(HeaderMutation::compile(mutation)?);
                }
                ir::Filter::ResponseHeaders(mutation) => {
                    response_headers.push(HeaderMutation::compile(mutation)?);
                }
                ir::Filter::LocalRateLimit { .. } | ir::Filter::GrpcWeb | ir::Filter::Python(_) => {
                    return Err("only header changes can be a backend's own".to_owned());
                }
            }
        }
        Ok(Backend {
            cluster,
            weight: backend.weight,
            request_headers: request_headers.into_boxed_slice(),
            response_headers: response_headers.into_boxed_slice(),
        })
    }
}

/// The names by which Kubernetes DNS knows the services, with the address that each stands for.
fn names(destinations: &[ir::Destination]) -> FastMap<(Box<[u8]>, u16), Option<SocketAddr>> {
    let mut names: FastMap<(Box<[u8]>, u16), Option<SocketAddr>> = FastMap::default();
    let mut services: HashMap<(Box<[u8]>, u16), &str> = HashMap::new();
    for destination in destinations {
        let Some((namespace, name)) = destination.service.split_once('/') else {
            continue;
        };
        let address = SocketAddr::from((destination.address, destination.port));
        for host in [
            name.to_owned(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.cluster.local"),
        ] {
            let key = (
                host.to_ascii_lowercase().into_bytes().into_boxed_slice(),
                destination.port,
            );
            match services.get(&key) {
                None => {
                    services.insert(key.clone(), &destination.service);
                    names.insert(key, Some(address));
                }
                // Another address of the same service (dual stack): the first stands for both.
                Some(service) if *service == destination.service => {}
                Some(_) => {
                    names.insert(key, None);
                }
            }
        }
    }
    names
}

/// What answers in place of a route that cannot be compiled; the text is kgateway's.
fn broken(name: String) -> Route {
    let body = "invalid route configuration detected and replaced with a direct response.";
    Route {
        name,
        request_filters: Box::default(),
        response_headers: Box::default(),
        response_filters: Box::default(),
        grpc_web: false,
        action: Action::Direct {
            status: 500,
            body: body.to_owned(),
        },
    }
}

fn check_path(rewrite: &ir::PathRewrite) -> Result<(), String> {
    let path = match rewrite {
        ir::PathRewrite::Full(path) | ir::PathRewrite::Prefix { to: path, .. } => path,
    };
    if path
        .bytes()
        .all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#')
    {
        Ok(())
    } else {
        Err(format!("{path:?} is not a path"))
    }
}

fn rule_of(rule: &ir::Rule) -> kgw_route::Rule {
    kgw_route::Rule {
        path: match &rule.path {
            ir::PathMatch::Exact(path) => kgw_route::PathMatch::Exact(path.clone()),
            ir::PathMatch::Prefix(path) => kgw_route::PathMatch::Prefix(path.clone()),
            ir::PathMatch::Regex(path) => kgw_route::PathMatch::Regex(path.clone()),
        },
        method: rule.method.clone(),
        headers: rule.headers.iter().map(value_match_of).collect(),
        query: rule.query.iter().map(value_match_of).collect(),
        rank: kgw_route::Rank {
            created: rule.rank.created,
            name: rule.rank.name.clone(),
            rule: rule.rank.rule,
            r#match: rule.rank.r#match,
        },
    }
}

fn value_match_of(value_match: &ir::ValueMatch) -> kgw_route::ValueMatch {
    kgw_route::ValueMatch {
        name: value_match.name.clone(),
        value: match &value_match.value {
            ir::StringMatch::Exact(value) => kgw_route::StringMatch::Exact(value.clone()),
            ir::StringMatch::Present => kgw_route::StringMatch::Present,
            ir::StringMatch::Regex(value) => kgw_route::StringMatch::Regex(value.clone()),
        },
    }
}
