//! From rules in any order to a table.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::error::{BuildError, Field, Problem};
use crate::host_index::HostIndex;
use crate::hostname::Pattern as HostPattern;
use crate::path_index::{Depths, Node, PathIndex};
use crate::pattern::{Automaton, Pattern, Patterns};
use crate::precedence::Precedence;
use crate::predicate::{Conditions, Named, Value};
use crate::regex_group::{Automata, RegexGroup};
use crate::rule::{PathMatch, Rank, Rule, StringMatch, ValueMatch, prefix_node};
use crate::table::{Candidate, HostRules, RouteTable};

/// The most rules of a table, which keeps its indices within 32 bits.
const MAX_RULES: usize = 1 << 22;
/// The most path text of a table. Bytes.
const MAX_PATH_BYTES: usize = 1 << 30;

/// Compiles rules into a [`RouteTable`].
#[derive(Debug)]
pub struct Builder<T> {
    fall_through: bool,
    hosts: Vec<HostPattern>,
    host_numbers: HashMap<HostPattern, u32>,
    rules: Vec<Compiled<T>>,
    patterns: Patterns,
    /// Those of values, by their spelling.
    automata: HashMap<String, Arc<Automaton>>,
    /// Methods, headers and queries as given: rules with the same ones share them, which keeps the
    /// common ones in the nearest cache.
    conditions: HashMap<Predicates, Arc<Conditions>>,
    path_bytes: usize,
}

#[derive(Debug)]
struct Compiled<T> {
    host: u32,
    rule: Rule,
    pattern: Option<PathPattern>,
    conditions: Option<Arc<Conditions>>,
    value: T,
}

/// Method, headers and query.
type Predicates = (Option<String>, Vec<ValueMatch>, Vec<ValueMatch>);

/// Hostname, path and other predicates of a rule.
type Parts = (u32, Option<PathPattern>, Option<Arc<Conditions>>);

/// Literal leading segments, and the regular expression of what follows them.
type PathPattern = (Vec<u8>, Arc<Pattern>);

/// What is wrong with a rule, and where.
type Fault = (Field, Problem);

// === impl Builder ===

impl<T> Default for Builder<T> {
    fn default() -> Self {
        Self {
            fall_through: false,
            hosts: Vec::new(),
            host_numbers: HashMap::new(),
            rules: Vec::new(),
            patterns: Patterns::default(),
            automata: HashMap::new(),
            conditions: HashMap::new(),
            path_bytes: 0,
        }
    }
}

impl<T> Builder<T> {
    /// A builder without rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a request that no rule of the most specific hostname matches is tried on the next less
    /// specific one, as the Gateway API's precedence across routes of one listener can be read.
    ///
    /// Off by default: Envoy, and so kgateway, picks one virtual host and answers 404.
    #[must_use]
    pub fn fall_through(mut self, fall_through: bool) -> Self {
        self.fall_through = fall_through;
        self
    }

    /// Adds a rule for `foo.example`, `*.example` or `*`. The value is what a lookup that selects the
    /// rule finds. Rules of one hostname may be added at different times; of rules with equal
    /// [`Precedence`] the one added first wins.
    ///
    /// # Errors
    /// [`BuildError`] if a part of the rule is malformed or the table would get too large; the rule
    /// is not added, and the builder can be used further.
    pub fn add(&mut self, hostname: &str, mut rule: Rule, value: T) -> Result<(), BuildError> {
        match self.compile(hostname, &mut rule) {
            Ok((host, pattern, conditions)) => {
                self.path_bytes += rule.path.as_str().len();
                self.rules.push(Compiled {
                    host,
                    rule,
                    pattern,
                    conditions,
                    value,
                });
                Ok(())
            }
            Err((field, problem)) => Err(error(hostname, &rule.rank, field, problem)),
        }
    }

