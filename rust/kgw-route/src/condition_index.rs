//! Which of many rules of one path a request's header fields and query parameters leave.
//!
//! A thousand tenants told apart by a header would be a thousand comparisons. Rules that ask for exact
//! values of one name are found by the value that the request has; names are taken in turn, the one with
//! the most different values first, until few rules are left.

use std::fmt;
use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet, HashTable};

use crate::predicate::{Conditions, Named};
use crate::query::Query;
use crate::request::Request;
use crate::rule::StringMatch;

/// The most rules that are looked at one after the other.
const FEW: usize = 4;
/// The most names: each costs a look at the request.
const MAX_NAMES: usize = 8;

/// The rules of one path, by what they ask for.
pub(crate) struct ConditionIndex {
    rules: Range<u32>,
    names: Box<[ByName]>,
    /// Those that ask for none of the names, or not for exact values.
    rest: Box<[u32]>,
    hasher: RandomState,
}

/// Rules that ask for an exact value of a name.
struct ByName {
    source: Source,
    name: Box<[u8]>,
    /// Ranges of `order`, by value.
    values: HashTable<Range<u32>>,
    /// The rules of each value in order of precedence.
    order: Box<[u32]>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Source {
    Header,
    Query,
}

impl ConditionIndex {
    /// Indexes rules that are neighbours; none if there are few, or nothing tells them apart.
    pub(crate) fn new<'a>(
        rules: Range<u32>,
        conditions: impl Fn(u32) -> Option<&'a Conditions>,
    ) -> Option<Self> {
        let hasher = RandomState::default();
        let mut rest: Vec<u32> = rules.clone().collect();
        let mut names = Vec::new();
        while rest.len() > FEW && names.len() < MAX_NAMES {
            let Some((source, name)) = telling(&rest, &conditions) else {
                break;
            };
            let value = |at: u32| conditions(at).and_then(|all| exact(all, source, name));
            let (mut of_name, others): (Vec<u32>, Vec<u32>) =
                rest.iter().partition(|&&at| value(at).is_some());
            rest = others;
            of_name.sort_by_key(|&at| (value(at), at));
            let mut values = HashTable::new();
            let mut start = 0;
            for same in of_name.chunk_by(|&a, &b| value(a) == value(b)) {
                let range = start..start + same.len() as u32;
                start = range.end;
                let hash = |range: &Range<u32>| {
                    hasher.hash_one(value(of_name[range.start as usize]).unwrap_or_default())
                };
                values.insert_unique(hash(&range), range, hash);
            }
            names.push(ByName {
                source,
                name: name.into(),
                values,
                order: of_name.into(),
            });
        }
        (!names.is_empty()).then(|| Self {
            rules,
            names: names.into(),
            rest: rest.into(),
            hasher,
        })
    }

    /// The first of the rules.
    pub(crate) fn start(&self) -> u32 {
        self.rules.start
    }

    /// The first rule that `holds`, which must be one whose conditions the request meets.
    pub(crate) fn first<'a, R: Request>(
        &self,
        request: &R,
        query: &Query<'_>,
        conditions: impl Fn(u32) -> Option<&'a Conditions>,
        holds: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut best = self.rules.end;
        let mut consider = |rules: &[u32]| {
            let better = rules.iter().take_while(|&&at| at < best);
            if let Some(at) = better.copied().find(|&at| holds(at)) {
                best = at;
            }
        };
        for by_name in &self.names {
            let mut of_value = |value: &[u8]| {
                let found = by_name.values.find(self.hasher.hash_one(value), |range| {
                    let at = by_name.order[range.start as usize];
                    let wanted =
                        conditions(at).and_then(|all| exact(all, by_name.source, &by_name.name));
                    wanted == Some(value)
                });
                if let Some(range) = found {
                    consider(&by_name.order[range.start as usize..range.end as usize]);
                }
            };
            match by_name.source {
                Source::Header => {
                    request.any_header(&by_name.name, |value| {
                        of_value(value);
                        false
                    });
                }
                Source::Query => {
                    if let Some(value) = query.first(&by_name.name) {
                        of_value(value);
                    }
                }
            }
        }
        consider(&self.rest);
        self.rules.contains(&best).then_some(best)
    }
}

impl fmt::Debug for ConditionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConditionIndex")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// The name of which the rules want the most different values, if they want more than one.
fn telling<'a>(
    rules: &[u32],
    conditions: impl Fn(u32) -> Option<&'a Conditions>,
) -> Option<(Source, &'a [u8])> {
    let mut values: HashMap<(Source, &[u8]), HashSet<&[u8]>> = HashMap::new();
    for all in rules.iter().filter_map(|&at| conditions(at)) {
        for (source, named) in sources(all) {
            for (name, value) in named.iter().filter_map(exact_of) {
                values.entry((source, name)).or_default().insert(value);
            }
        }
    }
    let names = values
        .into_iter()
        .map(|(name, values)| (values.len(), name));
    let (count, name) = names.max_by_key(|&(count, (_, name))| (count, name))?;
    (count > 1).then_some(name)
}

fn sources(all: &Conditions) -> [(Source, &[Named]); 2] {
    [(Source::Header, &all.headers), (Source::Query, &all.query)]
}

/// Name and value of a predicate that wants an exact one.
fn exact_of(named: &Named) -> Option<(&[u8], &[u8])> {
    match &named.given().value {
        StringMatch::Exact(value) => Some((named.name(), value.as_bytes())),
        StringMatch::Present | StringMatch::Regex(_) => None,
    }
}

fn exact<'a>(all: &'a Conditions, source: Source, name: &[u8]) -> Option<&'a [u8]> {
    let named = match source {
        Source::Header => &all.headers,
        Source::Query => &all.query,
    };
    let mut exact = named.iter().filter_map(exact_of);
    exact.find(|(of, _)| *of == name).map(|(_, value)| value)
}
