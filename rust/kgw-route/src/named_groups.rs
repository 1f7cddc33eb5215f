//! What the named groups of a path's regular expression stand for in a path.
//!
//! Lookups know no groups: their automata only tell whether a pattern matches. This is the second
//! look at one path with one pattern, for those who ask.

use std::fmt;

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input, PatternID};
use regex_syntax::hir::{Hir, Look};

use crate::error::RegexError;
use crate::pattern::parse;

/// The largest automaton of a pattern with its groups. Bytes. Groups take two states each, so that a
/// pattern that fits a table's limit without them fits this one.
const MAX_COMPILED: usize = 10 << 20;

/// A regular expression of a path with named groups, `(?P<name>...)` or `(?<name>...)`.
pub struct NamedGroups {
    regex: Regex,
}

// === impl NamedGroups ===

impl NamedGroups {
    /// Compiles a pattern in the dialect of [`check_regex`](crate::check_regex).
    ///
    /// # Errors
    /// Those of [`check_regex`](crate::check_regex).
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let whole = Hir::concat(vec![
            Hir::look(Look::Start),
            parse(pattern)?,
            Hir::look(Look::End),
        ]);
        let config = Regex::config()
            .utf8_empty(false)
            .nfa_size_limit(Some(MAX_COMPILED));
        let regex = Regex::builder()
            .configure(config)
            .build_from_hir(&whole)
            .map_err(|error| match error.size_limit() {
                Some(limit) => RegexError::TooLarge {
                    what: "compiled",
                    limit,
                },
                None => RegexError::Unsupported {
                    message: error.to_string(),
                },
            })?;
        Ok(Self { regex })
    }

    /// The names, and what each group stands for in a path that the pattern matches as a whole: of
    /// several ways to match, the one that a backtracking engine would find first. A group that has
    /// no part in the match is left out, and all are if the pattern does not match.
    ///
    /// Takes time linear in the path's length.
    pub fn find<'a, 'p>(&'a self, path: &'p [u8]) -> Vec<(&'a str, &'p [u8])> {
        let mut captures = self.regex.create_captures();
        let input = Input::new(path).anchored(Anchored::Yes);
        self.regex.captures(input, &mut captures);
        let info = self.regex.group_info();
        let names = info.pattern_names(PatternID::ZERO).enumerate();
        names
            .filter_map(|(at, name)| Some((name?, path.get(captures.get_group(at)?.range())?)))
            .collect()
    }
}

impl fmt::Debug for NamedGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.regex.group_info().pattern_names(PatternID::ZERO);
        f.debug_list().entries(names.flatten()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'p>(pattern: &str, path: &'p str) -> Vec<(String, &'p str)> {
        let groups = NamedGroups::new(pattern).expect("valid");
        let text = |bytes| std::str::from_utf8(bytes).expect("of the path");
        let found = groups.find(path.as_bytes()).into_iter();
        found
            .map(|(name, part)| (name.to_owned(), text(part)))
            .collect()
    }

    #[test]
    fn groups_are_found_by_name_in_their_order() {
        let found = find(r"/users/(?P<user>\d+)(/x)?/(?<rest>.*)", "/users/42/a/b");
        let expected = [("user".to_owned(), "42"), ("rest".to_owned(), "a/b")];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_whole_path_counts() {
        assert_eq!(find("/(?<a>a|ab)", "/ab"), [("a".to_owned(), "ab")]);
        assert_eq!(find("/(?<a>a)", "/ab"), []);
        assert_eq!(find("/(?<a>a*)(?<b>a*)", "/aa")[0].1, "aa");
    }

    #[test]
    fn a_group_without_a_part_in_the_match_is_left_out() {
        assert_eq!(find("/(?:(?<a>a)|(?<b>b))", "/b"), [("b".to_owned(), "b")]);
    }

    #[test]
    fn any_bytes_can_be_in_a_path() {
        let groups = NamedGroups::new("/(?<rest>[^/]+)").expect("valid");
        assert_eq!(groups.find(b"/\xff\xfe"), [("rest", &b"\xff\xfe"[..])]);
        assert_eq!(format!("{groups:?}"), r#"["rest"]"#);
    }

    #[test]
    fn a_bad_pattern_is_refused_with_its_place() {
        let error = NamedGroups::new("/(?<a>").unwrap_err();
        assert!(matches!(error, RegexError::Syntax { at: 1, .. }));
    }
}
