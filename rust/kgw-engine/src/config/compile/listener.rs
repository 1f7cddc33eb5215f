//! Listeners: addresses, and where their connections go.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;

use super::CompileError;
use crate::config::ir;
use crate::config::snapshot::{
    Carries, Cluster, Destination, FastMap, Listener, Routes, ServiceNames, TcpBackend, TcpForward,
    Traffic, UdpForward,
};
use crate::listen::socket::{BindKey, Transport};
use crate::pipeline::early::Early;
use crate::pipeline::local_reply::LocalReplies;
use crate::telemetry::access_log::service::ServiceLog;
use crate::telemetry::access_log::{AccessLog, LogWriter};
use crate::telemetry::tracing::Tracer;
use crate::tls::chain::{self, Chain, Chains};
use crate::tls::intern::Interned;
use crate::tls::{Inside, Server};

/// Most bytes that a head may be allowed to have.
pub(super) const MAX_HEAD_BYTES: usize = 8 << 20;

/// Compiled listeners.
#[derive(Debug, Default)]
pub(super) struct Listening {
    pub(super) listeners: FastMap<Arc<str>, Arc<Listener>>,
    /// What of them was left out, by id.
    pub(super) problems: BTreeMap<String, Vec<String>>,
}

/// What listeners are compiled with.
pub(super) struct ListenerCompiler<'a> {
    /// The route tables by their ids.
    pub(super) table: &'a dyn Fn(&str) -> Option<Arc<Routes>>,
    /// The clusters by their ids.
    pub(super) cluster: &'a dyn Fn(&str) -> Option<Arc<Cluster>>,
    pub(super) tls: &'a mut Interned,
    pub(super) logs: &'a LogWriter,
    pub(super) workers: usize,
    /// What was left out, in words.
    pub(super) problems: Vec<String>,
}

