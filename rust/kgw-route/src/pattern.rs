//! Regular expressions: the dialect, its limits, and the automaton that matches a set of them.
//!
//! The dialect is RE2's, as in Envoy's `safe_regex`, as far as the `regex` crate's syntax goes: classes
//! and `\b` are ASCII, no back-references, no look-around, and a pattern must match the *whole* value.
//! A pattern that needs Unicode (`\p{Greek}`, `[é]`) is read in Unicode mode as a whole.
//!
//! Matching is one walk of a lazily built DFA over the value: linear in its length whatever the
//! pattern, with any bytes, and for all patterns of a set at once.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::pool::Pool;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Hir, HirKind, Look};

use crate::error::{Problem, RegexError};

/// The longest pattern. Bytes. The CRDs allow 1024 for a path and 4096 for a header.
const MAX_PATTERN: usize = 4096;

/// The largest automaton of one pattern. Bytes. RE2's program of 1 MiB would be some 65,000
/// instructions; Envoy's default limit is 100 of them, which Istio and kgateway lift.
pub(crate) const MAX_COMPILED: usize = 1 << 20;

/// The largest automata of a table together. Bytes.
const MAX_ALL_COMPILED: usize = 256 << 20;

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
    let (_, rest) = split_literal_segments(parse(pattern)?);
    Pattern::new(rest, 0).map(drop)
}

/// A parsed pattern that is known to compile.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// Unique among the patterns of a [`Patterns`].
    pub(crate) serial: u64,
    hir: Hir,
    /// Size of its automaton. Bytes.
    pub(crate) compiled: usize,
}

/// Patterns by their meaning, each kept once, within a bound of their automata's size.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    /// By the canonical spelling of the pattern.
    known: HashMap<String, Arc<Pattern>>,
    compiled: usize,
    next: u64,
}

/// A set of patterns, matched in one walk.
pub(crate) struct Automaton {
    dfa: DFA,
    caches: Pool<Option<Cache>, fn() -> Option<Cache>>,
}

// === impl Pattern ===

impl Pattern {
    fn new(hir: Hir, serial: u64) -> Result<Self, RegexError> {
        let dfa = compile(std::slice::from_ref(&hir), Some(MAX_COMPILED))?;
        Ok(Self {
            serial,
            hir,
            compiled: dfa.memory_usage() + dfa.get_nfa().memory_usage(),
        })
    }

    /// A pattern of a value that is of no table.
    pub(crate) fn of_one(pattern: &str) -> Result<Self, RegexError> {
        Self::new(parse(pattern)?, 0)
    }
}

// === impl Patterns ===

impl Patterns {
    /// A pattern of a header or query parameter.
    pub(crate) fn of_value(&mut self, pattern: &str) -> Result<Arc<Pattern>, Problem> {
        self.intern(parse(pattern)?)
    }

    /// A pattern of a path, as the whole leading segments that every match starts with (without
    /// trailing slash, empty if there are none) and the pattern of what follows them.
    ///
    /// `/api/v1/users/[0-9]+` is `/api/v1/users` and `/[0-9]+`. Routes that differ only in their literal
    /// segments, as most do, share the second part.
    pub(crate) fn of_path(&mut self, pattern: &str) -> Result<(Vec<u8>, Arc<Pattern>), Problem> {
        let (segments, rest) = split_literal_segments(parse(pattern)?);
        Ok((segments, self.intern(rest)?))
    }

    fn intern(&mut self, hir: Hir) -> Result<Arc<Pattern>, Problem> {
        let spelling = hir.to_string();
        if let Some(known) = self.known.get(&spelling)
            && known.hir == hir
        {
            return Ok(Arc::clone(known));
        }
        let pattern = Pattern::new(hir, self.next)?;
        self.next += 1;
        if self.compiled + pattern.compiled > MAX_ALL_COMPILED {
            let what = "bytes of compiled regular expressions";
            return Err(Problem::TooLarge {
                what,
                limit: MAX_ALL_COMPILED,
            });
        }
        self.compiled += pattern.compiled;
        let pattern = Arc::new(pattern);
        self.known.insert(spelling, Arc::clone(&pattern));
        Ok(pattern)
    }

