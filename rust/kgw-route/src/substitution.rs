//! Replacing what a regular expression matches (RE2's `GlobalReplace`, as in Envoy's
//! `regex_rewrite`).

use regex_automata::meta::{Config, Regex};
use regex_automata::util::captures::Captures;

use crate::error::RegexError;
use crate::pattern::{MAX_COMPILED, parse};

/// The longest value that something is replaced in, and the longest that may come of it. Bytes.
const MAX_VALUE: usize = 64 << 10;

/// A pattern, and what takes the place of each of its matches.
#[derive(Clone, Debug)]
pub struct Substitution {
    regex: Regex,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Literal(Vec<u8>),
    Group(usize),
}

/// Why a substitution cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SubstitutionError {
    /// The pattern cannot be used.
    #[error(transparent)]
    Pattern(#[from] RegexError),
    /// A backslash is followed by something else than a digit or another one.
    #[error("`\\` in a substitution is followed by a digit or by another `\\`")]
    Escape,
    /// A group that the pattern does not have.
    #[error("the pattern has no group {0}")]
    Group(usize),
}

impl Substitution {
    /// Compiles a pattern and what takes the place of its matches: text, in which `\0` is the whole
    /// match, `\1` to `\9` are its groups, and `\\` is a backslash.
    ///
    /// # Errors
    /// The pattern is not one of RE2's dialect or too large, or the text does not fit it.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, SubstitutionError> {
        let hir = parse(pattern)?;
        let config = Config::new()
            .nfa_size_limit(Some(MAX_COMPILED))
            .onepass_size_limit(Some(MAX_COMPILED))
            .hybrid_cache_capacity(MAX_COMPILED)
            .utf8_empty(false);
        let regex = Regex::builder().configure(config).build_from_hir(&hir);
        let regex = regex.map_err(|_| RegexError::TooLarge {
            what: "compiled",
            limit: MAX_COMPILED,
        })?;
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = substitution.bytes();
        while let Some(byte) = bytes.next() {
            match (byte, byte == b'\\') {
                (_, false) => literal.push(byte),
                (_, true) => match bytes.next() {
                    Some(b'\\') => literal.push(b'\\'),
                    Some(digit @ b'0'..=b'9') => {
                        let group = usize::from(digit - b'0');
                        if group >= regex.captures_len() {
                            return Err(SubstitutionError::Group(group));
                        }
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                        parts.push(Part::Group(group));
                    }
                    _ => return Err(SubstitutionError::Escape),
                },
            }
        }
        parts.push(Part::Literal(literal));
        parts.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
        Ok(Self { regex, parts })
    }

    /// The value with each match replaced; none if there is no match, or if a bound is exceeded.
    #[must_use]
    pub fn apply(&self, value: &[u8]) -> Option<Vec<u8>> {
        if value.len() > MAX_VALUE {
            return None;
        }
        let mut out = Vec::with_capacity(value.len());
        let mut captures: Captures = self.regex.create_captures();
        let (mut copied, mut from, mut found) = (0, 0, false);
        let mut last_end = None;
        while from <= value.len() {
            let input = regex_automata::Input::new(value).span(from..value.len());
            self.regex.search_captures(&input, &mut captures);
            let Some(matched) = captures.get_match() else {
                break;
            };
            out.extend_from_slice(&value[copied..matched.start()]);
            if matched.is_empty() && last_end == Some(matched.start()) {
                // As RE2: no match of nothing directly behind another match.
                let next = value.get(from..=from).unwrap_or_default();
                out.extend_from_slice(next);
                copied = (from + 1).min(value.len());
                from += 1;
                continue;
            }
            found = true;
            last_end = Some(matched.end());
            for part in &self.parts {
                match part {
                    Part::Literal(text) => out.extend_from_slice(text),
                    Part::Group(group) => {
                        if let Some(span) = captures.get_group(*group) {
                            out.extend_from_slice(&value[span.range()]);
                        }
                    }
                }
            }
            if out.len() > MAX_VALUE {
                return None;
            }
            copied = matched.end();
            from = matched.end();
            if matched.is_empty() {
                // As RE2: the next match does not begin where this one is.
                let next = value.get(from..=from).unwrap_or_default();
                out.extend_from_slice(next);
                copied = (from + 1).min(value.len());
                from += 1;
            }
        }
        out.extend_from_slice(&value[copied..]);
        found.then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(pattern: &str, substitution: &str, value: &str) -> Option<String> {
        let made = Substitution::new(pattern, substitution).unwrap();
        let replaced = made.apply(value.as_bytes())?;
        Some(String::from_utf8(replaced).unwrap())
    }

    #[test]
    fn every_match_is_replaced() {
        for (pattern, substitution, value, expected) in [
            (
                "^/service/([^/]+)(/.*)$",
                r"\2/instance/\1",
                "/service/foo/v1/api",
                "/v1/api/instance/foo",
            ),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            (
                "^(.*?)one(.*)$",
                r"\1two\2",
                "/xxx/one/yyy/one/zzz",
                "/xxx/two/yyy/one/zzz",
            ),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("/a", r"[\0]\\", "/a/a", r"[/a]\[/a]\"),
            ("b*", "x", "abc", "xaxcx"),
            ("(z)?a", r"<\1>", "a", "<>"),
        ] {
            let got = applied(pattern, substitution, value);
            assert_eq!(got.as_deref(), Some(expected), "{pattern} {substitution}");
        }
        assert_eq!(applied("^/b", "/c", "/a/b"), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let new = |pattern, substitution| Substitution::new(pattern, substitution).map(drop);
        assert_eq!(new("a", r"\1"), Err(SubstitutionError::Group(1)));
        assert_eq!(new("a", r"\x"), Err(SubstitutionError::Escape));
        assert_eq!(new("a", "\\"), Err(SubstitutionError::Escape));
        assert!(matches!(new("(", ""), Err(SubstitutionError::Pattern(_))));
        assert!(matches!(
            new("(((a{1000}){1000}){1000})", ""),
            Err(SubstitutionError::Pattern(_))
        ));
    }

    #[test]
    fn results_are_bounded() {
        let made = Substitution::new("a", &"b".repeat(1024)).unwrap();
        assert_eq!(made.apply(&[b'a'; 1024]), None);
        assert_eq!(made.apply(&vec![b'a'; 65 << 10]), None);
        assert_eq!(made.apply(&[b'a'; 32]).map(|out| out.len()), Some(32 << 10));
    }
}
