//! Retries, and budgets of them.

use serde::{Deserialize, Serialize};

/// When a request is sent once more (GEP-1731): an endpoint cannot be connected to, is lost before it
/// answers, takes longer than an attempt may, or answers with one of some statuses.
///
/// Never once the client has seen some of an answer, nor a request for another protocol.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How many times, beside the first.
    pub attempts: u32,
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
