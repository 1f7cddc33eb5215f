//! The form of a fixed answer's body.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A body that is made for each request (Envoy `DirectResponseAction.body_format`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DirectFormat {
    /// What the body is made of.
    pub body: DirectBody,
    /// The `content-type`; none is that of JSON or of plain text.
    #[serde(default)]
    pub content_type: Option<String>,
}

/// What a body is made of: access log operators, of which `%LOCAL_REPLY_BODY%` is the action's own body.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum DirectBody {
    /// A text with operators.
    Text(String),
    /// An object whose strings may have operators.
    Json(Value),
}
