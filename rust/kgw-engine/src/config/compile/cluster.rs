//! Clusters, and changes to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::retry_budget::RetryBudgets;
use super::state::{State, merged};
use crate::clock::Nanos;
use crate::config::ir;
use crate::config::snapshot::{Cluster, FastMap, FastSet, Turn};
use crate::tls::intern::Interned;
use crate::upstream::breaker::{Breaker, Breakers};
use crate::upstream::dns::{Host, Hosts};
use crate::upstream::endpoint::{Changes, Endpoint, Fault, carried};
use crate::upstream::forward_proxy::{ForwardProxy, Forwarding};
use crate::upstream::health::checks::Checks;
use crate::upstream::health::outlier::Outliers;
use crate::upstream::in_process::{Backend, InProcess};
use crate::upstream::options::Ways;
use crate::upstream::pool::PoolKey;
use crate::upstream::proxy_protocol::ProxyProtocol;

/// Clusters that come, change or go (none), by id.
#[derive(Debug)]
pub(super) struct ClusterChanges {
    pub(super) changed: BTreeMap<String, Option<Arc<Cluster>>>,
    pub(super) problems: BTreeMap<String, Option<Vec<String>>>,
    /// All endpoints.
    pub(super) endpoints: Arc<FastSet<PoolKey>>,
    /// All names, by their numbers.
    pub(super) hosts: Arc<FastMap<u64, Arc<Host>>>,
    /// Those that somebody looks after.
    pub(super) tended: Arc<[Arc<Cluster>]>,
}

/// What clusters are compiled with.
pub(super) struct Tools<'a> {
    /// Those that are served, of which the ones with the same ids keep what is known of endpoints.
    pub(super) before: &'a BTreeMap<String, Arc<Cluster>>,
    pub(super) now: Nanos,
    pub(super) workers: usize,
    pub(super) tls: &'a mut Interned,
    pub(super) hosts: &'a mut Hosts,
    pub(super) forwarding: Option<&'a Arc<Forwarding>>,
    pub(super) in_process: &'a InProcess,
    pub(super) budgets: &'a mut RetryBudgets,
    pub(super) breakers: &'a mut Breakers,
    pub(super) ways: &'a mut Ways,
}

impl ClusterChanges {
    /// Compiles clusters.
    pub(super) fn compile(
        clusters: BTreeMap<String, Option<ir::Cluster>>,
        state: &State,
        mut tools: Tools<'_>,
    ) -> Self {
        let mut changed = BTreeMap::new();
        let mut problems = BTreeMap::new();
        for (id, cluster) in clusters {
            let mut of_cluster = Vec::new();
            let compiled = cluster.map(|cluster| {
                let limits = cluster.circuit_breakers.as_ref();
                let breaker = limits.map(|limits| tools.breakers.breaker(&id, limits));
                let mut compiled = if let Some(name) = &cluster.in_process {
                    let backend = tools.in_process.get(name);
                    compile_in_process(&id, &cluster, backend, &tools, &mut of_cluster)
                } else {
                    compile(&id, &cluster, breaker.as_ref(), &mut tools, &mut of_cluster)
                };
                let budget = cluster.retry_budget.as_ref();
                compiled.retry_budget = budget.map(|budget| tools.budgets.budget(budget));
                compiled.breaker = breaker;
                if compiled.in_process.is_none() {
                    let before = tools.before.get(&id).and_then(|one| one.outliers.as_ref());
                    let settings = cluster.outlier_detection.as_ref();
                    compiled.outliers = settings.map(|one| Outliers::new(one, before));
                    let settings = cluster.health_check.as_ref();
                    let before = tools.before.get(&id).map(|one| &**one);
                    if let Some(settings) = settings {
                        check(&id, &mut compiled, settings, before, &mut of_cluster);
                    }
                }
                Arc::new(compiled)
            });
            let of_cluster = (!of_cluster.is_empty()).then_some(of_cluster);
            if of_cluster.is_some() || state.cluster_problems.contains_key(&id) {
                problems.insert(id.clone(), of_cluster);
            }
            changed.insert(id, compiled);
        }
        let (endpoints, hosts, tended) = if changed.is_empty() {
            let (endpoints, hosts) = (Arc::clone(&state.endpoints), Arc::clone(&state.hosts));
            (endpoints, hosts, Arc::clone(&state.tended))
        } else {
            let clusters = merged(&state.clusters, &changed);
            let keys = clusters.flat_map(|(_, cluster)| {
                let endpoints = cluster.endpoints.iter();
                endpoints.map(|one| cluster.pool_key(one.address))
            });
            let endpoints = Arc::new(keys.collect());
            let clusters = merged(&state.clusters, &changed);
            let hosts = clusters.filter_map(|(_, cluster)| cluster.host.as_ref());
            let hosts = hosts.map(|host| (host.transport, Arc::clone(host)));
            let hosts = Arc::new(hosts.collect());
            let clusters = merged(&state.clusters, &changed);
            let tended = clusters.filter(|(_, cluster)| cluster.is_tended());
            let tended = tended.map(|(_, cluster)| Arc::clone(cluster)).collect();
            (endpoints, hosts, tended)
        };
        Self {
            changed,
            problems,
            endpoints,
            hosts,
            tended,
        }
    }

    /// The cluster of an id, changed or not.
    pub(super) fn get(&self, state: &State, id: &str) -> Option<Arc<Cluster>> {
        match self.changed.get(id) {
            Some(changed) => changed.clone(),
            None => state.clusters.get(id).cloned(),
        }
    }
}

