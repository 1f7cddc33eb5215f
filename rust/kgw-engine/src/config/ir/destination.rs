//! What a waypoint's connections lead to: ports of services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{TcpForward, default_handshake_timeout_ms};

/// One service port on a waypoint: `VIP:port` and the routes that serve it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The service's virtual IP.
    pub address: IpAddr,
    /// The service's port.
    pub port: u16,
    /// `namespace/name`, for metrics and logs.
    pub service: String,
    /// The service is one of a set of clusters (`ServiceImport`), which DNS knows as
    /// `name.namespace.svc.clusterset.local`.
    #[serde(default)]
    pub cluster_set: bool,
    /// Id of the route table of its requests.
    #[serde(default)]
    pub route_table: Option<String>,
    /// Where connections go that do not carry HTTP. With a route table beside it, the first bytes of
    /// a connection tell what it carries.
    #[serde(default)]
    pub tcp: Option<TcpForward>,
    /// Where TLS goes, by server name; then there is neither a route table nor `tcp`. One of the three
    /// is needed.
    #[serde(default)]
    pub tls: Option<TlsForward>,
    /// What connections of clients from some namespaces meet in the place of the above, by namespace
    /// (GEP-1294: routes of consumers). The mesh identity tells a client's namespace; one without an
    /// identity has none.
    #[serde(default)]
    pub clients: BTreeMap<String, ForClients>,
}

/// What the connections of some clients to a service port meet.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForClients {
    /// See [`Destination::route_table`].
    pub route_table: Option<String>,
    /// See [`Destination::tcp`].
    pub tcp: Option<TcpForward>,
    /// See [`Destination::tls`].
    pub tls: Option<TlsForward>,
}

/// Passing TLS on as it is, by the server name that the client asks for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsForward {
    /// Time for the client's hello. Milliseconds; 0 is none.
    #[serde(default = "default_handshake_timeout_ms")]
    pub handshake_timeout_ms: u64,
    /// The most specific one is used; a connection that none is for is closed, and one that is not
    /// TLS.
    pub routes: Vec<TlsForwardRoute>,
}

/// Where the connections for some server names go.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsForwardRoute {
    /// `foo.example`, `*.example` (any number of labels), or `*` for any name and for none.
    pub server_names: Vec<String>,
    /// Where to.
    pub forward: TcpForward,
}