    /// The number of patterns.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets what no table uses.
    pub(crate) fn forget_unused(&mut self) {
        let compiled = &mut self.compiled;
        self.known.retain(|_, pattern| {
            let is_used = Arc::strong_count(pattern) > 1;
            if !is_used {
                *compiled -= pattern.compiled;
            }
            is_used
        });
    }
}

pub(crate) fn parse(pattern: &str) -> Result<Hir, RegexError> {
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
    parse(false).or_else(|_| parse(true))
}

/// The rest starts with a literal slash, so that no look-around at its start misses what was split off.
fn split_literal_segments(hir: Hir) -> (Vec<u8>, Hir) {
    let parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(&hir),
    };
    let anchors = parts
        .iter()
        .take_while(|part| *part.kind() == HirKind::Look(Look::Start))
        .count();
    let Some(HirKind::Literal(literal)) = parts.get(anchors).map(Hir::kind) else {
        return (Vec::new(), hir);
    };
    match memchr::memrchr(b'/', &literal.0) {
        Some(at) if at > 0 && literal.0[0] == b'/' => {
            let (segments, rest) = literal.0.split_at(at);
            let rest = std::iter::once(Hir::literal(rest))
                .chain(parts[anchors + 1..].iter().cloned())
                .collect();
            (segments.to_vec(), Hir::concat(rest))
        }
        _ => (Vec::new(), hir),
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

    fn pattern_of(pattern: &str) -> Pattern {
        Pattern::new(parse(pattern).expect("valid"), 0).expect("compiles")
    }

    fn matches(pattern: &str, value: impl AsRef<[u8]>) -> bool {
        let pattern = pattern_of(pattern);
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
        let patterns = ["/a/.*", "/.*", "/a/b", "/c", "/a/b|/c"].map(pattern_of);
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
        let pattern = pattern_of("(a|b)*a(a|b){13}");
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
        let split = |pattern: &str| {
            let (segments, rest) = split_literal_segments(parse(pattern).expect("valid"));
            (
                String::from_utf8(segments).expect("ASCII"),
                rest.to_string(),
            )
        };
        for (pattern, segments, rest) in [
            ("/api/v1/users/x*", "/api/v1/users", "(?:/x*)"),
            ("^/api/v1", "/api", "(?:/v1)"),
            ("/api/v1/", "/api/v1", "/"),
            ("/a//b/x*", "/a//b", "(?:/x*)"),
            (r"/a/(?-u:\b)x", "/a", r"(?:/(?-u:\b)x)"),
        ] {
            assert_eq!(
                split(pattern),
                (segments.to_owned(), rest.to_owned()),
                "{pattern}"
            );
        }
        for pattern in [
            "/api(/v1)?",
            "/(a|b)",
            "/a/b|/a/c",
            "(?i)/api/.*",
            "api/v1",
            ".*",
            "/",
            "",
            "(?m)^/a/b",
        ] {
            assert_eq!(split(pattern).0, "", "{pattern}");
        }
        assert_eq!(split("/a/(b/c)/d/").0, "/a");
        assert_eq!(split("/a/^/b/c").0, "/a");
    }

    #[test]
    fn patterns_with_the_same_meaning_are_kept_once() {
        let mut patterns = Patterns::default();
        let (a, rest_a) = patterns.of_path("/a/[0-9]+").expect("valid");
        let (b, rest_b) = patterns.of_path(r"/b/\d+").expect("valid");
        let (_, rest_c) = patterns.of_path("/a/[0-9]*").expect("valid");
        assert_eq!((a.as_slice(), b.as_slice()), (&b"/a"[..], &b"/b"[..]));
        assert!(Arc::ptr_eq(&rest_a, &rest_b));
        assert!(!Arc::ptr_eq(&rest_a, &rest_c));
    }

    #[test]
    fn all_patterns_together_are_limited() {
        let compiled = MAX_ALL_COMPILED - 1;
        let mut patterns = Patterns {
            compiled,
            ..Patterns::default()
        };
        let error = patterns.of_value("a+").expect_err("it does not fit");
        assert!(matches!(error, Problem::TooLarge { .. }), "{error}");
    }
}
