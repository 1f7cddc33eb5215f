//! Regular expressions: the dialect, its limits, and the automaton that matches a set of them.
//!
//! The dialect is RE2's, as in Envoy's `safe_regex`, as far as the `regex` crate's syntax goes: classes
//! and `\b` are ASCII, no back-references, no look-around, and a pattern must match the *whole* value.
//! A pattern that needs Unicode (`\p{Greek}`, `[é]`) is read in Unicode mode as a whole.
//!
//! Matching is one walk of a lazily built DFA over the value: linear in its length whatever the
//! pattern, with any bytes, and for all patterns of a set at once.

use std::fmt;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::pool::Pool;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Hir, HirKind, Look};

use crate::error::RegexError;

/// The longest pattern. Bytes. The CRDs allow 1024 for a path and 4096 for a header.
const MAX_PATTERN: usize = 4096;

/// The largest automaton of one pattern. Bytes. RE2's program of 1 MiB would be some 65,000
/// instructions; Envoy's default limit is 100 of them, which Istio and kgateway lift.
const MAX_COMPILED: usize = 1 << 20;

/// Bound of an automaton's lazily built states, per thread that uses it at a time. Bytes. A set that
/// needs more starts afresh when it is full; an automaton whose minimum is more gets its minimum.
const CACHE_BASE: usize = 64 << 10;
const CACHE_PER_PATTERN: usize = 16 << 10;
const CACHE_MAX: usize = 4 << 20;

/// Checks a pattern of a path, header or query predicate without compiling a table.
///
/// # Errors
/// What [`Builder::add`](crate::Builder::add) would answer, with the position of a syntax error.
pub fn check_regex(pattern: &str) -> Result<(), RegexError> {
    Pattern::parse(pattern).map(drop)
}

/// A parsed pattern that is known to compile.
#[derive(Debug)]
pub(crate) struct Pattern {
    hir: Hir,
    /// Size of its automaton. Bytes.
    pub(crate) compiled: usize,
}

/// A set of patterns, matched in one walk.
pub(crate) struct Automaton {
    dfa: DFA,
    caches: Pool<Option<Cache>, fn() -> Option<Cache>>,
}

// === impl Pattern ===

impl Pattern {
    pub(crate) fn parse(pattern: &str) -> Result<Self, RegexError> {
        if pattern.len() > MAX_PATTERN {
            return Err(RegexError::TooLarge {
                what: "of pattern",
                limit: MAX_PATTERN,
            });
        }
        let parse = |unicode| {
            regex_syntax::ParserBuilder::new()
                .unicode(unicode)
                .utf8(false)
                .nest_limit(100)
                .build()
                .parse(pattern)
                .map_err(|error| syntax_error(&error))
        };
        let hir = parse(false).or_else(|_| parse(true))?;
        let dfa = compile(std::slice::from_ref(&hir), Some(MAX_COMPILED))?;
        Ok(Self {
            hir,
            compiled: dfa.memory_usage() + dfa.get_nfa().memory_usage(),
        })
    }

    /// The whole leading path segments that every match starts with, without trailing slash; empty
    /// if there are none. `/api/v1/users/[0-9]+` has `/api/v1/users`, `/api/v[0-9]` has `/api`.
    pub(crate) fn literal_segments(&self) -> Vec<u8> {
        let mut literal = Vec::new();
        let parts = match self.hir.kind() {
            HirKind::Concat(parts) => parts.as_slice(),
            _ => std::slice::from_ref(&self.hir),
        };
        for part in parts {
            match part.kind() {
                HirKind::Literal(bytes) => literal.extend_from_slice(&bytes.0),
                HirKind::Look(Look::Start) | HirKind::Empty => {}
                _ => break,
            }
        }
        let end = if literal.first() == Some(&b'/') {
            memchr::memrchr(b'/', &literal)
        } else {
            None
        };
        literal.truncate(end.unwrap_or(0));
        literal
    }
}

fn syntax_error(error: &regex_syntax::Error) -> RegexError {
    match error {
        regex_syntax::Error::Parse(error) => RegexError::Syntax {
            at: error.span().start.offset,
            message: error.kind().to_string(),
        },
        regex_syntax::Error::Translate(error) => RegexError::Syntax {
            at: error.span().start.offset,
            message: error.kind().to_string(),
        },
        error => RegexError::Unsupported {
            message: error.to_string(),
        },
    }
}

