//! The Gateway API precedence of rules, encoded once, as one sort key.
//!
//! The clauses are those of `HTTPRouteRule.matches` (Gateway API v1): "Exact path match", "Prefix path
//! match with largest number of characters", "Method match", "Largest number of header matches",
//! "Largest number of query param matches"; across routes "the oldest Route based on creation
//! timestamp", then "first in alphabetical order by `{namespace}/{name}`"; within a route "the
//! FIRST matching rule (in list order)". Where regular expressions stand is left to implementations:
//! kgateway (`sortable_route.go`) puts them between exact and prefix and does not rank them by length.

use std::cmp::Reverse;

use crate::rule::{PathMatch, Rule, prefix_node};

/// The sort key of a rule: of the rules that match a request, the least key wins.
///
/// Hostnames are not part of it: they are ranked before everything else, by the host index.
/// The derived `Ord` compares the fields in the order they are declared in, one clause each.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Precedence<'a> {
    pub(crate) class: Kind,
    /// Characters of a prefix, trailing slashes aside; 0 for the other classes.
    pub(crate) prefix_len: Reverse<usize>,
    pub(crate) method: Reverse<bool>,
    pub(crate) headers: Reverse<usize>,
    pub(crate) query: Reverse<usize>,
    pub(crate) age: Age,
    /// `namespace/name`.
    pub(crate) name: &'a [u8],
    /// Rule and match.
    pub(crate) place: (u32, u32),
}

/// The kind of a path match.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Exact,
    Regex,
    Prefix,
}

/// When a route was made; unknown sorts last.
type Age = (bool, Option<i64>);

pub(crate) fn age(created: Option<i64>) -> Age {
    (created.is_none(), created)
}

/// Of rules of a kind on paths of a length.
pub(crate) fn prefix_len(kind: Kind, path_len: usize) -> Reverse<usize> {
    Reverse(if kind == Kind::Prefix { path_len } else { 0 })
}

/// A clause of the precedence: why one rule goes before another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Criterion {
    /// The kind of path match: exact, then regular expression, then prefix.
    PathKind,
    /// The longer path prefix.
    PrefixLength,
    /// A method predicate.
    Method,
    /// More header predicates.
    Headers,
    /// More query parameter predicates.
    Query,
    /// The older route.
    Age,
    /// The route's `namespace/name`, alphabetically.
    Name,
    /// The earlier rule or match of the route, or the one added earlier.
    Order,
}

// === impl Precedence ===

impl<'a> Precedence<'a> {
    /// The key of a rule.
    ///
    /// Predicates are counted as they are given; [`Builder`](crate::Builder) first removes those
    /// whose name an earlier one has.
    pub fn of(rule: &'a Rule) -> Self {
        let (class, path_len) = match &rule.path {
            PathMatch::Exact(path) => (Kind::Exact, path.len()),
            PathMatch::Regex(pattern) => (Kind::Regex, pattern.len()),
            PathMatch::Prefix(pattern) => (Kind::Prefix, prefix_node(pattern).len()),
        };
        Self {
            class,
            prefix_len: prefix_len(class, path_len),
            method: Reverse(rule.method.is_some()),
            headers: Reverse(rule.headers.len()),
            query: Reverse(rule.query.len()),
            age: age(rule.rank.created),
            name: rule.rank.name.as_bytes(),
            place: (rule.rank.rule, rule.rank.r#match),
        }
    }

    /// The first clause in which the two keys differ; [`Criterion::Order`] if there is none.
    pub fn decided_by(&self, other: &Self) -> Criterion {
        if self.class != other.class {
            Criterion::PathKind
        } else if self.prefix_len != other.prefix_len {
            Criterion::PrefixLength
        } else if self.method != other.method {
            Criterion::Method
        } else if self.headers != other.headers {
            Criterion::Headers
        } else if self.query != other.query {
            Criterion::Query
        } else if self.age != other.age {
            Criterion::Age
        } else if self.name != other.name {
            Criterion::Name
        } else {
            Criterion::Order
        }
    }
}

// === impl Criterion ===

impl Criterion {
    /// Its name for programs; does not change.
    pub fn id(self) -> &'static str {
        match self {
            Self::PathKind => "path_kind",
            Self::PrefixLength => "prefix_length",
            Self::Method => "method",
            Self::Headers => "headers",
            Self::Query => "query",
            Self::Age => "age",
            Self::Name => "name",
            Self::Order => "order",
        }
    }

