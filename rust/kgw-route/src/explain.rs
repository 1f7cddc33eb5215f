//! Why a request is served by the rule it is served by: the slow, talkative twin of the lookup.

use std::fmt;

use crate::precedence::{Criterion, Precedence};
use crate::predicate::Miss;
use crate::request::Request;
use crate::rule::{PathMatch, Rule, prefix_node};
use crate::table::{Candidate, Lookup, RouteTable};

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
    /// The rule.
    pub rule: &'a Rule,
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
        self.host_index.find(request.host(), |host| {
            self.consider(&lookup, request, host, &mut decided, &mut considered);
            None::<()>
        });
        Explanation { considered }
    }

    fn consider<'a, R: Request>(
        &'a self,
        lookup: &Lookup<'_, T, R>,
        request: &R,
        host: u32,
        decided: &mut bool,
        considered: &mut Vec<Considered<'a, T>>,
    ) {
        let host_rules = &self.hosts[host as usize];
        let hostname = &*host_rules.hostname;
        let boundaries = self.paths.boundaries(request.path(), host_rules.depths);
        let regex = lookup.regex_candidates(host, &boundaries);
        let mut candidates: Vec<u32> = host_rules.rules.clone().collect();
        candidates.sort_by_key(|&at| Precedence::of(&self.rules[at as usize]));

        let mut selected: Option<&Rule> = None;
        for at in candidates {
            let index = at as usize;
            let rule = &self.rules[index];
            let path_matches = match &rule.path {
                PathMatch::Exact(path) => path.as_bytes() == request.path(),
                PathMatch::Prefix(path) => starts_with_segments(request.path(), path),
                PathMatch::Regex(_) => regex.contains(&at),
            };
            let Candidate { conditions, value } = &self.candidates[index];
            let miss = conditions
                .as_ref()
                .and_then(|all| all.check(request, &lookup.query).err());
            let outcome = match (path_matches, miss) {
                _ if *decided => Outcome::LessSpecificHostname,
                (false, _) => Outcome::Path,
                (true, Some(Miss::Method)) => Outcome::Method,
                (true, Some(Miss::Header(at))) => Outcome::Header(&rule.headers[at].name),
                (true, Some(Miss::Query(at))) => Outcome::Query(&rule.query[at].name),
                (true, None) => {
                    if let Some(winner) = selected {
                        let winner = Precedence::of(winner);
                        Outcome::Outranked(winner.decided_by(&Precedence::of(rule)))
                    } else {
                        selected = Some(rule);
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
