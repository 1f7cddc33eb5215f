//! How connections to endpoints behave, and how many requests they get.

use serde::{Deserialize, Serialize};

use super::TcpKeepalive;

/// How connections of a cluster behave. Clusters that differ in it share none.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionOptions {
    /// Time that a connection may sit unused. Milliseconds; 0 is no limit. If none is given it is 55 s, for
    /// backends commonly close theirs after a minute (Envoy: 1 h).
    pub idle_timeout_ms: Option<u64>,
    /// Most fields in the head of an answer; one with more is malformed. Envoy: 100.
    pub max_fields: Option<u32>,
    /// What is buffered of a request that the endpoint does not take. Bytes, give or take one read of 16
    /// KiB, and no more is ever read ahead of an answer; 0 or none is what the listener has.
    pub buffer_bytes: Option<u64>,
    /// Probes of connections; none are the system's settings, by which there usually are none.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// HTTP/2.
    pub http2: Http2ConnectionOptions,
}

/// How HTTP/2 connections of a cluster behave.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http2ConnectionOptions {
    /// Bytes of an answer that may be on their way unread. 64 KiB if none is given.
    pub initial_stream_window_size: Option<u32>,
    /// Bytes of all answers of a connection that may be on their way unread. 1 MiB if none is given.
    pub initial_connection_window_size: Option<u32>,
    /// Streams on one connection, if its peer allows as many. 256 if none is given, which is also the most.
    pub max_concurrent_streams: Option<u32>,
    /// Questions whether the peer is still there.
    pub keepalive: Option<Http2Keepalive>,
}

/// PING frames on a connection (Envoy `connection_keepalive`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http2Keepalive {
    /// Time between two of them. Milliseconds; 0 is none in intervals.
    #[serde(default)]
    pub interval_ms: u64,
    /// Time for the answer, after which the connection is closed. Milliseconds, at least 1.
    pub timeout_ms: u64,
    /// Time without use after which one goes before the next stream. Milliseconds; 0 is none.
    #[serde(default)]
    pub idle_interval_ms: u64,
}

/// How much may be under way to a cluster at once, over all workers (Envoy `circuit_breakers`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreakers {
    /// Connections, in use or not. A worker opens one to an endpoint that it has none to in any case.
    pub max_connections: u64,
    /// Requests that wait for a connection.
    pub max_pending_requests: u64,
    /// Requests that have a connection.
    pub max_requests: u64,
    /// Retries. A cluster with a retry budget has that instead.
    pub max_retries: u64,
    /// How much is left is told by statistics.
    pub track_remaining: bool,
}

impl Default for CircuitBreakers {
    /// Envoy's.
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            track_remaining: false,
        }
    }
}

/// Endpoints whose requests fail one after the other are out of use for a while (Envoy
/// `outlier_detection`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierDetection {
    /// Failures that follow each other until an endpoint is ejected: answers of 500 and above and, unless
    /// they are split, failures to have one. 0 is never.
    pub consecutive_5xx: u32,
    /// Percentage of the cases in which that is done.
    pub enforcing_consecutive_5xx: u32,
    /// Failures to have a connection or an answer are counted on their own.
    pub split_external_local_origin_errors: bool,
    /// How many of those follow each other until an endpoint is ejected. 0 is never.
    pub consecutive_local_origin_failure: u32,
    /// Percentage of the cases in which that is done.
    pub enforcing_consecutive_local_origin_failure: u32,
    /// Time between two looks whether an ejection is over. Milliseconds, at least 1.
    pub interval_ms: u64,
    /// Time of a first ejection; others of the same endpoint take longer. Milliseconds.
    pub base_ejection_time_ms: u64,
    /// Percentage of the endpoints that may be ejected at once.
    pub max_ejection_percent: u32,
}

impl Default for OutlierDetection {
    /// Envoy's.
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            enforcing_consecutive_5xx: 100,
            split_external_local_origin_errors: false,
            consecutive_local_origin_failure: 5,
            enforcing_consecutive_local_origin_failure: 100,
            interval_ms: 10_000,
            base_ejection_time_ms: 30_000,
            max_ejection_percent: 10,
        }
    }
}

/// Each endpoint is asked again and again whether it is in order (Envoy `health_checks`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Time for an answer, with the connection. Milliseconds, at least 1.
    pub timeout_ms: u64,
    /// Time between an answer and the next question. Milliseconds, at least 1.
    pub interval_ms: u64,
    /// Failures in a row that take an endpoint out of use.
    pub unhealthy_threshold: u32,
    /// Successes in a row that take it back.
    pub healthy_threshold: u32,
    /// What is asked.
    pub checker: HealthChecker,
}

/// What a health check asks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum HealthChecker {
    /// A request; 200 is a success.
    Http {
        /// Empty is the name of the cluster.
        #[serde(default)]
        host: String,
        /// With its query.
        path: String,
        /// `GET` if none is given.
        #[serde(default = "get")]
        method: String,
    },
    /// `grpc.health.v1.Health/Check`, on HTTP/2 in any case.
    Grpc {
        /// Empty is the server as a whole.
        #[serde(default)]
        service: String,
        /// Empty is the name of the cluster.
        #[serde(default)]
        authority: String,
    },
}

fn get() -> String {
    "GET".to_owned()
}