    /// Compiles the rules added so far.
    ///
    /// # Errors
    /// [`BuildError`] if regular expressions that compile alone do not compile together.
    pub fn build(mut self) -> Result<RouteTable<T>, BuildError> {
        self.rules.sort_by(|a, b| {
            (a.host, a.pattern.is_some())
                .cmp(&(b.host, b.pattern.is_some()))
                .then_with(|| node_path(&a.rule.path).cmp(node_path(&b.rule.path)))
                .then_with(|| Precedence::of(&a.rule).cmp(&Precedence::of(&b.rule)))
        });

        let mut hosts: Vec<_> = self.hosts.iter().map(host_rules).collect();
        let mut paths = PathIndex::with_capacity(self.rules.len());
        let mut regexes = Vec::new();
        let mut automata = Automata::new();
        for same_host in runs(&self.rules, |a, b| a.host == b.host) {
            let host = self.rules[same_host.start].host;
            let entry = &mut hosts[host as usize];
            entry.rules = same_host.start as u32..same_host.end as u32;

            let rules = &self.rules[same_host.clone()];
            let (literal, regex) =
                rules.split_at(rules.partition_point(|rule| rule.pattern.is_none()));
            for same_path in runs(literal, |a, b| {
                node_path(&a.rule.path) == node_path(&b.rule.path)
            }) {
                let path = node_path(&literal[same_path.start].rule.path);
                let is_exact = |rule: &Compiled<T>| matches!(rule.rule.path, PathMatch::Exact(_));
                let first_prefix =
                    same_path.start + literal[same_path.clone()].partition_point(is_exact);
                let candidate = |at: usize| (same_host.start + at) as u32;
                node(&mut paths, host, path.as_bytes(), entry).set_candidates(
                    candidate(same_path.start)..candidate(same_path.end),
                    candidate(first_prefix),
                );
            }

            entry.has_regex = !regex.is_empty();
            let first_regex = (same_host.start + literal.len()) as u32;
            for (prefix, group) in by_literal_segments(first_regex, regex) {
                let number = regexes.len() as u32;
                regexes.push(RegexGroup::new(&group, &mut automata).map_err(|problem| {
                    let rule = &self.rules[group[0].0 as usize].rule;
                    let hostname = self.hosts[host as usize].to_string();
                    error(&hostname, &rule.rank, Field::Path, problem.into())
                })?);
                node(&mut paths, host, &prefix, entry).set_regex(number);
            }
        }

        let mut table = RouteTable {
            fall_through: self.fall_through,
            reads_headers: false,
            host_index: HostIndex::new((0..).zip(&self.hosts)),
            hosts,
            paths,
            regexes,
            candidates: Vec::with_capacity(self.rules.len()),
            rules: Vec::with_capacity(self.rules.len()),
        };
        for compiled in self.rules {
            table.reads_headers |= !compiled.rule.headers.is_empty();
            let Compiled {
                conditions, value, ..
            } = compiled;
            table.candidates.push(Candidate { conditions, value });
            table.rules.push(compiled.rule);
        }
        Ok(table)
    }

    /// Drops predicates that do not count and compiles the rest.
    fn compile(&mut self, hostname: &str, rule: &mut Rule) -> Result<Parts, Fault> {
        let host = HostPattern::parse(hostname).ok_or((Field::Hostname, Problem::Hostname))?;
        if self.rules.len() >= MAX_RULES {
            return Err((
                Field::Rule,
                Problem::TooLarge {
                    what: "rules",
                    limit: MAX_RULES,
                },
            ));
        }
        let in_path = |problem| (Field::Path, problem);
        if self.path_bytes + rule.path.as_str().len() > MAX_PATH_BYTES {
            let limit = MAX_PATH_BYTES;
            return Err(in_path(Problem::TooLarge {
                what: "bytes of paths",
                limit,
            }));
        }
        let pattern = match &rule.path {
            PathMatch::Regex(pattern) => Some(self.patterns.of_path(pattern).map_err(in_path)?),
            PathMatch::Exact(path) | PathMatch::Prefix(path) => {
                if !path.starts_with('/') {
                    return Err(in_path(Problem::RelativePath { path: path.clone() }));
                }
                None
            }
        };

        let headers = std::mem::take(&mut rule.headers);
        let (kept, headers) = self.named(headers, Field::Header, |name| {
            is_header_name(name).then(|| name.to_ascii_lowercase())
        })?;
        rule.headers = kept;
        let query = std::mem::take(&mut rule.query);
        let (kept, query) = self.named(query, Field::Query, |name| {
            (!name.is_empty()).then(|| name.to_owned())
        })?;
        rule.query = kept;

        let method = rule.method.as_ref().map(|method| method.as_bytes().into());
        let is_any = method.is_none() && headers.is_empty() && query.is_empty();
        let conditions = (!is_any).then(|| {
            let key = (
                rule.method.clone(),
                rule.headers.clone(),
                rule.query.clone(),
            );
            let conditions = self.conditions.entry(key).or_insert_with(|| {
                Arc::new(Conditions {
                    method,
                    headers,
                    query,
                })
            });
            Arc::clone(conditions)
        });

        let next = self.hosts.len() as u32;
        let number = *self.host_numbers.entry(host).or_insert_with_key(|host| {
            self.hosts.push(host.clone());
            next
        });
        Ok((number, pattern, conditions))
    }

