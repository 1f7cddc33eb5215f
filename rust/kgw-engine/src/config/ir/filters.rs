//! Filters of an `HTTPRoute` that have more to say than a line.

use serde::{Deserialize, Serialize};

use super::PathRewrite;

/// Which pages of other origins may use a route (Gateway API `HTTPCORSFilter`, Envoy `cors`).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins whose pages may read answers: `*`, or a scheme and a host that may start with `*`, and
    /// a port where it is not the scheme's own. Empty is none.
    pub allow_origins: Vec<String>,
    /// Requests may carry credentials.
    pub allow_credentials: bool,
    /// Methods that pages may use, or `*`.
    pub allow_methods: Vec<String>,
    /// Header fields that pages may set, or `*`.
    pub allow_headers: Vec<String>,
    /// Header fields of answers that pages may read, or `*`.
    pub expose_headers: Vec<String>,
    /// How long a browser may keep the answer to a preflight request. Seconds.
    pub max_age_s: u32,
}

/// Copies of requests (Gateway API `HTTPRequestMirrorFilter`, Envoy `request_mirror_policies`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Id of the cluster that gets them.
    pub cluster: String,
    /// Of this share of the requests there is a copy.
    pub numerator: u32,
    /// What the numerator is a share of; at least 1.
    pub denominator: u32,
    /// The host that copies ask for, in place of the request's.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Copies ask for the request's host with `-shadow` behind its name, as Envoy's do.
    #[serde(default = "yes")]
    pub append_shadow: bool,
}

/// A redirect answered by the proxy.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// New scheme; none is that of the connection.
    #[serde(default)]
    pub scheme: Option<String>,
    /// New host.
    #[serde(default)]
    pub hostname: Option<String>,
    /// New port; none is that of the new scheme, or of the connection.
    #[serde(default)]
    pub port: Option<u16>,
    /// New path.
    #[serde(default)]
    pub path: Option<PathRewrite>,
    /// Status: 301, 302, 303, 307 or 308.
    pub status: u16,
}

fn yes() -> bool {
    true
}
