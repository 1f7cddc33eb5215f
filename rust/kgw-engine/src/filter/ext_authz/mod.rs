//! Services that decide about requests: what each is asked, and what its answer means.
//!
//! Nothing here waits. `conn::authorizing` collects the body, makes the call, and does as the service
//! says. What is asked and understood is what Envoy's `ext_authz` filter asks and understands; the ways
//! to ask are in [`http`] and [`grpc`].

pub(crate) mod cache;
pub(crate) mod counts;
mod edit;
mod grpc;
mod http;
mod message;
pub(crate) mod query;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use kgw_h1::{Headers, Limits, Request, RequestParts};
use serde_json::{Map, Value};

use self::cache::{DecisionCache, DecisionCaches};
use self::counts::{Counts, CountsByName};
pub(crate) use self::edit::Edit;
use self::edit::Target;
use self::query::QueryEdits;
use crate::bridge::Answer;
use crate::config::ir::{self, AuthorizationBody, AuthorizationRetry, AuthorizationService};
use crate::config::snapshot::Cluster;
use crate::protobuf::Malformed;
use crate::telemetry::access_log::Record;
use crate::upstream::call::Called;

/// Under which name access logs have what services noted: `%DYNAMIC_METADATA(NAMESPACE:KEY)%`.
pub(crate) const NAMESPACE: &str = "envoy.filters.http.ext_authz";

/// Most bytes that an answer's body may have.
pub(crate) const MAX_ANSWER: usize = 1024 * 1024;

/// What a question's head may have. It is made of a request's, which was within limits of its own.
const LIMITS: Limits = Limits {
    max_head_bytes: 1024 * 1024,
    max_fields: 2000,
};

/// A service that is asked about requests.
#[derive(Debug)]
pub(crate) struct ExtAuthz {
    /// None is an unresolved reference: 500.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// Milliseconds.
    pub(crate) timeout_ms: u64,
    pub(crate) body: Option<AuthorizationBody>,
    pub(crate) failure_mode_allow: bool,
    pub(crate) failure_mode_allow_header_add: bool,
    pub(crate) status_on_error: u16,
    pub(crate) retry: Option<AuthorizationRetry>,
    pub(crate) clear_route_cache: bool,
    pub(crate) cache: Option<Arc<DecisionCache>>,
    /// Where decisions are counted by name as well.
    pub(crate) counts: Option<Arc<Counts>>,
    /// The fields that it is told; none is all.
    request_headers: Option<Names>,
    service: Service,
}

#[derive(Debug)]
enum Service {
    Http(http::Service),
    Grpc(grpc::Service),
}

/// What a service is asked about.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) request: &'a Request,
    /// The stated length of its body.
    pub(crate) length: Option<u64>,
    pub(crate) body: Option<SubjectBody>,
    /// The client.
    pub(crate) source: SocketAddr,
    /// What it addressed.
    pub(crate) destination: SocketAddr,
    /// The client's identity.
    pub(crate) principal: Option<&'a str>,
    /// The server name that it asked for in TLS.
    pub(crate) server_name: Option<&'a str>,
    pub(crate) is_secure: bool,
    /// When the request began. Nanoseconds since 1970.
    pub(crate) began: u64,
    /// What fills the operators in what the service is told.
    pub(crate) record: &'a Record<'a>,
}

/// A request's body, or its beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct SubjectBody {
    pub(crate) bytes: Bytes,
    pub(crate) is_partial: bool,
}

/// What a service is sent.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) head: Request,
    pub(crate) body: Bytes,
}

/// What a service decided.
#[derive(Debug)]
pub(crate) enum Decision {
    Allowed(Box<Changes>),
    Denied {
        answer: Answer,
        metadata: Map<String, Value>,
    },
}

/// What becomes of a request that passes, and of its answer.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    target: Target,
    edits: Vec<Edit>,
    query: QueryEdits,
    /// Of the answer.
    pub(crate) response: Vec<Edit>,
    pub(crate) metadata: Map<String, Value>,
}

/// There is no decision in an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Undecided;

