//! Local rate limits.

use serde::{Deserialize, Serialize};

/// Token buckets in the process that requests take tokens of (Envoy `local_ratelimit`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LocalRateLimit {
    /// Identity of the state of the bucket that all requests share: policy, section and configuration.
    #[serde(default)]
    pub bucket: String,
    /// Capacity of the bucket that all requests share; 0 always denies. Without one, there are descriptors
    /// only.
    #[serde(default)]
    pub max_tokens: Option<u64>,
    /// Tokens gained per interval.
    #[serde(default = "one")]
    pub tokens_per_fill: u64,
    /// The interval. Nanoseconds, at least 50 ms.
    #[serde(default)]
    pub fill_interval_ns: u64,
    /// Requests with certain properties, which have buckets of their own. Those that a request has take
    /// its tokens before the bucket of all, the slowest first.
    #[serde(default)]
    pub descriptors: Vec<RateLimitDescriptor>,
    /// The bucket of all is for requests without any descriptor only (Envoy
    /// `always_consume_default_token_bucket: false`).
    #[serde(default)]
    pub only_unmatched: bool,
    /// How many tokens a request takes.
    #[serde(default)]
    pub cost: RateLimitCost,
    /// The share of the requests that the limit is for.
    #[serde(default = "hundred")]
    pub percent_enabled: u8,
    /// The share of the requests over the limit that are refused.
    #[serde(default = "hundred")]
    pub percent_enforced: u8,
    /// Fields that tell the limit on each answer.
    #[serde(default)]
    pub headers: Vec<RateLimitHeaders>,
    /// Whether refusals have `retry-after`.
    #[serde(default = "yes")]
    pub retry_after: bool,
    /// The status of refusals, 400 to 599.
    #[serde(default = "too_many_requests")]
    pub status: u16,
    /// The body of refusals, in place of `local_rate_limited`.
    #[serde(default)]
    pub body: Option<String>,
    /// Further fields of refusals.
    #[serde(default)]
    pub response_headers: Vec<(String, String)>,
    /// Fields of requests that are over the limit and not refused.
    #[serde(default)]
    pub not_enforced_headers: Vec<(String, String)>,
    /// Requests over the limit wait for tokens.
    #[serde(default)]
    pub queue: Option<RateLimitQueue>,
}

/// Requests that have buckets of their own: one for each combination of the values of its entries.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitDescriptor {
    /// Identity of the buckets' state.
    pub bucket: String,
    /// What clients are told that the limit is called: printable ASCII.
    pub name: String,
    /// What a request has to have. One that lacks any of them is not of the descriptor.
    pub entries: Vec<RateLimitEntry>,
    /// Capacity of each bucket; 0 always denies.
    pub max_tokens: u64,
    /// Tokens gained per interval.
    #[serde(default = "one")]
    pub tokens_per_fill: u64,
    /// The interval. Nanoseconds, at least 50 ms.
    pub fill_interval_ns: u64,
    /// Buckets that are kept at most. The least recently used gives way.
    #[serde(default = "max_keys")]
    pub max_keys: usize,
    /// How many tokens a request takes, if not as many as of the bucket of all.
    #[serde(default)]
    pub cost: Option<RateLimitCost>,
}

/// Something that a request has.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitEntry {
    /// Where it is.
    pub source: RateLimitSource,
    /// The value that it must have; with none, each has a bucket of its own.
    #[serde(default)]
    pub value: Option<String>,
}

/// Where the value of an entry is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum RateLimitSource {
    /// The client's address, as far as it can be trusted.
    RemoteAddress {
        /// Bits of an IPv4 address that count.
        v4_bits: u8,
        /// Bits of an IPv6 address that count.
        v6_bits: u8,
    },
    /// The first header field of the name.
    Header {
        /// Its name.
        name: String,
    },
    /// The first query parameter of the name.
    QueryParameter {
        /// Its name, not encoded.
        name: String,
    },
    /// The first cookie of the name.
    Cookie {
        /// Its name.
        name: String,
    },
    /// A claim of a token that a JWT filter has verified.
    Claim {
        /// Its name, or the names on the way to it, with dots between them.
        name: String,
    },
    /// The path, normalised and without its query.
    Path,
    /// The method.
    Method,
    /// The host, in lower case and without its port.
    Host,
    /// The identity of the client's workload.
    Principal,
}

/// How many tokens a request takes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitCost {
    /// So many at least.
    #[serde(default = "one")]
    pub tokens: u64,
    /// A header field with their number.
    #[serde(default)]
    pub header: Option<String>,
    /// The largest number that counts there.
    #[serde(default = "unbounded")]
    pub max_tokens: u64,
}

/// Fields that tell clients about limits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitHeaders {
    /// `x-ratelimit-limit`, `-remaining` and `-reset` (draft-polli-ratelimit-headers-03), as Envoy has
    /// them.
    #[serde(rename = "draft_03")]
    Draft03,
    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
    Structured,
}

/// Requests over the limit wait.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitQueue {
    /// How long they wait at most. Milliseconds, at least 1.
    pub max_wait_ms: u64,
    /// How many wait at most for one bucket, or for the buckets of one descriptor.
    pub max_waiting: usize,
}

impl Default for LocalRateLimit {
    /// No limit.
    fn default() -> Self {
        Self {
            bucket: String::new(),
            max_tokens: None,
            tokens_per_fill: one(),
            fill_interval_ns: 0,
            descriptors: Vec::new(),
            only_unmatched: false,
            cost: RateLimitCost::default(),
            percent_enabled: hundred(),
            percent_enforced: hundred(),
            headers: Vec::new(),
            retry_after: yes(),
            status: too_many_requests(),
            body: None,
            response_headers: Vec::new(),
            not_enforced_headers: Vec::new(),
            queue: None,
        }
    }
}

impl Default for RateLimitCost {
    /// One token.
    fn default() -> Self {
        Self {
            tokens: one(),
            header: None,
            max_tokens: unbounded(),
        }
    }
}

fn one() -> u64 {
    1
}

fn hundred() -> u8 {
    100
}

fn yes() -> bool {
    true
}

fn too_many_requests() -> u16 {
    429
}

fn unbounded() -> u64 {
    u64::MAX
}

fn max_keys() -> usize {
    kgw_limit::DEFAULT_MAX_KEYS
}
