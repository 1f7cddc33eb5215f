//! The compiled table and its lookup.

use std::ops::Range;
use std::sync::Arc;

use crate::host_index::HostIndex;
use crate::path_index::{Boundary, Depths, Node, PathIndex};
use crate::predicate::Conditions;
use crate::query::Query;
use crate::regex_group::{Found, RegexGroup};
use crate::request::Request;
use crate::rule::Rule;

/// An immutable route table; see [`Builder`](crate::Builder).
#[derive(Debug)]
pub struct RouteTable<T> {
    pub(crate) fall_through: bool,
    pub(crate) reads_headers: bool,
    pub(crate) host_index: HostIndex,
    /// By host number.
    pub(crate) hosts: Vec<HostRules>,
    pub(crate) paths: PathIndex,
    pub(crate) regexes: Vec<RegexGroup>,
    /// The rules of one hostname are neighbours, those of one path are in order of precedence, and so
    /// are all regular expressions of a hostname, which come after its paths.
    pub(crate) candidates: Vec<Candidate<T>>,
    /// By candidate; only explanations read them.
    pub(crate) rules: Vec<Rule>,
}

/// The rules of one hostname.
#[derive(Debug)]
pub(crate) struct HostRules {
    pub(crate) hostname: Box<str>,
    pub(crate) depths: Depths,
    /// The rules of prefix `/`, and the regular expressions that may match any path.
    pub(crate) root: Node,
    /// Whether any path is a regular expression.
    pub(crate) has_regex: bool,
    /// All candidates.
    pub(crate) rules: Range<u32>,
}

/// What a lookup needs of a rule whose path matches.
#[derive(Debug)]
pub(crate) struct Candidate<T> {
    pub(crate) conditions: Option<Arc<Conditions>>,
    pub(crate) value: T,
}

/// The rule that serves a request.
#[derive(Debug)]
pub struct Match<'a, T> {
    /// The value given with the rule.
    pub value: &'a T,
    /// The rule; predicates that do not count are gone.
    pub rule: &'a Rule,
    /// The rule's hostname, in lower case.
    pub hostname: &'a str,
    /// For a path prefix: how many bytes of the request's path it is, without trailing slash, so that
    /// the rest is empty or starts with `/`. 0 for the prefix `/`.
    pub prefix_len: Option<usize>,
}

impl<T> Clone for Match<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Match<'_, T> {}

/// A candidate, and the end of its path prefix.
type Hit = (u32, Option<usize>);

// === impl RouteTable ===

impl<T> RouteTable<T> {
    /// The rule that serves the request, if any does.
    pub fn find<R: Request>(&self, request: &R) -> Option<Match<'_, T>> {
        let lookup = Lookup::new(self, request);
        self.host_index
            .find(request.host(), |host| match lookup.find(host) {
                None if self.fall_through => None,
                hit => Some(hit.map(|hit| self.found(host, hit))),
            })
            .flatten()
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any rule has a header predicate: if not, [`Request::any_header`] is never called.
    pub fn reads_headers(&self) -> bool {
        self.reads_headers
    }

    fn found(&self, host: u32, (candidate, prefix_len): Hit) -> Match<'_, T> {
        Match {
            value: &self.candidates[candidate as usize].value,
            rule: &self.rules[candidate as usize],
            hostname: &self.hosts[host as usize].hostname,
            prefix_len,
        }
    }
}

/// One lookup: the request and what has been read of it.
pub(crate) struct Lookup<'a, T, R> {
    table: &'a RouteTable<T>,
    request: &'a R,
    path: &'a [u8],
    pub(crate) query: Query<'a>,
}

impl<'a, T, R: Request> Lookup<'a, T, R> {
    pub(crate) fn new(table: &'a RouteTable<T>, request: &'a R) -> Self {
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
    pub(crate) fn find(&self, host: u32) -> Option<Hit> {
        let rules = &self.table.hosts[host as usize];
        let boundaries = self.table.paths.boundaries(self.path, rules.depths);
        if rules.has_regex {
            if let Some(hit) = self.exact(host, &boundaries) {
                return Some(hit);
            }
            if let Some(hit) = self.regex(host, &boundaries) {
                return Some(hit);
            }
        }
        for &boundary in boundaries.iter().rev() {
            let Some(node) = self.node(host, boundary) else {
                continue;
            };
            if boundary.end == self.path.len()
                && let Some(candidate) = self.first(node.exact())
            {
                return Some((candidate, None));
            }
            if let Some(candidate) = self.first(node.prefix()) {
                return Some((candidate, Some(boundary.end)));
            }
        }
        if self.path.first() != Some(&b'/') {
            return None;
        }
        self.first(rules.root.prefix())
            .map(|candidate| (candidate, Some(0)))
    }

    fn exact(&self, host: u32, boundaries: &[Boundary]) -> Option<Hit> {
        let whole = boundaries
            .last()
            .filter(|boundary| boundary.end == self.path.len())?;
        let node = self.node(host, *whole)?;
        self.first(node.exact()).map(|candidate| (candidate, None))
    }

    #[cold]
    fn regex(&self, host: u32, boundaries: &[Boundary]) -> Option<Hit> {
        let found = self.regex_candidates(host, boundaries);
        found
            .into_iter()
            .find(|&at| self.holds(at))
            .map(|candidate| (candidate, None))
    }

    /// The candidates of a hostname whose regular expression matches the path, in order.
    pub(crate) fn regex_candidates(&self, host: u32, boundaries: &[Boundary]) -> Found {
        let mut found = Found::new();
        let regexes = &self.table.regexes;
        if let Some(group) = self.table.hosts[host as usize].root.regex() {
            regexes[group as usize].find(self.path, &mut found);
        }
        for &boundary in boundaries {
            if let Some(group) = self.node(host, boundary).and_then(|node| node.regex()) {
                regexes[group as usize].find(&self.path[boundary.end..], &mut found);
            }
        }
        found.sort_unstable();
        found
    }

    #[inline]
    fn node(&self, host: u32, boundary: Boundary) -> Option<Node> {
        self.table.paths.node(host, self.path, boundary)
    }

    /// The first candidate whose predicates hold.
    #[inline]
    fn first(&self, mut candidates: Range<u32>) -> Option<u32> {
        candidates.find(|&candidate| self.holds(candidate))
    }

    #[inline]
    fn holds(&self, candidate: u32) -> bool {
        match &self.table.candidates[candidate as usize].conditions {
            None => true,
            Some(conditions) => conditions.check(self.request, &self.query).is_ok(),
        }
    }
}
