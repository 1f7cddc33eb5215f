//! From intermediate representation to snapshot.
//!
//! The configuration layer checks everything it writes, so a problem here is unexpected; still, one
//! bad route must not take the others down. What cannot be compiled on its own answers 500 (a route),
//! matches nothing (a rule) or is left out (an access log), and is reported. Only a configuration
//! that contradicts itself, or a version this engine does not know, is refused as a whole.
//!
//! A [`Compiler`] works on changes: a whole configuration is changes to nothing, and a delta is changes
//! to what is served. What they touch and what depends on it is compiled, the rest is shared with the
//! snapshot before. Nothing of what the compiler remembers is altered until [`Compiler::commit`], so
//! that changes which cannot be served leave it as it was.

mod auth;
mod bucket;
mod cluster;
mod error;
mod fallback;
mod keys;
mod listener;
mod policy;
mod retry_budget;
mod route;
mod route_set;
mod state;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use kgw_limit::Tick;
use kgw_route::Parts;

use self::auth::Auth;
use self::bucket::Buckets;
use self::cluster::{ClusterChanges, Tools};
pub use self::error::CompileError;
use self::fallback::Fallbacks;
use self::keys::KeySources;
use self::listener::{ListenerCompiler, Listening, names_any};
use self::policy::PolicyCompiler;
use self::retry_budget::RetryBudgets;
use self::route::CompiledRoutes;
use self::route_set::{Fate, IdHasher, group};
use self::state::{Next, State, merged};
use self::table::{TableCompiler, compile_tables};
use super::delta::{Delta, HostDelta};
use super::ir;
use super::snapshot::{Policy, Snapshot};
use crate::bridge::Bridge;
use crate::clock::Clock;
use crate::filter::ext_authz::counts::CountsByName;
use crate::telemetry::access_log::LogWriter;
use crate::tls::intern::Interned;
use crate::upstream::breaker::Breakers;
use crate::upstream::dns::{Hosts, Resolver};
use crate::upstream::forward_proxy::Forwarding;
use crate::upstream::in_process::InProcess;
use crate::upstream::options::Ways;

/// Compiles configurations, and remembers what has identity across them.
#[derive(Debug)]
pub(crate) struct Compiler {
    buckets: Buckets,
    fallbacks: Fallbacks,
    keys: KeySources,
    auth: Auth,
    budgets: RetryBudgets,
    breakers: Breakers,
    /// How connections behave: what did not change keeps its pools.
    ways: Ways,
    /// TLS by its configuration: what did not change keeps its sessions.
    tls: Interned,
    /// Names by their configuration: what did not change keeps its addresses.
    hosts: Hosts,
    /// What looks up the hosts that requests name.
    forwarding: Option<Arc<Forwarding>>,
    hasher: IdHasher,
    /// What answers where there is no route.
    missing: Arc<Policy>,
    /// What is served.
    state: State,
    /// What rules have in common, by table.
    parts: BTreeMap<String, Parts>,
    /// What was compiled last, and is not served yet.
    next: Option<Next>,
    /// Where filters in Python are asked.
    bridge: Option<Arc<Bridge>>,
    /// The backends of this process.
    in_process: InProcess,
    /// What says since when endpoints are there.
    clock: Clock,
}

/// What is asked for.
struct Input<'a> {
    /// Whether it is the whole: nothing of what is served stays.
    is_whole: bool,
    listeners: Option<Vec<ir::Listener>>,
    tables: BTreeMap<String, Option<Vec<HostDelta>>>,
    routes: Vec<(Cow<'a, str>, Option<ir::Route<'a>>)>,
    clusters: BTreeMap<String, Option<ir::Cluster>>,
}

// === impl Compiler ===

impl Default for Compiler {
    fn default() -> Self {
        Self {
            buckets: Buckets::default(),
            fallbacks: Fallbacks::default(),
            keys: KeySources::default(),
            auth: Auth::default(),
            budgets: RetryBudgets::default(),
            breakers: Breakers::default(),
            ways: Ways::default(),
            tls: Interned::default(),
            forwarding: None,
            hosts: Hosts::default(),
            hasher: IdHasher::default(),
            missing: Arc::new(policy::broken()),
            state: State::default(),
            parts: BTreeMap::new(),
            next: None,
            bridge: None,
            in_process: InProcess::new(),
            clock: Clock::manual(),
        }
    }
}

