//! What becomes of answers that the proxy makes itself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AccessLogFilter;

/// How answers of the proxy's own look (Envoy `LocalReplyConfig`).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LocalReplies {
    /// What changes some of them; the first one counts whose filter holds.
    #[serde(default)]
    pub mappers: Vec<ReplyMapper>,
    /// The form of their bodies; without one they are as they are, `text/plain`.
    #[serde(default)]
    pub body_format: Option<ReplyFormat>,
}

/// A change to some of the proxy's own answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyMapper {
    /// Which of them.
    pub filter: AccessLogFilter,
    /// Their status. 100 to 599.
    #[serde(default)]
    pub status: Option<u16>,
    /// Their body, which is `%LOCAL_REPLY_BODY%` for the format.
    #[serde(default)]
    pub body: Option<String>,
    /// The form of their body.
    #[serde(default)]
    pub body_format: Option<ReplyFormat>,
    /// Header fields that replace others: names, and values with operators.
    #[serde(default)]
    pub set: Vec<(String, String)>,
    /// Header fields that are added.
    #[serde(default)]
    pub add: Vec<(String, String)>,
}

/// The form of a body.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyFormat {
    /// What it is made of.
    pub body: ReplyBody,
    /// Its `content-type`, if not the usual one of text or JSON.
    #[serde(default)]
    pub content_type: Option<String>,
}

/// What a body is made of; operators are those of access logs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ReplyBody {
    /// A JSON object; each string leaf may hold operators.
    Json(Value),
    /// Text.
    Text(String),
}
