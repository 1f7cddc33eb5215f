//! Some of a table's nodes, with their rules: what is made anew when one of them changes.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::condition_index::ConditionIndex;
use crate::draft::{Draft, Kind, Spelling};
use crate::error::{BuildError, Field, RegexError};
use crate::host_index::HostIndex;
use crate::parts::Automata;
use crate::pattern::Pattern;
use crate::precedence::{Precedence, age, prefix_len};
use crate::predicate::Conditions;
use crate::query::Query;
use crate::regex_group::RegexGroup;
use crate::request::Request;
use crate::rule::{PathMatch, Rank, Rule};

/// Nodes and rules in few blocks of memory. The rules of a node are neighbours, in order of precedence.
///
/// What a lookup reads is one cache line, where a hundred thousand rules leave none of it in the caches:
/// the fields are in this order, at the start of a line.
#[repr(C, align(64))]
pub(crate) struct Shard<T> {
    nodes: HashTable<Entry>,
    /// The nodes' paths.
    paths: Box<[u8]>,
    candidates: Box<[Candidate<T>]>,
    /// The texts of the rules' metadata.
    text: Box<[u8]>,
    /// By candidate; only changes, explanations and ties between regular expressions read them.
    meta: Box<[Meta]>,
    regexes: Box<[RegexGroup]>,
    /// Of candidates of one kind and path where there are many, in their order.
    by_condition: Box<[ConditionIndex]>,
}

#[derive(Clone, Copy)]
struct Entry {
    host: u32,
    at: u32,
    len: u32,
    node: Node,
}

/// The rules of one path: `exact` candidates are those of the path itself, `prefix` candidates those
/// of every path below, and between the two those of regular expressions of what follows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    first: u32,
    first_regex: u32,
    first_prefix: u32,
    end: u32,
    /// Place of the regular expressions, if there are any.
    regex: u32,
}

/// What a lookup needs of a rule whose path matches.
#[derive(Debug)]
pub(crate) struct Candidate<T> {
    pub(crate) conditions: Option<Arc<Conditions>>,
    pub(crate) value: T,
}

/// What else is known of a rule. The name of its rank is in the shard's text, the pattern behind it.
#[derive(Debug)]
struct Meta {
    created: i64,
    name_at: u32,
    name_len: u32,
    rule: u32,
    r#match: u32,
    /// Of a regular expression the length of the pattern; of a prefix the number of its trailing
    /// slashes.
    more: u32,
    group: u32,
    kind: Kind,
    has_created: bool,
}

/// Regular expressions that do not compile together.
#[derive(Debug)]
pub(crate) struct GroupFault {
    host: u32,
    /// Of one of their rules.
    rank: Rank,
    error: RegexError,
}

// === impl Shard ===

impl<T> Shard<T> {
    pub(crate) fn empty() -> Self {
        Self {
            nodes: HashTable::new(),
            paths: Box::default(),
            candidates: Box::default(),
            text: Box::default(),
            meta: Box::default(),
            regexes: Box::default(),
            by_condition: Box::default(),
        }
    }

    /// Makes a shard of rules in any order. An error tells which of the rules it is about.
    pub(crate) fn new(
        mut drafts: Vec<Draft<'_, T>>,
        tie: fn(&T, &T) -> Ordering,
        automata: &mut Automata,
    ) -> Result<Self, GroupFault> {
        drafts.sort_by(|a, b| {
            (a.hash, a.host)
                .cmp(&(b.hash, b.host))
                .then_with(|| a.node.cmp(&b.node))
                .then_with(|| a.precedence().cmp(&b.precedence()))
                .then_with(|| tie(&a.value, &b.value))
                .then_with(|| a.group.cmp(&b.group))
        });
        let is_same = |a: &Draft<'_, T>, b: &Draft<'_, T>| {
            (a.hash, a.host) == (b.hash, b.host) && a.node == b.node
        };
        let mut entries = Vec::with_capacity(drafts.chunk_by(is_same).count());
        // Never empty: a comparison of no bytes at no address is right, but takes glibc's AVX-512 code
        // 90 ns.
        let mut paths = vec![b'/'];
        let mut text = Vec::new();
        let mut meta = Vec::with_capacity(drafts.len());
        let mut regexes = Vec::new();
        for rules in drafts.chunk_by(is_same) {
            let Some(one) = rules.first() else { continue };
            let (at, len) = (paths.len() as u32, one.node.len() as u32);
            paths.extend_from_slice(&one.node);
            let first = meta.len() as u32;
            meta.extend(rules.iter().map(|rule| Meta::new(rule, &mut text)));
            let starts = |kind: Kind| {
                let before = rules.partition_point(|rule| rule.kind < kind);
                first + before as u32
            };
            let (first_regex, first_prefix) = (starts(Kind::Regex), starts(Kind::Prefix));
            let patterns: Vec<_> = (first..)
                .zip(rules)
                .filter_map(|(at, rule)| Some((at, rule.pattern.clone()?)))
                .collect();
            let node = Node {
                first,
                first_regex,
                first_prefix,
                end: meta.len() as u32,
                regex: regexes.len() as u32,
            };
            if !patterns.is_empty() {
                let group = RegexGroup::new(&patterns, automata);
                regexes.push(group.map_err(|error| GroupFault {
                    host: one.host,
                    rank: rules[(first_regex - first) as usize].rank(),
                    error,
                })?);
            }
            let host = one.host;
            let entry = Entry {
                host,
                at,
                len,
                node,
            };
            entries.push((one.hash, entry));
        }
        let conditions = |at: u32| drafts[at as usize].conditions.as_deref();
        let ranges = entries
            .iter()
            .flat_map(|(_, entry): &(u64, Entry)| [entry.node.exact(), entry.node.prefix()]);
        let by_condition = ranges.filter_map(|rules| ConditionIndex::new(rules, conditions));
        let by_condition = by_condition.collect();
        // With a table's exact size: most of its memory is here.
        let mut nodes = HashTable::with_capacity(entries.len());
        for (hash, entry) in entries {
            nodes.insert_unique(hash, entry, |_| unreachable!("the table has room for all"));
        }
        let candidates = drafts.into_iter().map(|draft| Candidate {
            conditions: draft.conditions,
            value: draft.value,
        });
        Ok(Self {
            nodes,
            paths: paths.into(),
            candidates: candidates.collect(),
            text: text.into(),
            meta: meta.into(),
            regexes: regexes.into(),
            by_condition,
        })
    }

