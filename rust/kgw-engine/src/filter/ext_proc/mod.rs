//! A service that processes requests and their answers: what it is sent, and what it may say.
//!
//! Nothing here waits. `conn::processing` opens the stream, sends the parts of messages and does as the
//! service says. What is sent and understood is what Envoy's `ext_proc` filter sends and understands.

mod attributes;
mod message;
mod mutation;

use std::sync::Arc;

use kgw_h1::{Headers, Limits, Request, RequestParts};
use serde_json::{Map, Value};

use self::attributes::Attribute;
pub(crate) use self::attributes::Subject;
pub(crate) use self::message::{Answer, BodyMutation, Common, Immediate, Part, ProcessingResponse};
use self::message::{Content, First, ProcessingRequest};
pub(crate) use self::mutation::{
    InvalidMutation, StatedLength, of_immediate, of_request, of_response, of_trailers,
};
use crate::config::ir::{self, BodyMode, ProcessingMode, RouteCacheAction, SendMode};
use crate::config::snapshot::Cluster;
use crate::upstream::stream::StreamOptions;

const PATH: &[u8] = b"/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// What a message may have beside a body. Bytes.
const MAX_FIELDS: usize = 3 * 1024 * 1024;

const LIMITS: Limits = Limits {
    max_head_bytes: 64 * 1024,
    max_fields: 100,
};

/// A service that processes messages.
#[derive(Debug)]
pub(crate) struct ExtProc {
    name: Box<str>,
    pub(crate) after_router: bool,
    /// None is an unresolved reference: 500.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// Of the call.
    pub(crate) head: Request,
    pub(crate) mode: ProcessingMode,
    /// Milliseconds.
    pub(crate) message_timeout_ms: u64,
    /// Milliseconds.
    pub(crate) max_message_timeout_ms: u64,
    pub(crate) failure_mode_allow: bool,
    allow_mode_override: bool,
    allowed_mode_overrides: Vec<ProcessingMode>,
    pub(crate) route_cache_action: RouteCacheAction,
    forward_metadata: Vec<String>,
    receive_metadata: Vec<String>,
    attributes: Vec<Attribute>,
    pub(crate) options: StreamOptions,
    /// Bytes.
    pub(crate) max_body: usize,
}

impl ExtProc {
    /// Compiles a filter, or says what cannot be used of it.
    pub(crate) fn compile(
        filter: &ir::ExtProc,
        cluster: Option<Arc<Cluster>>,
    ) -> Result<Self, String> {
        for (name, milliseconds) in [
            ("answer", filter.message_timeout_ms),
            ("accept a stream", filter.open_timeout_ms),
            ("be asked again", filter.retry_interval_ms),
        ] {
            if milliseconds == 0 {
                return Err(format!("a processing service has no time to {name}"));
            }
        }
        if filter.max_body == 0 {
            return Err("a processing service is sent no byte of a body".to_owned());
        }
        let retry_max_interval_ms = match filter.retry_max_interval_ms {
            0 => filter.retry_interval_ms.saturating_mul(10),
            most => most.max(filter.retry_interval_ms),
        };
        let attributes = filter.request_attributes.iter();
        let attributes = attributes.map(|name| Attribute::compile(name));
        Ok(Self {
            name: filter.name.as_str().into(),
            after_router: filter.after_router,
            cluster,
            head: head(&filter.authority)?,
            mode: filter.mode,
            message_timeout_ms: filter.message_timeout_ms,
            max_message_timeout_ms: filter.max_message_timeout_ms,
            failure_mode_allow: filter.failure_mode_allow,
            allow_mode_override: filter.allow_mode_override,
            allowed_mode_overrides: filter.allowed_mode_overrides.clone(),
            route_cache_action: filter.route_cache_action,
            forward_metadata: filter.forward_metadata.clone(),
            receive_metadata: filter.receive_metadata.clone(),
            attributes: attributes.collect::<Result<_, _>>()?,
            options: StreamOptions {
                open_timeout_ms: filter.open_timeout_ms,
                retries: filter.retries,
                retry_interval_ms: filter.retry_interval_ms,
                retry_max_interval_ms,
                max_message: filter.max_body.saturating_add(MAX_FIELDS),
            },
            max_body: filter.max_body,
        })
    }

