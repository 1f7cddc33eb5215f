//! One request's span, and those of its attempts to get an answer.
//!
//! Attributes are Envoy's (`HttpTracerUtility`), numbers those of `opentelemetry.proto.trace.v1`.

use kgw_h1::Headers;

use super::attributes::Attributes;
use super::context::TraceParent;
use super::sampling::Reason;
use crate::clock::{Clock, Nanos};
use crate::protobuf::in_place::Message;
use crate::telemetry::access_log::{Point, Record};
use crate::telemetry::grpc::is_grpc;

/// What a request has while it is traced.
#[derive(Debug)]
pub(crate) struct Span {
    pub(super) trace: [u8; 16],
    pub(super) id: [u8; 8],
    /// The span that the request comes from.
    pub(super) parent: Option<[u8; 8]>,
    pub(super) is_sampled: bool,
    pub(super) reason: Reason,
    pub(super) has_attempts: bool,
    pub(super) attempt: Option<Attempt>,
}

/// An attempt that has a span of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    id: [u8; 8],
    began: Nanos,
}

/// What spans are written with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style<'a> {
    pub(super) node: &'a str,
    pub(super) max_path_bytes: usize,
    pub(super) is_verbose: bool,
    pub(super) attributes: &'a Attributes,
    /// Those that count before.
    pub(super) of_route: Option<&'a Attributes>,
}

impl Span {
    /// Says in a request which span it is a part of when it leaves.
    pub(super) fn state(&self, headers: &mut Headers) {
        let span = self.attempt.map_or(self.id, |attempt| attempt.id);
        let parent = TraceParent {
            trace: self.trace,
            span,
            is_sampled: self.is_sampled,
        };
        headers.set(b"traceparent", &parent.render());
    }

    /// Notes that an attempt begins, and says so in the request if attempts have spans.
    pub(crate) fn begin_attempt(&mut self, headers: &mut Headers, now: Nanos) {
        if self.has_attempts {
            self.attempt = Some(Attempt {
                id: new_id(),
                began: now,
            });
            self.state(headers);
        }
    }

    /// Whether the request is traced because it asks for it.
    pub(crate) fn is_forced(&self) -> bool {
        self.reason == Reason::ServiceForced
    }

    /// Writes the span of the request (`Span`, in `ScopeSpans`).
    pub(super) fn write(&self, out: &mut Vec<u8>, style: &Style<'_>, record: &Record<'_>) {
        let kind = SERVER;
        let start = record.start_unix_ns.max(0).unsigned_abs();
        let times = (start, start + record.duration_ns());
        self.write_head(out, self.id, self.parent, b"ingress", kind, times, |span| {
            let mut tags = Tags { span, style };
            tags.text(b"node_id", style.node.as_bytes());
            tags.text(b"zone", b"");
            write_request(&mut tags, record);
            write_common(&mut tags, record, record.response.code);
            tags.custom(record);
            write_state(tags.span, record);
            if style.is_verbose {
                write_events(tags.span, record, start);
            }
            write_status(tags.span, record, record.response.code);
        });
    }

