//! The intermediate representation (IR): the one interface between configuration and data plane.
//!
//! `python/kgw/translate` writes it as JSON, [`crate::config::compile`] reads it. Everything is
//! resolved: no reference is left to look up in Kubernetes terms, no policy to merge. Ids are stable
//! across re-translation, so state that has identity (token buckets, pools) survives a reload.
//! `docs/ir.md` describes it for people; a change of meaning changes [`VERSION`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The version of this representation that the engine reads.
pub const VERSION: u32 = 1;

/// A whole configuration.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Must be [`VERSION`].
    pub version: u32,
    /// What to listen on.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Route tables by id; listeners and destinations name them.
    #[serde(default)]
    pub route_tables: BTreeMap<String, RouteTable>,
    /// Routes by id; rules name them.
    #[serde(default)]
    pub routes: BTreeMap<String, Route>,
    /// Upstream clusters by id; routes name them.
    #[serde(default)]
    pub clusters: BTreeMap<String, Cluster>,
}

/// One listening address set and what happens to its connections.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Stable id, `namespace/gateway/listener`; `%LISTENER_NAME%` in access logs.
    pub id: String,
    /// Addresses to bind; port 0 binds any free port.
    pub bind: Vec<SocketAddr>,
    /// Where a connection's requests are routed.
    pub traffic: Traffic,
    /// HTTP connection options.
    #[serde(default)]
    pub http: HttpOptions,
    /// Access logs, each written for every request.
    #[serde(default)]
    pub access_logs: Vec<AccessLog>,
}

/// Where a connection's requests are routed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum Traffic {
    /// Every request is routed by one table.
    Http {
        /// Id of the route table.
        route_table: String,
    },
    /// A waypoint (`istio.io/PROXY`): each connection starts with a PROXY protocol header whose
    /// destination selects the service.
    Waypoint {
        /// Time for the header to arrive; the connection is closed after it. Milliseconds.
        #[serde(default = "default_header_timeout_ms")]
        header_timeout_ms: u64,
        /// Largest header accepted, TLVs included. Bytes.
        #[serde(default = "default_max_header_bytes")]
        max_header_bytes: usize,
        /// The services by address.
        destinations: Vec<Destination>,
    },
}

fn default_header_timeout_ms() -> u64 {
    15_000
}

fn default_max_header_bytes() -> usize {
    4096
}

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
    /// Id of the route table.
    pub route_table: String,
}

/// HTTP connection options; defaults are kgateway's where a user can see them, safe elsewhere.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// Value of the `server` response header.
    pub server_name: String,
    /// Largest request head, request line included. Bytes. Envoy: 60 KiB.
    pub max_head_bytes: usize,
    /// Most header fields of a request. Envoy: 100.
    pub max_fields: usize,
    /// Time from the first byte of a request head to its last. Milliseconds; 0 is none.
    pub request_head_timeout_ms: u64,
    /// Time a connection may sit without a request. Milliseconds; 0 is none. Envoy: 1 h.
    pub idle_timeout_ms: u64,
    /// Time a stream may sit without a byte in either direction. Milliseconds; 0 is none. Envoy: 5 min.
    pub stream_idle_timeout_ms: u64,
    /// RFC 3986 normalisation of paths before routing (Envoy `normalize_path`).
    pub normalize_path: bool,
    /// `//` becomes `/` before routing (Envoy `merge_slashes`).
    pub merge_slashes: bool,
    /// The peer's address is the client's (Envoy `use_remote_address`): `x-forwarded-for` is appended,
    /// `x-forwarded-proto` and `x-request-id` are overwritten, `x-envoy-*` controls are stripped.
    pub use_remote_address: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            server_name: "kgw".to_owned(),
            max_head_bytes: 60 * 1024,
            max_fields: 100,
            request_head_timeout_ms: 60_000,
            idle_timeout_ms: 3_600_000,
            stream_idle_timeout_ms: 300_000,
            normalize_path: true,
            merge_slashes: true,
            use_remote_address: true,
        }
    }
}

/// One access log sink.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// File that lines are appended to; `/dev/stdout` and `/dev/stderr` are written in place.
    pub path: String,
    /// The line's form.
    pub format: AccessLogFormat,
}

/// The form of an access log line; operators are Envoy's.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum AccessLogFormat {
    /// A JSON object per line; each string leaf may hold operators.
    Json(serde_json::Value),
    /// Text, written as it is (a line feed included, if wanted).
    Text(String),
}

/// Virtual hosts and their rules.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// Hosts of any order; the most specific one that matches is used, alone.
    pub hosts: Vec<VirtualHost>,
}

