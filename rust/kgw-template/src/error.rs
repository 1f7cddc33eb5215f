//! What goes wrong with templates.

use thiserror::Error;

/// A text is no template, or one that can never be rendered.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("line {line}: {message}")]
pub struct TemplateError {
    /// The line of the text, from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

/// A template was not rendered.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RenderError {
    /// It uses variables of a JSON body, and no such body was parsed.
    #[error("undeclared json variables in transformation template")]
    UndeclaredVariables,
    /// It took more than [`FUEL`](crate::FUEL).
    #[error("the template takes too long, or makes too much")]
    OutOfFuel,
    /// Something in it failed. Says nothing about values, which may be secret.
    #[error("line {line}: {reason}")]
    Failed {
        /// The line of the template, from 1.
        line: usize,
        /// The kind of failure.
        reason: &'static str,
    },
}

/// A body is not JSON.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("json parsing error in transformation template")]
pub struct InvalidJson;

// === impl TemplateError ===

impl TemplateError {
    pub(crate) fn of(error: &minijinja::Error) -> Self {
        let message = error.detail().unwrap_or("not a template");
        Self {
            line: error.line().unwrap_or(1),
            message: message.to_owned(),
        }
    }
}

// === impl RenderError ===

impl RenderError {
    pub(crate) fn of(error: &minijinja::Error) -> Self {
        use minijinja::ErrorKind;
        let reason = match error.kind() {
            ErrorKind::OutOfFuel => return Self::OutOfFuel,
            ErrorKind::MissingArgument => "an argument is missing",
            ErrorKind::TooManyArguments => "too many arguments",
            ErrorKind::UndefinedError => "something of an undefined value",
            ErrorKind::UnknownMethod => "unknown method",
            ErrorKind::UnknownFunction => "this is no function",
            ErrorKind::CannotUnpack => "these values cannot be unpacked",
            ErrorKind::BadSerialization => "this value cannot be written",
            _ => "invalid operation",
        };
        Self::Failed {
            line: error.line().unwrap_or(1),
            reason,
        }
    }
}
