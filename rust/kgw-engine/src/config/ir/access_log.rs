//! Access logs: what is logged of which requests, and where that goes.

use serde::{Deserialize, Serialize};

use super::StringMatch;

/// An access log that is a file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// File that lines are appended to; `/dev/stdout` and `/dev/stderr` are written in place.
    pub path: String,
    /// The line's form.
    pub format: AccessLogFormat,
    /// What is logged; everything if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<AccessLogFilter>,
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

/// Which requests and connections are logged, and which of the proxy's own answers are changed
/// (Envoy `AccessLogFilter`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum AccessLogFilter {
    /// All of several hold.
    And {
        /// At least two.
        filters: Vec<Self>,
    },
    /// A condition in the Common Expression Language, of Envoy's attributes.
    Cel {
        /// What is to be true.
        expression: String,
    },
    /// The time from the first byte of the request to now. Milliseconds.
    Duration {
        /// How it is compared.
        op: Comparison,
        /// What with.
        value: u32,
    },
    /// The gRPC status, whatever the request was: that of the trailer fields or the header, or what the
    /// HTTP status stands for.
    GrpcStatus {
        /// Any of these numbers, 0 to 16.
        statuses: Vec<u8>,
        /// None of them instead.
        #[serde(default)]
        exclude: bool,
    },
    /// A request header field, of which any value may match.
    Header {
        /// Its name, or that of a pseudo header (`:path`).
        name: String,
        /// What a value must be.
        value: StringMatch,
    },
    /// The request is not the health check that the proxy answers itself.
    NotHealthCheck,
    /// Any of several holds.
    Or {
        /// At least two.
        filters: Vec<Self>,
    },
    /// Any of some response flags is set.
    ResponseFlag {
        /// In their short spelling; if there are none, any flag at all.
        flags: Vec<String>,
    },
    /// A share of everything, told by the request id.
    Runtime {
        /// What would override the share in Envoy's runtime, which is not there.
        key: String,
        /// So many ...
        numerator: u32,
        /// ... of so many: 100, 10,000 or 1,000,000.
        denominator: u32,
        /// The request id does not decide.
        #[serde(default)]
        independent: bool,
    },
    /// The response's status; 0 if there is none.
    StatusCode {
        /// How it is compared.
        op: Comparison,
        /// What with.
        value: u32,
    },
    /// The request is traced because it asks for it.
    Traceable,
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// They are equal.
    Eq,
    /// The first is as large or larger.
    Ge,
    /// The first is as small or smaller.
    Le,
}

/// An access log that is a service, which is told over gRPC what is logged.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLogService {
    /// Id of the service's cluster, which speaks HTTP/2.
    pub cluster: String,
    /// The host of calls.
    pub authority: String,
    /// Header fields of calls.
    #[serde(default)]
    pub metadata: Vec<(String, String)>,
    /// Time to connect and to hand over a message, or for a call as a whole. Milliseconds, at least 1.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Further attempts to deliver a message.
    #[serde(default)]
    pub retry: AccessLogRetry,
    /// Most bytes that an answer of the service may have.
    #[serde(default = "default_max_answer")]
    pub max_answer_bytes: usize,
    /// Calls have no fields that Envoy's calls have (`x-envoy-internal`, `x-forwarded-for`).
    #[serde(default)]
    pub skip_envoy_headers: bool,
    /// The log's name; nothing of tracing.
    #[serde(default)]
    pub log_name: String,
    /// What the proxy is a part of; nothing of tracing.
    #[serde(default)]
    pub node_cluster: String,
    /// What it is told.
    pub protocol: AccessLogProtocol,
    /// What is logged; everything if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<AccessLogFilter>,
}

/// What a service is told.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum AccessLogProtocol {
    /// A stream of `envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs`.
    Envoy {
        /// Names of request header fields.
        #[serde(default)]
        request_headers: Vec<String>,
        /// Names of response header fields.
        #[serde(default)]
        response_headers: Vec<String>,
        /// Names of response trailer fields.
        #[serde(default)]
        response_trailers: Vec<String>,
    },
    /// Calls of `opentelemetry.proto.collector.logs.v1.LogsService/Export`.
    OpenTelemetry {
        /// A record's body; strings may hold operators.
        #[serde(default)]
        body: Option<LogValue>,
        /// A record's attributes; strings may hold operators.
        #[serde(default)]
        attributes: Vec<(String, LogValue)>,
        /// The resource's attributes, as they are.
        #[serde(default)]
        resource_attributes: Vec<(String, LogValue)>,
        /// The resource has Envoy's own attributes, too: `log_name`, `zone_name`, `cluster_name` and
        /// `node_name`.
        #[serde(default)]
        builtin_labels: bool,
    },
    /// Calls of `opentelemetry.proto.collector.trace.v1.TraceService/Export`; of tracing only.
    Traces {
        /// The resource's attributes, as they are.
        #[serde(default)]
        resource_attributes: Vec<(String, LogValue)>,
        /// The resource has those of `OTEL_RESOURCE_ATTRIBUTES` in the environment, too.
        #[serde(default)]
        environment: bool,
    },
}

/// A value of OpenTelemetry's.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum LogValue {
    /// A list.
    Array(Vec<Self>),
    /// Values by names, in order.
    KeyValues(Vec<(String, Self)>),
    /// Text.
    String(String),
}

/// Attempts to deliver a message once more.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogRetry {
    /// How many.
    pub attempts: u32,
    /// What the first pause is taken from, of which later ones are multiples. Milliseconds, at least 1.
    pub base_interval_ms: u64,
    /// What no pause is longer than. Milliseconds.
    pub max_interval_ms: u64,
}

impl Default for AccessLogRetry {
    fn default() -> Self {
        Self {
            attempts: 1,
            base_interval_ms: 1_000,
            max_interval_ms: 10_000,
        }
    }
}

fn default_timeout_ms() -> u64 {
    10_000
}

fn default_max_answer() -> usize {
    4 * 1024 * 1024
}
