//! The regular expressions below one literal path, matched together.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use smallvec::SmallVec;

use crate::error::RegexError;
use crate::pattern::{Automaton, Pattern};

/// The most patterns, and bytes of their automata, matched in one walk: bounds what building one state
/// of the lazy DFA can cost.
const MAX_PATTERNS: usize = 256;
const MAX_COMPILED: usize = 4 << 20;

/// Candidates whose paths are regular expressions with the same literal segments.
#[derive(Debug)]
pub(crate) struct RegexGroup {
    sets: Box<[Set]>,
}

#[derive(Debug)]
struct Set {
    automaton: Arc<Automaton>,
    /// The candidates of each pattern.
    candidates: Box<[Box<[u32]>]>,
}

/// Automata by their patterns: groups with the same ones share them.
pub(crate) type Automata = HashMap<Vec<*const Pattern>, Arc<Automaton>>;

/// The candidates that a path's regular expressions leave; more than a few are rare.
pub(crate) type Found = SmallVec<[u32; 16]>;

impl RegexGroup {
    /// Rules with the same pattern share it.
    pub(crate) fn new(
        rules: &[(u32, Arc<Pattern>)],
        automata: &mut Automata,
    ) -> Result<Self, RegexError> {
        let mut numbers: HashMap<*const Pattern, usize> = HashMap::new();
        let mut patterns: Vec<(&Pattern, Vec<u32>)> = Vec::new();
        for (candidate, pattern) in rules {
            let number = *numbers.entry(Arc::as_ptr(pattern)).or_insert_with(|| {
                patterns.push((pattern, Vec::new()));
                patterns.len() - 1
            });
            patterns[number].1.push(*candidate);
        }
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
            let key = set
                .iter()
                .map(|(pattern, _)| std::ptr::from_ref(*pattern))
                .collect();
            let automaton = match automata.entry(key) {
                Entry::Occupied(known) => Arc::clone(known.get()),
                Entry::Vacant(new) => {
                    let automaton = Automaton::new(set.iter().map(|(pattern, _)| *pattern))?;
                    Arc::clone(new.insert(Arc::new(automaton)))
                }
            };
            sets.push(Set {
                automaton,
                candidates: set
                    .iter()
                    .map(|(_, candidates)| candidates.as_slice().into())
                    .collect(),
            });
        }
        Ok(Self {
            sets: sets.into_boxed_slice(),
        })
    }

    /// Adds the candidates whose pattern matches what follows the literal segments of the path, in no
    /// particular order.
    pub(crate) fn find(&self, rest: &[u8], found: &mut Found) {
        for set in &self.sets {
            set.automaton.for_each_match(rest, |pattern| {
                found.extend_from_slice(&set.candidates[pattern]);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Patterns;

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
        assert!(group.sets.len() >= 2);
        let mut found = Found::new();
        group.find(b"/abc/123", &mut found);
        found.sort_unstable();
        assert_eq!(found.as_slice(), [123, 623]);
    }

    #[test]
    fn equal_patterns_are_compiled_once() {
        let group = group((0..1000).map(|_| "/a+".to_owned()));
        assert_eq!(group.sets.len(), 1);
        let mut found = Found::new();
        group.find(b"/aa", &mut found);
        assert_eq!(found.len(), 1000);
    }

    #[test]
    fn groups_with_the_same_patterns_share_the_automaton() {
        let (mut known, mut automata) = (Patterns::default(), Automata::new());
        let groups = ["/a/x+", "/b/x+"].map(|pattern| {
            let (_, rest) = known.of_path(pattern).expect("valid");
            RegexGroup::new(&[(0, rest)], &mut automata).expect("compiles")
        });
        assert!(Arc::ptr_eq(
            &groups[0].sets[0].automaton,
            &groups[1].sets[0].automaton
        ));
    }
}
