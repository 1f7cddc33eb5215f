//! Requests that are passed on as a whole.

use serde::{Deserialize, Serialize};

/// The request is not passed on before all of its body is there (Envoy `buffer`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// A longer body is answered 413. Bytes, at least 1.
    pub max_request_bytes: usize,
}
