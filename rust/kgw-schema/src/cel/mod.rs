//! The Common Expression Language as rules of CRDs use it: the language, and Kubernetes' functions.
//!
//! An expression is read once ([`Program::compile`]): names become places, patterns automata, and a name
//! or function that does not exist is an error then. It is evaluated on values where they are, without
//! a copy; the schema of a value says what a text is (a time, bytes) and whether a list is a set.
//!
//! **Bounded.** Each step costs, and what is done with texts and lists costs by their length, in about the
//! amounts that an API server charges. A rule may cost a million, the rules of an object ten.

mod compile;
mod eval;
mod functions;
mod macros;
mod parse;
mod token;
mod url;
mod value;
mod version;

pub(crate) use self::eval::{Cost, Failure};
pub(crate) use self::url::Url;
pub(crate) use self::value::Cel;

use self::compile::Expr;

/// An expression that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

impl RuleError {
    pub(crate) fn syntax(what: String) -> Self {
        Self(what)
    }
}

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Program {
    expression: Expr,
    /// Whether it is about the object as it was before.
    pub(crate) is_transition: bool,
}

impl Program {
    /// Reads an expression that may be about `self` and `oldSelf`.
    ///
    /// # Errors
    /// It is not of the language, too deep, or names what does not exist.
    pub fn compile(text: &str) -> Result<Self, RuleError> {
        let ast = parse::parse(text)?;
        let (expression, is_transition) = compile::compile(&ast)?;
        Ok(Self {
            expression,
            is_transition,
        })
    }

    /// Evaluates the expression.
    ///
    /// Takes `self` and `oldSelf` as what is on the stack, and of what may be spent what it spends.
    pub(crate) fn evaluate<'v>(
        &'v self,
        stack: &mut Vec<Cel<'v>>,
        cost: &mut Cost,
    ) -> Result<Cel<'v>, Failure> {
        eval::evaluate(&self.expression, stack, cost)
    }
}
