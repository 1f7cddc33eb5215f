//! Tracing: which requests are traced, what spans say and where they go.

use serde::{Deserialize, Serialize};

use super::AccessLogService;

/// Tracing of a listener's requests (Envoy's OpenTelemetry tracer).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// The collector that is told, by the protocol `traces`.
    pub service: AccessLogService,
    /// Which requests are traced.
    #[serde(default)]
    pub sampling: TraceSampling,
    /// All are, whatever they say themselves.
    #[serde(default)]
    pub always_on: bool,
    /// Most bytes of a path in `http.url`.
    #[serde(default = "default_max_path_bytes")]
    pub max_path_bytes: usize,
    /// Spans have events: when parts of requests and answers came and went.
    #[serde(default)]
    pub verbose: bool,
    /// Attempts to get an answer have spans of their own.
    #[serde(default)]
    pub upstream_spans: bool,
    /// What spans say beside the usual.
    #[serde(default)]
    pub attributes: Vec<TraceAttribute>,
}

/// Tracing of a route's requests, in place of the listener's.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTracing {
    /// Nothing is traced.
    #[serde(default)]
    pub disabled: bool,
    /// Which requests are traced.
    #[serde(default)]
    pub sampling: TraceSampling,
    /// What spans say beside what the listener's do; of the same name, this.
    #[serde(default)]
    pub attributes: Vec<TraceAttribute>,
}

/// Shares of requests. Percent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSampling {
    /// Of those with an `x-client-trace-id`, that are traced for it.
    pub client: u32,
    /// That are traced for no reason.
    pub random: u32,
    /// Of all those, that are traced after all.
    pub overall: u32,
}

impl Default for TraceSampling {
    fn default() -> Self {
        Self {
            client: 100,
            random: 100,
            overall: 100,
        }
    }
}

/// Something that spans say.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TraceAttribute {
    /// Its name.
    pub name: String,
    /// Its value; the attribute is left out if it is empty.
    pub value: TraceValue,
}

/// The value of an attribute of spans.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum TraceValue {
    /// A variable of the proxy's environment, as it was when the configuration came.
    Environment {
        /// Its name.
        name: String,
        /// What stands for one that there is not.
        #[serde(default)]
        default: String,
    },
    /// Text.
    Literal {
        /// It.
        value: String,
    },
    /// Something that filters noted about the request.
    Metadata {
        /// The filter's namespace.
        namespace: String,
        /// The way to the value in it.
        path: Vec<String>,
        /// What stands for one that there is not.
        #[serde(default)]
        default: String,
    },
    /// A request header field, or a pseudo header.
    RequestHeader {
        /// Its name.
        name: String,
        /// What stands for one that there is not.
        #[serde(default)]
        default: String,
    },
}

fn default_max_path_bytes() -> usize {
    256
}
