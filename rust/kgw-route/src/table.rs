//! The compiled table and its lookup.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::host_index::{HostEntry, HostIndex};
use crate::path_index::{Boundary, PathIndex};
use crate::query::Query;
use crate::request::Request;
use crate::rule::Rule;
use crate::shard::{Node, Shard};

/// An immutable route table; see [`Builder`](crate::Builder). A clone shares all of its rules.
pub struct RouteTable<T> {
    pub(crate) fall_through: bool,
    pub(crate) reads_headers: bool,
    pub(crate) tie: fn(&T, &T) -> Ordering,
    pub(crate) len: usize,
    pub(crate) hosts: Arc<HostIndex>,
    pub(crate) paths: PathIndex<T>,
}

/// The rule that serves a request.
pub struct Match<'a, T> {
    /// The value given with the rule.
    pub value: &'a T,
    /// The rule's hostname, in lower case.
    pub hostname: &'a str,
    /// For a path prefix: how many bytes of the request's path it is, without trailing slash, so that
    /// the rest is empty or starts with `/`. 0 for the prefix `/`.
    pub prefix_len: Option<usize>,
    shard: &'a Shard<T>,
    at: u32,
}

impl<T> Match<'_, T> {
    /// The rule, as it was given; predicates that do not count are gone. Puts it together: for people,
    /// not for the data path.
    pub fn rule(&self) -> Rule {
        self.shard.rule(self.at)
    }
}

impl<T> Clone for Match<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Match<'_, T> {}

impl<T: fmt::Debug> fmt::Debug for Match<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Match")
            .field("value", self.value)
            .field("hostname", &self.hostname)
            .field("prefix_len", &self.prefix_len)
            .finish_non_exhaustive()
    }
}

/// A candidate, and the end of its path prefix.
struct Hit<'a, T> {
    shard: &'a Shard<T>,
    at: u32,
    prefix_len: Option<usize>,
}

/// Candidates whose regular expressions match; more than a few are rare.
pub(crate) type Found<'a, T> = SmallVec<[(&'a Shard<T>, u32); 8]>;

/// The nodes of a path's leading runs of segments, shortest first.
type Nodes<'a, T> = SmallVec<[(Boundary, &'a Shard<T>, Node); 4]>;

// === impl RouteTable ===

impl<T> RouteTable<T> {
    /// The rule that serves the request, if any does.
    pub fn find<R: Request>(&self, request: &R) -> Option<Match<'_, T>> {
        let lookup = Lookup::new(self, request);
        self.hosts
            .find(request.host(), |host| match lookup.find(host) {
                None if self.fall_through => None,
                hit => Some(hit.map(|hit| self.found(host, &hit))),
            })
            .flatten()
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether any rule has a header predicate: if not, [`Request::any_header`] is never called.
    pub fn reads_headers(&self) -> bool {
        self.reads_headers
    }

    fn found<'a>(&'a self, host: &HostEntry, hit: &Hit<'a, T>) -> Match<'a, T> {
        Match {
            value: &hit.shard.candidate(hit.at).value,
            hostname: self.hosts.hostname(host),
            prefix_len: hit.prefix_len,
            shard: hit.shard,
            at: hit.at,
        }
    }
}

impl<T> Clone for RouteTable<T> {
    fn clone(&self) -> Self {
        Self {
            hosts: Arc::clone(&self.hosts),
            paths: self.paths.clone(),
            ..*self
        }
    }
}

impl<T> fmt::Debug for RouteTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteTable")
            .field("len", &self.len)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// One lookup: the request and what has been read of it.
pub(crate) struct Lookup<'a, 'r, T, R> {
    table: &'a RouteTable<T>,
    request: &'r R,
    path: &'r [u8],
    pub(crate) query: Query<'r>,
}

impl<'a, 'r, T, R: Request> Lookup<'a, 'r, T, R> {
    pub(crate) fn new(table: &'a RouteTable<T>, request: &'r R) -> Self {
        Self {
            table,
            request,
            path: request.path(),
            query: Query::new(request.query()),
        }
    }

