//! Endpoints by name.

use serde::{Deserialize, Serialize};

/// A name whose addresses are the endpoints of a cluster. They are looked up in the background; what was
/// found last is used until something else is.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DnsName {
    /// The name, as the system's resolver takes it.
    pub hostname: String,
    /// The port of each address.
    pub port: u16,
    /// Time between two look-ups. Milliseconds, at least 1. Envoy: 5 s.
    #[serde(default = "default_refresh_ms")]
    pub refresh_ms: u64,
    /// What is added to that time at random, at most. Milliseconds.
    #[serde(default)]
    pub jitter_ms: u64,
    /// Names whose addresses are endpoints, too. One that has no addresses takes none away from the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<HostPort>,
}

/// A name, and the port of each of its addresses.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HostPort {
    /// The name, as the system's resolver takes it.
    pub hostname: String,
    /// The port.
    pub port: u16,
}

fn default_refresh_ms() -> u64 {
    5_000
}
