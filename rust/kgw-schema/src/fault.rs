//! What can be wrong with an object.

use std::fmt;
use std::fmt::Write as _;

/// One step of a path: a key of a mapping or an index of a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// A key of a mapping.
    Key(String),
    /// An index of a list, from 0.
    Index(usize),
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// The field at fault, from the object's root. A field that is missing is not at the end of it.
    pub path: Vec<Step>,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a value, with what there is to say about it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The schema does not know the field (the last step of the path); an API server drops it.
    Unknown {
        /// The fields that are known there.
        known: Vec<String>,
        /// Whether the experimental channel has the field, and the one asked for has not.
        experimental: bool,
    },
    /// A field is missing.
    Required {
        /// The field.
        field: String,
        /// All fields that are required there.
        every: Vec<String>,
    },
    /// The value is of another type.
    Type {
        /// The type that it should have.
        expected: &'static str,
        /// The type that it has.
        found: &'static str,
        /// The value, as JSON.
        value: String,
    },
    /// The value is none of the legal ones.
    Enum {
        /// The value, as JSON.
        value: String,
        /// The legal values, texts as they are and others as JSON.
        legal: Vec<String>,
    },
    /// The text does not match the pattern.
    Pattern {
        /// The text.
        value: String,
        /// The pattern.
        pattern: String,
    },
    /// The text is not what its format says.
    Format {
        /// The text.
        value: String,
        /// The name of the format.
        format: String,
    },
    /// A number, length or count is under or over its bound.
    Bound {
        /// What is bounded.
        what: Measured,
        /// The number, length or count, as text.
        found: String,
        /// Whether it is too much rather than too little.
        over: bool,
        /// The bound, as text.
        bound: String,
        /// Whether the bound itself is out of bounds.
        exclusive: bool,
    },
    /// An item of a list is there before.
    Duplicate {
        /// The item, or what identifies it, as JSON.
        value: String,
    },
    /// The value has to match alternatives of the schema and does not.
    Alternatives {
        /// The keyword: `allOf`, `anyOf`, `oneOf` or `not`.
        keyword: &'static str,
    },
    /// A CEL rule does not hold.
    Rule {
        /// The message of the rule, verbatim.
        message: String,
        /// The rule.
        rule: String,
        /// The reason that the rule gives, `FieldValueInvalid` if it gives none.
        reason: String,
    },
    /// A CEL rule could not be evaluated; an API server refuses the object.
    Evaluation {
        /// What went wrong.
        error: String,
        /// The message of the rule, if it has one.
        message: Option<String>,
        /// The rule.
        rule: String,
    },
    /// The rules of the object together take more than an API server allows them.
    Budget,
    /// The object is nested too deeply.
    Depth,
    /// The metadata of the object is not what that of every object has to be.
    Metadata {
        /// What is wrong, in the API server's words.
        message: String,
        /// The value, if that is at fault.
        value: Option<String>,
    },
}

/// What [`Fault::Bound`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// The number itself.
    Number,
    /// What the number has to be a multiple of.
    Multiple,
    /// The characters of a text.
    Length,
    /// The items of a list.
    Items,
    /// The entries of a mapping.
    Entries,
}

impl Fault {
    /// Whether an API server stores the object all the same.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::Unknown {
                experimental: false,
                ..
            }
        )
    }

    /// Whether an API server evaluates no rule after this.
    pub(crate) fn blocks(&self) -> bool {
        match self {
            Self::Required { .. } | Self::Type { .. } | Self::Enum { .. } | Self::Depth => true,
            Self::Bound { what, over, .. } => {
                *over && matches!(what, Measured::Length | Measured::Items | Measured::Entries)
            }
            _ => false,
        }
    }
}

impl Violation {
    /// Returns the violation in the words of an API server: `spec.a: Invalid value: "b": ...`.
    #[must_use]
    pub fn api_server_text(&self) -> String {
        let field = path_text(&self.path);
        let said = |value: &str, text: String| {
            format!("{field}: Invalid value: {value}: {field} in body {text}")
        };
        match &self.fault {
            Fault::Unknown { .. } => format!("unknown field \"{field}\""),
            Fault::Required { field: name, .. } => {
                let dot = if field.is_empty() { "" } else { "." };
                format!("{field}{dot}{name}: Required value")
            }
            Fault::Type {
                expected, found, ..
            } => said(
                &format!("\"{found}\""),
                format!("must be of type {expected}: \"{found}\""),
            ),
            Fault::Enum { value, legal } => {
                let quoted: Vec<_> = legal.iter().map(|one| format!("{one:?}")).collect();
                let legal = quoted.join(", ");
                format!("{field}: Unsupported value: {value}: supported values: {legal}")
            }
            Fault::Pattern { value, pattern } => {
                said(&format!("{value:?}"), format!("should match '{pattern}'"))
            }
            Fault::Format { value, format } => said(
                &format!("{value:?}"),
                format!("must be of type {format}: {value:?}"),
            ),
            Fault::Bound {
                what,
                found,
                over,
                bound,
                exclusive,
            } => match (what, over) {
                (Measured::Length, true) => {
                    format!("{field}: Too long: may not be more than {bound} bytes")
                }
                (Measured::Items | Measured::Entries, true) => {
                    let items = if bound == "1" { "item" } else { "items" };
                    format!("{field}: Too many: {found}: must have at most {bound} {items}")
                }
                (Measured::Length, false) => said(
                    &format!("{found:?}"),
                    format!("should be at least {bound} chars long"),
                ),
                (Measured::Items, false) => {
                    said(found, format!("should have at least {bound} items"))
                }
                (Measured::Entries, false) => {
                    said(found, format!("should have at least {bound} properties"))
                }
                (Measured::Multiple, _) => said(found, format!("should be a multiple of {bound}")),
                (Measured::Number, over) => {
                    let than = if *over { "less" } else { "greater" };
                    let equal = if *exclusive { "" } else { " or equal to" };
                    said(found, format!("should be {than} than{equal} {bound}"))
                }
            },
            Fault::Duplicate { value } => format!("{field}: Duplicate value: {value}"),
            Fault::Alternatives { keyword } => {
                format!("{field}: Invalid value: \"\": must validate the schema ({keyword})")
            }
            Fault::Rule {
                message, reason, ..
            } => match reason.as_str() {
                "FieldValueRequired" => format!("{field}: Required value: {message}"),
                "FieldValueForbidden" => format!("{field}: Forbidden: {message}"),
                "FieldValueDuplicate" => format!("{field}: Duplicate value: {message}"),
                _ => format!("{field}: Invalid value: {message}"),
            },
            Fault::Evaluation {
                error,
                message,
                rule,
            } => {
                let rule = message.as_ref().unwrap_or(rule);
                format!("{field}: Invalid value: \"object\": {error} evaluating rule: {rule}")
            }
            Fault::Budget => format!(
                "{field}: Invalid value: validation failed due to running out of cost budget, no \
                 further validation rules will be run"
            ),
            Fault::Depth => format!("{field}: Invalid value: nested too deeply"),
            Fault::Metadata {
                message,
                value: Some(value),
            } => format!("{field}: Invalid value: {value:?}: {message}"),
            Fault::Metadata {
                message,
                value: None,
            } => format!("{field}: Forbidden: {message}"),
        }
    }
}

impl fmt::Display for Violation {
    /// Writes the violation in the words of an API server.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.api_server_text())
    }
}

/// Returns a path as an API server writes it: `spec.rules[0].matches`.
#[must_use]
pub fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
        }
    }
    text
}
