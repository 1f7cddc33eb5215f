//! What texts are compared with.

use serde::{Deserialize, Serialize};

/// A text, or a pattern of texts (kgateway and Envoy `StringMatcher`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StringMatcher {
    /// What `value` is to a text that matches.
    #[serde(rename = "type")]
    pub kind: StringMatchKind,
    /// A text, or a regular expression.
    pub value: String,
    /// Letters of ASCII match in either case. Regular expressions say that themselves (`(?i)`), and are
    /// not concerned, as in Envoy.
    #[serde(default)]
    pub ignore_case: bool,
}

/// How a text is compared.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StringMatchKind {
    /// It is the value.
    Exact,
    /// It begins with the value.
    Prefix,
    /// It ends with the value.
    Suffix,
    /// The value is somewhere in it.
    Contains,
    /// All of it matches the value, a regular expression of RE2's dialect.
    Regex,
}