    /// Writes the span of the attempt that ends, if attempts have one. `code` is the status of its answer;
    /// 0 if there was none.
    pub(super) fn write_attempt(
        &mut self,
        out: &mut Vec<u8>,
        style: &Style<'_>,
        record: &Record<'_>,
        code: u16,
        clock: &Clock,
    ) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        let name = [
            b"router ",
            record.cluster.unwrap_or_default().as_bytes(),
            b" egress",
        ];
        let times = (
            clock.wall_nanos(attempt.began),
            record.emit_unix_ns.max(0).unsigned_abs(),
        );
        let parent = Some(self.id);
        self.write_head(
            out,
            attempt.id,
            parent,
            &name.concat(),
            CLIENT,
            times,
            |span| {
                let mut tags = Tags { span, style };
                tags.text(
                    b"http.protocol",
                    record.upstream.protocol.unwrap_or("-").as_bytes(),
                );
                if let Some(host) = record.upstream.host {
                    let host = host.to_string();
                    tags.text(b"upstream_address", host.as_bytes());
                    tags.text(b"peer.address", host.as_bytes());
                }
                if record.upstream.attempts > 1 {
                    let retries = (record.upstream.attempts - 1).to_string();
                    tags.text(b"retry.count", retries.as_bytes());
                }
                write_common(&mut tags, record, code);
                tags.custom(record);
                write_state(tags.span, record);
                write_status(tags.span, record, code);
            },
        );
    }

    #[expect(clippy::too_many_arguments, reason = "each is a field of the message")]
    fn write_head(
        &self,
        out: &mut Vec<u8>,
        id: [u8; 8],
        parent: Option<[u8; 8]>,
        name: &[u8],
        kind: u64,
        (start, end): (u64, u64),
        rest: impl FnOnce(&mut Message<'_>),
    ) {
        Message(out).part(SPAN, |span| {
            span.bytes(1, &self.trace);
            span.bytes(2, &id);
            if let Some(parent) = parent {
                span.bytes(4, &parent);
            }
            span.text(5, name);
            span.int(6, kind);
            span.fixed64(7, start);
            span.fixed64(8, end);
            rest(span);
        });
    }
}

/// A span's identifier: any that is not zero.
pub(super) fn new_id() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

/// The attributes of a span as they are written.
struct Tags<'t, 'm, 's> {
    span: &'t mut Message<'m>,
    style: &'s Style<'s>,
}

impl Tags<'_, '_, '_> {
    /// Adds an attribute, unless the configuration gives one of the name.
    fn text(&mut self, name: &[u8], value: &[u8]) {
        let of_route = self.style.of_route;
        if !self.style.attributes.has(name) && !of_route.is_some_and(|own| own.has(name)) {
            write_tag(self.span, name, value);
        }
    }

    /// Adds an attribute, or `-` for nothing.
    fn text_or_dash(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.text(name, value.unwrap_or(b"-"));
    }

    /// Adds what the configuration gives.
    fn custom(&mut self, record: &Record<'_>) {
        let span = &mut *self.span;
        if let Some(own) = self.style.of_route {
            own.each(
                record,
                |_| false,
                |name, value| write_tag(span, name, value),
            );
        }
        let is_given = |name: &[u8]| self.style.of_route.is_some_and(|own| own.has(name));
        let all = self.style.attributes;
        all.each(record, is_given, |name, value| write_tag(span, name, value));
    }
}

fn write_tag(span: &mut Message<'_>, name: &[u8], value: &[u8]) {
    span.part(9, |pair| {
        pair.text(1, name);
        pair.part(2, |any| {
            any.rendered(1, |text| text.extend_from_slice(value));
        });
    });
}

/// What the request was.
fn write_request(tags: &mut Tags<'_, '_, '_>, record: &Record<'_>) {
    let request = &record.request;
    let field = |name: &[u8]| request.field(name);
    if let Some(id) = field(b"x-request-id") {
        tags.text(b"guid:x-request-id", id);
    }
    let path = field(b"x-envoy-original-path").or(request.path);
    if let Some(path) = path {
        let path = &path[..path.len().min(tags.style.max_path_bytes)];
        let scheme = field(b"x-forwarded-proto").unwrap_or_default();
        let host = request.authority.unwrap_or_default();
        tags.text(b"http.url", &[scheme, b"://", host, path].concat());
    } else {
        tags.text(b"http.url", b"");
    }
    tags.text(b"http.method", request.method.unwrap_or_default());
    tags.text(b"downstream_cluster", b"-");
    tags.text_or_dash(b"user_agent", field(b"user-agent"));
    let protocol = request.protocol.map(str::as_bytes);
    tags.text_or_dash(b"http.protocol", protocol);
    if let Some(peer) = record.downstream.direct_remote {
        tags.text(b"peer.address", peer.ip().to_string().as_bytes());
    }
    if let Some(id) = field(b"x-client-trace-id") {
        tags.text(b"guid:x-client-trace-id", id);
    }
    let content_type = field(b"content-type").unwrap_or_default();
    if is_grpc(content_type) {
        tags.text(b"grpc.path", request.path.unwrap_or_default());
        tags.text(b"grpc.authority", request.authority.unwrap_or_default());
        tags.text(b"grpc.content_type", content_type);
        if let Some(timeout) = field(b"grpc-timeout") {
            tags.text(b"grpc.timeout", timeout);
        }
    }
    let mut number = itoa::Buffer::new();
    let size = number.format(request.body_bytes);
    tags.text(b"request_size", size.as_bytes());
    let size = number.format(record.response.body_bytes);
    tags.text(b"response_size", size.as_bytes());
}

