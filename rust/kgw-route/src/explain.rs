//! Why a request is served by the rule it is served by: the slow, talkative twin of the lookup.

use std::fmt;

use crate::host_index::HostEntry;
use crate::precedence::{Criterion, Precedence};
use crate::predicate::{Conditions, Miss, Named};
use crate::request::Request;
use crate::rule::{PathMatch, Rule, prefix_node};
use crate::shard::{Candidate, Shard};
use crate::table::{Lookup, RouteTable};

/// Every rule whose hostname matches a request, in order of precedence, with its fate.
#[derive(Clone, Debug)]
pub struct Explanation<'a, T> {
    /// The rules of the most specific hostname first.
    pub considered: Vec<Considered<'a, T>>,
}

/// A rule and its fate. Displays as one line.
#[derive(Clone, Debug)]
pub struct Considered<'a, T> {
    /// The rule's hostname, in lower case.
    pub hostname: &'a str,
    /// The rule; predicates that do not count are gone.
    pub rule: Rule,
    /// The value given with the rule.
    pub value: &'a T,
    /// What became of it.
    pub outcome: Outcome<'a>,
}

/// The fate of a rule: the first reason why it lost, in the order in which a lookup looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// It serves the request.
    Selected,
    /// A more specific hostname matches, and its rules are used alone, or one of them matches.
    LessSpecificHostname,
    /// The path does not match.
    Path,
    /// The method is another.
    Method,
    /// The header of this name is absent or no value matches.
    Header(&'a str),
    /// The query parameter of this name is absent or its value does not match.
    Query(&'a str),
    /// It matches, but the selected rule goes before it because of this criterion.
    Outranked(Criterion),
}

impl<T> RouteTable<T> {
    /// Tells of every rule whose hostname matches why it serves the request or why not.
    ///
    /// Looks at each of these rules, and allocates: for people and tools, not for the data path.
    pub fn explain<R: Request>(&self, request: &R) -> Explanation<'_, T> {
        let mut considered = Vec::new();
        let mut decided = false;
        let lookup = Lookup::new(self, request);
        self.hosts.find(request.host(), |host| {
            self.consider(&lookup, request, host, &mut decided, &mut considered);
            None::<()>
        });
        Explanation { considered }
    }

    fn consider<'a, R: Request>(
        &'a self,
        lookup: &Lookup<'a, '_, T, R>,
        request: &R,
        host: &'a HostEntry,
        decided: &mut bool,
        considered: &mut Vec<Considered<'a, T>>,
    ) {
        let hostname = self.hosts.hostname(host);
        let regexes = lookup.regexes(host);
        let shards = self.paths.shards.iter().map(|shard| &**shard);
        let rules = shards.flat_map(|shard| {
            let rules = shard.rules_of(host.number);
            rules.map(move |(at, path_len)| (shard, at, path_len))
        });
        let mut rules: Vec<_> = rules.collect();
        rules.sort_by(|&(a, a_at, a_len), &(b, b_at, b_len)| {
            let precedence = a.precedence(a_at, a_len).cmp(&b.precedence(b_at, b_len));
            precedence.then_with(|| self.compare_ties((a, a_at), (b, b_at)))
        });

        let mut selected: Option<Precedence<'_>> = None;
        for (shard, at, path_len) in rules {
            let rule = shard.rule(at);
            let path_matches = match &rule.path {
                PathMatch::Exact(path) => path.as_bytes() == request.path(),
                PathMatch::Prefix(path) => starts_with_segments(request.path(), path),
                PathMatch::Regex(_) => {
                    let is_this = |&(other, found): &(&Shard<T>, u32)| {
                        found == at && std::ptr::eq(other, shard)
                    };
                    regexes.iter().any(is_this)
                }
            };
            let Candidate { conditions, value } = shard.candidate(at);
            let conditions = conditions.as_deref();
            let miss = conditions.and_then(|all| all.check(request, &lookup.query).err());
            let named = |named: fn(&Conditions) -> &[Named], at: usize| {
                conditions.map_or("", |all| named(all)[at].given_name())
            };
            let precedence = shard.precedence(at, path_len);
            let outcome = match (path_matches, miss) {
                _ if *decided => Outcome::LessSpecificHostname,
                (false, _) => Outcome::Path,
                (true, Some(Miss::Method)) => Outcome::Method,
                (true, Some(Miss::Header(at))) => Outcome::Header(named(|all| &all.headers, at)),
                (true, Some(Miss::Query(at))) => Outcome::Query(named(|all| &all.query, at)),
                (true, None) => {
                    if let Some(winner) = selected {
                        Outcome::Outranked(winner.decided_by(&precedence))
                    } else {
                        selected = Some(precedence);
                        Outcome::Selected
                    }
                }
            };
            considered.push(Considered {
                hostname,
                rule,
                value,
                outcome,
            });
        }
        *decided |= selected.is_some() || !self.fall_through;
    }
}

fn starts_with_segments(path: &[u8], prefix: &str) -> bool {
    path.first() == Some(&b'/')
        && path
            .strip_prefix(prefix_node(prefix).as_bytes())
            .is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/'))
}

impl<'a, T> Explanation<'a, T> {
    /// The rule that serves the request, if any does.
    pub fn selected(&self) -> Option<&Considered<'a, T>> {
        self.considered
            .iter()
            .find(|considered| considered.outcome == Outcome::Selected)
    }
}

impl<T> fmt::Display for Considered<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} on {}: {}",
            self.rule.path, self.hostname, self.outcome
        )
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Selected => f.write_str("selected"),
            Self::LessSpecificHostname => f.write_str("a more specific hostname decides"),
            Self::Path => f.write_str("the path does not match"),
            Self::Method => f.write_str("the method does not match"),
            Self::Header(name) => write!(f, "header {name:?} is absent or does not match"),
            Self::Query(name) => {
                write!(f, "query parameter {name:?} is absent or does not match")
            }
            Self::Outranked(criterion) => {
                write!(
                    f,
                    "matches, but the selected rule has {}",
                    criterion.as_str()
                )
            }
        }
    }
}
