//! Routes by their ids, and changes to them.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::hash_table::Entry;
use hashbrown::{HashSet, HashTable};

use crate::config::snapshot::Route;

/// Hashes the ids of routes.
pub(super) type IdHasher = RandomState;

/// Routes by id.
#[derive(Debug, Default)]
pub(super) struct RouteSet(HashTable<Route>);

/// Routes that come, change or go, by id.
#[derive(Debug)]
pub(super) struct RouteChanges {
    hasher: IdHasher,
    changed: HashTable<Route>,
    /// Ids of those that go.
    removed: HashSet<Box<str>>,
    /// Their groups; filled by [`RouteChanges::index`].
    groups: HashSet<u32>,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate<'a> {
    /// What it is.
    Stays,
    /// Another one, or a new one.
    Becomes(&'a Route),
    /// There is none any longer.
    Goes,
}

/// A number for an id, which rules are found again by.
pub(super) fn group(hasher: &IdHasher, id: &str) -> u32 {
    hasher.hash_one(id) as u32
}

impl RouteSet {
    pub(super) fn get(&self, hasher: &IdHasher, id: &str) -> Option<&Route> {
        self.0.find(hasher.hash_one(id), |route| route.id() == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// Makes the changes.
    pub(super) fn change(&mut self, changes: RouteChanges) {
        let hasher = changes.hasher;
        if self.0.is_empty() {
            self.0 = changes.changed;
            self.0.shrink_to_fit(|route| hasher.hash_one(route.id()));
            return;
        }
        for id in &changes.removed {
            let found = self
                .0
                .find_entry(hasher.hash_one(id), |route| route.id() == &**id);
            if let Ok(found) = found {
                found.remove();
            }
        }
        for route in changes.changed {
            insert(&mut self.0, &hasher, route);
        }
    }
}

impl RouteChanges {
    pub(super) fn new(hasher: IdHasher, count: usize) -> Self {
        Self {
            hasher,
            changed: HashTable::with_capacity(count),
            removed: HashSet::new(),
            groups: HashSet::new(),
        }
    }

    pub(super) fn set(&mut self, route: Route) {
        if !self.removed.is_empty() {
            self.removed.remove(route.id());
        }
        insert(&mut self.changed, &self.hasher, route);
    }

    pub(super) fn remove(&mut self, id: &str) {
        let hash = self.hasher.hash_one(id);
        if let Ok(found) = self.changed.find_entry(hash, |route| route.id() == id) {
            found.remove();
        }
        self.removed.insert(id.into());
    }

    /// What becomes of a route.
    pub(super) fn fate(&self, id: &str) -> Fate<'_> {
        let hash = self.hasher.hash_one(id);
        match self.changed.find(hash, |route| route.id() == id) {
            Some(route) => Fate::Becomes(route),
            None if self.removed.contains(id) => Fate::Goes,
            None => Fate::Stays,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    /// Prepares [`may_have`](Self::may_have): all changes are there.
    pub(super) fn index(&mut self) {
        let changed = self.changed.iter().map(Route::id);
        let ids = changed.chain(self.removed.iter().map(|id| &**id));
        self.groups = ids.map(|id| group(&self.hasher, id)).collect();
    }

    /// Whether a route of a group may change.
    pub(super) fn may_have(&self, group: u32) -> bool {
        self.groups.contains(&group)
    }
}

fn insert(routes: &mut HashTable<Route>, hasher: &IdHasher, route: Route) {
    let entry = routes.entry(
        hasher.hash_one(route.id()),
        |other| other.id() == route.id(),
        |other| hasher.hash_one(other.id()),
    );
    match entry {
        Entry::Occupied(mut known) => *known.get_mut() = route,
        Entry::Vacant(vacant) => {
            vacant.insert(route);
        }
    }
}
