//! The intermediate representation (IR): the one interface between configuration and data plane.
//!
//! `python/kgw/translate` writes it as JSON, [`crate::config::compile`] reads it. Everything is
//! resolved: no reference is left to look up in Kubernetes terms, no policy to merge. Ids are stable
//! across re-translation, so state that has identity (token buckets, pools) survives a reload.
//! `docs/ir.md` describes it for people; a change of meaning changes [`VERSION`].

mod access_log;
mod acl;
mod api_key_auth;
mod basic_auth;
mod buffer;
mod compression;
mod csrf;
mod destination;
mod direct_response;
mod dns;
mod early;
mod ext_authz;
mod ext_proc;
mod fault;
mod filters;
mod global_rate_limit;
mod jwt;
mod local_rate_limit;
mod local_replies;
mod rbac;
mod retry;
mod session;
mod string_match;
mod tracing;
mod transformation;
mod udp;
mod upstream;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

pub use self::access_log::{
    AccessLog, AccessLogFilter, AccessLogFormat, AccessLogProtocol, AccessLogRetry,
    AccessLogService, Comparison, LogValue,
};
pub use self::acl::{Acl, AclAction, AclRule};
pub use self::api_key_auth::{ApiKey, ApiKeyAuth, ApiKeySource};
pub use self::basic_auth::{BasicAuth, BasicAuthUser};
pub use self::buffer::Buffer;
pub use self::compression::{Coding, Codings};
pub use self::csrf::Csrf;
pub use self::destination::{Destination, ForClients, TlsForward, TlsForwardRoute};
pub use self::direct_response::{DirectBody, DirectFormat};
pub use self::dns::{DnsName, ForwardProxy, HostPort};
pub use self::early::{
    ClientCertificateField, ClientCertificateFieldMode, Early, StripHostPort, TcpKeepalive,
};
pub use self::ext_authz::{
    AuthorizationBody, AuthorizationCache, AuthorizationCacheKey, AuthorizationRetry,
    AuthorizationService, ExtAuthz,
};
pub use self::ext_proc::{BodyMode, ExtProc, ProcessingMode, RouteCacheAction, SendMode};
pub use self::fault::{Fault, FaultAbort, FaultDelay, FaultRate};
pub use self::filters::{Cors, Mirror, Redirect};
pub use self::global_rate_limit::{
    GlobalDescriptor, GlobalDescriptorEntry, GlobalRateLimit, LocalFallback, RateLimit,
    RateLimitHits, RateLimitRetry, RateLimitService, RateLimitUnit, RateLimitValue, RedisLimit,
    RedisLimitEntry, RedisRateLimit,
};
pub use self::jwt::{JwtAuth, JwtKeys, JwtProvider, RemoteKeys, TokenPlace};
pub use self::local_rate_limit::{
    LocalRateLimit, RateLimitCost, RateLimitDescriptor, RateLimitEntry, RateLimitHeaders,
    RateLimitQueue, RateLimitSource,
};
pub use self::local_replies::{LocalReplies, ReplyBody, ReplyFormat, ReplyMapper};
pub use self::rbac::{Rbac, RbacAction};
pub use self::retry::{Retry, RetryBudget, RetryOn};
pub use self::session::{Session, SessionToken};
pub use self::string_match::{StringMatchKind, StringMatcher};
pub use self::tracing::{RouteTracing, TraceAttribute, TraceSampling, TraceValue, Tracing};
pub use self::transformation::{
    EventFraming, EventTransformation, MessageTransformation, ParseAs, Transformation,
};
pub use self::udp::UdpForward;
pub use self::upstream::{
    CircuitBreakers, ConnectionOptions, HealthCheck, HealthChecker, Http2ConnectionOptions,
    Http2Keepalive, OutlierDetection,
};

/// The version of this representation that the engine reads.
pub const VERSION: u32 = 1;