impl From<Malformed> for Undecided {
    fn from(_: Malformed) -> Self {
        Self
    }
}

// === impl ExtAuthz ===

impl ExtAuthz {
    /// Compiles a filter, or says what cannot be used of it.
    pub(crate) fn compile(
        filter: &ir::ExtAuthz,
        cluster: Option<Arc<Cluster>>,
        caches: &mut DecisionCaches,
        counts: &CountsByName,
    ) -> Result<Self, String> {
        if filter.timeout_ms == 0 {
            return Err("an authorization service has no time to decide".to_owned());
        }
        if !(200..600).contains(&filter.status_on_error) {
            let status = filter.status_on_error;
            return Err(format!("{status} is not the status of a final answer"));
        }
        if filter.body.is_some_and(|body| body.max_bytes == 0) {
            return Err("an authorization service is told no byte of a body".to_owned());
        }
        if filter
            .retry
            .is_some_and(|retry| retry.base_interval_ms == 0)
        {
            return Err("an authorization service is asked again without a pause".to_owned());
        }
        if filter.cache.is_some() && filter.body.is_some() {
            return Err("a decision about a body is not remembered".to_owned());
        }
        let cache = filter.cache.as_ref().map(|cache| {
            let origin = serde_json::to_string(filter).map_err(|error| error.to_string())?;
            caches.cache(origin, cache)
        });
        Ok(Self {
            cluster,
            timeout_ms: filter.timeout_ms,
            body: filter.body,
            failure_mode_allow: filter.failure_mode_allow,
            failure_mode_allow_header_add: filter.failure_mode_allow_header_add,
            status_on_error: filter.status_on_error,
            retry: filter.retry,
            clear_route_cache: filter.clear_route_cache,
            cache: cache.transpose()?,
            counts: filter.stat_prefix.as_deref().map(|name| counts.of(name)),
            request_headers: Names::all_or(filter.request_headers.as_deref())?,
            service: match &filter.service {
                AuthorizationService::Http { .. } => {
                    Service::Http(http::Service::compile(&filter.service)?)
                }
                AuthorizationService::Grpc { .. } => {
                    Service::Grpc(grpc::Service::compile(&filter.service)?)
                }
            },
        })
    }

    /// What the service is sent about a request. None if the request cannot be told in its protocol.
    pub(crate) fn question(&self, subject: &Subject<'_>) -> Option<Question> {
        match &self.service {
            Service::Http(service) => service.question(self, subject),
            Service::Grpc(service) => service.question(self, subject),
        }
    }

    /// What an answer of the service says.
    pub(crate) fn decision(&self, answer: &Called) -> Result<Decision, Undecided> {
        match &self.service {
            Service::Http(service) => service.decision(answer),
            Service::Grpc(_) => grpc::decision(answer),
        }
    }

    /// Whether the service is told the fields of a name, which is in lower case.
    fn tells(&self, name: &[u8]) -> bool {
        let names = self.request_headers.as_ref();
        names.is_none_or(|names| names.has(name))
    }
}

impl Changes {
    /// Whether they leave a request as it is.
    pub(crate) fn leave_request(&self) -> bool {
        self.target == Target::default()
            && self.edits.is_empty()
            && self.query == QueryEdits::default()
    }

    /// Changes a request.
    pub(crate) fn apply(&self, request: &mut Request) {
        self.target.apply(request);
        for edit in &self.edits {
            edit.apply(request.headers_mut());
        }
        self.query.apply(request);
    }
}

/// Names of header fields.
#[derive(Debug, Default)]
struct Names(Box<[Box<[u8]>]>);

impl Names {
    fn compile(names: &[String]) -> Result<Self, String> {
        let mut known = Vec::with_capacity(names.len());
        for name in names {
            if !kgw_h1::is_valid_name(name.as_bytes()) {
                return Err(format!("{name:?} is not a header field name"));
            }
            known.push(name.to_ascii_lowercase().into_bytes().into_boxed_slice());
        }
        known.sort_unstable();
        known.dedup();
        Ok(Self(known.into_boxed_slice()))
    }