    /// The predicates that count, as given and compiled.
    fn named(
        &mut self,
        predicates: Vec<ValueMatch>,
        field: fn(usize) -> Field,
        normalise: impl Fn(&str) -> Option<String>,
    ) -> Result<(Vec<ValueMatch>, Box<[Named]>), Fault> {
        let mut kept = Vec::with_capacity(predicates.len());
        let mut compiled: Vec<Named> = Vec::with_capacity(predicates.len());
        for (at, predicate) in predicates.into_iter().enumerate() {
            let name = normalise(&predicate.name).ok_or_else(|| {
                (
                    field(at),
                    Problem::Name {
                        name: predicate.name.clone(),
                    },
                )
            })?;
            let value = match &predicate.value {
                StringMatch::Exact(value) => Value::Exact(value.as_bytes().into()),
                StringMatch::Present => Value::Present,
                StringMatch::Regex(pattern) => Value::Regex(
                    self.automaton(pattern)
                        .map_err(|problem| (field(at), problem))?,
                ),
            };
            // Gateway API: entries after the first with an equivalent name MUST be ignored.
            if compiled
                .iter()
                .all(|earlier| *earlier.name != *name.as_bytes())
            {
                compiled.push(Named {
                    name: name.into_bytes().into(),
                    value,
                });
                kept.push(predicate);
            }
        }
        Ok((kept, compiled.into()))
    }

    fn automaton(&mut self, pattern: &str) -> Result<Arc<Automaton>, Problem> {
        if let Some(known) = self.automata.get(pattern) {
            return Ok(Arc::clone(known));
        }
        let parsed = self.patterns.of_value(pattern)?;
        let automaton = Arc::new(Automaton::new([&*parsed])?);
        self.automata
            .insert(pattern.to_owned(), Arc::clone(&automaton));
        Ok(automaton)
    }
}

fn error(hostname: &str, rank: &Rank, field: Field, problem: Problem) -> BuildError {
    BuildError {
        hostname: hostname.to_owned(),
        rank: rank.clone(),
        field,
        problem,
    }
}

/// A token (RFC 9110 §5.6.2), or a pseudo-header's name.
fn is_header_name(name: &str) -> bool {
    let token = name.strip_prefix(':').unwrap_or(name);
    !token.is_empty()
        && token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Where the rules of a path are found; regular expressions have no such place.
fn node_path(path: &PathMatch) -> &str {
    match path {
        PathMatch::Exact(path) => path,
        PathMatch::Prefix(path) => prefix_node(path),
        PathMatch::Regex(_) => "",
    }
}

/// Ranges of neighbours that are the same.
fn runs<T>(items: &[T], same: fn(&T, &T) -> bool) -> impl Iterator<Item = Range<usize>> {
    items.chunk_by(same).scan(0, |end, run| {
        let start = *end;
        *end += run.len();
        Some(start..*end)
    })
}

type Group = Vec<(u32, Arc<Pattern>)>;

fn by_literal_segments<T>(first: u32, rules: &[Compiled<T>]) -> Vec<(Vec<u8>, Group)> {
    let mut groups: HashMap<&[u8], Group> = HashMap::new();
    for (candidate, rule) in (first..).zip(rules) {
        if let Some((segments, rest)) = &rule.pattern {
            groups
                .entry(segments)
                .or_default()
                .push((candidate, Arc::clone(rest)));
        }
    }
    groups
        .into_iter()
        .map(|(segments, group)| (segments.to_vec(), group))
        .collect()
}

fn host_rules(host: &HostPattern) -> HostRules {
    HostRules {
        hostname: host.to_string().into(),
        depths: Depths::default(),
        root: Node::EMPTY,
        has_regex: false,
        rules: 0..0,
    }
}

/// The node of a path; that of the root is with its host.
fn node<'a>(
    paths: &'a mut PathIndex,
    host: u32,
    path: &[u8],
    rules: &'a mut HostRules,
) -> &'a mut Node {
    if path.is_empty() {
        &mut rules.root
    } else {
        paths.node_mut(host, path, &mut rules.depths)
    }
}