/// A whole configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config<'a> {
    /// Must be [`VERSION`].
    pub version: u32,
    /// What to listen on.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Route tables by id; listeners and destinations name them.
    #[serde(default)]
    pub route_tables: BTreeMap<String, RouteTable>,
    /// Routes by id; rules name them. Of two with one id the last one counts.
    #[serde(borrow, default, deserialize_with = "entries")]
    pub routes: Vec<(Cow<'a, str>, Route<'a>)>,
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
    /// A PROXY protocol header in front of each connection. A waypoint's listener has its own.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// HTTP connection options.
    #[serde(default)]
    pub http: HttpOptions,
    /// Open connections at which accepting pauses, over all workers. 0 is none. A listener of
    /// datagrams has so many sessions at once, 16,384 unless another number is given.
    #[serde(default)]
    pub max_connections: u64,
    /// Which worker serves a connection.
    #[serde(default)]
    pub balance: Balance,
    /// Probes of connections; none are the system's settings, by which there usually are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Access logs, each written for every request, or for every connection that is not HTTP.
    #[serde(default)]
    pub access_logs: Vec<AccessLog>,
    /// Access logs that are services.
    #[serde(default)]
    pub access_log_services: Vec<AccessLogService>,
    /// What becomes of answers that the proxy makes itself.
    #[serde(default)]
    pub local_replies: Option<LocalReplies>,
    /// Tracing of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Box<Tracing>>,
}

/// Which worker serves a connection of a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The one that the kernel picks, by a hash of the addresses: fair over many connections.
    #[default]
    Kernel,
    /// The one with the fewest connections of the listener: for few that stay long.
    Exact,
}

/// A PROXY protocol header expected of a peer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocol {
    /// A connection that does not start with a header is served with its own addresses; else it is
    /// closed. Anybody who can connect can then claim any address.
    pub optional: bool,
    /// Version 1 (text) is accepted beside version 2.
    pub accept_v1: bool,
    /// Time for the header to arrive; the connection is closed after it. Milliseconds.
    pub header_timeout_ms: u64,
    /// Largest header accepted, TLVs included. Bytes.
    pub max_header_bytes: usize,
}

impl Default for ProxyProtocol {
    fn default() -> Self {
        Self {
            optional: false,
            accept_v1: false,
            header_timeout_ms: default_header_timeout_ms(),
            max_header_bytes: default_max_header_bytes(),
        }
    }
}

/// What a connection carries and where that goes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum Traffic {
    /// Every request is routed by one table.
    Http {
        /// Id of the route table.
        route_table: String,
    },
    /// Bytes, passed on as they are.
    Tcp {
        /// Where to.
        forward: TcpForward,
    },
    /// Datagrams, passed on as they are. The listener is one of UDP.
    Udp {
        /// Where to.
        forward: UdpForward,
    },
    /// TLS: the server name that the client asks for selects the chain. The most specific one is
    /// used; a connection that none is for is closed without an alert.
    Tls {
        /// Time for the handshake. Milliseconds; 0 is none.
        #[serde(default = "default_handshake_timeout_ms")]
        handshake_timeout_ms: u64,
        /// The chains.
        chains: Vec<TlsChain>,
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
        /// Version 1 (text) of the PROXY protocol is accepted beside version 2.
        #[serde(default)]
        accept_v1: bool,
        /// The services by address.
        destinations: Vec<Destination>,
    },
}

/// What serves the connections for some server names.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsChain {
    /// `%FILTER_CHAIN_NAME%` in access logs.
    pub name: String,
    /// `foo.example`, `*.example` (any number of labels), or `*` for any name and for none.
    pub server_names: Vec<String>,
    /// What is done with the connection.
    pub action: TlsAction,
}

/// What is done with a TLS connection.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum TlsAction {
    /// The TLS bytes are passed on as they are.
    Passthrough {
        /// Where to.
        forward: TcpForward,
    },
    /// TLS ends here, and requests are routed by a table.
    Http {
        /// How it ends.
        tls: ServerTls,
        /// Id of the route table.
        route_table: String,
    },
    /// TLS ends here, and the bytes inside are passed on.
    Tcp {
        /// How it ends.
        tls: ServerTls,
        /// Where to.
        forward: TcpForward,
    },
}

/// The server's side of TLS.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// Certificates. The first whose names and key type suit the client is used, else the first.
    pub certificates: Vec<Certificate>,
    /// Lowest and highest version, and cipher suites.
    #[serde(default)]
    pub parameters: TlsParameters,
    /// Application protocols in the order of preference; none is `h2`, `http/1.1` where the inside
    /// is HTTP, and nothing elsewhere.
    #[serde(default)]
    pub alpn: Option<Vec<String>>,
    /// Client certificates; none asks for none.
    #[serde(default)]
    pub client_validation: Option<ClientValidation>,
}

/// A certificate with its chain and its key.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

