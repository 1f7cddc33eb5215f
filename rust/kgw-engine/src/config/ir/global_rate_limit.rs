//! Rate limits that several proxies share.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What requests are counted by, and who counts them (Envoy `ratelimit`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalRateLimit {
    /// Who counts.
    pub service: RateLimitService,
    /// What tells its limits from those of others.
    pub domain: String,
    /// What is counted. A request counts for each of them that it has all entries of.
    pub descriptors: Vec<GlobalDescriptor>,
    /// What a request counts; none is 1.
    #[serde(default)]
    pub hits: Option<RateLimitHits>,
    /// Time for a decision, connecting included. Milliseconds, at least 1.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Requests that there is no decision about are answered 500, and do not go on (Envoy
    /// `failure_mode_deny`).
    #[serde(default)]
    pub failure_mode_deny: bool,
    /// Answers say what is left in `x-ratelimit-*` (Envoy `enable_x_ratelimit_headers`).
    #[serde(default)]
    pub x_ratelimit_headers: bool,
}

/// Who counts requests.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum RateLimitService {
    /// A service that is called with `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`.
    Grpc {
        /// Id of its cluster; none is an unresolved reference: the requests are answered 500.
        cluster: Option<String>,
        /// The call's host.
        authority: String,
        /// Time for one call; none is what there is for the decision. Milliseconds, at least 1.
        #[serde(default)]
        request_timeout_ms: Option<u64>,
        /// Calls that fail are made again.
        #[serde(default)]
        retry: Option<RateLimitRetry>,
    },
    /// A Redis or Valkey server, which is told the limits.
    Redis(Box<RedisRateLimit>),
}

/// How calls that fail are made again.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitRetry {
    /// How often at most.
    pub attempts: u32,
    /// The longest wait before the first time; it doubles each time. Milliseconds, at least 1.
    pub base_interval_ms: u64,
    /// The longest wait. Milliseconds.
    pub max_interval_ms: u64,
}

/// Buckets in a Redis or Valkey server.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisRateLimit {
    /// Id of its cluster; none is an unresolved reference: the requests are answered 500.
    pub cluster: Option<String>,
    /// The user to log in as; none is the server's default one.
    #[serde(default)]
    pub username: Option<String>,
    /// The password; none is not to log in.
    #[serde(default)]
    pub password: Option<String>,
    /// The number of the database.
    #[serde(default)]
    pub database: u32,
    /// What the names of all keys begin with.
    #[serde(default)]
    pub key_prefix: String,
    /// The limits of descriptors that have none of their own; the first that fits counts.
    #[serde(default)]
    pub limits: Vec<RedisLimit>,
    /// While the server is away, the proxy counts by itself.
    #[serde(default)]
    pub local_fallback: Option<LocalFallback>,
}

/// The limit of some descriptors.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisLimit {
    /// The entries of the descriptors, in order.
    pub entries: Vec<RedisLimitEntry>,
    /// What they may.
    pub limit: RateLimit,
}

/// An entry of the descriptors that a limit is for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisLimitEntry {
    /// Its key.
    pub key: String,
    /// Its value; none is any, each counted by itself.
    #[serde(default)]
    pub value: Option<String>,
}

/// What a proxy does while the server is away.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LocalFallback {
    /// What tells its buckets from others across configurations.
    pub bucket: String,
    /// Its share of each limit. Percent, 1 to 100.
    #[serde(default = "default_percent")]
    pub percent: u32,
}

/// So many in each of some time.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// At least 1.
    pub requests: u32,
    /// In each of these.
    pub unit: RateLimitUnit,
    /// So many at once; none is as many as in a unit. A rate limit service is not told.
    #[serde(default)]
    pub burst: Option<u32>,
    /// What answers call it.
    #[serde(default)]
    pub name: Option<String>,
}

/// Some time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitUnit {
    /// A second.
    Second,
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// 24 hours.
    Day,
}

/// What a request is counted by.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalDescriptor {
    /// Its parts. A request that lacks one of them is not counted by it.
    pub entries: Vec<GlobalDescriptorEntry>,
    /// Its limit, in place of the one that the service has for it.
    #[serde(default)]
    pub limit: Option<RateLimit>,
    /// What a request counts for it; none is what it counts for all.
    #[serde(default)]
    pub hits: Option<RateLimitHits>,
}

/// A part of a descriptor.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalDescriptorEntry {
    /// What it is called.
    pub key: String,
    /// What it is of a request.
    pub value: RateLimitValue,
    /// Where a request has several values there is a descriptor of each, and not of the first alone.
    #[serde(default)]
    pub each: bool,
}

/// What a part of a descriptor is of a request.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum RateLimitValue {
    /// The same of all.
    Generic {
        /// This.
        value: String,
    },
    /// A header field, or `:path`, `:method`, `:authority` or `:scheme`.
    Header {
        /// Its name.
        name: String,
    },
    /// The client's address, as far as it can be trusted.
    RemoteAddress {
        /// Bits of an IPv4 address that count: addresses of one network are counted together. 1 to 32.
        #[serde(default = "all_of_ipv4")]
        ipv4_prefix: u8,
        /// Bits of an IPv6 address that count. 1 to 128.
        #[serde(default = "all_of_ipv6")]
        ipv6_prefix: u8,
    },
    /// The path.
    Path {
        /// With the query, as Envoy has it.
        #[serde(default = "yes")]
        query: bool,
    },
    /// The method.
    Method,
    /// The host, in lower case and without a port.
    Host,
    /// A parameter of the query, decoded.
    Query {
        /// Its name.
        name: String,
    },
    /// A cookie.
    Cookie {
        /// Its name.
        name: String,
    },
    /// What a filter before noted of the request, such as a claim of its token: text, a number or a
    /// truth, or a list of such.
    Metadata {
        /// Who noted it.
        namespace: String,
        /// Where it is in what it noted.
        path: Vec<String>,
    },
    /// The client's identity in the mesh: a SPIFFE URI.
    Principal,
}

/// What a request counts.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum RateLimitHits {
    /// This much. At least 1.
    Constant {
        /// This.
        value: u32,
    },
    /// What a header field says: 0 is not counted at all; what is no number, or not there, counts 1.
    Header {
        /// Its name.
        name: String,
    },
}

impl RateLimitService {
    /// The id of its cluster, if it is resolved.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        match self {
            Self::Grpc { cluster, .. } => cluster.as_deref(),
            Self::Redis(redis) => redis.cluster.as_deref(),
        }
    }
}

impl fmt::Debug for RedisRateLimit {
    /// Without the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("RedisRateLimit");
        shown.field("cluster", &self.cluster);
        shown.field("username", &self.username);
        shown.field("database", &self.database);
        shown.field("key_prefix", &self.key_prefix);
        shown.field("limits", &self.limits);
        shown.field("local_fallback", &self.local_fallback);
        shown.finish_non_exhaustive()
    }
}

fn default_timeout_ms() -> u64 {
    100
}

fn default_percent() -> u32 {
    100
}

fn all_of_ipv4() -> u8 {
    32
}

fn all_of_ipv6() -> u8 {
    128
}

fn yes() -> bool {
    true
}