    /// The best rule of a hostname.
    ///
    /// Boundaries are tried deepest first, which ranks prefixes by length; exact rules can only be
    /// found at the deepest, the whole path. Regular expressions stand between the two.
    #[inline]
    fn find(&self, host: &HostEntry) -> Option<Hit<'a, T>> {
        if host.has_regex {
            return self.find_among_regexes(host);
        }
        let paths = &self.table.paths;
        let boundaries = paths.boundaries(self.path, host.depths);
        for &boundary in boundaries.iter().rev() {
            let Some((shard, node)) = paths.node(host.number, self.path, boundary) else {
                continue;
            };
            let hit = self.exact(shard, node, boundary);
            if let Some(hit) = hit.or_else(|| self.prefix(shard, node, boundary)) {
                return Some(hit);
            }
        }
        None
    }

    #[inline(never)]
    fn find_among_regexes(&self, host: &HostEntry) -> Option<Hit<'a, T>> {
        let mut nodes = Nodes::new();
        self.nodes(host, &mut nodes);
        if let Some(&(deepest, shard, node)) = nodes.last()
            && let Some(hit) = self.exact(shard, node, deepest)
        {
            return Some(hit);
        }
        let mut found = Found::new();
        self.among_regexes(&nodes, &mut found);
        for &(shard, at) in &found {
            if shard.holds(at, self.request, &self.query) {
                let prefix_len = None;
                return Some(Hit {
                    shard,
                    at,
                    prefix_len,
                });
            }
        }
        let mut nodes = nodes.iter().rev();
        nodes.find_map(|&(boundary, shard, node)| self.prefix(shard, node, boundary))
    }

    #[inline]
    fn nodes(&self, host: &HostEntry, nodes: &mut Nodes<'a, T>) {
        let paths = &self.table.paths;
        for &boundary in &paths.boundaries(self.path, host.depths) {
            if let Some((shard, node)) = paths.node(host.number, self.path, boundary) {
                nodes.push((boundary, shard, node));
            }
        }
    }

    /// The candidates of a hostname whose regular expression matches the path, in order.
    pub(crate) fn regexes(&self, host: &HostEntry) -> Found<'a, T> {
        let (mut nodes, mut found) = (Nodes::new(), Found::new());
        self.nodes(host, &mut nodes);
        self.among_regexes(&nodes, &mut found);
        found
    }

    #[inline]
    fn among_regexes(&self, nodes: &[(Boundary, &'a Shard<T>, Node)], found: &mut Found<'a, T>) {
        for &(boundary, shard, node) in nodes {
            if let Some(group) = shard.regex(node) {
                let rest = &self.path[boundary.end..];
                group.find(rest, node.regexes(), |at| found.push((shard, at)));
            }
        }
        if found.len() > 1 {
            found.sort_by(|&a, &b| self.table.compare(a, b));
        }
    }

    #[inline]
    fn exact(&self, shard: &'a Shard<T>, node: Node, boundary: Boundary) -> Option<Hit<'a, T>> {
        if boundary.end != self.path.len() {
            return None;
        }
        let at = shard.first(node.exact(), self.request, &self.query)?;
        let prefix_len = None;
        Some(Hit {
            shard,
            at,
            prefix_len,
        })
    }

    #[inline]
    fn prefix(&self, shard: &'a Shard<T>, node: Node, boundary: Boundary) -> Option<Hit<'a, T>> {
        // Neither `*` (OPTIONS) nor an empty path (CONNECT) is below the root.
        if self.path.first() != Some(&b'/') {
            return None;
        }
        let at = shard.first(node.prefix(), self.request, &self.query)?;
        let prefix_len = Some(boundary.end);
        Some(Hit {
            shard,
            at,
            prefix_len,
        })
    }
}

impl<T> RouteTable<T> {
    /// The order of rules with regular expressions, wherever they are in the table.
    fn compare(&self, a: (&Shard<T>, u32), b: (&Shard<T>, u32)) -> Ordering {
        let precedence = a.0.precedence(a.1, 0).cmp(&b.0.precedence(b.1, 0));
        precedence.then_with(|| self.compare_ties(a, b))
    }

    /// The order of rules of equal precedence.
    pub(crate) fn compare_ties(&self, a: (&Shard<T>, u32), b: (&Shard<T>, u32)) -> Ordering {
        (self.tie)(&a.0.candidate(a.1).value, &b.0.candidate(b.1).value)
            .then_with(|| a.0.group(a.1).cmp(&b.0.group(b.1)))
            .then_with(|| a.1.cmp(&b.1))
    }
}