/// Versions and cipher suites of TLS.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsParameters {
    /// Lowest version; 1.2 if none is given.
    pub min_version: Option<TlsVersion>,
    /// Highest version; 1.3 if none is given.
    pub max_version: Option<TlsVersion>,
    /// Names of cipher suites, as IANA, Envoy or OpenSSL spells them; empty is the default set. The
    /// suites of version 1.3 that are not named stay enabled, as in Envoy.
    pub cipher_suites: Vec<String>,
    /// Curves that keys are agreed on with, the best first: `X25519`, `P-256` and `P-384`; empty is all.
    pub curves: Vec<String>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// What is asked of client certificates.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientValidation {
    /// PEM of the certificate authorities.
    pub ca: String,
    /// What becomes of a client without a certificate, or with one that is not valid.
    #[serde(default)]
    pub mode: ClientCertificateMode,
    /// If not empty, the certificate must have one of these names.
    #[serde(default)]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// How much a client certificate matters.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificateMode {
    /// The handshake fails without a valid one (Gateway API `AllowValidOnly`).
    #[default]
    Require,
    /// There may be none; one that is there must be valid.
    Optional,
    /// There may be none, and one that is not valid is as none (Gateway API `AllowInsecureFallback`).
    InsecureFallback,
}

/// A name that a certificate must have.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "snake_case",
    tag = "type",
    content = "value"
)]
pub enum SubjectAltName {
    /// A DNS name; the certificate may hold a wildcard for it.
    Dns(String),
    /// A URI, compared as it is.
    Uri(String),
}

/// Passing bytes on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TcpForward {
    /// `%ROUTE_NAME%` in access logs.
    pub name: String,
    /// The backends, one of which each connection goes to; one without a cluster, or none at all,
    /// closes the connection. Backends of connections have no filters.
    pub backends: Vec<Backend>,
    /// Time without a byte in either direction. Milliseconds; 0 is none. Envoy: 1 h.
    #[serde(default = "default_tcp_idle_timeout_ms")]
    pub idle_timeout_ms: u64,
}

fn default_tcp_idle_timeout_ms() -> u64 {
    3_600_000
}

fn default_handshake_timeout_ms() -> u64 {
    15_000
}

/// The Gateway API's for an `HTTPRoute`.
fn default_unresolved_status() -> u16 {
    500
}

fn default_header_timeout_ms() -> u64 {
    15_000
}

fn default_max_header_bytes() -> usize {
    4096
}

/// HTTP connection options; defaults are kgateway's where a user can see them, safe elsewhere.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
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
    /// Proxies in front whose additions to `x-forwarded-for` are believed (Envoy
    /// `xff_num_trusted_hops`).
    pub xff_trusted_hops: u32,
    /// Networks of proxies in front; addresses of theirs at the end of `x-forwarded-for` are passed
    /// over in looking for the client's. Only without `use_remote_address`, as in Envoy.
    pub xff_trusted_cidrs: Vec<String>,
    /// `x-forwarded-for` is left as it is.
    pub skip_xff_append: bool,
    /// With `use_remote_address`, and no proxy in front that is believed: fields in which clients can
    /// claim to be another address (`forwarded`, `x-real-ip`, `true-client-ip`, …) are taken off. The
    /// proxy does not set them, so nobody behind it should believe them.
    pub strip_client_address: bool,
    /// What becomes of `x-request-id`.
    pub request_id: RequestIdOptions,
    /// What becomes of an answer's `server` field.
    pub server_header: ServerHeader,
    /// What becomes of fields whose names hold `_`.
    pub underscores: Underscores,
    /// What becomes of `%2F` and `%5C` in paths.
    pub escaped_slashes: EscapedSlashes,
    /// With `normalize_path`: paths that some backends read as other ones are answered 400, such as
    /// escapes of escapes and escaped control characters.
    pub strict_paths: bool,
    /// Which versions of HTTP are spoken on connections that do not negotiate one.
    pub codec: Codec,
    /// HTTP/2 options.
    pub http2: Http2Options,
    /// HTTP/1.0 requests are served; else answered 426.
    pub accept_http_10: bool,
    /// The host of HTTP/1.0 requests that name none.
    pub default_host_for_http_10: Option<String>,
    /// Largest request target. Bytes; 0 is none beside the limit of the head. Answered 414.
    pub max_target_bytes: usize,
    /// Output that waits for a peer, client or endpoint, in one direction of a connection or stream,
    /// above which no more input is taken for it. Bytes; at most 16 MiB count. With 32 KiB or more,
    /// long bodies between plain connections are spliced, and a pipe of 256 KiB may wait as well.
    pub buffer_bytes: usize,
    /// Requests after which a connection is closed. 0 is none.
    pub max_requests_per_connection: u64,
    /// Age at which a connection is closed, after the exchange under way. Milliseconds; 0 is none.
    pub max_connection_duration_ms: u64,
    /// Time from the first byte of a request to its last, or to the beginning of its answer.
    /// Milliseconds; 0 is none. Answered 408.
    pub request_timeout_ms: u64,
    /// Protocols, in lower case, that requests may switch to on any route (`websocket`; `connect`
    /// allows CONNECT).
    pub upgrades: Vec<String>,
    /// What is done to requests before they are routed.
    pub early: Early,
}