/// One hostname and its rules.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualHost {
    /// `foo.example`, `*.example`, or `*` for any.
    pub hostname: String,
    /// Rules of any order; the Gateway API precedence decides.
    pub rules: Vec<Rule>,
}

/// One match of one rule of a route resource.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Path predicate.
    pub path: PathMatch,
    /// Method, upper case; none matches all.
    #[serde(default)]
    pub method: Option<String>,
    /// Header predicates, all of which must hold.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// Query parameter predicates, all of which must hold.
    #[serde(default)]
    pub query: Vec<ValueMatch>,
    /// What breaks ties between rules of equal specificity.
    pub rank: Rank,
    /// Id of the route.
    pub route: String,
}

/// A path predicate.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole leading segments.
    Prefix(String),
    /// A linear-time regular expression that must match the whole path.
    Regex(String),
}

/// A header or query predicate.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ValueMatch {
    /// Header name (case-insensitive) or query parameter name (exact).
    pub name: String,
    /// What the value must be.
    pub value: StringMatch,
}

/// A string predicate.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Present with any value (kgateway: an empty match value).
    Present,
    /// A linear-time regular expression that must match the whole value.
    Regex(String),
}

/// Gateway API tie-breakers, compared in this order; lower wins.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rank {
    /// The route's creation time in seconds since 1970; unknown sorts last.
    pub created: Option<i64>,
    /// The route's `namespace/name`.
    pub name: String,
    /// Position of the rule in the route.
    pub rule: u32,
    /// Position of the match in the rule.
    pub r#match: u32,
}

/// What happens to a matched request.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `%ROUTE_NAME%` in access logs.
    pub name: String,
    /// The merged filter chain, in kgateway's documented order.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Where the request goes.
    pub action: Action,
}

/// One filter of a chain.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum Filter {
    /// A token bucket (Envoy `local_ratelimit`).
    LocalRateLimit {
        /// Identity of the bucket's state: policy, section and configuration.
        bucket: String,
        /// Capacity; 0 always denies.
        max_tokens: u64,
        /// Tokens gained per interval.
        tokens_per_fill: u64,
        /// The interval. Nanoseconds, at least 50 ms.
        fill_interval_ns: u64,
    },
    /// Changes to the request's header fields.
    RequestHeaders(HeaderMutation),
    /// Changes to the response's header fields.
    ResponseHeaders(HeaderMutation),
}

/// Header field changes; applied as remove, then set, then add.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderMutation {
    /// Replaces all fields of the name by one.
    pub set: Vec<(String, String)>,
    /// Appends a field.
    pub add: Vec<(String, String)>,
    /// Removes all fields of the name.
    pub remove: Vec<String>,
}

/// Where a request goes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum Action {
    /// To one of the backends, by weight.
    Forward {
        /// The backends; none, or only weights of zero, answers 500.
        backends: Vec<Backend>,
        /// Time from the end of the request to the end of the response. Milliseconds; 0 is none.
        request_timeout_ms: u64,
        /// Time for one upstream attempt. Milliseconds; 0 is none.
        #[serde(default)]
        backend_request_timeout_ms: u64,
        /// Rewrites of host and path.
        #[serde(default)]
        rewrite: Rewrite,
    },
    /// A redirect answered by the proxy.
    Redirect {
        /// New scheme.
        #[serde(default)]
        scheme: Option<String>,
        /// New host.
        #[serde(default)]
        hostname: Option<String>,
        /// New port.
        #[serde(default)]
        port: Option<u16>,
        /// New path.
        #[serde(default)]
        path: Option<PathRewrite>,
        /// Status: 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// A fixed answer.
    Direct {
        /// Status.
        status: u16,
        /// Body, `text/plain`.
        #[serde(default)]
        body: String,
    },
}

/// A weighted backend of a rule.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Id of the cluster; none is an unresolved reference and answers 500 for its share.
    pub cluster: Option<String>,
    /// Share of the traffic.
    pub weight: u32,
    /// Filters of this backend alone.
    #[serde(default)]
    pub filters: Vec<Filter>,
}

/// Rewrites of host and path (`URLRewrite`).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rewrite {
    /// New host.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathRewrite>,
}

/// A new path.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum PathRewrite {
    /// Replaces the whole path; the query stays.
    Full(String),
    /// Replaces the matched leading segments; the rest stays.
    Prefix {
        /// The rule's path prefix.
        from: String,
        /// Its replacement.
        to: String,
    },
}

/// An upstream cluster.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Endpoints; none answers 503 `no healthy upstream`.
    pub endpoints: Vec<SocketAddr>,
    /// Time to connect. Milliseconds. kgateway: 5 s.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
}

fn default_connect_timeout_ms() -> u64 {
    5_000
}