impl ListenerCompiler<'_> {
    /// Compiles a listener. `before` is what became of it last time, if it is the same in all but what
    /// it names.
    pub(super) fn compile(
        &mut self,
        listener: &ir::Listener,
        before: Option<&Listener>,
    ) -> Result<Listener, CompileError> {
        let tables = self.table;
        let table = |id: &String| {
            tables(id).ok_or_else(|| CompileError::NoRouteTable {
                place: listener.id.clone(),
                id: id.clone(),
            })
        };
        let traffic = match &listener.traffic {
            ir::Traffic::Http { route_table } => Traffic::Http(table(route_table)?),
            ir::Traffic::Tcp { forward } => Traffic::Tcp(self.tcp_forward(&listener.id, forward)),
            ir::Traffic::Udp { forward } => Traffic::Udp(self.udp_forward(&listener.id, forward)),
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
                    let place = format!("{}: {}", listener.id, SocketAddr::from(key));
                    let Some(carries) = self.carries(&place, &Carried::of(destination), table)?
                    else {
                        continue;
                    };
                    let mut for_clients = FastMap::default();
                    for (namespace, own) in &destination.clients {
                        let place = format!("{place} for clients of {namespace}");
                        if let Some(own) =
                            self.carries(&place, &Carried::for_clients(own), table)?
                        {
                            for_clients.insert(Box::from(namespace.as_str()), own);
                        }
                    }
                    let compiled_one = Destination {
                        service: Arc::from(destination.service.as_str()),
                        carries,
                        for_clients: (!for_clients.is_empty()).then(|| Box::new(for_clients)),
                    };
                    if compiled.insert(key, compiled_one).is_some() {
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
                    names: match before.map(|before| &before.traffic) {
                        Some(Traffic::Waypoint { names, .. }) => Arc::clone(names),
                        _ => Arc::new(names(destinations)),
                    },
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
        let logs = self.access_logs(listener);
        let local_replies = listener.local_replies.as_ref().and_then(|replies| {
            LocalReplies::compile(replies)
                .map_err(|error| {
                    let problem = format!("{}: local replies: {error}", listener.id);
                    self.problems.push(problem);
                })
                .ok()
        });
        let tracing = self.tracing(listener);
        let transport = match traffic {
            Traffic::Udp(_) => Transport::Udp,
            _ => Transport::Tcp,
        };
        Ok(Listener {
            id: Arc::from(listener.id.as_str()),
            bind: listener
                .bind
                .iter()
                .map(|&at| BindKey::new(&listener.id, transport, at))
                .collect(),
            traffic,
            proxy_protocol: listener.proxy_protocol.clone(),
            http: listener.http.clone(),
            max_connections: listener.max_connections,
            balance: listener.balance,
            trusted_proxies: self.networks(&listener.id, &listener.http.xff_trusted_cidrs),
            early: self.early(listener),
            tcp_keepalive: listener.tcp_keepalive.clone(),
            logs,
            local_replies: local_replies.map(Box::new),
            tracing,
        })
    }

    /// Compiles what the connections to a service port carry; none if nothing says it.
    fn carries(
        &mut self,
        place: &str,
        carried: &Carried<'_>,
        table: impl Fn(&String) -> Result<Arc<Routes>, CompileError>,
    ) -> Result<Option<Carries>, CompileError> {
        let routes = carried.route_table.map(table).transpose()?;
        let tcp = carried.tcp.map(|forward| self.tcp_forward(place, forward));
        Ok(match (routes, tcp, carried.tls) {
            (None, None, Some(tls)) => {
                let mut chains = Chains::default();
                for route in &tls.routes {
                    let forward = self.tcp_forward(place, &route.forward);
                    let name = Arc::from(route.forward.name.as_str());
                    let action = chain::Action::Passthrough(forward);
                    for taken in chains.add(Chain { name, action }, &route.server_names) {
                        let problem = format!("{place}: server name {taken:?} is taken");
                        self.problems.push(problem);
                    }
                }
                Some(Carries::Tls {
                    handshake_timeout_ms: tls.handshake_timeout_ms,
                    chains: Arc::new(chains),
                })
            }
            (Some(routes), None, None) => Some(Carries::Http(routes)),
            (None, Some(tcp), None) => Some(Carries::Tcp(tcp)),
            (Some(routes), Some(tcp), None) => Some(Carries::Either(routes, tcp)),
            (None, None, None) => {
                self.problems
                    .push(format!("{place}: neither routes nor backends"));
                None
            }
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                self.problems
                    .push(format!("{place}: TLS beside something else"));
                None
            }
        })
    }

    /// Opens the logs anew: that costs a look at those that are open.
    fn access_logs(&mut self, listener: &ir::Listener) -> Arc<[AccessLog]> {
        let count = listener.access_logs.len() + listener.access_log_services.len();
        let mut access_logs = Vec::with_capacity(count);
        for log in &listener.access_logs {
            match AccessLog::new(log, self.logs) {
                Ok(log) => access_logs.push(log),
                Err(error) => self.problems.push(format!("{}: {error}", listener.id)),
            }
        }
        for log in &listener.access_log_services {
            let Some(cluster) = (self.cluster)(&log.cluster) else {
                let problem = format!("{}: no cluster {:?}", listener.id, log.cluster);
                self.problems.push(problem);
                continue;
            };
            match ServiceLog::new(log, cluster, self.logs.services()) {
                Ok(log) => access_logs.push(log.into()),
                Err(error) => self.problems.push(format!("{}: {error}", listener.id)),
            }
        }
        Arc::from(access_logs)
    }

    /// Opens the collector of spans anew, as logs.
    fn tracing(&mut self, listener: &ir::Listener) -> Option<Box<Tracer>> {
        let given = listener.tracing.as_deref()?;
        let compiled = match (self.cluster)(&given.service.cluster) {
            Some(cluster) => Tracer::compile(given, cluster, self.logs.services())
                .map_err(|error| error.to_string()),
            None => Err(format!("no cluster {:?}", given.service.cluster)),
        };
        compiled
            .map(Box::new)
            .map_err(|error| {
                let problem = format!("{}: tracing: {error}", listener.id);
                self.problems.push(problem);
            })
            .ok()
    }

    /// Compiles how the TLS of clients ends. A chain without it refuses its clients.
    fn server_tls(
        &mut self,
        place: &str,
        tls: &ir::ServerTls,
        inside: Inside,
    ) -> Option<Arc<Server>> {
        let compiled = self.tls.server(tls, inside);
        compiled
            .map_err(|problem| self.problems.push(format!("{place}: TLS: {problem}")))
            .ok()
    }

    /// Compiles where bytes go. What `place` names that is not there closes its connections.
    fn tcp_forward(&mut self, place: &str, forward: &ir::TcpForward) -> Arc<TcpForward> {
        let backends = self.backends(place, &forward.backends);
        Arc::new(TcpForward {
            name: forward.name.clone(),
            total_weight: total_weight(&backends),
            backends,
            idle_timeout_ms: forward.idle_timeout_ms,
        })
    }

    /// Compiles where datagrams go. What `place` names that cannot be had drops them.
    fn udp_forward(&mut self, place: &str, forward: &ir::UdpForward) -> Arc<UdpForward> {
        let mut backends = self.backends(place, &forward.backends);
        for backend in &mut backends {
            let wants = backend.cluster.as_deref().and_then(|cluster| {
                // What is meant for it is never sent without it.
                let wants_tls = cluster.tls.is_some().then_some("TLS");
                let header = cluster.proxy_protocol.as_ref().map(|_| "a PROXY header");
                let program = cluster
                    .in_process
                    .as_ref()
                    .map(|_| "a backend in this process");
                wants_tls.or(header).or(program)
            });
            if let Some(wants) = wants {
                let problem = format!("{place}: datagrams cannot be sent by {wants}");
                self.problems.push(problem);
                backend.cluster = None;
            }
        }
        let share = forward
            .max_sessions_per_client
            .div_ceil(self.workers as u32);
        Arc::new(UdpForward {
            name: forward.name.clone(),
            total_weight: total_weight(&backends),
            backends,
            idle_timeout_ms: forward.idle_timeout_ms,
            max_sessions_per_client: share,
        })
    }

    fn backends(&mut self, place: &str, backends: &[ir::Backend]) -> Box<[TcpBackend]> {
        backends
            .iter()
            .map(|backend| {
                let cluster = backend.cluster.as_deref().and_then(|id| {
                    let cluster = (self.cluster)(id);
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
            .collect()
    }

    /// Parses networks; an address alone is the network of it. One that is none is left out, which
    /// trusts nobody too many.
    fn early(&mut self, listener: &ir::Listener) -> Option<Box<Early>> {
        let compiled = Early::compile(&listener.http.early);
        compiled.unwrap_or_else(|problem| {
            self.problems.push(format!("{}: {problem}", listener.id));
            None
        })
    }

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
}

impl Listening {
    /// Compiles listeners; of those that are as `before`, only what `is_changed` is true of, or what
    /// had problems.
    pub(super) fn compile(
        listeners: &[ir::Listener],
        before: Option<&Self>,
        is_changed: impl Fn(&ir::Listener) -> bool,
        compiler: &mut ListenerCompiler<'_>,
    ) -> Result<Self, CompileError> {
        let mut listening = Self::default();
        let mut addresses = HashSet::new();
        for listener in listeners {
            let id = &listener.id;
            let known = before.and_then(|before| before.listeners.get(id.as_str()));
            // What could not be done, as a log that cannot be opened, is tried again.
            let is_whole = before.is_none_or(|before| !before.problems.contains_key(id));
            let compiled = match known {
                Some(known) if is_whole && !is_changed(listener) => Arc::clone(known),
                _ => Arc::new(compiler.compile(listener, known.map(|known| &**known))?),
            };
            let mut problems = std::mem::take(&mut compiler.problems);
            if known.is_some_and(|known| Arc::ptr_eq(known, &compiled)) {
                let same = before.and_then(|before| before.problems.get(id));
                problems.extend(same.into_iter().flatten().cloned());
            }
            if !problems.is_empty() {
                listening.problems.insert(id.clone(), problems);
            }
            for key in &compiled.bind {
                if !addresses.insert(key.clone()) {
                    let value = key.requested.to_string();
                    return Err(CompileError::Duplicate {
                        what: "address",
                        value,
                    });
                }
            }
            let listeners = &mut listening.listeners;
            if listeners
                .insert(Arc::clone(&compiled.id), compiled)
                .is_some()
            {
                let value = id.clone();
                return Err(CompileError::Duplicate { what: "id", value });
            }
        }
        Ok(listening)
    }
}

/// Whether a listener names a table or a cluster of which `table` or `cluster` is true.
pub(super) fn names_any(
    listener: &ir::Listener,
    table: impl Fn(&str) -> bool,
    cluster: impl Fn(&str) -> bool,
) -> bool {
    let any = |backends: &[ir::Backend]| {
        let mut backends = backends.iter();
        backends.any(|backend| backend.cluster.as_deref().is_some_and(&cluster))
    };
    let forwards = |forward: &ir::TcpForward| any(&forward.backends);
    let tracing = listener.tracing.iter().map(|tracing| &tracing.service);
    let mut services = listener.access_log_services.iter().chain(tracing);
    if services.any(|service| cluster(&service.cluster)) {
        return true;
    }
    match &listener.traffic {
        ir::Traffic::Http { route_table } => table(route_table),
        ir::Traffic::Tcp { forward } => forwards(forward),
        ir::Traffic::Udp { forward } => any(&forward.backends),
        ir::Traffic::Tls { chains, .. } => chains.iter().any(|chain| match &chain.action {
            ir::TlsAction::Http { route_table, .. } => table(route_table),
            ir::TlsAction::Passthrough { forward } | ir::TlsAction::Tcp { forward, .. } => {
                forwards(forward)
            }
        }),
        ir::Traffic::Waypoint { destinations, .. } => destinations.iter().any(|destination| {
            let for_clients = destination.clients.values().map(Carried::for_clients);
            let mut all = std::iter::once(Carried::of(destination)).chain(for_clients);
            all.any(|carried| {
                let tls = carried.tls.map_or(&[][..], |tls| &tls.routes);
                carried.route_table.is_some_and(|id| table(id))
                    || carried.tcp.is_some_and(forwards)
                    || tls.iter().any(|route| forwards(&route.forward))
            })
        }),
    }
}

/// What connections carry, for all clients or for some.
#[derive(Debug)]
struct Carried<'a> {
    route_table: Option<&'a String>,
    tcp: Option<&'a ir::TcpForward>,
    tls: Option<&'a ir::TlsForward>,
}

impl<'a> Carried<'a> {
    fn of(destination: &'a ir::Destination) -> Self {
        Self {
            route_table: destination.route_table.as_ref(),
            tcp: destination.tcp.as_ref(),
            tls: destination.tls.as_ref(),
        }
    }

    fn for_clients(own: &'a ir::ForClients) -> Self {
        Self {
            route_table: own.route_table.as_ref(),
            tcp: own.tcp.as_ref(),
            tls: own.tls.as_ref(),
        }
    }
}

fn total_weight(backends: &[TcpBackend]) -> u64 {
    let weights = backends.iter().map(|backend| u64::from(backend.weight));
    weights.sum()
}

fn max_header_bytes(listener: &ir::Listener) -> usize {
    match listener.traffic {
        ir::Traffic::Udp { .. } => 0,
        ir::Traffic::Http { .. } | ir::Traffic::Tcp { .. } | ir::Traffic::Tls { .. } => listener
            .proxy_protocol
            .as_ref()
            .map_or(0, |options| options.max_header_bytes),
        ir::Traffic::Waypoint {
            max_header_bytes, ..
        } => max_header_bytes,
    }
}

/// The names by which Kubernetes DNS knows the services, with the address that each stands for.
fn names(destinations: &[ir::Destination]) -> ServiceNames {
    let mut names = ServiceNames::default();
    let mut services: HashMap<(Box<[u8]>, u16), &str> = HashMap::new();
    for destination in destinations {
        let Some((namespace, name)) = destination.service.split_once('/') else {
            continue;
        };
        let address = SocketAddr::from((destination.address, destination.port));
        let hosts = if destination.cluster_set {
            vec![format!("{name}.{namespace}.svc.clusterset.local")]
        } else {
            vec![
                name.to_owned(),
                format!("{name}.{namespace}"),
                format!("{name}.{namespace}.svc"),
                format!("{name}.{namespace}.svc.cluster.local"),
            ]
        };
        for host in hosts {
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
