//! What a compiler remembers, and changes to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kgw_route::Parts;

use super::cluster::ClusterChanges;
use super::listener::Listening;
use super::policy::Policies;
use super::route::CompiledRoutes;
use super::route_set::RouteSet;
use super::table::Table;
use crate::config::ir;
use crate::config::snapshot::{Cluster, FastMap, FastSet};
use crate::upstream::dns::Host;
use crate::upstream::pool::PoolKey;

/// What a snapshot was compiled from, as far as it may be needed again, and what became of it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) clusters: BTreeMap<String, Arc<Cluster>>,
    /// What of clusters cannot be used, by id.
    pub(super) cluster_problems: BTreeMap<String, Vec<String>>,
    pub(super) endpoints: Arc<FastSet<PoolKey>>,
    pub(super) hosts: Arc<FastMap<u64, Arc<Host>>>,
    /// The clusters that somebody looks after.
    pub(super) tended: Arc<[Arc<Cluster>]>,
    pub(super) policies: Policies,
    pub(super) routes: RouteSet,
    /// Why routes are broken, by id.
    pub(super) broken: BTreeMap<String, Box<str>>,
    pub(super) tables: BTreeMap<String, Table>,
    pub(super) listeners: Vec<ir::Listener>,
    pub(super) listening: Listening,
}

/// Changes that are compiled. What is none goes.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) is_whole: bool,
    pub(super) clusters: ClusterChanges,
    pub(super) routes: CompiledRoutes,
    pub(super) tables: BTreeMap<String, Option<Table>>,
    /// Those of the tables of a whole configuration.
    pub(super) parts: BTreeMap<String, Parts>,
    /// All of them, if any changed.
    pub(super) listeners: Option<Vec<ir::Listener>>,
    pub(super) listening: Listening,
}

impl State {
    /// Makes changes; the parts of tables that go, go too.
    pub(super) fn change(&mut self, next: Next, parts: &mut BTreeMap<String, Parts>) {
        change(&mut self.clusters, next.clusters.changed);
        change(&mut self.cluster_problems, next.clusters.problems);
        self.endpoints = next.clusters.endpoints;
        self.hosts = next.clusters.hosts;
        self.tended = next.clusters.tended;
        self.policies.extend(next.routes.policies);
        self.routes.change(next.routes.changes);
        change(&mut self.broken, next.routes.broken);
        for (id, table) in &next.tables {
            if table.is_none() {
                parts.remove(id);
            }
        }
        change(&mut self.tables, next.tables);
        if let Some(listeners) = next.listeners {
            self.listeners = listeners;
        }
        self.listening = next.listening;
    }
}

/// The values with the changes, by id.
pub(super) fn merged<'a, V>(
    values: &'a BTreeMap<String, V>,
    changes: &'a BTreeMap<String, Option<V>>,
) -> impl Iterator<Item = (&'a String, &'a V)> {
    let mut all: Vec<_> = values
        .iter()
        .filter(|(id, _)| !changes.contains_key(*id))
        .collect();
    all.extend(
        changes
            .iter()
            .filter_map(|(id, change)| Some((id, change.as_ref()?))),
    );
    all.sort_by_key(|(id, _)| *id);
    all.into_iter()
}

/// Makes changes.
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
