//! Method, header and query predicates of one rule.

use std::sync::Arc;

use crate::pattern::Automaton;
use crate::query::Query;
use crate::request::Request;

/// What a rule asks for beside host and path.
#[derive(Debug)]
pub(crate) struct Conditions {
    pub(crate) method: Option<Box<[u8]>>,
    pub(crate) headers: Box<[Named]>,
    pub(crate) query: Box<[Named]>,
}

/// A predicate on the value of a header or query parameter.
#[derive(Debug)]
pub(crate) struct Named {
    /// In lower case for headers.
    pub(crate) name: Box<[u8]>,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    Exact(Box<[u8]>),
    Present,
    Regex(Arc<Automaton>),
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
            .is_some_and(|method| method != request.method())
        {
            return Err(Miss::Method);
        }
        for (at, header) in self.headers.iter().enumerate() {
            if !request.any_header(&header.name, |value| header.value.holds(value)) {
                return Err(Miss::Header(at));
            }
        }
        for (at, parameter) in self.query.iter().enumerate() {
            if !query
                .first(&parameter.name)
                .is_some_and(|value| parameter.value.holds(value))
            {
                return Err(Miss::Query(at));
            }
        }
        Ok(())
    }
}

impl Value {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => **expected == *value,
            Self::Present => true,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}
