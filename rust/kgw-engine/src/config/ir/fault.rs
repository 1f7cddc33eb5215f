//! Faults that are made on purpose.

use serde::{Deserialize, Serialize};

/// Delays, errors and slow answers for shares of the requests (Envoy `fault`).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Requests that go on later.
    pub delay: Option<FaultDelay>,
    /// Requests that are answered with an error; of delayed ones after the delay.
    pub abort: Option<FaultAbort>,
    /// Answers that are sent slowly.
    pub response_rate: Option<FaultRate>,
    /// Most requests with faults at once; others have none. None is no limit.
    pub max_active: Option<u32>,
}

/// A delay.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultDelay {
    /// How long. Milliseconds.
    pub delay_ms: u64,
    /// Of how many requests. Percent.
    pub percent: u8,
}

/// An error in place of an answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultAbort {
    /// Its status, 200 to 599.
    pub status: u16,
    /// For clients of gRPC, if it is another than the one that the status stands for.
    #[serde(default)]
    pub grpc_status: Option<u8>,
    /// Of how many requests. Percent.
    pub percent: u8,
}

/// A limit of how fast answers are sent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRate {
    /// The limit, of 1,024 bits each. At least 1.
    pub kbits_per_second: u64,
    /// Of how many requests. Percent.
    pub percent: u8,
}