/// What becomes of `x-request-id`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestIdOptions {
    /// A request gets one.
    pub generate: bool,
    /// A client's own is kept (Envoy `preserve_external_request_id`).
    pub preserve_external: bool,
    /// Answers state it (Envoy `always_set_request_id_in_response`).
    pub in_response: bool,
    /// It says why a request is traced (Envoy `pack_trace_reason`).
    pub packs_trace_reason: bool,
    /// It decides which requests are traced; else all are (Envoy `use_request_id_for_trace_sampling`).
    pub samples_traces: bool,
}

impl Default for RequestIdOptions {
    fn default() -> Self {
        Self {
            generate: true,
            preserve_external: false,
            in_response: false,
            packs_trace_reason: true,
            samples_traces: true,
        }
    }
}

/// What becomes of an answer's `server` field (Envoy `server_header_transformation`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerHeader {
    /// It is the proxy's.
    #[default]
    Overwrite,
    /// It is the proxy's if the upstream gave none.
    AppendIfAbsent,
    /// It is the upstream's.
    PassThrough,
}

/// What becomes of fields whose names hold `_` (Envoy `headers_with_underscores_action`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Underscores {
    /// They pass, unless they spell a name of the proxy's own.
    #[default]
    Allow,
    /// The request is answered 400.
    Reject,
    /// They are taken off.
    Drop,
}

/// What becomes of `%2F` and `%5C` in paths (Envoy `path_with_escaped_slashes_action`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EscapedSlashes {
    /// They stay, and are no separators.
    #[default]
    KeepUnchanged,
    /// The request is answered 400.
    Reject,
    /// They become slashes, before normalisation.
    UnescapeAndForward,
    /// The client is redirected (307) to the path with slashes.
    UnescapeAndRedirect,
}

/// Which versions of HTTP a listener speaks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// HTTP/2 if the connection starts with its preface, else HTTP/1.
    #[default]
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// HTTP/2 towards clients.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http2Options {
    /// Streams that a client may have open at a time.
    pub max_concurrent_streams: u32,
    /// Flow-control window of a stream. Bytes.
    pub initial_stream_window_size: u32,
    /// Flow-control window of a connection. Bytes.
    pub initial_connection_window_size: u32,
    /// Largest frame accepted. Bytes.
    pub max_frame_size: u32,
    /// Clients are told that streams may switch protocols (RFC 8441).
    pub allow_connect: bool,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            initial_stream_window_size: 64 * 1024,
            initial_connection_window_size: 1024 * 1024,
            max_frame_size: 16 * 1024,
            allow_connect: true,
        }
    }
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
            xff_trusted_hops: 0,
            xff_trusted_cidrs: Vec::new(),
            skip_xff_append: false,
            strip_client_address: true,
            request_id: RequestIdOptions::default(),
            server_header: ServerHeader::default(),
            underscores: Underscores::default(),
            escaped_slashes: EscapedSlashes::default(),
            strict_paths: false,
            codec: Codec::default(),
            http2: Http2Options::default(),
            accept_http_10: false,
            default_host_for_http_10: None,
            max_target_bytes: 0,
            buffer_bytes: 32 * 1024,
            max_requests_per_connection: 0,
            max_connection_duration_ms: 0,
            request_timeout_ms: 0,
            upgrades: Vec::new(),
            early: Early::default(),
        }
    }
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
    /// Header name (case-insensitive; `:path` is the path without query) or query parameter name
    /// (exact).
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
///
/// Filters and action are kept as text: of many routes most have one of a few, and each is read and
/// compiled once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route<'a> {
    /// `%ROUTE_NAME%` in access logs.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The merged filter chain, in kgateway's documented order: a list of [`Filter`]; none is an empty
    /// one.
    #[serde(borrow, default)]
    pub filters: Option<&'a RawValue>,
    /// Where the request goes: an [`Action`].
    #[serde(borrow)]
    pub action: &'a RawValue,
}

