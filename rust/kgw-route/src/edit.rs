//! Changes to a table: another table, which shares with it what they leave as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::builder::{MAX_RULES, MAX_TEXT, Room, compile, host_pattern, reads_headers};
use crate::draft::{Draft, Kind};
use crate::error::BuildError;
use crate::host_index::HostIndex;
use crate::hostname::Pattern as HostPattern;
use crate::parts::Parts;
use crate::rule::Rule;
use crate::table::RouteTable;

/// Makes a table of another one. Its cost is that of the rules that change and of a few hundred
/// neighbours for each, beside a look at all rules' groups where rules are revised.
#[derive(Debug)]
pub struct Edit<'t, T> {
    table: &'t RouteTable<T>,
    parts: &'t mut Parts,
    hosts: Arc<HostIndex>,
    /// The rules of shards that are made anew, by the shards' places.
    opened: BTreeMap<usize, Vec<Draft<'t, T>>>,
    added: Vec<Draft<'static, T>>,
    text_len: usize,
}

/// A hostname of a table that is being edited.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostId(u32);

/// What becomes of a rule.
#[derive(Clone, Copy, Debug)]
pub enum Revision<T> {
    /// It stays as it is.
    Keep,
    /// It goes.
    Remove,
    /// A lookup that selects it finds another value.
    Replace(T),
}

impl<T: Clone> RouteTable<T> {
    /// Starts to make another table of this one, which stays as it is. `parts` are those that it was
    /// built with, or any others.
    pub fn edit<'t>(&'t self, parts: &'t mut Parts) -> Edit<'t, T> {
        Edit {
            table: self,
            parts,
            hosts: Arc::clone(&self.hosts),
            opened: BTreeMap::new(),
            added: Vec::new(),
            text_len: self.paths.text_len(),
        }
    }
}

impl<'t, T: Clone> Edit<'t, T> {
    /// The hostname, if the table has it.
    pub fn host(&self, hostname: &str) -> Option<HostId> {
        let entry = self.hosts.get(&HostPattern::parse(hostname)?)?;
        Some(HostId(entry.number))
    }

    /// Adds a hostname, as [`Builder::add_host`](crate::Builder::add_host) does.
    ///
    /// # Errors
    /// [`BuildError`] if it is malformed.
    pub fn add_host(&mut self, hostname: &str) -> Result<(), BuildError> {
        let pattern = host_pattern(hostname)?;
        if self.hosts.get(&pattern).is_none() {
            Arc::make_mut(&mut self.hosts).get_or_insert(&pattern);
        }
        Ok(())
    }

    /// Takes hostnames away, with the rules that the table had for them; calls back with the values of
    /// these. Hostnames that it does not have do not matter.
    pub fn remove_hosts<'h>(
        &mut self,
        hostnames: impl IntoIterator<Item = &'h str>,
        mut removed: impl FnMut(&T),
    ) {
        let mut gone = Vec::new();
        for pattern in hostnames.into_iter().filter_map(HostPattern::parse) {
            if self.hosts.get(&pattern).is_some() {
                gone.extend(Arc::make_mut(&mut self.hosts).remove(&pattern));
            }
        }
        gone.sort_unstable();
        let is_gone = |host: u32| gone.binary_search(&host).is_ok();
        if gone.is_empty() {
            return;
        }
        for (at, shard) in self.table.paths.shards.iter().enumerate() {
            if shard.any_host(is_gone) {
                self.open(at).retain(|draft| {
                    let is_gone = is_gone(draft.host);
                    if is_gone {
                        removed(&draft.value);
                    }
                    !is_gone
                });
            }
        }
    }

    /// Decides on every rule of the groups of which `is_concerned` is true, but for those added to
    /// this edit.
    pub fn revise(
        &mut self,
        is_concerned: impl Fn(u32) -> bool,
        mut revise: impl FnMut(HostId, &T) -> Revision<T>,
    ) {
        for (at, shard) in self.table.paths.shards.iter().enumerate() {
            if !shard.any_group(&is_concerned) {
                continue;
            }
            // A group is found by a number that another one may share, so a shard may stay as it is.
            self.open(at).retain_mut(|draft| {
                if !is_concerned(draft.group) {
                    return true;
                }
                match revise(HostId(draft.host), &draft.value) {
                    Revision::Keep => true,
                    Revision::Remove => false,
                    Revision::Replace(value) => {
                        draft.value = value;
                        true
                    }
                }
            });
        }
    }

    /// Adds a rule, as [`Builder::add_to_group`](crate::Builder::add_to_group) does.
    ///
    /// # Errors
    /// [`BuildError`] if a part of the rule is malformed or the table would get too large; the rule
    /// is not added, and the edit can go on.
    pub fn add_to_group(
        &mut self,
        group: u32,
        hostname: &str,
        rule: Rule,
        value: T,
    ) -> Result<(), BuildError> {
        let rules = self.table.len() + self.added.len();
        let room = Room {
            rules: MAX_RULES.saturating_sub(rules),
            text: MAX_TEXT.saturating_sub(self.text_len),
        };
        let (pattern, mut draft) = compile(self.parts, room, group, hostname, rule, value)?;
        let known = self.hosts.get(&pattern).copied();
        let mut entry = match known {
            Some(entry) => entry,
            None => *Arc::make_mut(&mut self.hosts).get_or_insert(&pattern),
        };
        let before = (entry.depths, entry.has_regex);
        entry.depths.add(&draft.node);
        entry.has_regex |= draft.kind == Kind::Regex;
        if (entry.depths, entry.has_regex) != before {
            *Arc::make_mut(&mut self.hosts).get_or_insert(&pattern) = entry;
        }
        draft.host = entry.number;
        draft.hash = self.table.paths.hash(draft.host, &draft.node);
        self.text_len += draft.text_len();
        self.added.push(draft);
        Ok(())
    }

    /// Whether the table would be the same.
    pub fn is_unchanged(&self) -> bool {
        self.opened.is_empty()
            && self.added.is_empty()
            && Arc::ptr_eq(&self.hosts, &self.table.hosts)
    }

    /// Makes the table.
    ///
    /// # Errors
    /// [`BuildError`] if regular expressions that compile alone do not compile together.
    pub fn finish(mut self) -> Result<RouteTable<T>, BuildError> {
        let old = self.table;
        let mut paths = old.paths.clone();
        let reads_headers = old.reads_headers || self.added.iter().any(reads_headers);
        let drafts = if old.len() + self.added.len() > paths.capacity() {
            for at in 0..paths.shards.len() {
                self.open(at);
            }
            paths.clear_for(old.len() + self.added.len());
            let kept = self.opened.into_values().flatten();
            kept.chain(self.added).collect()
        } else {
            let added = std::mem::take(&mut self.added);
            for draft in &added {
                self.open(paths.shard_of(draft.hash));
            }
            for &at in self.opened.keys() {
                paths.clear(at);
            }
            self.opened.into_values().flatten().chain(added).collect()
        };
        paths
            .fill(drafts, old.tie, self.parts)
            .map_err(|fault| fault.on(&self.hosts))?;
        self.parts.forget_unused();
        Ok(RouteTable {
            fall_through: old.fall_through,
            reads_headers,
            tie: old.tie,
            len: paths.len(),
            hosts: self.hosts,
            paths,
        })
    }

    fn open(&mut self, at: usize) -> &mut Vec<Draft<'t, T>> {
        let paths = &self.table.paths;
        self.opened.entry(at).or_insert_with(|| {
            let hash = |host: u32, path: &[u8]| paths.hash(host, path);
            paths.shards[at].drafts(hash).collect()
        })
    }
}
