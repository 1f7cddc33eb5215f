//! The regular expressions below one literal path, matched together.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::error::RegexError;
use crate::pattern::{Automaton, Pattern};

/// The most patterns, and bytes of their automata, matched in one walk: bounds what building one state
/// of the lazy DFA can cost.
const MAX_PATTERNS: usize = 256;
const MAX_COMPILED: usize = 4 << 20;

/// Candidates whose paths are regular expressions with the same literal segments: neighbours in their
/// table.
#[derive(Debug)]
pub(crate) enum RegexGroup {
    /// All have the same pattern, as there usually is only one.
    One(Arc<Automaton>, Arc<Pattern>),
    /// Patterns in sets.
    Sets(Box<[Set]>),
}

#[derive(Debug)]
pub(crate) struct Set {
    automaton: Arc<Automaton>,
    /// The patterns, each with its candidates.
    patterns: Box<[WithCandidates]>,
}

/// A pattern, and the candidates that have it.
type WithCandidates = (Arc<Pattern>, Box<[u32]>);

/// Automata by the numbers of their patterns: groups with the same ones share them.
pub(crate) type Automata = HashMap<Box<[u64]>, Arc<Automaton>>;

impl RegexGroup {
    /// Rules with the same pattern share it.
    pub(crate) fn new(
        rules: &[(u32, Arc<Pattern>)],
        automata: &mut Automata,
    ) -> Result<Self, RegexError> {
        let mut numbers: HashMap<u64, usize> = HashMap::new();
        let mut patterns: Vec<(&Arc<Pattern>, Vec<u32>)> = Vec::new();
        for (candidate, pattern) in rules {
            let number = *numbers.entry(pattern.serial).or_insert_with(|| {
                patterns.push((pattern, Vec::new()));
                patterns.len() - 1
            });
            patterns[number].1.push(*candidate);
        }
        // In the order in which they were seen first: sets that a change does not touch stay as they are.
        patterns.sort_by_key(|(pattern, _)| pattern.serial);
        let mut sets = Vec::new();
        let mut rest = patterns.as_slice();
        while !rest.is_empty() {
            let mut compiled = 0;
            let fits = rest.iter().take(MAX_PATTERNS).take_while(|(pattern, _)| {
                compiled += pattern.compiled;
                compiled <= MAX_COMPILED
            });
            let (set, others) = rest.split_at(fits.count().max(1));
            rest = others;
            let key: Box<[u64]> = set.iter().map(|(pattern, _)| pattern.serial).collect();
            let automaton = match automata.entry(key) {
                Entry::Occupied(known) => Arc::clone(known.get()),
                Entry::Vacant(new) => {
                    let automaton = Automaton::new(set.iter().map(|(pattern, _)| &***pattern))?;
                    Arc::clone(new.insert(Arc::new(automaton)))
                }
            };
            if let [(pattern, _)] = patterns.as_slice() {
                return Ok(Self::One(automaton, Arc::clone(pattern)));
            }
            sets.push(Set {
                automaton,
                patterns: set
                    .iter()
                    .map(|(pattern, candidates)| {
                        (Arc::clone(pattern), candidates.as_slice().into())
                    })
                    .collect(),
            });
        }
        Ok(Self::Sets(sets.into_boxed_slice()))
    }

    /// Calls back with those of `candidates`, all of the group, whose pattern matches what follows the
    /// literal segments of the path, in no particular order.
    pub(crate) fn find(&self, rest: &[u8], candidates: Range<u32>, mut found: impl FnMut(u32)) {
        match self {
            Self::One(automaton, _) => {
                if automaton.is_match(rest) {
                    candidates.for_each(found);
                }
            }
            Self::Sets(sets) => {
                for set in sets {
                    set.automaton.for_each_match(rest, |pattern| {
                        set.patterns[pattern].1.iter().copied().for_each(&mut found);
                    });
                }
            }
        }
    }

    /// The pattern of each of `candidates`, all of the group.
    pub(crate) fn patterns(
        &self,
        candidates: Range<u32>,
    ) -> impl Iterator<Item = (u32, Arc<Pattern>)> {
        let (one, sets) = match self {
            Self::One(_, pattern) => (Some(pattern), [].as_slice()),
            Self::Sets(sets) => (None, &**sets),
        };
        let of_one = one.into_iter().flat_map(move |pattern| {
            let candidates = candidates.clone();
            candidates.map(|at| (at, Arc::clone(pattern)))
        });
        let of_sets = sets.iter().flat_map(|set| &set.patterns);
        let of_sets = of_sets.flat_map(|(pattern, candidates)| {
            candidates.iter().map(|&at| (at, Arc::clone(pattern)))
        });
        of_one.chain(of_sets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Patterns;

    fn sets(group: &RegexGroup) -> &[Set] {
        match group {
            RegexGroup::One(..) => &[],
            RegexGroup::Sets(sets) => sets,
        }
    }

    fn automaton(group: &RegexGroup) -> &Arc<Automaton> {
        match group {
            RegexGroup::One(automaton, _) => automaton,
            RegexGroup::Sets(sets) => &sets[0].automaton,
        }
    }

    fn group(patterns: impl IntoIterator<Item = String>) -> RegexGroup {
        let mut known = Patterns::default();
        let rules: Vec<_> = (0..)
            .zip(patterns)
            .map(|(at, pattern)| (at, known.of_path(&pattern).expect("valid").1))
            .collect();
        RegexGroup::new(&rules, &mut Automata::new()).expect("compiles")
    }

    #[test]
    fn many_patterns_make_several_sets() {
        let group = group((0..1000).map(|at| format!("/[a-z]+/{}", at % 500)));
        assert!(sets(&group).len() >= 2);
        let mut found = Vec::new();
        group.find(b"/abc/123", 0..1000, |at| found.push(at));
        found.sort_unstable();
        assert_eq!(found, [123, 623]);
    }

    #[test]
    fn equal_patterns_are_compiled_once() {
        let group = group((0..1000).map(|_| "/a+".to_owned()));
        assert!(matches!(group, RegexGroup::One(..)));
        let mut found = Vec::new();
        group.find(b"/aa", 0..1000, |at| found.push(at));
        assert_eq!(found.len(), 1000);
    }

    #[test]
    fn groups_with_the_same_patterns_share_the_automaton() {
        let (mut known, mut automata) = (Patterns::default(), Automata::new());
        let groups = ["/a/x+", "/b/x+"].map(|pattern| {
            let (_, rest) = known.of_path(pattern).expect("valid");
            RegexGroup::new(&[(0, rest)], &mut automata).expect("compiles")
        });
        assert!(Arc::ptr_eq(automaton(&groups[0]), automaton(&groups[1])));
    }
}
