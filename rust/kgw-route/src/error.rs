//! Why a rule cannot be compiled.

use std::fmt;

use thiserror::Error;

use crate::rule::Rank;

/// A rule that cannot be compiled. It names the rule, so that the caller can report it and go on
/// without it: a failed [`Builder::add`](crate::Builder::add) leaves the builder as it was.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{rank} on {hostname:?}: {field}: {problem}")]
pub struct BuildError {
    /// The rule's hostname as given.
    pub hostname: String,
    /// The rule at fault.
    pub rank: Rank,
    /// The part of the rule at fault.
    pub field: Field,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// The part of a rule that an error is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Field {
    /// The hostname.
    Hostname,
    /// The path predicate.
    Path,
    /// The header predicate at this position.
    Header(usize),
    /// The query predicate at this position.
    Query(usize),
    /// The rule as one of too many.
    Rule,
}

/// What is wrong with a part of a rule.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// A hostname that is not `foo.example`, `*.example`, `*`, an IPv4 address or a bracketed IPv6
    /// address. Ports do not belong in it.
    #[error("not a hostname: expected foo.example, *.example or *")]
    Hostname,
    /// An exact path or path prefix that does not start with `/`.
    #[error("{path:?} does not start with '/'")]
    RelativePath {
        /// The path as given.
        path: String,
    },
    /// A header name that is not a token (RFC 9110 §5.6.2), or an empty parameter name.
    #[error("{name:?} is not a valid name")]
    Name {
        /// The name as given.
        name: String,
    },
    /// A regular expression that cannot be used.
    #[error(transparent)]
    Regex(#[from] RegexError),
    /// More than the table can hold.
    #[error("more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The most there may be.
        limit: usize,
    },
}

/// A regular expression that cannot be used.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RegexError {
    /// It does not parse.
    #[error("invalid regular expression at byte {at}: {message}")]
    Syntax {
        /// Where the error starts: byte offset in the pattern.
        at: usize,
        /// The parser's explanation.
        message: String,
    },
    /// The pattern, or the automaton it compiles to, is too large.
    #[error("regular expression too large: more than {limit} bytes {what}")]
    TooLarge {
        /// `of pattern` or `compiled`.
        what: &'static str,
        /// The most there may be. Bytes.
        limit: usize,
    },
    /// It parses but needs what a linear-time automaton over bytes does not have.
    #[error("unsupported regular expression: {message}")]
    Unsupported {
        /// The compiler's explanation.
        message: String,
    },
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname => f.write_str("hostname"),
            Self::Path => f.write_str("path"),
            Self::Header(at) => write!(f, "headers[{at}]"),
            Self::Query(at) => write!(f, "query[{at}]"),
            Self::Rule => f.write_str("rule"),
        }
    }
}