/// Compiles a cluster. One whose options cannot be used has no endpoints, and says why.
fn compile(
    id: &str,
    cluster: &ir::Cluster,
    breaker: Option<&Arc<Breaker>>,
    tools: &mut Tools<'_>,
    problems: &mut Vec<String>,
) -> Cluster {
    let mut endpoints = &*cluster.endpoints;
    let mut name = cluster.dns.as_ref();
    let mut forward_proxy = cluster.forward_proxy.as_ref();
    if forward_proxy.is_some() {
        endpoints = &[];
        name = None;
    }
    let proxy_protocol = cluster.proxy_protocol.as_ref().map(ProxyProtocol::compile);
    let proxy_protocol = proxy_protocol.transpose().unwrap_or_else(|problem| {
        problems.push(format!("cluster {id}: {problem}"));
        // An endpoint that wants a header would take what comes instead for one.
        endpoints = &[];
        (name, forward_proxy) = (None, None);
        None
    });
    let tls = cluster
        .tls
        .as_ref()
        .map(|tls| tools.tls.client(tls, cluster.protocol));
    let tls = tls.transpose().unwrap_or_else(|problem| {
        problems.push(format!("cluster {id}: TLS: {problem}"));
        // What is meant for TLS is never sent without it.
        endpoints = &[];
        (name, forward_proxy) = (None, None);
        None
    });
    let number = tls.as_ref().map_or(0, |tls| tls.id);
    let (transport, options) = tools.ways.way(number, &cluster.connections, breaker);
    let host = name.map(|name| {
        let given = std::mem::take(&mut endpoints);
        tools.hosts.host(id, name, given, transport, tools.now)
    });
    let forward_proxy = forward_proxy.zip(tools.forwarding).map(|(settings, all)| {
        let before = tools.before.get(id);
        let before = before.and_then(|before| before.forward_proxy.as_deref());
        Arc::new(ForwardProxy::new(all, settings, transport, before))
    });
    let kept = Kept::of(id, tools);
    Cluster {
        name: id.to_owned(),
        forward_proxy,
        endpoints: kept.endpoints(endpoints, tools.now),
        transport: host.as_ref().map_or(transport, |host| host.transport),
        host: host.clone(),
        in_process: None,
        connect_timeout: Duration::from_millis(cluster.connect_timeout_ms),
        protocol: cluster.protocol,
        proxy_protocol,
        tls,
        max_requests_per_connection: cluster.max_requests_per_connection,
        retry_budget: None,
        options,
        breaker: None,
        outliers: None,
        checks: None,
        max_stream_duration_ms: cluster.max_stream_duration_ms,
        changes: host.map_or(kept.changes, |host| Arc::clone(host.changes())),
        turns: kept.turns,
    }
}

/// Has the endpoints of a cluster checked.
fn check(
    id: &str,
    cluster: &mut Cluster,
    settings: &ir::HealthCheck,
    before: Option<&Cluster>,
    problems: &mut Vec<String>,
) {
    let checks_before = before.and_then(|before| before.checks.as_ref());
    match Checks::new(id, cluster.tls.is_some(), settings, checks_before) {
        Ok(checks) => cluster.checks = Some(checks),
        Err(problem) => {
            problems.push(format!("cluster {id}: health check: {problem}"));
            return;
        }
    }
    if let (Some(before), Some(_)) = (before, checks_before) {
        // Those that are new have to be found in order first.
        let known: FastSet<_> = before.endpoints.iter().map(Arc::as_ptr).collect();
        for endpoint in &cluster.endpoints {
            if !known.is_empty() && !known.contains(&Arc::as_ptr(endpoint)) {
                endpoint.fail(Fault::Unhealthy);
            }
        }
    }
}

/// What is kept of the cluster that had the same id, if there was one.
struct Kept<'a> {
    endpoints: &'a [Arc<Endpoint>],
    changes: Arc<Changes>,
    turns: Arc<[Turn]>,
}

impl<'a> Kept<'a> {
    fn of(id: &str, tools: &Tools<'a>) -> Self {
        match tools.before.get(id) {
            Some(before) => Self {
                endpoints: &before.endpoints,
                changes: Arc::clone(&before.changes),
                turns: Arc::clone(&before.turns),
            },
            None => Self {
                endpoints: &[],
                changes: Arc::default(),
                turns: Turn::random(tools.workers),
            },
        }
    }

    /// The endpoints of these addresses.
    fn endpoints(&self, addresses: &[SocketAddr], now: Nanos) -> Box<[Arc<Endpoint>]> {
        carried(addresses, self.endpoints, now, &self.changes).into()
    }
}

/// Compiles a cluster that a backend of this process serves. Without one it has no endpoints, and says
/// so.
fn compile_in_process(
    id: &str,
    cluster: &ir::Cluster,
    backend: Option<&Arc<Backend>>,
    tools: &Tools<'_>,
    problems: &mut Vec<String>,
) -> Cluster {
    if backend.is_none() {
        let name = cluster.in_process.as_deref().unwrap_or_default();
        problems.push(format!("cluster {id}: no backend {name:?} in this process"));
    }
    let kept = Kept::of(id, tools);
    let addresses: Vec<_> = backend.iter().map(|backend| backend.address).collect();
    Cluster {
        name: id.to_owned(),
        endpoints: kept.endpoints(&addresses, tools.now),
        host: None,
        forward_proxy: None,
        in_process: backend.map(Arc::clone),
        connect_timeout: Duration::from_millis(cluster.connect_timeout_ms),
        protocol: ir::UpstreamProtocol::Http1,
        proxy_protocol: None,
        transport: 0,
        tls: None,
        max_requests_per_connection: cluster.max_requests_per_connection,
        retry_budget: None,
        options: Arc::default(),
        breaker: None,
        outliers: None,
        checks: None,
        max_stream_duration_ms: cluster.max_stream_duration_ms,
        changes: kept.changes,
        turns: kept.turns,
    }
}
