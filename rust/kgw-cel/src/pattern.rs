//! Regular expressions in the dialect of Go's `regexp`, which is RE2's.
//!
//! The `regex` crate's syntax is almost the same; what is not is that its classes mean Unicode. `\d`,
//! `\w`, `\s` and `\b` are rewritten, and everything else is left to it: a pattern is searched for
//! anywhere in a text unless it is anchored, in time that is linear in the text.

use std::sync::OnceLock;

use regex_automata::meta::Regex;
use regex_automata::nfa::thompson::WhichCaptures;

/// The largest automaton of a pattern. Bytes.
const MOST: usize = 1 << 20;

/// A pattern, whose automaton is made when a text is first looked at: a kind has a hundred patterns, and
/// most objects have no use for most of them.
#[derive(Debug)]
pub struct Pattern {
    /// As it is written.
    pub text: String,
    automaton: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// Reads a pattern; `None` if it is none.
    pub fn new(text: &str) -> Option<Self> {
        regex_syntax::parse(&as_ascii(text)).ok().map(|_| Self {
            text: text.to_owned(),
            automaton: OnceLock::new(),
        })
    }

    /// Whether there is an automaton, which is made now.
    pub fn is_sound(&self) -> bool {
        self.automaton.get_or_init(|| compile(&self.text)).is_some()
    }

    /// Whether a text has a match. A pattern whose automaton is too large matches nothing.
    pub fn is_match(&self, text: &str) -> bool {
        let automaton = self.automaton.get_or_init(|| compile(&self.text));
        automaton
            .as_ref()
            .is_some_and(|automaton| automaton.is_match(text.as_bytes()))
    }
}

/// Compiles a pattern; `None` if it is none, or too large.
pub(crate) fn compile(pattern: &str) -> Option<Regex> {
    Regex::builder()
        .configure(
            Regex::config()
                .nfa_size_limit(Some(MOST))
                .onepass_size_limit(Some(MOST))
                .hybrid_cache_capacity(MOST)
                .which_captures(WhichCaptures::All),
        )
        .build(&as_ascii(pattern))
        .ok()
}

/// Rewrites what means ASCII in Go and Unicode in the `regex` crate.
fn as_ascii(pattern: &str) -> String {
    let mut written = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    let mut class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match (characters.next(), class) {
                (Some('d'), false) => written.push_str("[0-9]"),
                (Some('D'), false) => written.push_str("[^0-9]"),
                (Some('w'), false) => written.push_str("[0-9A-Za-z_]"),
                (Some('W'), false) => written.push_str("[^0-9A-Za-z_]"),
                (Some('s'), false) => written.push_str("[\\t\\n\\f\\r ]"),
                (Some('S'), false) => written.push_str("[^\\t\\n\\f\\r ]"),
                (Some('b'), false) => written.push_str("(?-u:\\b)"),
                (Some('B'), false) => written.push_str("(?-u:\\B)"),
                (Some('d'), true) => written.push_str("0-9"),
                (Some('w'), true) => written.push_str("0-9A-Za-z_"),
                (Some('s'), true) => written.push_str("\\t\\n\\f\\r "),
                // `\/` and the like are escapes of punctuation in both; the other letters are the
                // same in both, or errors.
                (Some(other), _) => {
                    written.push('\\');
                    written.push(other);
                }
                (None, _) => written.push('\\'),
            },
            '[' if !class => {
                class = true;
                written.push('[');
                // A `]` that comes first is itself in a class, and `[` means nothing there in Go.
                let rest = characters.as_str();
                let (negated, rest) = match rest.strip_prefix('^') {
                    Some(rest) => ("^", rest),
                    None => ("", rest),
                };
                written.push_str(negated);
                if let Some(rest) = rest.strip_prefix(']') {
                    written.push_str("\\]");
                    characters = rest.chars();
                } else {
                    characters = rest.chars();
                }
            }
            '[' if characters.as_str().starts_with(':') => written.push('['),
            // `[:alpha:]` ends with a bracket that does not end the class.
            ':' if class && characters.as_str().starts_with(']') => {
                written.push(':');
                if in_named_class(&written) {
                    written.push(']');
                    characters.next();
                }
            }
            // Set operations of the `regex` crate, which Go has not.
            '[' | '&' | '~' if class => {
                written.push('\\');
                written.push(character);
            }
            '-' if class && written.ends_with('-') => written.push_str("\\-"),
            ']' if class => {
                class = false;
                written.push(']');
            }
            other => written.push(other),
        }
    }
    written
}

/// Whether a pattern so far ends within `[:name:`.
fn in_named_class(written: &str) -> bool {
    written.rfind("[:").is_some_and(|start| {
        let name = &written[start + 2..written.len() - 1];
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || byte == b'^')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(pattern: &str, text: &str) -> bool {
        compile(pattern).expect("a pattern").is_match(text)
    }

    #[test]
    fn classes_are_ascii() {
        assert!(finds(r"^\d+$", "123"));
        assert!(!finds(r"^\d+$", "١٢٣"));
        assert!(finds(r"^[\w-]+$", "a-b_1"));
        assert!(!finds(r"^\w+$", "é"));
        assert!(finds(r"^\S$", "é"));
        assert!(!finds(r"^\s$", "\u{a0}"));
        assert!(finds(r"\bfoo\b", "éfooé"));
    }

    #[test]
    fn what_means_something_else_in_a_class_is_itself() {
        assert!(finds(r"^[]a]+$", "]a"));
        assert!(finds(r"^[^]]+$", "ab"));
        assert!(finds(r"^[a&&b]+$", "a&b"));
        assert!(finds(r"^[a[b]+$", "a[b"));
        assert!(finds(r"^[~~]+$", "~"));
        assert!(finds(r"^[[:alpha:]_]+$", "a_"));
        assert!(!finds(r"^[[:alpha:]_]+$", "1"));
        assert!(finds(r"^[a:]+$", "a:"));
    }

    #[test]
    fn patterns_are_searched_for() {
        assert!(finds("b", "abc"));
        assert!(!finds("^b", "abc"));
        assert!(compile("(").is_none());
        assert!(compile(r"(?:a{1000}){1000}").is_none());
        assert!(Pattern::new("(").is_none());
        let large = Pattern::new(r"(?:a{1000}){1000}").expect("a pattern");
        assert!(!large.is_match(&"a".repeat(1_000_000)));
    }
}