    /// The node of a path.
    #[inline]
    pub(crate) fn node(&self, hash: u64, host: u32, path: &[u8]) -> Option<Node> {
        self.nodes
            .find(hash, |entry| entry.host == host && self.path(entry) == path)
            .map(|entry| entry.node)
    }

    #[inline]
    fn path(&self, entry: &Entry) -> &[u8] {
        &self.paths[entry.at as usize..][..entry.len as usize]
    }

    #[inline]
    pub(crate) fn candidate(&self, at: u32) -> &Candidate<T> {
        &self.candidates[at as usize]
    }

    /// The first of `candidates`, the exact ones or the prefixes of a node, whose predicates hold.
    #[inline]
    pub(crate) fn first<R: Request>(
        &self,
        mut candidates: Range<u32>,
        request: &R,
        query: &Query<'_>,
    ) -> Option<u32> {
        let first = candidates.next()?;
        if self.holds(first, request, query) {
            return Some(first);
        }
        if candidates.is_empty() {
            return None;
        }
        self.first_of_many(first, candidates, request, query)
    }

    /// The first of `others` whose predicates hold; those of `first`, which is before them, do not.
    #[inline(never)]
    fn first_of_many<R: Request>(
        &self,
        first: u32,
        mut others: Range<u32>,
        request: &R,
        query: &Query<'_>,
    ) -> Option<u32> {
        let found = self
            .by_condition
            .binary_search_by_key(&first, ConditionIndex::start);
        let Ok(index) = found else {
            return others.find(|&at| self.holds(at, request, query));
        };
        let conditions = |at: u32| self.candidate(at).conditions.as_deref();
        let holds = |at: u32| self.holds(at, request, query);
        self.by_condition[index].first(request, query, conditions, holds)
    }

    /// Whether the predicates of a candidate hold.
    #[inline]
    pub(crate) fn holds<R: Request>(&self, at: u32, request: &R, query: &Query<'_>) -> bool {
        match &self.candidate(at).conditions {
            None => true,
            Some(conditions) => conditions.check(request, query).is_ok(),
        }
    }

    /// The regular expressions of a node.
    pub(crate) fn regex(&self, node: Node) -> Option<&RegexGroup> {
        (node.first_regex < node.first_prefix).then(|| &self.regexes[node.regex as usize])
    }

    /// The number of rules.
    pub(crate) fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Bytes of paths, names and patterns.
    pub(crate) fn text_len(&self) -> usize {
        self.paths.len() + self.text.len()
    }

    /// Whether any rule is of a hostname of which `is` is true.
    pub(crate) fn any_host(&self, is: impl Fn(u32) -> bool) -> bool {
        self.nodes.iter().any(|entry| is(entry.host))
    }

    /// Whether any rule is of a group of which `is` is true.
    pub(crate) fn any_group(&self, is: impl Fn(u32) -> bool) -> bool {
        self.meta.iter().any(|meta| is(meta.group))
    }

    /// The sort key of a rule whose node has a path of `path_len` bytes.
    pub(crate) fn precedence(&self, at: u32, path_len: usize) -> Precedence<'_> {
        let meta = &self.meta[at as usize];
        let conditions = self.candidates[at as usize].conditions.as_deref();
        Precedence {
            class: meta.kind,
            prefix_len: prefix_len(meta.kind, path_len),
            method: Reverse(conditions.is_some_and(|all| all.method.is_some())),
            headers: Reverse(conditions.map_or(0, |all| all.headers.len())),
            query: Reverse(conditions.map_or(0, |all| all.query.len())),
            age: age(meta.has_created.then_some(meta.created)),
            name: self.name(meta),
            place: (meta.rule, meta.r#match),
        }
    }

