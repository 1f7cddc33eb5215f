//! What is wrong with a format.

/// A format that cannot be compiled.
///
/// The wording of those about parameters and lengths is Envoy's, so that searching for a message finds its documentation.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// There is no such operator. Envoy says "Not supported field in `StreamInfo`", which names a
    /// class of its sources.
    #[error("unknown operator %{name}%{}", did_you_mean(*.suggestion))]
    UnknownOperator {
        /// What the format says.
        name: String,
        /// The operator that is spelled most like it.
        suggestion: Option<&'static str>,
    },
    /// The operator needs a parameter in parentheses.
    #[error("{name} requires parameters")]
    ParameterRequired {
        /// The operator.
        name: &'static str,
    },
    /// The operator takes no parameter and no `:length`.
    #[error("{name} does not take any parameters or length")]
    TakesNothing {
        /// The operator.
        name: &'static str,
    },
    /// The operator takes no `:length`.
    #[error("{name} does not allow length to be specified.")]
    TakesNoLength {
        /// The operator.
        name: &'static str,
    },
    /// A `%` that starts no operator; a percent sign is written `%%`.
    #[error("no valid operator at byte {at} of {format:?}; a percent sign is written %%")]
    BadOperator {
        /// Position of the `%`. Bytes.
        at: usize,
        /// The whole format string.
        format: String,
    },
    /// The operator's parameter is not one that it knows.
    #[error("{name}: {parameter:?} is not valid, expected {expected}")]
    BadParameter {
        /// The operator.
        name: &'static str,
        /// What the format says.
        parameter: String,
        /// What would be valid.
        expected: &'static str,
    },
    /// The operator's parameter is no expression.
    #[error("{name}: {error}")]
    Expression {
        /// The operator.
        name: &'static str,
        /// What is wrong with it.
        error: String,
    },
    /// The operator exists in Envoy, but what it shows does not exist here.
    #[error("{name} is not supported by kgw: {reason}")]
    Unsupported {
        /// The operator.
        name: &'static str,
        /// What is missing.
        reason: &'static str,
    },
    /// A JSON format must be an object.
    #[error("a JSON format must be an object")]
    NotAnObject,
    /// Objects, lists or `COALESCE` are nested too deep.
    #[error("a format may be nested at most {max} levels deep")]
    TooDeep {
        /// The limit.
        max: usize,
    },
}

fn did_you_mean(suggestion: Option<&'static str>) -> String {
    suggestion
        .map(|name| format!(" (did you mean %{name}%?)"))
        .unwrap_or_default()
}
