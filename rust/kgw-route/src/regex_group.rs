//! The regular expressions below one literal path prefix, matched together.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::error::RegexError;
use crate::pattern::{Automaton, Pattern};

/// The most patterns, and bytes of their automata, matched in one walk: bounds what building one state
/// of the lazy DFA can cost.
const MAX_PATTERNS: usize = 256;
const MAX_COMPILED: usize = 4 << 20;

/// Candidates whose paths are regular expressions with the same [`Pattern::literal_segments`].
#[derive(Debug)]
pub(crate) struct RegexGroup {
    sets: Box<[Set]>,
}

#[derive(Debug)]
struct Set {
    automaton: Automaton,
    /// The candidates of each pattern.
    candidates: Box<[Box<[u32]>]>,
}

/// The candidates that a path's regular expressions leave; more than a few are rare.
pub(crate) type Found = SmallVec<[u32; 16]>;

impl RegexGroup {
    /// Rules with the same pattern share it.
    pub(crate) fn new(rules: &[(u32, Arc<Pattern>)]) -> Result<Self, RegexError> {
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
            sets.push(Set {
                automaton: Automaton::new(set.iter().map(|(pattern, _)| *pattern))?,
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

    /// Adds the candidates whose pattern matches the path, in no particular order.
    pub(crate) fn find(&self, path: &[u8], found: &mut Found) {
        for set in &self.sets {
            set.automaton.for_each_match(path, |pattern| {
                found.extend_from_slice(&set.candidates[pattern]);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_patterns_make_several_sets() {
        let rules: Vec<_> = (0..1000_u32)
            .map(|i| {
                (
                    i,
                    Arc::new(Pattern::parse(&format!("/[a-z]+/{}", i % 500)).expect("valid")),
                )
            })
            .collect();
        let group = RegexGroup::new(&rules).expect("compiles");
        assert!(group.sets.len() >= 4);
        let mut found = Found::new();
        group.find(b"/abc/123", &mut found);
        found.sort_unstable();
        assert_eq!(found.as_slice(), [123, 623]);
    }

    #[test]
    fn equal_patterns_are_compiled_once() {
        let pattern = Arc::new(Pattern::parse("/a+").expect("valid"));
        let rules: Vec<_> = (0..1000_u32).map(|i| (i, Arc::clone(&pattern))).collect();
        let group = RegexGroup::new(&rules).expect("compiles");
        assert_eq!(group.sets.len(), 1);
        let mut found = Found::new();
        group.find(b"/aa", &mut found);
        assert_eq!(found.len(), 1000);
    }
}