    /// The number that tells rules of equal precedence apart.
    pub(crate) fn group(&self, at: u32) -> u32 {
        self.meta[at as usize].group
    }

    fn name(&self, meta: &Meta) -> &[u8] {
        &self.text[meta.name_at as usize..][..meta.name_len as usize]
    }

    /// The rules of a hostname, with the lengths of their nodes' paths.
    pub(crate) fn rules_of(&self, host: u32) -> impl Iterator<Item = (u32, usize)> {
        let nodes = self.nodes.iter().filter(move |entry| entry.host == host);
        nodes.flat_map(|entry| {
            let rules = entry.node.first..entry.node.end;
            rules.map(|at| (at, entry.len as usize))
        })
    }

    /// A rule, as it was given but for predicates that do not count.
    pub(crate) fn rule(&self, at: u32) -> Rule {
        let entry = self
            .nodes
            .iter()
            .find(|entry| (entry.node.first..entry.node.end).contains(&at))
            .expect("every rule has a node");
        let meta = &self.meta[at as usize];
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut path = text(self.path(entry));
        let path = match meta.kind {
            Kind::Exact => PathMatch::Exact(path),
            Kind::Prefix => {
                path.extend(std::iter::repeat_n('/', meta.more as usize));
                PathMatch::Prefix(path)
            }
            Kind::Regex => PathMatch::Regex(text(self.pattern(meta))),
        };
        let mut rule = Rule::new(path);
        rule.rank = Rank {
            created: meta.has_created.then_some(meta.created),
            name: text(self.name(meta)),
            rule: meta.rule,
            r#match: meta.r#match,
        };
        if let Some(conditions) = &self.candidates[at as usize].conditions {
            conditions.give(&mut rule);
        }
        rule
    }

    fn pattern(&self, meta: &Meta) -> &[u8] {
        let at = (meta.name_at + meta.name_len) as usize;
        &self.text[at..][..meta.more as usize]
    }
}

impl<T: Clone> Shard<T> {
    /// The rules, to make another shard of.
    pub(crate) fn drafts(
        &self,
        hash_of: impl Fn(u32, &[u8]) -> u64,
    ) -> impl Iterator<Item = Draft<'_, T>> {
        self.nodes.iter().flat_map(move |entry| {
            let node = self.path(entry);
            let hash = hash_of(entry.host, node);
            let patterns: BTreeMap<u32, Arc<Pattern>> = self
                .regex(entry.node)
                .map(|group| group.patterns(entry.node.regexes()).collect())
                .unwrap_or_default();
            (entry.node.first..entry.node.end).map(move |at| {
                let (candidate, meta) = (self.candidate(at), &self.meta[at as usize]);
                Draft {
                    hash,
                    host: entry.host,
                    node: node.into(),
                    kind: meta.kind,
                    spelling: match meta.kind {
                        Kind::Regex => Spelling::Pattern(self.pattern(meta).into()),
                        Kind::Exact | Kind::Prefix => Spelling::Slashes(meta.more),
                    },
                    created: meta.has_created.then_some(meta.created),
                    name: self.name(meta).into(),
                    rule: meta.rule,
                    r#match: meta.r#match,
                    group: meta.group,
                    conditions: candidate.conditions.clone(),
                    pattern: patterns.get(&at).cloned(),
                    value: candidate.value.clone(),
                }
            })
        })
    }
}

// === impl Meta ===

impl Meta {
    fn new<T>(draft: &Draft<'_, T>, text: &mut Vec<u8>) -> Self {
        let name_at = text.len() as u32;
        text.extend_from_slice(&draft.name);
        let more = match &draft.spelling {
            Spelling::Slashes(count) => *count,
            Spelling::Pattern(pattern) => {
                text.extend_from_slice(pattern);
                pattern.len() as u32
            }
        };
        Self {
            created: draft.created.unwrap_or_default(),
            name_at,
            name_len: draft.name.len() as u32,
            rule: draft.rule,
            r#match: draft.r#match,
            more,
            group: draft.group,
            kind: draft.kind,
            has_created: draft.created.is_some(),
        }
    }
}

// === impl Node ===

impl Node {
    #[inline]
    pub(crate) fn exact(&self) -> Range<u32> {
        self.first..self.first_regex
    }

    #[inline]
    pub(crate) fn prefix(&self) -> Range<u32> {
        self.first_prefix..self.end
    }

    pub(crate) fn regexes(&self) -> Range<u32> {
        self.first_regex..self.first_prefix
    }
}

// === impl GroupFault ===

impl GroupFault {
    /// Says whose rules they are.
    pub(crate) fn on(self, hosts: &HostIndex) -> BuildError {
        BuildError {
            hostname: hosts.hostname_of(self.host).unwrap_or_default().to_owned(),
            rank: self.rank,
            field: Field::Path,
            problem: self.error.into(),
        }
    }
}
