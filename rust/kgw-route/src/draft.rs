//! A compiled rule on its way into a table.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use crate::pattern::Pattern;
pub(crate) use crate::precedence::Kind;
use crate::precedence::{Precedence, age, prefix_len};
use crate::predicate::Conditions;
use crate::rule::Rank;

/// A rule, with its place in the table. What comes from another table borrows its texts from there.
#[derive(Debug)]
pub(crate) struct Draft<'a, T> {
    /// Hash of host and node.
    pub(crate) hash: u64,
    pub(crate) host: u32,
    /// The path, the prefix without trailing slashes, or the literal segments of the pattern.
    pub(crate) node: Cow<'a, [u8]>,
    pub(crate) kind: Kind,
    pub(crate) spelling: Spelling<'a>,
    pub(crate) created: Option<i64>,
    pub(crate) name: Cow<'a, [u8]>,
    pub(crate) rule: u32,
    pub(crate) r#match: u32,
    /// Tells rules of equal precedence apart, and finds those of one origin again.
    pub(crate) group: u32,
    pub(crate) conditions: Option<Arc<Conditions>>,
    /// What follows the literal segments.
    pub(crate) pattern: Option<Arc<Pattern>>,
    pub(crate) value: T,
}

/// What of a path as it was given its node does not say.
#[derive(Debug)]
pub(crate) enum Spelling<'a> {
    /// The number of trailing slashes.
    Slashes(u32),
    /// The pattern.
    Pattern(Cow<'a, [u8]>),
}

impl<T> Draft<'_, T> {
    pub(crate) fn precedence(&self) -> Precedence<'_> {
        let conditions = self.conditions.as_deref();
        Precedence {
            class: self.kind,
            prefix_len: prefix_len(self.kind, self.node.len()),
            method: Reverse(conditions.is_some_and(|all| all.method.is_some())),
            headers: Reverse(conditions.map_or(0, |all| all.headers.len())),
            query: Reverse(conditions.map_or(0, |all| all.query.len())),
            age: age(self.created),
            name: &self.name,
            place: (self.rule, self.r#match),
        }
    }

    /// Bytes of text that a table keeps of the rule.
    pub(crate) fn text_len(&self) -> usize {
        let pattern = match &self.spelling {
            Spelling::Slashes(_) => 0,
            Spelling::Pattern(pattern) => pattern.len(),
        };
        self.node.len() + self.name.len() + pattern
    }

    pub(crate) fn rank(&self) -> Rank {
        Rank {
            created: self.created,
            name: String::from_utf8_lossy(&self.name).into_owned(),
            rule: self.rule,
            r#match: self.r#match,
        }
    }
}