impl Compiler {
    /// Makes a compiler for routes whose Python filters are those of `bridge`, and clusters whose
    /// backends of this process are those of `in_process`, whose names `resolver` looks up and those of requests
    /// `forwarding`, all by
    /// `clock`.
    pub(crate) fn new(
        bridge: Option<Arc<Bridge>>,
        in_process: InProcess,
        resolver: Arc<Resolver>,
        forwarding: Arc<Forwarding>,
        clock: Clock,
    ) -> Self {
        Self {
            bridge,
            in_process,
            clock,
            hosts: Hosts::new(resolver),
            forwarding: Some(forwarding),
            ..Self::default()
        }
    }

    /// What services that decide about requests are counted under.
    pub(crate) fn authorization_counts(&self) -> Arc<CountsByName> {
        Arc::clone(&self.auth.counts)
    }

    /// Compiles `bytes` into a snapshot. Its addresses are not bound yet: that is the engine's part.
    pub(crate) fn compile(
        &mut self,
        bytes: &[u8],
        logs: &LogWriter,
        workers: usize,
        generation: u64,
    ) -> Result<Snapshot, CompileError> {
        let config: ir::Config<'_> = serde_json::from_slice(bytes)?;
        check_version(config.version)?;
        self.compile_input(Input::from(config), logs, workers, generation)
    }

    /// Compiles what is served with the changes of `bytes`.
    pub(crate) fn compile_delta(
        &mut self,
        bytes: &[u8],
        logs: &LogWriter,
        workers: usize,
        generation: u64,
    ) -> Result<Snapshot, CompileError> {
        let delta: Delta<'_> = serde_json::from_slice(bytes)?;
        check_version(delta.version)?;
        let newest = generation - 1;
        if delta.base != newest {
            let base = delta.base;
            return Err(CompileError::StaleBase { base, newest });
        }
        self.compile_input(Input::from(delta), logs, workers, generation)
    }

    /// Makes what was compiled last what the next delta is to.
    pub(crate) fn commit(&mut self, now: Tick) {
        let Some(mut next) = self.next.take() else {
            return;
        };
        if next.is_whole {
            self.state = State::default();
            self.parts = std::mem::take(&mut next.parts);
        }
        self.state.change(next, &mut self.parts);
        self.state.policies.forget_unused();
        self.tls.forget_unused();
        self.hosts.forget_unused();
        self.buckets.forget_unused(now);
        self.fallbacks.forget_unused(now);
        self.keys.forget_unused();
        self.budgets.forget_unused();
        self.ways.forget_unused();
        self.breakers.forget_unused();
    }