fn compile(patterns: &[Hir], limit: Option<usize>) -> Result<DFA, RegexError> {
    let nfa = NFA::compiler()
        .configure(
            NFA::config()
                .utf8(false)
                .which_captures(WhichCaptures::None)
                .nfa_size_limit(limit),
        )
        .build_many_from_hir(patterns)
        .map_err(|error| nfa_error(&error))?;
    let cache = CACHE_MAX.min(CACHE_BASE + CACHE_PER_PATTERN * patterns.len());
    DFA::builder()
        .configure(
            DFA::config()
                .match_kind(MatchKind::All)
                .cache_capacity(cache)
                .skip_cache_capacity_check(true),
        )
        .build_from_nfa(nfa)
        .map_err(|error| RegexError::Unsupported {
            message: error.to_string(),
        })
}

fn nfa_error(error: &thompson::BuildError) -> RegexError {
    match error.size_limit() {
        Some(limit) => RegexError::TooLarge {
            what: "compiled",
            limit,
        },
        None => RegexError::Unsupported {
            message: error.to_string(),
        },
    }
}

// === impl Automaton ===

impl Automaton {
    /// The patterns are numbered in their order.
    pub(crate) fn new<'a>(
        patterns: impl IntoIterator<Item = &'a Pattern>,
    ) -> Result<Self, RegexError> {
        let hirs: Vec<Hir> = patterns
            .into_iter()
            .map(|pattern| pattern.hir.clone())
            .collect();
        Ok(Self {
            dfa: compile(&hirs, None)?,
            caches: Pool::new(|| None),
        })
    }

    /// Whether any pattern matches the whole value.
    pub(crate) fn is_match(&self, value: &[u8]) -> bool {
        let mut found = false;
        self.for_each_match(value, |_| found = true);
        found
    }

    /// Calls back with the number of each pattern that matches the whole value.
    pub(crate) fn for_each_match(&self, value: &[u8], mut found: impl FnMut(usize)) {
        let mut cache = self.caches.get();
        let cache = cache.get_or_insert_with(|| self.dfa.create_cache());
        // With `MatchKind::All` no alternative is dropped in favour of an earlier one, so that the
        // patterns of the state after the last byte are exactly those that match the whole value.
        if let Some(state) = self.walk(cache, value)
            && state.is_match()
        {
            for index in 0..self.dfa.match_len(cache, state) {
                found(self.dfa.match_pattern(cache, state, index).as_usize());
            }
        }
    }

    /// The state after the value's end; none if no pattern can match.
    ///
    /// The lazy DFA's errors do not occur: it has no quit bytes, and clears a full cache as often as
    /// it takes (`minimum_cache_clear_count` is not set). They would read as "no match".
    fn walk(&self, cache: &mut Cache, value: &[u8]) -> Option<LazyStateID> {
        let anchored = start::Config::new().anchored(Anchored::Yes);
        let mut state = self.dfa.start_state(cache, &anchored).ok()?;
        for &byte in value {
            state = self.dfa.next_state(cache, state, byte).ok()?;
            if state.is_dead() || state.is_quit() {
                return None;
            }
        }
        self.dfa.next_eoi_state(cache, state).ok()
    }
}