/// The entries of an object, in their order, with keys that are not copied where they need not be.
pub(super) fn entries<'de, D, V>(deserializer: D) -> Result<Vec<(Cow<'de, str>, V)>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Entries<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
        type Value = Vec<(Cow<'de, str>, V)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some((Text(key), value)) = map.next_entry()? {
                entries.push((key, value));
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries(PhantomData))
}

/// A string that is not copied unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// One filter of a chain.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum Filter {
    /// Token buckets in the process (Envoy `local_ratelimit`).
    LocalRateLimit(Box<LocalRateLimit>),
    /// Changes to the request's header fields.
    RequestHeaders(HeaderMutation),
    /// Changes to the response's header fields.
    ResponseHeaders(HeaderMutation),
    /// Which pages of other origins may use the route. The last one of a chain counts, and one of a
    /// backend before those of the rule.
    Cors(Cors),
    /// Copies of the requests that are forwarded.
    Mirror(Mirror),
    /// A redirect; of backends only. Rules have an action for it.
    Redirect(Redirect),
    /// Rewrites of host and path in place of the rule's; of backends only.
    Rewrite(Rewrite),
    /// gRPC-Web requests become gRPC ones, and the answers gRPC-Web (Envoy `grpc_web`).
    GrpcWeb,
    /// How requests are traced, in place of what the listener says.
    Tracing(RouteTracing),
    /// Faults that are made on purpose (Envoy `fault`).
    Fault(Box<Fault>),
    /// Answers are compressed for clients that take it (Envoy `compressor`).
    Compression(Codings),
    /// Requests are decompressed (Envoy `decompressor`).
    Decompression(Codings),
    /// Requests are passed on as a whole (Envoy `buffer`).
    Buffer(Buffer),
    /// Requests and responses are what templates make of them (kgateway `transformation`).
    Transformation(Box<Transformation>),
    /// Requests have a token that says who calls (Envoy `jwt_authn`).
    JwtAuth(Box<JwtAuth>),
    /// Requests are allowed or refused by conditions (Envoy `rbac`).
    Rbac(Rbac),
    /// Which clients may use the route, by their addresses (kgateway `acl`).
    Acl(Acl),
    /// Requests have to name a user and the password (Envoy `basic_auth`).
    BasicAuth(BasicAuth),
    /// Requests have to have a key of a client (Envoy `api_key_auth`).
    ApiKeyAuth(ApiKeyAuth),
    /// Requests that change something have to come from a page of their host (Envoy `csrf`).
    Csrf(Csrf),
    /// A service that decides about requests (Envoy `ext_authz`).
    ExtAuthz(Box<ExtAuthz>),
    /// A service that processes requests and answers (Envoy `ext_proc`).
    ExtProc(Box<ExtProc>),
    /// A rate limit that several proxies share (Envoy `ratelimit`).
    GlobalRateLimit(Box<GlobalRateLimit>),
    /// Python code that decides about requests and responses (`kgw.Proxy.filter`).
    Python(PythonFilter),
    /// A filter that is tried out only: what it would have refused is counted, and noted in the metadata
    /// `kgw.shadow` under the policy's name. What it would have changed stays.
    Shadow {
        /// The policy, `namespace/name`.
        policy: String,
        /// The filter, which is not one in shadow itself.
        filter: Box<Self>,
    },
}

