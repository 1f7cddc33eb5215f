//! A service that decides about requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A service that is asked about each request, and may refuse or change it (Envoy `ext_authz`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExtAuthz {
    /// Id of the service's cluster; none is an unresolved reference: the requests are answered 500.
    pub cluster: Option<String>,
    /// How it is asked.
    pub service: AuthorizationService,
    /// Time for an answer, connecting included. Milliseconds, at least 1. Envoy: 200 ms.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Names of the header fields of requests that it is told of; none is all of them. Over HTTP,
    /// `authorization` is always among them, and the host is the request's.
    #[serde(default)]
    pub request_headers: Option<Vec<String>>,
    /// It is told the bodies of requests.
    #[serde(default)]
    pub body: Option<AuthorizationBody>,
    /// Requests that there is no decision about go on (Envoy `failure_mode_allow`).
    #[serde(default)]
    pub failure_mode_allow: bool,
    /// Such requests say so in `x-envoy-auth-failure-mode-allowed`.
    #[serde(default)]
    pub failure_mode_allow_header_add: bool,
    /// Status of the answer to a request that there is no decision about. 200 to 599.
    #[serde(default = "default_status_on_error")]
    pub status_on_error: u16,
    /// The service is asked once more where it gave no decision. All attempts together have the time
    /// for an answer.
    #[serde(default)]
    pub retry: Option<AuthorizationRetry>,
    /// The route is found anew for requests that the service changed.
    #[serde(default)]
    pub clear_route_cache: bool,
    /// The service's decisions are counted under this name as well.
    #[serde(default)]
    pub stat_prefix: Option<String>,
    /// Decisions are remembered. Not where the service is told bodies.
    #[serde(default)]
    pub cache: Option<AuthorizationCache>,
}

/// Asking once more.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationRetry {
    /// How often, at most.
    pub attempts: u32,
    /// The first wait is of a random length up to this, and each further one of up to twice the length.
    /// Milliseconds, at least 1.
    pub base_interval_ms: u64,
    /// The longest wait. Milliseconds.
    pub max_interval_ms: u64,
}

/// Remembering decisions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationCache {
    /// What two requests have in common that one decision is for. Not empty.
    pub keys: Vec<AuthorizationCacheKey>,
    /// How long the service's word that a request may pass holds. Milliseconds, at least 1.
    pub ttl_ms: u64,
    /// How long its word that one may not holds. Milliseconds; 0 is not at all.
    #[serde(default)]
    pub denied_ttl_ms: u64,
    /// How many decisions are remembered. At least 1. The oldest go first.
    pub max_entries: usize,
}

/// A part of a request.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizationCacheKey {
    /// The method.
    Method,
    /// Its host.
    Host,
    /// Its path, without the query.
    Path,
    /// The query.
    Query,
    /// The client's address.
    Client,
    /// The client's mesh identity.
    Identity,
    /// All header fields of this name.
    Header(String),
}

/// How a service is asked about requests.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum AuthorizationService {
    /// With a request of the same method and host; 200 lets the request pass, 5xx is no decision, and
    /// any other answer is the client's.
    Http {
        /// What is put in front of the request's path; empty, or a path.
        #[serde(default)]
        path_prefix: String,
        /// Header fields that it is told in addition; their values may have the operators of access
        /// logs. One whose value comes out empty is left out.
        #[serde(default)]
        headers_to_add: Vec<(String, String)>,
        /// Names of the answer's header fields that take the place of the request's if it passes; none
        /// is all but those about the answer itself.
        #[serde(default = "no_names")]
        upstream_headers: Option<Vec<String>>,
        /// Names of those that are added to the request's.
        #[serde(default)]
        upstream_headers_to_append: Vec<String>,
        /// Names of those that the client gets if the request does not pass, beside `location` and
        /// `www-authenticate`; none is all.
        #[serde(default)]
        client_headers: Option<Vec<String>>,
        /// Names of those that the client gets if the request passes, beside the upstream's answer.
        #[serde(default)]
        client_headers_on_success: Vec<String>,
    },
    /// With a call of `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// The call's host.
        authority: String,
        /// What it is told beside the request.
        #[serde(default)]
        context_extensions: BTreeMap<String, String>,
    },
}

/// Bodies for a service that decides about requests.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationBody {
    /// The longest body. Bytes, at least 1. Requests with longer ones are answered 413.
    pub max_bytes: usize,
    /// Of longer bodies it is told the beginning instead.
    #[serde(default)]
    pub allow_partial: bool,
    /// Over gRPC, bodies are `raw_body`, and not `body` if they are text.
    #[serde(default)]
    pub as_bytes: bool,
}

fn default_timeout_ms() -> u64 {
    200
}

fn default_status_on_error() -> u16 {
    403
}

#[expect(clippy::unnecessary_wraps, reason = "what serde wants of a default")]
fn no_names() -> Option<Vec<String>> {
    Some(Vec::new())
}
