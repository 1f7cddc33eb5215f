//! Comparing texts as configured: kgateway's and Envoy's `StringMatcher`.

use regex_automata::meta;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, Look};

use crate::config::ir::{self, StringMatchKind};

/// The largest automaton of a pattern. Bytes.
const MAX_COMPILED: usize = 1 << 20;

/// A text, or a pattern of texts. Texts are bytes: header fields may have any.
#[derive(Debug)]
pub(crate) struct StringMatcher(Pattern);

#[derive(Debug)]
enum Pattern {
    Exact(Text),
    Prefix(Text),
    Suffix(Text),
    Contains(Text),
    /// Anchored at both ends.
    Regex(meta::Regex),
}

/// Bytes, in lower case if the case does not count.
#[derive(Debug)]
struct Text {
    bytes: Box<[u8]>,
    ignore_case: bool,
}

impl StringMatcher {
    /// Compiles a matcher, or says what is wrong with its regular expression.
    pub(crate) fn compile(matcher: &ir::StringMatcher) -> Result<Self, String> {
        let text = || Text::new(&matcher.value, matcher.ignore_case);
        Ok(Self(match matcher.kind {
            StringMatchKind::Exact => Pattern::Exact(text()),
            StringMatchKind::Prefix => Pattern::Prefix(text()),
            StringMatchKind::Suffix => Pattern::Suffix(text()),
            StringMatchKind::Contains => Pattern::Contains(text()),
            StringMatchKind::Regex => Pattern::Regex(regex(&matcher.value)?),
        }))
    }

    /// Whether a text is one of those.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match &self.0 {
            Pattern::Exact(exact) => exact.is(text),
            Pattern::Prefix(prefix) => text
                .get(..prefix.bytes.len())
                .is_some_and(|start| prefix.is(start)),
            Pattern::Suffix(suffix) => {
                let start = text.len().checked_sub(suffix.bytes.len());
                start.is_some_and(|start| suffix.is(&text[start..]))
            }
            Pattern::Contains(part) => part.is_in(text),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

impl Text {
    fn new(text: &str, ignore_case: bool) -> Self {
        let bytes = if ignore_case {
            text.to_ascii_lowercase()
        } else {
            text.to_owned()
        };
        Self {
            bytes: bytes.into_bytes().into(),
            ignore_case,
        }
    }

    fn is(&self, other: &[u8]) -> bool {
        if self.ignore_case {
            self.bytes.eq_ignore_ascii_case(other)
        } else {
            *self.bytes == *other
        }
    }

    fn is_in(&self, text: &[u8]) -> bool {
        if self.ignore_case {
            let text = text.to_ascii_lowercase();
            memchr::memmem::find(&text, &self.bytes).is_some()
        } else {
            memchr::memmem::find(text, &self.bytes).is_some()
        }
    }
}

/// An automaton for texts that match as a whole. Its time is linear in the length of the text.
fn regex(pattern: &str) -> Result<meta::Regex, String> {
    // The dialect is that of routes.
    kgw_route::check_regex(pattern).map_err(|error| error.to_string())?;
    let mut parser = ParserBuilder::new().unicode(false).utf8(false).build();
    let parsed = if let Ok(parsed) = parser.parse(pattern) {
        parsed
    } else {
        // It needs Unicode, as `\p{Greek}` does.
        let mut parser = ParserBuilder::new().utf8(false).build();
        parser.parse(pattern).map_err(|error| error.to_string())?
    };
    // The ends are put around what was parsed, not around the text, which may end in a comment.
    let whole = Hir::concat(vec![Hir::look(Look::Start), parsed, Hir::look(Look::End)]);
    let config = meta::Config::new()
        .nfa_size_limit(Some(MAX_COMPILED))
        .onepass_size_limit(Some(MAX_COMPILED))
        .utf8_empty(false);
    let built = meta::Builder::new()
        .configure(config)
        .build_from_hir(&whole);
    built.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(kind: &str, value: &str, ignore_case: bool, text: &str) -> bool {
        let json = serde_json::json!({"type": kind, "value": value, "ignore_case": ignore_case});
        let matcher: ir::StringMatcher = serde_json::from_value(json).unwrap();
        StringMatcher::compile(&matcher)
            .unwrap()
            .matches(text.as_bytes())
    }

    #[test]
    fn every_kind_with_and_without_case() {
        for (kind, value, text, with_case, without) in [
            ("exact", "a.B", "a.B", true, true),
            ("exact", "a.B", "A.b", false, true),
            ("exact", "a.B", "a.B.c", false, false),
            ("prefix", "a.B", "a.B.c", true, true),
            ("prefix", "a.B", "A.b.c", false, true),
            ("prefix", "a.B", "a", false, false),
            ("suffix", ".B", "a.B", true, true),
            ("suffix", ".B", "a.b", false, true),
            ("suffix", ".B", "B", false, false),
            ("contains", ".B.", "a.B.c", true, true),
            ("contains", ".B.", "a.b.c", false, true),
            ("contains", ".B.", "a.B", false, false),
            ("prefix", "", "a", true, true),
            // Regular expressions have their own way to ignore it.
            ("regex", "a.B", "a-B", true, true),
            ("regex", "a.B", "A-b", false, false),
            ("regex", "(?i)a.B", "A-b", true, true),
            ("regex", "a|ab", "ab", true, true),
            ("regex", "a", "ab", false, false),
            ("regex", "b", "ab", false, false),
            ("regex", "(?x) a # one letter", "a", true, true),
            ("regex", "", "", true, true),
            ("regex", "", "a", false, false),
        ] {
            let found = (
                matches(kind, value, false, text),
                matches(kind, value, true, text),
            );
            assert_eq!(found, (with_case, without), "{kind} {value:?} {text:?}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for value in ["(", "a)(b", r"(?=a)", &"a{1000}{1000}".repeat(3)] {
            let matcher = ir::StringMatcher {
                kind: StringMatchKind::Regex,
                value: value.to_owned(),
                ignore_case: false,
            };
            assert!(StringMatcher::compile(&matcher).is_err(), "{value}");
        }
    }
}
