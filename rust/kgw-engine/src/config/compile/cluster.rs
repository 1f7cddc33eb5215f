//! Clusters, and changes to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::retry_budget::RetryBudgets;
use super::state::{State, merged};
use crate::config::ir;
use crate::config::snapshot::{Cluster, FastMap, FastSet, Turn};
use crate::tls::intern::Interned;
use crate::upstream::dns::{Host, Hosts};
use crate::upstream::in_process::{Backend, InProcess};
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
}

impl ClusterChanges {
    /// Compiles clusters.
    pub(super) fn compile(
        clusters: BTreeMap<String, Option<ir::Cluster>>,
        state: &State,
        workers: usize,
        tls: &mut Interned,
        hosts: &mut Hosts,
        in_process: &InProcess,
        budgets: &mut RetryBudgets,
    ) -> Self {
        let mut changed = BTreeMap::new();
        let mut problems = BTreeMap::new();
        for (id, cluster) in clusters {
            let mut of_cluster = Vec::new();
            let compiled = cluster.map(|cluster| {
                let mut compiled = match &cluster.in_process {
                    Some(name) => {
                        let backend = in_process.get(name);
                        compile_in_process(&id, &cluster, backend, workers, &mut of_cluster)
                    }
                    None => compile(&id, &cluster, workers, tls, hosts, &mut of_cluster),
                };
                let budget = cluster.retry_budget.as_ref();
                compiled.retry_budget = budget.map(|budget| budgets.budget(budget));
                Arc::new(compiled)
            });
            let of_cluster = (!of_cluster.is_empty()).then_some(of_cluster);
            if of_cluster.is_some() || state.cluster_problems.contains_key(&id) {
                problems.insert(id.clone(), of_cluster);
            }
            changed.insert(id, compiled);
        }
        let (endpoints, hosts) = if changed.is_empty() {
            (Arc::clone(&state.endpoints), Arc::clone(&state.hosts))
        } else {
            let clusters = merged(&state.clusters, &changed);
            let keys = clusters.flat_map(|(_, cluster)| {
                let endpoints = cluster.endpoints.iter();
                endpoints.map(|&at| cluster.pool_key(at))
            });
            let endpoints = Arc::new(keys.collect());
            let clusters = merged(&state.clusters, &changed);
            let hosts = clusters.filter_map(|(_, cluster)| cluster.host.as_ref());
            let hosts = hosts.map(|host| (host.transport, Arc::clone(host)));
            (endpoints, Arc::new(hosts.collect()))
        };
        Self {
            changed,
            problems,
            endpoints,
            hosts,
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
    workers: usize,
    tls: &mut Interned,
    hosts: &mut Hosts,
    problems: &mut Vec<String>,
) -> Cluster {
    let mut endpoints = cluster.endpoints.clone().into_boxed_slice();
    let mut name = cluster.dns.as_ref();
    if name.is_some() {
        endpoints = Box::default();
    }
    let proxy_protocol = cluster.proxy_protocol.as_ref().map(ProxyProtocol::compile);
    let proxy_protocol = proxy_protocol.transpose().unwrap_or_else(|problem| {
        problems.push(format!("cluster {id}: {problem}"));
        // An endpoint that wants a header would take what comes instead for one.
        endpoints = Box::default();
        name = None;
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
        name = None;
        None
    });
    let transport = tls.as_ref().map_or(0, |tls| tls.id);
    let host = name.map(|name| hosts.host(name, transport));
    Cluster {
        name: id.to_owned(),
        endpoints,
        transport: host.as_ref().map_or(transport, |host| host.transport),
        host,
        in_process: None,
        connect_timeout: Duration::from_millis(cluster.connect_timeout_ms),
        protocol: cluster.protocol,
        proxy_protocol,
        tls,
        max_requests_per_connection: cluster.max_requests_per_connection,
        retry_budget: None,
        turns: (0..workers).map(|_| Turn::random()).collect(),
    }
}

/// Compiles a cluster that a backend of this process serves. Without one it has no endpoints, and says
/// so.
fn compile_in_process(
    id: &str,
    cluster: &ir::Cluster,
    backend: Option<&Arc<Backend>>,
    workers: usize,
    problems: &mut Vec<String>,
) -> Cluster {
    if backend.is_none() {
        let name = cluster.in_process.as_deref().unwrap_or_default();
        problems.push(format!("cluster {id}: no backend {name:?} in this process"));
    }
    Cluster {
        name: id.to_owned(),
        endpoints: backend.iter().map(|backend| backend.address).collect(),
        host: None,
        in_process: backend.map(Arc::clone),
        connect_timeout: Duration::from_millis(cluster.connect_timeout_ms),
        protocol: ir::UpstreamProtocol::Http1,
        proxy_protocol: None,
        transport: 0,
        tls: None,
        max_requests_per_connection: cluster.max_requests_per_connection,
        retry_budget: None,
        turns: (0..workers).map(|_| Turn::random()).collect(),
    }
}
