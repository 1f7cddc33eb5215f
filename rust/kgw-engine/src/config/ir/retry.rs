//! Retries, and budgets of them.

use serde::{Deserialize, Serialize};

/// When a request is sent once more: where an attempt fails in one of some ways, or the answer has one of
/// some statuses.
///
/// Never once the client has seen some of an answer, nor a request for another protocol.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How many times, beside the first.
    pub attempts: u32,
    /// The ways of failing (Envoy `retry_on`). None are those of the Gateway API (GEP-1731): an endpoint
    /// cannot be connected to, is lost before it answers, or takes longer than an attempt may.
    #[serde(default)]
    pub on: Option<Vec<RetryOn>>,
    /// Statuses of answers that are not passed on while there is a retry left. 400 to 599.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// Least time between an attempt and the next. Milliseconds. Envoy: 25.
    #[serde(default = "default_backoff_ms")]
    pub backoff_ms: u64,
    /// Most time between an attempt and the next. Milliseconds. Envoy: 10 times the least.
    #[serde(default = "default_max_backoff_ms")]
    pub max_backoff_ms: u64,
    /// Largest body of a request that can be sent once more. Bytes. Envoy: 1 MiB.
    #[serde(default = "default_max_body_bytes")]
    pub max_body_bytes: usize,
}

/// A way of failing, in Envoy's words.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// An answer of 500 to 599, no answer at all, or none in an attempt's time.
    #[serde(rename = "5xx")]
    ServerError,
    /// The same of 502, 503 and 504.
    GatewayError,
    /// There is no answer: the connection or stream was lost, or there was none in time.
    Reset,
    /// The same, and nothing of the request was sent.
    ResetBeforeRequest,
    /// No connection.
    ConnectFailure,
    /// An answer with `x-envoy-ratelimited`.
    EnvoyRatelimited,
    /// An answer of 409.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// A stream that the endpoint did not look at.
    RefusedStream,
    /// An answer of one of the codes, whether this is named or not.
    RetriableStatusCodes,
    /// Of HTTP/3, which is not spoken.
    Http3PostConnectFailure,
    /// `grpc-status` 1 in an answer's head.
    Cancelled,
    /// `grpc-status` 4 in an answer's head.
    DeadlineExceeded,
    /// `grpc-status` 13 in an answer's head.
    Internal,
    /// `grpc-status` 8 in an answer's head.
    ResourceExhausted,
    /// `grpc-status` 14 in an answer's head.
    Unavailable,
}

/// How many of the requests to a service may be retries (GEP-3388), counted by each proxy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetryBudget {
    /// Identity of what is counted: clusters of one service share it.
    pub id: String,
    /// Most retries among the requests of the interval. Percent.
    pub percent: u8,
    /// The interval. Milliseconds, from a second on.
    pub interval_ms: u64,
    /// Retries that are granted in any case in each `min_interval_ms`.
    pub min_retries: u64,
    /// Milliseconds.
    pub min_interval_ms: u64,
}

fn default_backoff_ms() -> u64 {
    25
}

fn default_max_backoff_ms() -> u64 {
    250
}

fn default_max_body_bytes() -> usize {
    1 << 20
}
