//! Method, header and query predicates of one rule.

use std::sync::Arc;

use crate::pattern::Automaton;
use crate::query::Query;
use crate::request::Request;
use crate::rule::{Rule, StringMatch, ValueMatch};

/// What a rule asks for beside host and path.
#[derive(Debug)]
pub(crate) struct Conditions {
    /// Where [`Parts`](crate::Parts) finds them again.
    pub(crate) hash: u64,
    pub(crate) method: Option<Box<str>>,
    pub(crate) headers: Box<[Named]>,
    pub(crate) query: Box<[Named]>,
}

/// A predicate on the value of a header or query parameter.
#[derive(Debug)]
pub(crate) struct Named {
    given: ValueMatch,
    /// The header's name in lower case, if it was given in another.
    lower: Option<Box<[u8]>>,
    regex: Option<Arc<Automaton>>,
}

/// The first predicate that does not hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Miss {
    Method,
    Header(usize),
    Query(usize),
}

impl Conditions {
    /// Whether every predicate holds.
    pub(crate) fn check<R: Request>(&self, request: &R, query: &Query<'_>) -> Result<(), Miss> {
        if self
            .method
            .as_deref()
            .is_some_and(|method| method.as_bytes() != request.method())
        {
            return Err(Miss::Method);
        }
        for (at, header) in self.headers.iter().enumerate() {
            if !request.any_header(header.name(), |value| header.holds(value)) {
                return Err(Miss::Header(at));
            }
        }
        for (at, parameter) in self.query.iter().enumerate() {
            if !query
                .first(parameter.name())
                .is_some_and(|value| parameter.holds(value))
            {
                return Err(Miss::Query(at));
            }
        }
        Ok(())
    }
}

impl Conditions {
    /// Whether these are the conditions of a rule.
    pub(crate) fn are_of(&self, rule: &Rule) -> bool {
        let same =
            |named: &[Named], given: &[ValueMatch]| named.iter().map(|one| &one.given).eq(given);
        self.method.as_deref() == rule.method.as_deref()
            && same(&self.headers, &rule.headers)
            && same(&self.query, &rule.query)
    }

    /// Gives them to a rule.
    pub(crate) fn give(&self, rule: &mut Rule) {
        let given = |named: &[Named]| named.iter().map(|one| one.given.clone()).collect();
        rule.method = self.method.as_deref().map(str::to_owned);
        rule.headers = given(&self.headers);
        rule.query = given(&self.query);
    }
}

impl Named {
    pub(crate) fn new(given: ValueMatch, name: &str, regex: Option<Arc<Automaton>>) -> Self {
        let lower = (name != given.name).then(|| name.as_bytes().into());
        Self {
            given,
            lower,
            regex,
        }
    }

    /// In lower case for headers.
    #[inline]
    pub(crate) fn name(&self) -> &[u8] {
        self.lower.as_deref().unwrap_or(self.given.name.as_bytes())
    }

    /// As it was given.
    pub(crate) fn given(&self) -> &ValueMatch {
        &self.given
    }

    /// Its name as it was given.
    pub(crate) fn given_name(&self) -> &str {
        &self.given.name
    }

    fn holds(&self, value: &[u8]) -> bool {
        match &self.given.value {
            StringMatch::Exact(expected) => expected.as_bytes() == value,
            StringMatch::Present => true,
            StringMatch::Regex(_) => self
                .regex
                .as_ref()
                .is_some_and(|regex| regex.is_match(value)),
        }
    }
}