/// What became of it.
fn write_common(tags: &mut Tags<'_, '_, '_>, record: &Record<'_>, code: u16) {
    tags.text(b"component", b"proxy");
    if let Some(cluster) = record.cluster {
        tags.text(b"upstream_cluster", cluster.as_bytes());
        tags.text(b"upstream_cluster.name", cluster.as_bytes());
    }
    let mut number = itoa::Buffer::new();
    let status = number.format(code);
    tags.text(b"http.status_code", status.as_bytes());
    let status = grpc_status(record);
    if let Some(status) = status {
        tags.text(b"grpc.status_code", status);
        if let Some(message) = answer_field(record, b"grpc-message") {
            tags.text(b"grpc.message", message);
        }
    }
    if is_error(record, code) {
        tags.text(b"error", b"true");
    }
    tags.text(b"response_flags", record.flags.to_string().as_bytes());
}

fn is_error(record: &Record<'_>, code: u16) -> bool {
    let status = grpc_status(record);
    matches!(code, 0 | 500..=599) || status.is_some_and(|status| GRPC_ERRORS.contains(&status))
}

/// The status that a call was answered with, if the request is one.
fn grpc_status<'r>(record: &Record<'r>) -> Option<&'r [u8]> {
    let content_type = record.request.field(b"content-type")?;
    is_grpc(content_type).then(|| answer_field(record, b"grpc-status"))?
}

/// A field of the answer's trailers or head.
fn answer_field<'r>(record: &Record<'r>, name: &[u8]) -> Option<&'r [u8]> {
    let response = &record.response;
    let of = |fields: Option<&'r dyn crate::telemetry::access_log::HeaderLookup>| {
        fields.and_then(|fields| fields.first(name))
    };
    of(response.trailers).or_else(|| of(response.headers))
}

/// What happened, and when.
fn write_events(span: &mut Message<'_>, record: &Record<'_>, start: u64) {
    for (name, point) in [
        ("last_downstream_rx_byte_received", Point::DownstreamRxEnd),
        ("first_upstream_tx_byte_sent", Point::UpstreamTxBegin),
        ("last_upstream_tx_byte_sent", Point::UpstreamTxEnd),
        ("first_upstream_rx_byte_received", Point::UpstreamRxBegin),
        ("last_upstream_rx_byte_received", Point::UpstreamRxEnd),
        ("first_downstream_tx_byte_sent", Point::DownstreamTxBegin),
        ("last_downstream_tx_byte_sent", Point::DownstreamTxEnd),
    ] {
        let after = record.timings.between(Point::DownstreamRxBegin, point);
        if let Some(after) = after {
            span.part(11, |event| {
                event.fixed64(1, start + after);
                event.text(2, name);
            });
        }
    }
}

/// What others say about the trace (`tracestate`), which is passed on.
fn write_state(span: &mut Message<'_>, record: &Record<'_>) {
    let mut state = Vec::new();
    record.request.each_field(b"tracestate", &mut |value| {
        if !state.is_empty() {
            state.push(b',');
        }
        state.extend_from_slice(value);
    });
    span.text(3, state);
}

fn write_status(span: &mut Message<'_>, record: &Record<'_>, code: u16) {
    if is_error(record, code) {
        span.part(15, |status| status.int(3, ERROR));
    }
}

/// A span in `ScopeSpans`.
const SPAN: u32 = 2;
/// `SpanKind`
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// `Status.StatusCode`
const ERROR: u64 = 2;
/// `UNKNOWN`, `DEADLINE_EXCEEDED`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS`.
const GRPC_ERRORS: [&[u8]; 6] = [b"2", b"4", b"12", b"13", b"14", b"15"];