impl fmt::Debug for Automaton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Automaton")
            .field("patterns", &self.dfa.pattern_len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: impl AsRef<[u8]>) -> bool {
        let pattern = Pattern::parse(pattern).expect("valid");
        Automaton::new([&pattern])
            .expect("compiles")
            .is_match(value.as_ref())
    }

    #[test]
    fn the_whole_value_must_match() {
        assert!(matches("/a+", "/aaa"));
        assert!(!matches("/a+", "/aaab"));
        assert!(!matches("/a+", "x/aaa"));
        assert!(matches("^/a$", "/a"));
        assert!(matches("a|ab", "ab"), "not the first alternative only");
        assert!(matches("a*?", "aaa"), "laziness does not matter");
        assert!(matches("", ""));
        assert!(!matches("", "a"));
    }

    #[test]
    fn classes_are_ascii_as_in_re2() {
        assert!(matches(r"\d+\w\s\b", "1x ") == matches(r"[0-9]+[0-9A-Za-z_][\t\n\f\r ]\b", "1x "));
        assert!(!matches(r"\d", "\u{661}"));
        assert!(matches(r"\p{Greek}+", "\u{3b1}\u{3b2}"));
        assert!(matches("(?i)/FOO", "/foo"));
        assert!(matches("\u{e9}+", "\u{e9}\u{e9}"));
    }

    #[test]
    fn invalid_utf8_is_only_bytes() {
        assert!(matches("/[^/]+", b"/\xff\xfe"));
        assert!(matches(r"(?-u:\xff)", b"\xff"));
        assert!(!matches(r"\p{Greek}", b"\xff"));
    }

    #[test]
    fn word_boundaries_work_on_any_bytes() {
        assert!(matches(r"a\b.+", b"a\xff"));
        assert!(!matches(r"a\b.+", b"ab"));
    }

    #[test]
    fn syntax_errors_have_a_position() {
        for (pattern, position) in [
            ("/a(b", 2),
            ("/a)", 2),
            ("[b-a]", 1),
            (r"/\1", 1),
            ("a(?=b)", 1),
        ] {
            match check_regex(pattern) {
                Err(RegexError::Syntax { at, message }) => {
                    assert_eq!(at, position, "{pattern}: {message}");
                    assert!(!message.is_empty());
                }
                other => panic!("{pattern}: {other:?}"),
            }
        }
    }

    #[test]
    fn size_is_limited() {
        let long = "a".repeat(MAX_PATTERN + 1);
        assert!(matches!(
            check_regex(&long),
            Err(RegexError::TooLarge { .. })
        ));
        for bomb in ["(a{1000}){1000}", r"\w{99999}", r"((\p{L}{100}){100}){100}"] {
            let error = check_regex(bomb);
            assert!(
                matches!(error, Err(RegexError::TooLarge { .. })),
                "{bomb}: {error:?}"
            );
        }
    }

    #[test]
    fn unicode_word_boundaries_are_refused() {
        let error = check_regex(r"\p{Greek}\b");
        assert!(
            matches!(error, Err(RegexError::Unsupported { .. })),
            "{error:?}"
        );
    }

    #[test]
    fn a_set_finds_every_pattern() {
        let patterns = ["/a/.*", "/.*", "/a/b", "/c", "/a/b|/c"]
            .map(|pattern| Pattern::parse(pattern).expect("valid"));
        let set = Automaton::new(&patterns).expect("compiles");
        let found = |value: &str| {
            let mut found = Vec::new();
            set.for_each_match(value.as_bytes(), |index| found.push(index));
            found.sort_unstable();
            found
        };
        assert_eq!(found("/a/b"), [0, 1, 2, 4]);
        assert_eq!(found("/c"), [1, 3, 4]);
        assert_eq!(found("x"), [0_usize; 0]);
    }

    #[test]
    fn a_full_cache_starts_afresh() {
        // Its DFA has some 2^14 states, more than the cache's bound.
        let pattern = Pattern::parse("(a|b)*a(a|b){13}").expect("valid");
        let automaton = Automaton::new([&pattern]).expect("compiles");
        let mut bits = 1_u32;
        for _ in 0..2_000 {
            let value: Vec<u8> = (0..64)
                .map(|_| {
                    bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if bits >> 31 == 0 { b'a' } else { b'b' }
                })
                .collect();
            assert_eq!(automaton.is_match(&value), value[50] == b'a');
        }
    }

    #[test]
    fn literal_segments() {
        let segments = |pattern: &str| {
            let literal = Pattern::parse(pattern).expect("valid").literal_segments();
            String::from_utf8(literal).expect("ASCII")
        };
        assert_eq!(segments("/api/v1/users/[0-9]+"), "/api/v1/users");
        assert_eq!(segments("^/api/v1"), "/api");
        assert_eq!(segments("/api/v1/"), "/api/v1");
        assert_eq!(segments("/api(/v1)?"), "");
        assert_eq!(segments("/(a|b)"), "");
        assert_eq!(segments("/a/b|/a/c"), "");
        assert_eq!(segments("(?i)/api/.*"), "");
        assert_eq!(segments("api/v1"), "");
        assert_eq!(segments(".*"), "");
        assert_eq!(segments("/a/(b/c)/d/"), "/a");
        assert_eq!(segments("/a//b/.*"), "/a//b");
    }
}
