//! What a builder is given: one match of one rule of a route resource.

use std::cmp::Ordering;
use std::fmt;

/// One match of one rule of a route resource; every predicate must hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Path predicate.
    pub path: PathMatch,
    /// Method, case-sensitive; none matches all.
    pub method: Option<String>,
    /// Header predicates. Of several with equivalent names only the first counts
    /// (Gateway API, `HTTPRouteMatch.headers`).
    pub headers: Vec<ValueMatch>,
    /// Query parameter predicates. Of several with equal names only the first counts
    /// (Gateway API, `HTTPRouteMatch.queryParams`).
    pub query: Vec<ValueMatch>,
    /// What breaks ties between rules of equal specificity.
    pub rank: Rank,
}

/// A path predicate. Paths are compared byte by byte, case-sensitive, without the query.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole leading segments: `/foo` matches `/foo`, `/foo/` and `/foo/x`, not `/foobar` and not
    /// `/foo;x`. Trailing slashes of the pattern do not count (Gateway API, `PathMatchPathPrefix`).
    Prefix(String),
    /// A linear-time regular expression that must match the whole path; see
    /// [`check_regex`](crate::check_regex) for the dialect.
    Regex(String),
}

/// A header or query predicate.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ValueMatch {
    /// Header name (case-insensitive) or query parameter name (exact).
    pub name: String,
    /// What the value must be.
    pub value: StringMatch,
}

/// A string predicate; case-sensitive.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Present with any value, the empty one included (kgateway: an empty match value).
    Present,
    /// A linear-time regular expression that must match the whole value; see
    /// [`check_regex`](crate::check_regex) for the dialect.
    Regex(String),
}

/// Gateway API tie-breakers, compared in the order of the fields; lower wins.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rank {
    /// The route's creation time in seconds since 1970; unknown sorts last.
    pub created: Option<i64>,
    /// The route's `namespace/name`.
    pub name: String,
    /// Position of the rule in the route.
    pub rule: u32,
    /// Position of the match in the rule.
    pub r#match: u32,
}

// === impl Rule ===

impl Rule {
    /// A rule with nothing but a path predicate.
    pub fn new(path: PathMatch) -> Self {
        Self {
            path,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            rank: Rank::default(),
        }
    }
}

// === impl PathMatch ===

impl PathMatch {
    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(pattern) | Self::Prefix(pattern) | Self::Regex(pattern) => pattern,
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "exact {path}"),
            Self::Prefix(path) => write!(f, "prefix {path}"),
            Self::Regex(pattern) => write!(f, "regex {pattern}"),
        }
    }
}

// === impl Rank ===

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let age = |rank: &Self| (rank.created.is_none(), rank.created);
        age(self)
            .cmp(&age(other))
            .then_with(|| self.name.cmp(&other.name))
            .then_with(|| self.rule.cmp(&other.rule))
            .then_with(|| self.r#match.cmp(&other.r#match))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}][{}]", self.name, self.rule, self.r#match)
    }
}

/// A prefix pattern without its trailing slashes; the root is empty.
pub(crate) fn prefix_node(pattern: &str) -> &str {
    pattern.trim_end_matches('/')
}
