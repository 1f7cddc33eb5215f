//! Datagrams, and where they go.

use serde::{Deserialize, Serialize};

use super::Backend;

/// Passing datagrams on, in sessions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UdpForward {
    /// `%ROUTE_NAME%` in access logs.
    pub name: String,
    /// The backends, one of which each session goes to. Datagrams for one without a cluster, or for
    /// none at all, are dropped. Backends of sessions have no filters, and their clusters neither TLS
    /// nor a PROXY header.
    pub backends: Vec<Backend>,
    /// Time without a datagram in either direction, after which a session is over. Milliseconds; 0 is
    /// none. Envoy: 60 s.
    #[serde(default = "default_idle_timeout_ms")]
    pub idle_timeout_ms: u64,
    /// Sessions that a client may have at once: an IPv4 address, or an IPv6 network of 64 bits. Each
    /// worker allows its share. 0 is no limit.
    #[serde(default = "default_max_sessions_per_client")]
    pub max_sessions_per_client: u32,
}

fn default_idle_timeout_ms() -> u64 {
    60_000
}

/// A quarter of what a listener has.
fn default_max_sessions_per_client() -> u32 {
    4_096
}