    fn compile_input(
        &mut self,
        input: Input<'_>,
        logs: &LogWriter,
        workers: usize,
        generation: u64,
    ) -> Result<Snapshot, CompileError> {
        // What was compiled and could not be served.
        self.next = None;
        let nothing = State::default();
        let mut new_parts = BTreeMap::new();
        let (state, parts) = if input.is_whole {
            (&nothing, &mut new_parts)
        } else {
            (&self.state, &mut self.parts)
        };
        let tls = &mut self.tls;
        let tools = Tools {
            before: &self.state.clusters,
            now: self.clock.now(),
            workers,
            tls,
            hosts: &mut self.hosts,
            forwarding: self.forwarding.as_ref(),
            in_process: &self.in_process,
            budgets: &mut self.budgets,
            breakers: &mut self.breakers,
            ways: &mut self.ways,
        };
        let clusters = ClusterChanges::compile(input.clusters, state, tools);
        let cluster = |id: &str| clusters.get(state, id);
        let mut policies = PolicyCompiler {
            buckets: &mut self.buckets,
            fallbacks: &mut self.fallbacks,
            keys: &mut self.keys,
            auth: &mut self.auth,
            bridge: self.bridge.clone(),
            cluster,
        };
        let mut routes = CompiledRoutes::new(&self.hasher, input.routes.len());
        routes.follow(&clusters, state, &mut policies)?;
        routes.compile(input.routes, state, &mut policies)?;
        if !state.tables.is_empty() {
            routes.changes.index();
        }

        let route = |id: &str| match routes.changes.fate(id) {
            Fate::Becomes(route) => Some(route.clone()),
            Fate::Goes => None,
            Fate::Stays => state.routes.get(&self.hasher, id).cloned(),
        };
        let compiler = TableCompiler {
            changes: &routes.changes,
            route: &route,
            group: &|id| group(&self.hasher, id),
            missing: &self.missing,
        };
        let tables = compile_tables(input.tables, state, &compiler, parts)?;
        let table = |id: &str| {
            let changed = tables.get(id).map(Option::as_ref);
            let found = changed.unwrap_or_else(|| state.tables.get(id));
            found.map(|table| Arc::clone(&table.routes))
        };

        let mut listeners = ListenerCompiler {
            table: &table,
            cluster: &cluster,
            tls,
            logs,
            workers,
            problems: Vec::new(),
        };
        let is_changed = |listener: &ir::Listener| {
            names_any(
                listener,
                |table| tables.contains_key(table),
                |cluster| clusters.changed.contains_key(cluster),
            )
        };
        let (listeners_now, before) = match &input.listeners {
            Some(listeners) => (listeners, None),
            None => (&state.listeners, Some(&state.listening)),
        };
        let listening = Listening::compile(listeners_now, before, is_changed, &mut listeners)?;

        let mut problems = Vec::new();
        for (_, of_cluster) in merged(&state.cluster_problems, &clusters.problems) {
            problems.extend(of_cluster.iter().cloned());
        }
        for (id, problem) in merged(&state.broken, &routes.broken) {
            problems.push(format!("route {id}: {problem}"));
        }
        for (id, table) in merged(&state.tables, &tables) {
            problems.extend(table.problems(id));
        }
        for listener in listeners_now {
            let of_listener = listening.problems.get(&listener.id);
            problems.extend(of_listener.into_iter().flatten().cloned());
        }
        let snapshot = Snapshot {
            generation,
            listeners: listening.listeners.clone(),
            endpoints: Arc::clone(&clusters.endpoints),
            hosts: Arc::clone(&clusters.hosts),
            forwarding: self.forwarding.clone(),
            tended: Arc::clone(&clusters.tended),
            keys: self.keys.in_background(cluster),
            problems,
        };
        self.next = Some(Next {
            is_whole: input.is_whole,
            clusters,
            routes,
            tables,
            parts: new_parts,
            listeners: input.listeners,
            listening,
        });
        Ok(snapshot)
    }
}

impl<'a> From<ir::Config<'a>> for Input<'a> {
    fn from(config: ir::Config<'a>) -> Self {
        let hosts = |table: ir::RouteTable| {
            let hosts = table.hosts.into_iter().map(|host| HostDelta {
                hostname: host.hostname,
                removed: false,
                rules: host.rules,
                removed_rules: Vec::new(),
            });
            hosts.collect()
        };
        let tables = config.route_tables.into_iter();
        let routes = config.routes.into_iter();
        let clusters = config.clusters.into_iter();
        Self {
            is_whole: true,
            listeners: Some(config.listeners),
            tables: tables.map(|(id, table)| (id, Some(hosts(table)))).collect(),
            routes: routes.map(|(id, route)| (id, Some(route))).collect(),
            clusters: clusters.map(|(id, cluster)| (id, Some(cluster))).collect(),
        }
    }
}

impl<'a> From<Delta<'a>> for Input<'a> {
    fn from(delta: Delta<'a>) -> Self {
        let tables = delta.route_tables.into_iter();
        Self {
            is_whole: false,
            listeners: delta.listeners,
            tables: tables
                .map(|(id, table)| (id, table.map(|table| table.hosts)))
                .collect(),
            routes: delta.routes,
            clusters: delta.clusters,
        }
    }
}

fn check_version(found: u32) -> Result<(), CompileError> {
    if found == ir::VERSION {
        Ok(())
    } else {
        Err(CompileError::Version { found })
    }
}
