//! Routes: ids and names to policies.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::CompileError;
use super::cluster::ClusterChanges;
use super::policy::{Known, Origin, Policies, PolicyCompiler};
use super::route_set::{IdHasher, RouteChanges};
use super::state::State;
use crate::config::ir;
use crate::config::snapshot::{Cluster, Policy, Route};

/// Routes that come, change or go, and what they need.
#[derive(Debug)]
pub(super) struct CompiledRoutes {
    /// Those that are new, or are compiled anew.
    pub(super) policies: Policies,
    pub(super) changes: RouteChanges,
    pub(super) broken: BTreeMap<String, Option<Box<str>>>,
}

impl CompiledRoutes {
    pub(super) fn new(hasher: &IdHasher, count: usize) -> Self {
        Self {
            policies: Policies::default(),
            changes: RouteChanges::new(hasher.clone(), count),
            broken: BTreeMap::new(),
        }
    }

    /// Compiles the policies anew that changed clusters are used by, for all their routes.
    pub(super) fn follow(
        &mut self,
        clusters: &ClusterChanges,
        state: &State,
        compiler: &mut PolicyCompiler<'_, impl Fn(&str) -> Option<Arc<Cluster>>>,
    ) -> Result<(), CompileError> {
        let mut again: HashMap<*const Policy, Known> = HashMap::new();
        if clusters.changed.is_empty() {
            return Ok(());
        }
        for known in state.policies.iter() {
            if known.may_use(|cluster| clusters.changed.contains_key(cluster)) {
                let compiled = compiler.again(known)?;
                self.policies.insert(compiled.clone());
                again.insert(Arc::as_ptr(&known.policy), compiled);
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        for route in state.routes.iter() {
            if let Some(known) = again.get(&Arc::as_ptr(route.policy())) {
                self.note(route.id(), known.problem.clone(), state);
                let policy = Arc::clone(&known.policy);
                self.changes.set(route.with_policy(policy));
            }
        }
        Ok(())
    }

    /// Compiles routes.
    pub(super) fn compile(
        &mut self,
        routes: Vec<(Cow<'_, str>, Option<ir::Route<'_>>)>,
        state: &State,
        compiler: &mut PolicyCompiler<'_, impl Fn(&str) -> Option<Arc<Cluster>>>,
    ) -> Result<(), CompileError> {
        for (id, route) in routes {
            let Some(route) = route else {
                self.changes.remove(&id);
                self.note(&id, None, state);
                continue;
            };
            let origin = Origin::of(&route, compiler.bridge.as_deref());
            let known = self.policies.get(&origin);
            let known = known.or_else(|| state.policies.get(&origin));
            let (policy, problem) = if let Some(known) = known {
                (Arc::clone(&known.policy), known.problem.clone())
            } else {
                let known = compiler.compile(&origin).map_err(|error| {
                    let id = id.clone().into_owned();
                    CompileError::MalformedRoute { id, error }
                })?;
                let found = (Arc::clone(&known.policy), known.problem.clone());
                self.policies.insert(known);
                found
            };
            self.note(&id, problem, state);
            let route = Route::new(&id, &route.name, policy);
            self.changes.set(route);
        }
        Ok(())
    }

    /// Notes why a route is broken, or that it is not.
    fn note(&mut self, id: &str, problem: Option<Box<str>>, state: &State) {
        let was_broken = || state.broken.contains_key(id) || self.broken.contains_key(id);
        if problem.is_some() || was_broken() {
            self.broken.insert(id.to_owned(), problem);
        }
    }
}
