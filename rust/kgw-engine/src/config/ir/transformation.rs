//! Transformations of requests and responses by templates.

use serde::{Deserialize, Serialize};

/// What templates make of a request, and of its response.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transformation {
    /// Of requests.
    pub request: Option<MessageTransformation>,
    /// Of responses, the proxy's own ones included.
    pub response: Option<MessageTransformation>,
}

/// What templates make of a message: its body first, then fields are set, added and removed, then something
/// is noted. All templates see the message as it came.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessageTransformation {
    /// Fields, or pseudo fields (`:path`), that get the value that a template makes. They are removed where it
    /// makes nothing.
    pub set: Vec<(String, String)>,
    /// Fields that are added with the value that a template makes, where it makes something.
    pub add: Vec<(String, String)>,
    /// Names of fields that are removed.
    pub remove: Vec<String>,
    /// Namespace, key and template of what is noted in the dynamic metadata, where it makes something.
    pub metadata: Vec<(String, String, String)>,
    /// How the body is read.
    pub parse_as: ParseAs,
    /// The template of another body. The message has none where it makes nothing.
    pub body: Option<String>,
    /// The template of the events of a body that is a stream of them.
    pub stream: Option<EventTransformation>,
    /// The longest body that is looked at: a longer request is answered 413, a longer response becomes a 500.
    /// Bytes. Envoy's default: 1 MiB.
    #[serde(default = "default_max_body_bytes")]
    pub max_body_bytes: usize,
}

/// How templates see a body.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParseAs {
    /// As text.
    #[default]
    String,
    /// As JSON: the members of an object are variables. What is not JSON is answered 400.
    Json,
    /// Not at all.
    None,
}

/// What a template makes of each event of a body. Applies to bodies whose media type is of the framing.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EventTransformation {
    /// How events follow one another.
    pub framing: EventFraming,
    /// The template of an event's data. The event is left out where it makes nothing.
    pub value: String,
    /// The longest event. A message with a longer one is cut short. Bytes.
    #[serde(default = "default_max_event_bytes")]
    pub max_event_bytes: usize,
}

/// How events follow one another in a body.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventFraming {
    /// Server-sent events (`text/event-stream`).
    ServerSent,
    /// A JSON text in each line (`application/x-ndjson` and the like).
    JsonLines,
}

fn default_max_body_bytes() -> usize {
    1 << 20
}

fn default_max_event_bytes() -> usize {
    64 << 10
}