    /// What the winner has over the loser, to follow "the rule has".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PathKind => "a stronger kind of path match",
            Self::PrefixLength => "a longer path prefix",
            Self::Method => "a method match",
            Self::Headers => "more header matches",
            Self::Query => "more query parameter matches",
            Self::Age => "an older route",
            Self::Name => "an alphabetically earlier route name",
            Self::Order => "an earlier position",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;
    use crate::rule::{Rank, StringMatch, ValueMatch};

    fn prefix(pattern: &str) -> Rule {
        Rule::new(PathMatch::Prefix(pattern.to_owned()))
    }

    fn present(name: &str) -> ValueMatch {
        ValueMatch {
            name: name.to_owned(),
            value: StringMatch::Present,
        }
    }

    /// Asserts that the first rule goes first, whichever way round, because of the criterion.
    fn assert_before(first: &Rule, second: &Rule, criterion: Criterion) {
        let (first, second) = (Precedence::of(first), Precedence::of(second));
        assert_eq!(first.cmp(&second), Ordering::Less);
        assert_eq!(second.cmp(&first), Ordering::Greater);
        assert_eq!(first.decided_by(&second), criterion);
        assert_eq!(second.decided_by(&first), criterion);
    }

    #[test]
    fn exact_before_regex_before_prefix() {
        let exact = Rule::new(PathMatch::Exact("/a".to_owned()));
        let regex = Rule::new(PathMatch::Regex("/a.*".to_owned()));
        let mut long = prefix("/a/very/long/prefix");
        long.method = Some("GET".to_owned());
        assert_before(&exact, &regex, Criterion::PathKind);
        assert_before(&regex, &long, Criterion::PathKind);
        assert_before(&exact, &long, Criterion::PathKind);
    }

    #[test]
    fn longer_prefix_before_method() {
        let mut method = prefix("/a");
        method.method = Some("GET".to_owned());
        assert_before(&prefix("/ab"), &method, Criterion::PrefixLength);
    }

    #[test]
    fn trailing_slash_adds_no_length() {
        let mut slash = prefix("/a/");
        slash.rank.rule = 1;
        assert_before(&prefix("/a"), &slash, Criterion::Order);
    }

    #[test]
    fn regexes_are_not_ranked_by_length() {
        let short = Rule::new(PathMatch::Regex("/.*".to_owned()));
        let mut long = Rule::new(PathMatch::Regex("/long/.*".to_owned()));
        long.rank.r#match = 1;
        assert_before(&short, &long, Criterion::Order);
    }

    #[test]
    fn method_before_headers_before_query_before_age() {
        let mut method = prefix("/");
        method.method = Some("GET".to_owned());
        let mut headers = prefix("/");
        headers.headers = vec![present("a")];
        let mut query = prefix("/");
        query.query = vec![present("a"), present("b")];
        let mut old = prefix("/");
        old.rank.created = Some(1);
        assert_before(&method, &headers, Criterion::Method);
        assert_before(&headers, &query, Criterion::Headers);
        assert_before(&query, &old, Criterion::Query);
    }

    #[test]
    fn more_predicates_go_first() {
        let with = |headers: &[&str], query: &[&str]| {
            let mut rule = prefix("/");
            rule.headers = headers.iter().copied().map(present).collect();
            rule.query = query.iter().copied().map(present).collect();
            rule
        };
        assert_before(
            &with(&["a", "b"], &[]),
            &with(&["a"], &["a", "b"]),
            Criterion::Headers,
        );
        assert_before(
            &with(&["a"], &["a", "b"]),
            &with(&["a"], &["a"]),
            Criterion::Query,
        );
    }

    #[test]
    fn older_then_name_then_rule_then_match() {
        let ranked = |created, name: &str, rule, r#match| {
            let mut ranked = prefix("/");
            ranked.rank = Rank {
                created,
                name: name.to_owned(),
                rule,
                r#match,
            };
            ranked
        };
        assert_before(
            &ranked(Some(1), "b/b", 0, 0),
            &ranked(Some(2), "a/a", 0, 0),
            Criterion::Age,
        );
        assert_before(
            &ranked(Some(9), "b/b", 0, 0),
            &ranked(None, "a/a", 0, 0),
            Criterion::Age,
        );
        assert_before(
            &ranked(None, "a/b", 9, 0),
            &ranked(None, "b/a", 0, 0),
            Criterion::Name,
        );
        assert_before(
            &ranked(None, "a/a", 0, 9),
            &ranked(None, "a/a", 1, 0),
            Criterion::Order,
        );
        assert_before(
            &ranked(None, "a/a", 0, 0),
            &ranked(None, "a/a", 0, 1),
            Criterion::Order,
        );
    }
}
