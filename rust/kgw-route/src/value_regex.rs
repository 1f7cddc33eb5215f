//! One regular expression for one value, outside of a table: what is compared once per request, or less.

use std::fmt;

use crate::error::RegexError;
use crate::pattern::{Automaton, Pattern};

/// A regular expression that must match the whole of a value, in the dialect of
/// [`check_regex`](crate::check_regex).
pub struct ValueRegex {
    pattern: Box<str>,
    automaton: Automaton,
}

impl ValueRegex {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Those of [`check_regex`](crate::check_regex).
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let compiled = Pattern::of_one(pattern)?;
        Ok(Self {
            pattern: pattern.into(),
            automaton: Automaton::new([&compiled])?,
        })
    }

    /// Whether the pattern matches the whole value. Takes time linear in the value's length.
    #[must_use]
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.automaton.is_match(value)
    }
}

impl fmt::Debug for ValueRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ValueRegex").field(&self.pattern).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        let regex = ValueRegex::new("a+|b").expect("valid");
        for (value, expected) in [
            ("a", true),
            ("aaa", true),
            ("b", true),
            ("ab", false),
            ("", false),
        ] {
            assert_eq!(regex.is_match(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(format!("{regex:?}"), r#"ValueRegex("a+|b")"#);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert!(ValueRegex::new("(").is_err());
        assert!(ValueRegex::new(r"(a)\1").is_err());
    }
}
