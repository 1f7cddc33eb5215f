//! The Common Expression Language, as rules of CRDs and policies about requests use it: the language,
//! the functions that Kubernetes adds to it, and Envoy's way of asking for attributes. Sans-IO.
//!
//! An expression is read once ([`Program::compile`]): names become places, patterns automata, and a name
//! or function that does not exist is an error then. It is evaluated on values where they are, without
//! a copy:
//!
//! * **On an object** ([`Program::evaluate`]): its variables are values on a stack, and a [`Shape`] says
//!   what the schema knows of them.
//! * **On a request** ([`Program::value`], [`Program::holds`]): its attributes ([`Attributes`]) are asked
//!   for when the evaluation comes to them, each by a number that it has from the compiler.
//!
//! **Bounded.** Each step costs, and what is done with texts and lists costs by their length, in about
//! the amounts that an API server charges ([`Cost`]); what an expression makes is paid for before it is
//! made. Expressions are bounded in their length and in how deeply they nest.

#![forbid(unsafe_code)]

mod attributes;
mod compile;
mod eval;
pub mod format;
mod functions;
mod json;
mod macros;
mod parse;
pub mod pattern;
mod quantity;
mod shape;
mod token;
mod url;
mod value;
mod version;

pub use crate::attributes::{Attributes, Data, Fields, Root};
pub use crate::eval::{Cost, Failure, Outcome};
pub use crate::json::Value;
pub use crate::quantity::Quantity;
pub use crate::shape::Shape;
pub use crate::url::Url;
pub use crate::value::{Cel, Text};
pub use crate::version::Version;

use crate::compile::Expr;

/// A text that is no expression, or one about what does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(String);

impl SyntaxError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// What an expression may name.
#[derive(Debug, Clone, Copy)]
pub enum Names<'n> {
    /// Variables, in the order in which they will be on the stack; 64 at most.
    Variables(&'n [&'n str]),
    /// Attributes.
    Attributes(&'n [Root]),
}

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Program {
    expression: Expr,
    /// The places of the variables that it names, as bits.
    variables: u64,
    /// The attributes that it names.
    attributes: Vec<u16>,
}

impl Program {
    /// Reads an expression.
    ///
    /// # Errors
    /// It is not of the language, too long or too deep, or names what does not exist.
    pub fn compile(text: &str, names: Names<'_>) -> Result<Self, SyntaxError> {
        let ast = parse::parse(text)?;
        compile::compile(&ast, names)
    }

    /// Whether the expression names a variable, by its place.
    pub fn names_variable(&self, place: usize) -> bool {
        u32::try_from(place)
            .ok()
            .and_then(|place| 1_u64.checked_shl(place))
            .is_some_and(|bit| self.variables & bit != 0)
    }

    /// The numbers of the attributes that the expression names, each once.
    pub fn attributes(&self) -> &[u16] {
        &self.attributes
    }

    /// Whether the result may be a boolean: `false` of a text or a sum, for example. Of most calls and
    /// fields nobody knows before.
    pub fn may_be_bool(&self) -> bool {
        self.expression.may_be_bool()
    }

    /// Evaluates an expression about variables.
    ///
    /// Takes the variables as what is on the stack, and of what may be spent what it spends.
    ///
    /// # Errors
    /// There is no result, or it would have cost too much.
    pub fn evaluate<'v>(&'v self, stack: &mut Vec<Cel<'v>>, cost: &mut Cost) -> Outcome<'v> {
        eval::evaluate(&self.expression, None, stack, cost)
    }

    /// Evaluates an expression about attributes, for what `cost` has left.
    ///
    /// # Errors
    /// There is no result (an attribute or key is missing, types do not fit), or it would have cost too
    /// much.
    pub fn value<'v>(&'v self, attributes: &'v dyn Attributes, cost: &mut Cost) -> Outcome<'v> {
        // The stack is for the variables of macros; it takes no memory without one.
        eval::evaluate(&self.expression, Some(attributes), &mut Vec::new(), cost)
    }

    /// Evaluates an expression about attributes that is a condition.
    ///
    /// # Errors
    /// As [`Program::value`]; or the result is no boolean.
    pub fn holds(&self, attributes: &dyn Attributes, cost: &mut Cost) -> Result<bool, Failure> {
        match self.value(attributes, cost)? {
            Cel::Bool(value) => Ok(value),
            other => Err(Failure::error(format!(
                "the result is no boolean but of type {}",
                other.type_name()
            ))),
        }
    }
}
