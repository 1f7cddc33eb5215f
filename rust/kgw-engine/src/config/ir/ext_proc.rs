//! A service that processes requests and their answers.

use serde::{Deserialize, Serialize};

/// A service that is sent the parts of each request and of its answer, and may change them or answer
/// itself (Envoy `ext_proc`): a stream of `envoy.service.ext_proc.v3.ExternalProcessor/Process` for each
/// exchange.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExtProc {
    /// Its name: filters of one name are one in an exchange that changes its route on the way.
    #[serde(default)]
    pub name: String,
    /// Requests go through it when the router has chosen a backend and made its changes, behind all other
    /// filters.
    #[serde(default)]
    pub after_router: bool,
    /// Id of the service's cluster, which speaks HTTP/2; none is an unresolved reference: the requests
    /// are answered 500.
    pub cluster: Option<String>,
    /// The call's host.
    pub authority: String,
    /// What it is sent.
    #[serde(default)]
    pub mode: ProcessingMode,
    /// Time for the answer to each message. Milliseconds, at least 1. Envoy: 200 ms.
    #[serde(default = "default_message_timeout_ms")]
    pub message_timeout_ms: u64,
    /// The longest time that the service may ask for in the stead of that. Milliseconds; 0 lets it ask
    /// for none.
    #[serde(default)]
    pub max_message_timeout_ms: u64,
    /// Exchanges go on without the service where it fails (Envoy `failure_mode_allow`).
    #[serde(default)]
    pub failure_mode_allow: bool,
    /// The service may choose another mode in its answers to header fields.
    #[serde(default)]
    pub allow_mode_override: bool,
    /// The modes that it may choose; none is any. What they say of the request's header fields does
    /// not count.
    #[serde(default)]
    pub allowed_mode_overrides: Vec<ProcessingMode>,
    /// Whether the request's route is found anew once the service has changed its header fields.
    #[serde(default)]
    pub route_cache_action: RouteCacheAction,
    /// Namespaces of dynamic metadata that it is told.
    #[serde(default)]
    pub forward_metadata: Vec<String>,
    /// Namespaces of dynamic metadata that it may note.
    #[serde(default)]
    pub receive_metadata: Vec<String>,
    /// Attributes of the request that it is told, such as `request.path` and `source.address`.
    #[serde(default)]
    pub request_attributes: Vec<String>,
    /// Time until there is a connection for the stream. Milliseconds, at least 1.
    #[serde(default = "default_open_timeout_ms")]
    pub open_timeout_ms: u64,
    /// How often a stream is opened anew that failed before the service answered in it.
    #[serde(default)]
    pub retries: u32,
    /// Time before the first of them, of which a random part is waited; it doubles with each.
    /// Milliseconds, at least 1.
    #[serde(default = "default_retry_interval_ms")]
    pub retry_interval_ms: u64,
    /// The longest such time. Milliseconds; 0 is ten times the first.
    #[serde(default)]
    pub retry_max_interval_ms: u64,
    /// The longest body that is held to be sent as a whole. Bytes, at least 1. Longer requests are
    /// answered 413, and longer answers become a 500. Envoy: 1 MiB.
    #[serde(default = "default_max_body")]
    pub max_body: usize,
}

/// What a service is sent of requests and answers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessingMode {
    /// The request's header fields: sent, if nothing else is said.
    pub request_header: SendMode,
    /// The answer's: sent, if nothing else is said.
    pub response_header: SendMode,
    /// The request's body.
    pub request_body: BodyMode,
    /// The answer's.
    pub response_body: BodyMode,
    /// The request's trailer fields: not sent, if nothing else is said.
    pub request_trailer: SendMode,
    /// The answer's: not sent, if nothing else is said.
    pub response_trailer: SendMode,
}

/// Whether a service is sent fields.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SendMode {
    /// As it is where nothing is said.
    #[default]
    Default,
    /// It is.
    Send,
    /// It is not.
    Skip,
}

/// How a service is sent a body.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyMode {
    /// Not at all.
    #[default]
    None,
    /// Piece by piece, each of which it answers before the next.
    Streamed,
    /// As a whole.
    Buffered,
    /// As a whole, or the beginning of a long one.
    BufferedPartial,
    /// Piece by piece; what it says is the body, and comes when and in the pieces that it likes.
    FullDuplexStreamed,
}

/// Whether the route of a request is found anew.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteCacheAction {
    /// If the service says so.
    #[default]
    FromResponse,
    /// If the service has changed header fields.
    Clear,
    /// It is not.
    Retain,
}

fn default_message_timeout_ms() -> u64 {
    200
}

fn default_open_timeout_ms() -> u64 {
    5_000
}

fn default_retry_interval_ms() -> u64 {
    25
}

fn default_max_body() -> usize {
    1024 * 1024
}
