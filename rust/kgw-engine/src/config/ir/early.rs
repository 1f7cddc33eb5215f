//! What is done to requests before they are routed.

use serde::{Deserialize, Serialize};

use super::HeaderMutation;

/// What a listener does to requests before they are routed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Early {
    /// Changes to header fields (Envoy `early_header_mutation`).
    pub headers: HeaderMutation,
    /// The path and query of requests that are answered 200 as long as the proxy takes new ones, and 503
    /// once it drains (Envoy `health_check`).
    pub health_check_path: Option<String>,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_certificate: ClientCertificateField,
    /// Whether ports are taken off hosts.
    pub strip_host_port: StripHostPort,
    /// A dot at the end of a host's name is taken off.
    pub strip_trailing_host_dot: bool,
    /// `expect: 100-continue` is passed on, and so is the endpoint's 100; else the proxy says it itself.
    pub proxy_100_continue: bool,
}

/// Whether a port is taken off a request's host (Envoy `strip_port_mode`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StripHostPort {
    /// Never.
    #[default]
    Never,
    /// If it is the one that the connection came to.
    Matching,
    /// Whatever it is.
    Any,
}

/// What becomes of `x-forwarded-client-cert` (Envoy `forward_client_cert_details`).
#[expect(clippy::struct_excessive_bools, reason = "each is a part of the field")]
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientCertificateField {
    /// Where it comes from.
    pub mode: ClientCertificateFieldMode,
    /// It says the certificate itself.
    pub cert: bool,
    /// It says the certificate with those that came with it.
    pub chain: bool,
    /// It says the DNS names.
    pub dns: bool,
    /// It says the subject.
    pub subject: bool,
    /// It says the URI.
    pub uri: bool,
}

/// Where `x-forwarded-client-cert` comes from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificateFieldMode {
    /// It is taken off.
    #[default]
    Sanitize,
    /// It is the client's, if it has shown a certificate; else it is taken off.
    ForwardOnly,
    /// The client's, with what its certificate says behind it, if it has shown one.
    AppendForward,
    /// What its certificate says, if it has shown one.
    SanitizeSet,
    /// It is the client's.
    AlwaysForwardOnly,
}

/// Probes of connections on which nothing happens (`SO_KEEPALIVE`).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpKeepalive {
    /// Probes without an answer after which a connection is dropped; none is the system's number.
    pub probes: Option<u32>,
    /// Time without a byte before the first one. Seconds; none is the system's.
    pub time_s: Option<u32>,
    /// Time between two. Seconds; none is the system's.
    pub interval_s: Option<u32>,
}