impl Filter {
    /// Its type, as it is written in the IR.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LocalRateLimit(_) => "local_rate_limit",
            Self::RequestHeaders(_) => "request_headers",
            Self::ResponseHeaders(_) => "response_headers",
            Self::Cors(_) => "cors",
            Self::Mirror(_) => "mirror",
            Self::Redirect(_) => "redirect",
            Self::Rewrite(_) => "rewrite",
            Self::GrpcWeb => "grpc_web",
            Self::Tracing(_) => "tracing",
            Self::Buffer(_) => "buffer",
            Self::Compression(_) => "compression",
            Self::Decompression(_) => "decompression",
            Self::Fault(_) => "fault",
            Self::Transformation(_) => "transformation",
            Self::JwtAuth(_) => "jwt_auth",
            Self::Rbac(_) => "rbac",
            Self::Acl(_) => "acl",
            Self::BasicAuth(_) => "basic_auth",
            Self::ApiKeyAuth(_) => "api_key_auth",
            Self::Csrf(_) => "csrf",
            Self::ExtAuthz(_) => "ext_authz",
            Self::ExtProc(_) => "ext_proc",
            Self::GlobalRateLimit(_) => "global_rate_limit",
            Self::Python(_) => "python",
            Self::Shadow { filter, .. } => filter.kind(),
        }
    }
}

/// A filter in Python. What is left out is as the filter itself declares it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PythonFilter {
    /// The name that it is registered under. A route whose filter is not registered answers 500.
    pub filter: String,
    /// What it is asked about, of what it decides about.
    #[serde(default)]
    pub phases: Option<Vec<FilterPhase>>,
    /// Time for one decision. Milliseconds, at least 1.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// What becomes of a message that there is no decision about.
    #[serde(default)]
    pub on_error: Option<OnError>,
    /// The requests that it is asked about.
    #[serde(default)]
    pub predicate: Option<Predicate>,
}

/// When a filter is asked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterPhase {
    /// When the request's head is there.
    Request,
    /// When the response's head is there.
    Response,
}

/// What becomes of a message that a filter fails to decide about.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It goes on as it is (Envoy `failure_mode_allow`).
    Allow,
    /// The client gets an error instead.
    Deny,
}

/// A condition on requests; all of it must hold.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Predicate {
    /// The whole path.
    pub path: Option<String>,
    /// Whole leading segments of the path.
    pub path_prefix: Option<String>,
    /// A regular expression that the whole path matches.
    pub path_regex: Option<String>,
    /// The method is one of these; empty is any.
    pub methods: Vec<String>,
    /// The host is one of these, or ends as `*.` and the rest says; empty is any.
    pub hosts: Vec<String>,
    /// The header fields that must be there.
    pub headers: Vec<ValuePredicate>,
    /// The query parameters that must be there.
    pub query: Vec<ValuePredicate>,
}

/// A header field or query parameter that must be there.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ValuePredicate {
    /// The name; that of a header field in any case.
    pub name: String,
    /// The value that it must have, of header fields one of those of the name; any, if left out.
    #[serde(default)]
    pub value: Option<String>,
    /// A regular expression that the whole value matches.
    #[serde(default)]
    pub regex: Option<String>,
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
        /// The backends; none, or only weights of zero, answers `unresolved_status`.
        backends: Vec<Backend>,
        /// Time from the end of the request to the end of the response, with all retries.
        /// Milliseconds; 0 is none.
        request_timeout_ms: u64,
        /// Time for one upstream attempt. Milliseconds; 0 is none.
        #[serde(default)]
        backend_request_timeout_ms: u64,
        /// When the request is sent once more; none is never.
        #[serde(default)]
        retry: Option<Box<Retry>>,
        /// Sessions that requests may be of. The first that a request is of chooses its backend, even
        /// one without a weight, and its endpoint.
        #[serde(default)]
        sessions: Vec<Session>,
        /// Rewrites of host and path.
        #[serde(default)]
        rewrite: Rewrite,
        /// What takes the place of the matches of an expression in a path that is not rewritten
        /// otherwise; the query stays.
        #[serde(default)]
        path_regex: Option<Box<PathRegex>>,
        /// The host becomes the name of the endpoint, where it has one and nothing else rewrites the
        /// host (Envoy `auto_host_rewrite`).
        #[serde(default)]
        auto_host_rewrite: bool,
        /// In place of the listener's time that a stream may sit without a byte. Milliseconds; 0 is none.
        #[serde(default)]
        stream_idle_timeout_ms: Option<u64>,
        /// Protocols, in lower case, that requests of this route may switch to, beside the
        /// listener's (`websocket`; `connect` turns CONNECT requests into connections).
        #[serde(default)]
        upgrades: Vec<String>,
        /// Status of requests for which there is no backend, or whose share is one without a cluster.
        #[serde(default = "default_unresolved_status")]
        unresolved_status: u16,
    },
    /// A redirect answered by the proxy.
    Redirect(Redirect),
    /// A fixed answer.
    Direct {
        /// Status.
        status: u16,
        /// Body, `text/plain`.
        #[serde(default)]
        body: String,
        /// What the body is made of for each request, in place of `body`.
        #[serde(default)]
        format: Option<Box<DirectFormat>>,
    },
}