    /// Some names, or none for all.
    fn all_or(names: Option<&[String]>) -> Result<Option<Self>, String> {
        names.map(Self::compile).transpose()
    }

    /// Whether a name, which is in lower case, is among them.
    fn has(&self, name: &[u8]) -> bool {
        self.0.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }
}

/// Makes the head of a question. None if it cannot be one.
fn head(
    method: &[u8],
    authority: &[u8],
    path: &[u8],
    fields: &Headers,
    is_whole: bool,
) -> Option<Request> {
    let parts = RequestParts {
        method,
        scheme: Some(b"http"),
        authority: Some(authority),
        path: Some(path),
        protocol: None,
        end_stream: is_whole,
    };
    let mut head = Request::new();
    let assembled = head.assemble(&parts, fields, &LIMITS);
    assembled.ok().map(|()| head)
}

#[cfg(test)]
mod tests {
    use kgw_h1::{RequestContext, Response};

    use super::*;

    /// A filter of this service, and of further members.
    pub(super) fn filter(service: &str) -> ExtAuthz {
        let json = format!(r#"{{"cluster": null, "service": {service}}}"#);
        let parsed: ir::ExtAuthz = serde_json::from_str(&with_told(&json)).unwrap();
        compile(&parsed).unwrap()
    }

    fn compile(filter: &ir::ExtAuthz) -> Result<ExtAuthz, String> {
        let counts = CountsByName::default();
        ExtAuthz::compile(filter, None, &mut DecisionCaches::default(), &counts)
    }

    /// Over HTTP, no field is told unless it is named.
    fn with_told(json: &str) -> String {
        if json.contains(r#""type": "http""#) && !json.contains("request_headers") {
            json.replacen('{', r#"{"request_headers": [], "#, 1)
        } else {
            json.to_owned()
        }
    }

    pub(super) fn request(line: &str, fields: &str) -> Request {
        let mut request = Request::new();
        let bytes = format!("{line} HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n");
        request.parse(bytes.as_bytes(), &LIMITS).unwrap();
        request
    }

    pub(super) fn subject<'a>(
        request: &'a Request,
        body: &'static [u8],
        record: &'a Record<'a>,
    ) -> Subject<'a> {
        Subject {
            request,
            length: Some(body.len() as u64),
            body: Some(SubjectBody {
                bytes: Bytes::from_static(body),
                is_partial: false,
            }),
            source: "10.0.0.1:4567".parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
            principal: Some("spiffe://mesh/ns/a/sa/b"),
            server_name: None,
            is_secure: true,
            began: 7_000_000_005,
            record,
        }
    }

    /// A request that does not pass.
    pub(super) fn denial() -> Decision {
        Decision::Denied {
            answer: Answer {
                status: 403,
                headers: Headers::new(),
                body: Bytes::new(),
            },
            metadata: Map::new(),
        }
    }

    pub(super) fn answer(status: u16, fields: &str, body: &'static [u8]) -> Called {
        let mut head = Response::new();
        let length = body.len();
        let bytes = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{fields}\r\n");
        head.parse(bytes.as_bytes(), &LIMITS, RequestContext::default())
            .unwrap();
        Called {
            head,
            body: Bytes::from_static(body),
            trailers: None,
        }
    }

    pub(super) fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (members, problem) in [
            (r#""timeout_ms": 0"#, "no time"),
            (r#""status_on_error": 199"#, "199"),
            (r#""body": {"max_bytes": 0}"#, "no byte"),
            (r#""request_headers": ["a b"]"#, "a b"),
            (
                r#""retry": {"attempts": 1, "base_interval_ms": 0, "max_interval_ms": 1}"#,
                "without a pause",
            ),
            (
                r#""body": {"max_bytes": 1},
                   "cache": {"keys": ["path"], "ttl_ms": 1, "max_entries": 1}"#,
                "not remembered",
            ),
        ] {
            let json = format!(r#"{{"cluster": null, "service": {{"type": "http"}}, {members}}}"#);
            let parsed: ir::ExtAuthz = serde_json::from_str(&json).unwrap();
            let error = compile(&parsed).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
