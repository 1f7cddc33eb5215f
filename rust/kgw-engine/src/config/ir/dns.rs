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

/// Hosts that requests name, which are the endpoints of a cluster (Envoy's dynamic forward proxy). Each is looked
/// up when it is first asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardProxy {
    /// Most of them; requests for others are answered 503.
    pub max_hosts: u64,
    /// Time after which one leaves that no request asks for. Milliseconds.
    pub host_ttl_ms: u64,
    /// Time between two look-ups of one. Milliseconds, at least 1.
    pub refresh_ms: u64,
    /// What is added to that time at random, at most. Milliseconds.
    pub jitter_ms: u64,
    /// Most requests that wait for first look-ups.
    pub max_waiting: u64,
    /// Hosts may be addresses of this machine's loopback interface.
    pub allow_loopback: bool,
}

impl Default for ForwardProxy {
    /// Envoy's.
    fn default() -> Self {
        Self {
            max_hosts: 1_024,
            host_ttl_ms: 300_000,
            refresh_ms: 60_000,
            jitter_ms: 0,
            max_waiting: 1_024,
            allow_loopback: false,
        }
    }
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
