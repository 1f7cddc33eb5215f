//! Route tables: rules in, a table that finds routes out.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;
use kgw_route::{Builder, HostId, Parts, Revision, RouteTable};

use super::CompileError;
use super::route_set::{Fate, RouteChanges};
use super::state::State;
use crate::config::delta::HostDelta;
use crate::config::ir;
use crate::config::snapshot::{Policy, Route, Routes};

/// A route table, and what of it could not be compiled.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) routes: Arc<Routes>,
    /// What is wrong with rules, by host and route; what is wrong with a hostname is under no route.
    faults: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Routes that rules name and that are not there, with the number of these rules.
    unresolved: BTreeMap<String, usize>,
}

/// What tables are compiled with.
pub(super) struct TableCompiler<'a> {
    /// The routes that change.
    pub(super) changes: &'a RouteChanges,
    /// The routes by their ids, changes included.
    pub(super) route: &'a dyn Fn(&str) -> Option<Route>,
    /// A number for an id, which rules are found again by. Other ids may have the same.
    pub(super) group: &'a dyn Fn(&str) -> u32,
    /// What answers where there is no route.
    pub(super) missing: &'a Arc<Policy>,
}

impl Default for Table {
    fn default() -> Self {
        let table = Builder::new().tie(by_id).build();
        let table = table.expect("nothing that could fail is in it");
        Self {
            routes: Arc::new(Routes { table }),
            faults: BTreeMap::new(),
            unresolved: BTreeMap::new(),
        }
    }
}

/// Routes of equal rank, one of an `HTTPRoute` and one of a `GRPCRoute` of the same name, go by their ids.
fn by_id(a: &Route, b: &Route) -> Ordering {
    a.id().cmp(b.id())
}

impl Table {
    /// What could not be compiled, in words.
    pub(super) fn problems(&self, id: &str) -> impl Iterator<Item = String> {
        let missing = self.unresolved.keys();
        let missing = missing.map(move |route| format!("{id}: no route {route:?}"));
        let faults = self.faults.values().flat_map(BTreeMap::values).flatten();
        missing.chain(faults.cloned())
    }

    fn resolve(&mut self, route: &str) {
        if let Some(rules) = self.unresolved.get_mut(route) {
            *rules -= 1;
            if *rules == 0 {
                self.unresolved.remove(route);
            }
        }
    }

    fn fault(&mut self, host: &str, route: &str, problem: String) {
        let faults = self.faults.entry(host.to_owned()).or_default();
        faults.entry(route.to_owned()).or_default().push(problem);
    }
}

impl TableCompiler<'_> {
    /// Compiles what `before` is with changed hosts and routes; none if that is the same.
    pub(super) fn compile(
        &self,
        id: &str,
        before: &Table,
        hosts: Vec<HostDelta>,
        parts: &mut Parts,
    ) -> Result<Option<Table>, CompileError> {
        let mut edit = before.routes.table.edit(parts);
        let mut table = before.clone();
        let is_missing = |route: &Route| Arc::ptr_eq(route.policy(), self.missing);

        let gone = hosts.iter().filter(|host| host.removed);
        edit.remove_hosts(gone.clone().map(|host| &*host.hostname), |route| {
            if is_missing(route) {
                table.resolve(route.id());
            }
        });
        for host in gone {
            table.faults.remove(&host.hostname);
        }

        let mut replaced: HashSet<(HostId, &str)> = HashSet::new();
        let mut groups: HashSet<u32> = HashSet::new();
        for host in &hosts {
            let routes = host.rules.iter().map(|rule| &rule.route);
            let routes = routes.chain(&host.removed_rules);
            if let Some(faults) = table.faults.get_mut(&host.hostname) {
                // What is wrong with the hostname itself will be found again.
                faults.remove("");
                routes.clone().for_each(|route| {
                    faults.remove(route);
                });
            }
            if let Some(number) = edit.host(&host.hostname) {
                replaced.extend(routes.clone().map(|route| (number, route.as_str())));
                groups.extend(routes.map(|route| (self.group)(route)));
            }
        }
        let changed = self.changes;
        edit.revise(
            |group| groups.contains(&group) || changed.may_have(group),
            |host, route| {
                if replaced.contains(&(host, route.id())) {
                    if is_missing(route) {
                        table.resolve(route.id());
                    }
                    return Revision::Remove;
                }
                match changed.fate(route.id()) {
                    Fate::Stays => Revision::Keep,
                    Fate::Becomes(new) => {
                        if is_missing(route) {
                            table.resolve(route.id());
                        }
                        Revision::Replace(new.clone())
                    }
                    Fate::Goes if is_missing(route) => Revision::Keep,
                    Fate::Goes => {
                        *table.unresolved.entry(route.id().to_owned()).or_default() += 1;
                        Revision::Replace(self.missing(route.id()))
                    }
                }
            },
        );
        drop(replaced);
        if hosts.is_empty() && edit.is_unchanged() {
            return Ok(None);
        }

        for host in hosts {
            if host.removed && host.rules.is_empty() {
                continue;
            }
            // Even without rules it is the most specific host for its requests: 404.
            if let Err(error) = edit.add_host(&host.hostname) {
                table.fault(&host.hostname, "", format!("{id}: {error}"));
                continue;
            }
            for rule in host.rules {
                let group = (self.group)(&rule.route);
                let route = (self.route)(&rule.route);
                let is_missing = route.is_none();
                let route = route.unwrap_or_else(|| self.missing(&rule.route));
                let (of, rule) = into_rule(rule);
                match edit.add_to_group(group, &host.hostname, rule, route) {
                    Ok(()) if is_missing => *table.unresolved.entry(of).or_default() += 1,
                    Ok(()) => {}
                    Err(error) => table.fault(&host.hostname, &of, format!("{id}: {error}")),
                }
            }
        }
        let finished: Result<RouteTable<_>, _> = edit.finish();
        let finished = finished.map_err(|error| CompileError::RouteTable {
            id: id.to_owned(),
            error: Box::new(error),
        })?;
        table.routes = Arc::new(Routes { table: finished });
        Ok(Some(table))
    }

    fn missing(&self, id: &str) -> Route {
        Route::new(id, id, Arc::clone(self.missing))
    }
}

