//! Conditions on requests, in the Common Expression Language with Envoy's attributes.
//!
//! An expression is compiled when the configuration is loaded: names that do not exist are errors then,
//! where Envoy says nothing and never matches. It is evaluated on a [`Record`], which borrows all it
//! has: nothing is built for what an expression does not ask for. As in Envoy what is missing is an error,
//! and an error no match; `has(...)` asks.

mod attribute;
mod view;

use kgw_cel::{Cost, Failure, Names, SyntaxError};

use crate::telemetry::access_log::Record;
use attribute::{Attribute, ROOTS};
pub(crate) use view::{Noted, View};

/// What an evaluation may cost. An expression that goes through ten header fields takes some hundred
/// steps; the longest that does not compile patterns of its own takes about a millisecond.
const MOST: u64 = 100_000;

/// When an expression is evaluated, which decides what is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moment {
    /// While the request is on its way to the upstream.
    Request,
    /// When it is over.
    Log,
}

/// A condition.
#[derive(Debug)]
pub(crate) struct Condition {
    program: kgw_cel::Program,
}

impl Condition {
    /// Compiles a condition.
    ///
    /// # Errors
    /// It is no expression or no condition, or about something that there is not, or not yet.
    pub(crate) fn compile(text: &str, moment: Moment) -> Result<Self, ConditionError> {
        let program = kgw_cel::Program::compile(text, Names::Attributes(&ROOTS))?;
        if !program.may_be_bool() {
            return Err(ConditionError::NotBool);
        }
        if moment == Moment::Request {
            let mut named = program.attributes().iter().copied();
            let late = named.find_map(|number| Attribute::of(number).filter(|one| one.is_late()));
            if let Some(attribute) = late {
                return Err(ConditionError::Late(attribute.name()));
            }
        }
        Ok(Self { program })
    }

    /// Whether the condition holds of a request.
    ///
    /// # Errors
    /// Something is missing or of another type, or the evaluation took too long, of which the condition
    /// says [`Failure::is_final`].
    pub(crate) fn holds(&self, view: &View<'_>) -> Result<bool, Failure> {
        self.program.holds(view, &mut Cost::new(MOST, MOST))
    }

    /// Whether the condition holds of a request that is over; what has no value does not hold.
    pub(crate) fn holds_of_record(&self, record: &Record<'_>) -> bool {
        let view = View::new(record, Noted::Logged(record.metadata));
        self.holds(&view).unwrap_or(false)
    }
}

/// An expression whose value is logged.
#[derive(Debug)]
pub(crate) struct Expression {
    program: kgw_cel::Program,
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// It is none, or names what there is not.
    pub(crate) fn compile(text: &str) -> Result<Self, SyntaxError> {
        let program = kgw_cel::Program::compile(text, Names::Attributes(&ROOTS))?;
        Ok(Self { program })
    }

    /// Shows the value for a request that is over, if there is one.
    pub(crate) fn show<T>(
        &self,
        record: &Record<'_>,
        show: impl FnOnce(&kgw_cel::Cel<'_>) -> T,
    ) -> Option<T> {
        let view = View::new(record, Noted::Logged(record.metadata));
        let value = self.program.value(&view, &mut Cost::new(MOST, MOST));
        value.ok().map(|value| show(&value))
    }
}

/// Why a text is no condition.
#[derive(Debug, thiserror::Error)]
pub enum ConditionError {
    /// It is no expression, or names what there is not.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// It cannot be true or false.
    #[error("the result is never true or false")]
    NotBool,
    /// It is about what is not known before the request is over.
    #[error("'{0}' is known only when the request is over, to access logs")]
    Late(&'static str),
}

/// Checks a condition.
///
/// # Errors
/// It is none.
pub fn check(text: &str, moment: Moment) -> Result<(), ConditionError> {
    Condition::compile(text, moment).map(|_| ())
}