    /// Whether two filters, of the same route or of two, are one.
    pub(crate) fn is(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other) || !self.name.is_empty() && self.name == other.name
    }

    /// Whether the service may choose a mode.
    pub(crate) fn allows(&self, mode: ProcessingMode) -> bool {
        let allowed = &self.allowed_mode_overrides;
        self.allow_mode_override
            && (allowed.is_empty() || allowed.iter().any(|one| is_same(*one, mode)))
    }

    /// What the service is told of the metadata of a request.
    pub(crate) fn forwarded(&self, metadata: Option<Map<String, Value>>) -> Map<String, Value> {
        let mut metadata = metadata.unwrap_or_default();
        metadata.retain(|namespace, _| self.forward_metadata.contains(namespace));
        metadata
    }

    /// Whether the service is told any metadata.
    pub(crate) fn forwards_metadata(&self) -> bool {
        !self.forward_metadata.is_empty()
    }

    /// What the service may note of what it says: namespaces, and what is in them.
    pub(crate) fn accepted(
        &self,
        metadata: Map<String, Value>,
    ) -> impl Iterator<Item = (String, Map<String, Value>)> {
        metadata.into_iter().filter_map(|(namespace, noted)| {
            let Value::Object(noted) = noted else {
                return None;
            };
            let is_accepted = self.receive_metadata.contains(&namespace);
            is_accepted.then_some((namespace, noted))
        })
    }

    /// The message about a part of a request or of its answer. `first` is what the first message of a
    /// stream is about.
    pub(crate) fn message(
        &self,
        told: &Told<'_>,
        of_response: bool,
        metadata: Map<String, Value>,
        first: Option<(&ProcessingMode, &Subject<'_>)>,
    ) -> Vec<u8> {
        let content = match told {
            Told::Request { request, end } => {
                let scheme = request.headers().get(b"x-forwarded-proto");
                let pseudo: [(&[u8], &[u8]); 4] = [
                    (b":authority", request.authority()),
                    (b":path", request.path()),
                    (b":method", request.method()),
                    (b":scheme", scheme.unwrap_or(b"http")),
                ];
                let request = ProcessingRequest {
                    content: Content::Headers {
                        pseudo: &pseudo,
                        fields: request.headers(),
                        end: *end,
                    },
                    of_response,
                    metadata,
                    first: self.first(first, of_response),
                };
                return request.encode();
            }
            Told::Response {
                status,
                headers,
                end,
            } => {
                let mut number = itoa::Buffer::new();
                let status = number.format(*status).as_bytes();
                let request = ProcessingRequest {
                    content: Content::Headers {
                        pseudo: &[(b":status", status)],
                        fields: headers,
                        end: *end,
                    },
                    of_response,
                    metadata,
                    first: self.first(first, of_response),
                };
                return request.encode();
            }
            Told::Body { data, end } => Content::Body { data, end: *end },
            Told::Trailers(trailers) => Content::Trailers(trailers),
        };
        let request = ProcessingRequest {
            content,
            of_response,
            metadata,
            first: self.first(first, of_response),
        };
        request.encode()
    }

    fn first<'a>(
        &self,
        first: Option<(&'a ProcessingMode, &Subject<'_>)>,
        of_response: bool,
    ) -> Option<First<'a>> {
        let (mode, subject) = first?;
        // They are told with the request.
        let attributes = if of_response {
            Map::new()
        } else {
            attributes::told(&self.attributes, subject)
        };
        Some(First { mode, attributes })
    }
}

/// A part of a message, for the service.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    Request {
        request: &'a Request,
        end: bool,
    },
    Response {
        status: u16,
        headers: &'a Headers,
        end: bool,
    },
    Body {
        data: &'a [u8],
        end: bool,
    },
    Trailers(&'a Headers),
}

impl Told<'_> {
    /// Which part it is.
    pub(crate) fn part(&self) -> Part {
        match self {
            Self::Request { .. } | Self::Response { .. } => Part::Headers,
            Self::Body { .. } => Part::Body,
            Self::Trailers(_) => Part::Trailers,
        }
    }
}