/// Compiles tables that change, or that have rules of routes that do.
pub(super) fn compile_tables(
    changes: BTreeMap<String, Option<Vec<HostDelta>>>,
    state: &State,
    compiler: &TableCompiler<'_>,
    parts: &mut BTreeMap<String, Parts>,
) -> Result<BTreeMap<String, Option<Table>>, CompileError> {
    let mut tables = BTreeMap::new();
    for (id, before) in &state.tables {
        if !compiler.changes.is_empty() && !changes.contains_key(id) {
            let parts = parts.entry(id.clone()).or_default();
            if let Some(table) = compiler.compile(id, before, Vec::new(), parts)? {
                tables.insert(id.clone(), Some(table));
            }
        }
    }
    for (id, hosts) in changes {
        let Some(hosts) = hosts else {
            tables.insert(id, None);
            continue;
        };
        let parts = parts.entry(id.clone()).or_default();
        let table = if let Some(before) = state.tables.get(&id) {
            compiler.compile(&id, before, hosts, parts)?
        } else {
            let empty = Table::default();
            let table = compiler.compile(&id, &empty, hosts, parts)?;
            Some(table.unwrap_or(empty))
        };
        if let Some(table) = table {
            tables.insert(id, Some(table));
        }
    }
    Ok(tables)
}

/// The id of the rule's route, and the rule.
fn into_rule(rule: ir::Rule) -> (String, kgw_route::Rule) {
    let compiled = kgw_route::Rule {
        path: match rule.path {
            ir::PathMatch::Exact(path) => kgw_route::PathMatch::Exact(path),
            ir::PathMatch::Prefix(path) => kgw_route::PathMatch::Prefix(path),
            ir::PathMatch::Regex(path) => kgw_route::PathMatch::Regex(path),
        },
        method: rule.method,
        headers: rule.headers.into_iter().map(into_value_match).collect(),
        query: rule.query.into_iter().map(into_value_match).collect(),
        rank: kgw_route::Rank {
            created: rule.rank.created,
            name: rule.rank.name,
            rule: rule.rank.rule,
            r#match: rule.rank.r#match,
        },
    };
    (rule.route, compiled)
}

fn into_value_match(value_match: ir::ValueMatch) -> kgw_route::ValueMatch {
    kgw_route::ValueMatch {
        name: value_match.name,
        value: match value_match.value {
            ir::StringMatch::Exact(value) => kgw_route::StringMatch::Exact(value),
            ir::StringMatch::Present => kgw_route::StringMatch::Present,
            ir::StringMatch::Regex(value) => kgw_route::StringMatch::Regex(value),
        },
    }
}