/// A weighted backend of a rule.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Id of the cluster; none is an unresolved reference and answers the action's
    /// `unresolved_status` for its share.
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

/// A replacement in paths (Envoy `regex_rewrite`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PathRegex {
    /// What is replaced, wherever in the path it is, in RE2's dialect.
    pub pattern: String,
    /// What it becomes: `\\0` is the match, `\\1` to `\\9` are its groups.
    pub substitution: String,
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
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// A name, or several, whose addresses are endpoints beside those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsName>,
    /// The endpoints are those of the host that a request names, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_proxy: Option<ForwardProxy>,
    /// The name of a backend of this process, which serves instead of any endpoints. It is spoken to
    /// in HTTP/1.1, without TLS and PROXY headers, whatever the rest says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_process: Option<String>,
    /// Time to connect. Milliseconds. kgateway: 5 s.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Which version of HTTP the endpoints speak.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// TLS to the endpoints.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// A PROXY protocol header that starts each connection, which then serves one request.
    #[serde(default)]
    pub proxy_protocol: Option<UpstreamProxyProtocol>,
    /// Requests after which a connection is not used again. 0 is none.
    #[serde(default)]
    pub max_requests_per_connection: u64,
    /// How many of the requests may be retries; none is any number.
    #[serde(default)]
    pub retry_budget: Option<RetryBudget>,
    /// How connections behave.
    #[serde(default)]
    pub connections: ConnectionOptions,
    /// Time for a request and its answer, whatever else is allowed. Milliseconds; 0 is no limit.
    #[serde(default)]
    pub max_stream_duration_ms: u64,
    /// How much may be under way at once; none is no limit.
    #[serde(default)]
    pub circuit_breakers: Option<CircuitBreakers>,
    /// What takes endpoints out of use for a while; none is nothing.
    #[serde(default)]
    pub outlier_detection: Option<OutlierDetection>,
    /// How endpoints are checked; none is not at all.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
}

/// Which version of HTTP an upstream speaks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, with prior knowledge where there is no TLS.
    Http2,
    /// What TLS negotiates of both. Without TLS: the request's own version.
    Auto,
}

/// The client's side of TLS.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// The server name asked for, and the one the certificate must have unless
    /// `subject_alt_names` says otherwise. None asks for none, and then `subject_alt_names` must not
    /// be empty unless certificates are not verified.
    #[serde(default)]
    pub sni: Option<String>,
    /// The server name is that of the host which a request names, unless `sni` is given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_host: bool,
    /// What the server's certificate is verified against.
    pub trust: Trust,
    /// If not empty, the certificate must have one of these names, instead of the server name.
    #[serde(default)]
    pub subject_alt_names: Vec<SubjectAltName>,
    /// The certificate shown to the server.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// Lowest and highest version, and cipher suites.
    #[serde(default)]
    pub parameters: TlsParameters,
    /// Application protocols offered; none is what the cluster's protocol asks for.
    #[serde(default)]
    pub alpn: Option<Vec<String>>,
    /// Algorithms that signatures may be of, by the names of RFC 8446 4.2.3, the best first; empty is all.
    #[serde(default)]
    pub signature_algorithms: Vec<String>,
}

/// What a server's certificate is verified against.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "snake_case",
    tag = "type",
    content = "value"
)]
pub enum Trust {
    /// The operating system's certificate authorities.
    System,
    /// PEM of certificate authorities.
    Ca(String),
    /// Nothing: any certificate will do.
    Insecure,
}

/// A PROXY protocol header towards an upstream.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamProxyProtocol {
    /// 1 (text) or 2.
    pub version: u8,
    /// Types of the TLVs that are passed on from the client's own header; version 2 only.
    #[serde(default)]
    pub pass_tlvs: Vec<u8>,
    /// TLVs added, as type and value; version 2 only.
    #[serde(default)]
    pub tlvs: Vec<(u8, Vec<u8>)>,
}

fn default_connect_timeout_ms() -> u64 {
    5_000
}