/// Whether the service is sent the header fields, of which nothing else was said.
pub(crate) fn sends_headers(mode: SendMode) -> bool {
    mode != SendMode::Skip
}

/// Whether the service is sent trailer fields, of which nothing else was said.
pub(crate) fn sends_trailers(mode: SendMode) -> bool {
    mode == SendMode::Send
}

/// Whether two modes are the same, save for what is past when one of them is chosen.
fn is_same(one: ProcessingMode, other: ProcessingMode) -> bool {
    let essence = |mode: ProcessingMode| {
        (
            sends_headers(mode.response_header),
            mode.request_body,
            mode.response_body,
            sends_trailers(mode.request_trailer),
            sends_trailers(mode.response_trailer),
        )
    };
    essence(one) == essence(other)
}

/// Whether a body of this mode is what the service says, in pieces of its own.
pub(crate) fn is_duplex(mode: BodyMode) -> bool {
    mode == BodyMode::FullDuplexStreamed
}

/// The head of a call.
fn head(authority: &str) -> Result<Request, String> {
    if !kgw_h1::is_valid_authority(authority.as_bytes()) {
        return Err(format!("{authority:?} is not a host"));
    }
    let mut fields = Headers::new();
    fields.append(b"content-type", b"application/grpc");
    fields.append(b"te", b"trailers");
    let parts = RequestParts {
        method: b"POST",
        scheme: Some(b"http"),
        authority: Some(authority.as_bytes()),
        path: Some(PATH),
        protocol: None,
        end_stream: false,
    };
    let mut head = Request::new();
    head.assemble(&parts, &fields, &LIMITS)
        .map_err(|_| format!("{authority:?} cannot be called"))?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(members: &str) -> Result<ExtProc, String> {
        let json = format!(r#"{{"cluster": null, "authority": "a"{members}}}"#);
        ExtProc::compile(&serde_json::from_str(&json).unwrap(), None)
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (members, problem) in [
            (r#", "message_timeout_ms": 0"#, "no time to answer"),
            (r#", "open_timeout_ms": 0"#, "no time to accept"),
            (r#", "retry_interval_ms": 0"#, "no time to be asked"),
            (r#", "max_body": 0"#, "no byte"),
            (r#", "request_attributes": ["a b"]"#, "a b"),
        ] {
            let error = compile(members).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        let bad: ir::ExtProc =
            serde_json::from_str(r#"{"cluster": null, "authority": "a b"}"#).unwrap();
        assert!(ExtProc::compile(&bad, None).is_err());
    }

    #[test]
    fn modes_that_a_service_may_choose() {
        let buffered = ProcessingMode {
            request_body: BodyMode::Buffered,
            ..ProcessingMode::default()
        };
        assert!(!compile("").unwrap().allows(buffered));
        let all = compile(r#", "allow_mode_override": true"#).unwrap();
        assert!(all.allows(buffered));
        let some = compile(
            r#", "allow_mode_override": true,
                "allowed_mode_overrides": [{"request_body": "buffered"}]"#,
        )
        .unwrap();
        assert!(some.allows(buffered));
        assert!(some.allows(ProcessingMode {
            request_header: SendMode::Skip,
            response_header: SendMode::Send,
            request_trailer: SendMode::Skip,
            ..buffered
        }));
        assert!(!some.allows(ProcessingMode::default()));
        assert!(!some.allows(ProcessingMode {
            response_trailer: SendMode::Send,
            ..buffered
        }));
    }

    #[test]
    fn metadata_is_of_the_namespaces_that_are_named() {
        let filter = compile(r#", "forward_metadata": ["a"], "receive_metadata": ["b"]"#).unwrap();
        let of = |json: &str| serde_json::from_str::<Map<_, _>>(json).unwrap();
        let all = of(r#"{"a": {"x": 1}, "b": {"y": 2}, "c": {}}"#);
        let told = filter.forwarded(Some(all.clone()));
        assert_eq!(Value::Object(told).to_string(), r#"{"a":{"x":1}}"#);
        let accepted: Vec<_> = filter.accepted(all).map(|(name, _)| name).collect();
        assert_eq!(accepted, ["b"]);
        assert_eq!(filter.accepted(of(r#"{"b": 1}"#)).count(), 0);
    }
}
