//! What Envoy's access log service is told: entries with a field for each property of a request, or of a
//! connection, and some header fields.
//!
//! Numbers are those of `envoy.data.accesslog.v3` and `envoy.service.accesslog.v3`.

use std::net::SocketAddr;

use serde_json::{Map, Value};

use super::super::TlsInfo;
use super::super::record::{HeaderLookup, Record, Subject};
use super::super::timings::Point;
use crate::protobuf::in_place::Message;
use crate::telemetry::flags::ResponseFlag;

/// The header fields that entries have beside the properties. Lower case.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) request_headers: Box<[Box<str>]>,
    pub(super) response_headers: Box<[Box<str>]>,
    pub(super) response_trailers: Box<[Box<str>]>,
}

impl Entries {
    /// Writes the entry of a request (`HTTPAccessLogEntry`), with number and length in front.
    pub(super) fn write_request(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        Message(out).part(ENTRY, |entry| {
            entry.part(1, |common| write_common(common, record));
            entry.int(2, version(record.request.protocol));
            entry.part(3, |request| self.write_request_properties(request, record));
            entry.part(4, |response| {
                self.write_response_properties(response, record);
            });
        });
    }

    fn write_request_properties(&self, out: &mut Message<'_>, record: &Record<'_>) {
        let request = &record.request;
        let field = |name: &[u8]| request.field(name).unwrap_or_default();
        out.int(1, method(request.method.unwrap_or_default()));
        out.text(2, request.scheme.unwrap_or_default());
        out.text(3, request.authority.unwrap_or_default());
        out.text(5, request.path.unwrap_or_default());
        out.text(6, field(b"user-agent"));
        out.text(7, field(b"referer"));
        out.text(8, field(b"x-forwarded-for"));
        out.text(9, field(b"x-request-id"));
        out.text(10, field(b"x-envoy-original-path"));
        out.int(11, request.headers.map_or(0, HeaderLookup::total_bytes));
        out.int(12, request.body_bytes);
        for name in &self.request_headers {
            let each =
                &mut |found: &mut dyn FnMut(&[u8])| request.each_field(name.as_bytes(), found);
            write_joined(out, 13, name, each);
        }
        out.int(14, record.upstream.wire.header_sent);
        out.int(15, record.downstream.wire.header_received);
    }

    fn write_response_properties(&self, out: &mut Message<'_>, record: &Record<'_>) {
        let response = &record.response;
        if response.code != 0 {
            out.part(1, |code| code.int(1, u64::from(response.code)));
        }
        out.int(2, response.headers.map_or(0, HeaderLookup::total_bytes));
        out.int(3, response.body_bytes);
        for (number, names, fields) in [
            (4, &self.response_headers, response.headers),
            (5, &self.response_trailers, response.trailers),
        ] {
            let Some(fields) = fields else { continue };
            for name in names {
                let each = &mut |found: &mut dyn FnMut(&[u8])| fields.each(name.as_bytes(), found);
                write_joined(out, number, name, each);
            }
        }
        out.text(6, response.details.unwrap_or_default());
        out.int(7, record.upstream.wire.header_received);
        out.int(8, record.downstream.wire.header_sent);
    }
}

/// Writes the entry of a connection (`TCPAccessLogEntry`), with number and length in front.
pub(super) fn write_connection(out: &mut Vec<u8>, record: &Record<'_>) {
    Message(out).part(ENTRY, |entry| {
        entry.part(1, |common| write_common(common, record));
        entry.part(2, |connection| {
            connection.int(1, record.request.body_bytes);
            connection.int(2, record.response.body_bytes);
        });
    });
}

/// Writes who sends a stream's entries (`Identifier`).
pub(super) fn write_identifier(out: &mut Vec<u8>, node: &str, cluster: &str, log_name: &str) {
    Message(out).part(1, |identifier| {
        identifier.part(1, |own| {
            own.text(1, node);
            own.text(2, cluster);
            own.text(6, "kgw");
            own.text(7, env!("CARGO_PKG_VERSION"));
        });
        identifier.text(2, log_name);
    });
}

/// `AccessLogCommon`.
fn write_common(out: &mut Message<'_>, record: &Record<'_>) {
    let (down, up) = (&record.downstream, &record.upstream);
    let protocol = u64::from(record.subject == Subject::Datagrams);
    let mut address = |number, address: Option<SocketAddr>| {
        if let Some(address) = address {
            write_address(out, number, address, protocol);
        }
    };
    address(2, down.remote);
    address(3, down.local);
    address(13, up.host);
    address(14, up.local);
    address(20, down.direct_remote);
    if let Some(tls) = down.tls {
        out.part(4, |part| write_tls(part, tls, down.server_name));
    }
    write_time(out, 5, record.start_unix_ns.max(0).unsigned_abs());
    for (number, point) in [
        (6, Point::DownstreamRxEnd),
        (7, Point::UpstreamTxBegin),
        (8, Point::UpstreamTxEnd),
        (9, Point::UpstreamRxBegin),
        (10, Point::UpstreamRxEnd),
        (11, Point::DownstreamTxBegin),
        (12, Point::DownstreamTxEnd),
    ] {
        if let Some(nanos) = record.timings.between(Point::DownstreamRxBegin, point) {
            write_time(out, number, nanos);
        }
    }
    if up.host.is_some() {
        // Of which the address is.
        out.text(15, record.cluster.unwrap_or_default());
    }
    if !record.flags.is_empty() {
        out.part(16, |flags| {
            for flag in record.flags.iter() {
                write_flag(flags, flag);
            }
        });
    }
    if let Some(metadata) = record.metadata {
        out.part(17, |part| write_metadata(part, metadata));
    }
    out.text(18, up.transport_failure_reason.unwrap_or_default());
    out.text(19, record.route_name.unwrap_or_default());
    write_time(out, 23, record.duration_ns());
    out.int(24, u64::from(up.attempts));
    out.text(
        25,
        record.connection_termination_details.unwrap_or_default(),
    );
    out.text(26, record.request.id.unwrap_or_default());
    out.text(28, down.transport_failure_reason.unwrap_or_default());
    out.int(29, down.wire.sent);
    out.int(30, down.wire.received);
    out.int(31, up.wire.sent);
    out.int(32, up.wire.received);
    out.int(
        33,
        match record.subject {
            Subject::Connection => TCP_CONNECTION_END,
            Subject::Request => DOWNSTREAM_END,
            Subject::Datagrams => UDP_SESSION_END,
        },
    );
}

fn write_address(out: &mut Message<'_>, number: u32, address: SocketAddr, protocol: u64) {
    out.part(number, |part| {
        part.part(1, |socket| {
            socket.int(1, protocol);
            socket.rendered(2, |text| {
                use std::io::Write as _;
                // Writing to a `Vec` cannot fail.
                let _ = write!(text, "{}", address.ip());
            });
            socket.int(3, u64::from(address.port()));
        });
    });
}

/// A `Timestamp` or `Duration`.
fn write_time(out: &mut Message<'_>, number: u32, nanos: u64) {
    out.part(number, |part| {
        part.int(1, nanos / NANOS);
        part.int(2, nanos % NANOS);
    });
}

/// `TLSProperties`.
fn write_tls(out: &mut Message<'_>, tls: &TlsInfo, server_name: Option<&[u8]>) {
    out.int(
        1,
        match tls.version() {
            "TLSv1.2" => 3,
            "TLSv1.3" => 4,
            _ => 0,
        },
    );
    if let Some(id) = tls.cipher_id() {
        out.part(2, |suite| suite.int(1, u64::from(id)));
    }
    out.text(3, server_name.unwrap_or_default());
    out.part(5, |peer| {
        let names = |names: Option<&'_ str>| names.unwrap_or_default().to_owned();
        for uri in names(tls.peer_uris())
            .split(',')
            .filter(|uri| !uri.is_empty())
        {
            peer.part(1, |name| name.text(1, uri));
        }
        peer.text(2, tls.peer_subject().unwrap_or_default());
        peer.text(3, tls.peer_issuer().unwrap_or_default());
    });
}

/// A flag of `ResponseFlags`; what has no field there is left out.
fn write_flag(out: &mut Message<'_>, flag: ResponseFlag) {
    if flag == ResponseFlag::UnauthorizedExternalService {
        out.part(13, |details| details.int(1, EXTERNAL_SERVICE));
        return;
    }
    let number = match flag {
        ResponseFlag::FailedLocalHealthCheck => 1,
        ResponseFlag::NoHealthyUpstream => 2,
        ResponseFlag::UpstreamRequestTimeout => 3,
        ResponseFlag::LocalReset => 4,
        ResponseFlag::UpstreamRemoteReset => 5,
        ResponseFlag::UpstreamConnectionFailure => 6,
        ResponseFlag::UpstreamConnectionTermination => 7,
        ResponseFlag::UpstreamOverflow => 8,
        ResponseFlag::NoRouteFound => 9,
        ResponseFlag::DelayInjected => 10,
        ResponseFlag::FaultInjected => 11,
        ResponseFlag::RateLimited => 12,
        ResponseFlag::RateLimitServiceError => 14,
        ResponseFlag::DownstreamConnectionTermination => 15,
        ResponseFlag::UpstreamRetryLimitExceeded => 16,
        ResponseFlag::StreamIdleTimeout => 17,
        ResponseFlag::InvalidEnvoyRequestHeaders => 18,
        ResponseFlag::DownstreamProtocolError => 19,
        ResponseFlag::UpstreamMaxStreamDurationReached => 20,
        ResponseFlag::ResponseFromCacheFilter => 21,
        ResponseFlag::NoFilterConfigFound => 22,
        ResponseFlag::DurationTimeout => 23,
        ResponseFlag::UpstreamProtocolError => 24,
        ResponseFlag::NoClusterFound => 25,
        ResponseFlag::OverloadManager => 26,
        ResponseFlag::DnsResolutionFailed => 27,
        ResponseFlag::DownstreamRemoteReset => 28,
        _ => return,
    };
    out.present_bool(number, true);
}

/// `Metadata`: a `Struct` for each namespace.
fn write_metadata(out: &mut Message<'_>, metadata: &Map<String, Value>) {
    for (namespace, noted) in metadata {
        out.entry(1, namespace, |entry| {
            if let Value::Object(noted) = noted {
                entry.part(2, |part| write_struct(part, noted));
            }
        });
    }
}

fn write_struct(out: &mut Message<'_>, members: &Map<String, Value>) {
    for (key, value) in members {
        out.entry(1, key, |entry| {
            entry.part(2, |part| write_value(part, value));
        });
    }
}

fn write_value(out: &mut Message<'_>, value: &Value) {
    match value {
        Value::Null => out.present_bool(1, false),
        Value::Number(number) => out.present_double(2, number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => out.rendered(3, |out| out.extend_from_slice(text.as_bytes())),
        Value::Bool(value) => out.present_bool(4, *value),
        Value::Object(members) => out.part(5, |part| write_struct(part, members)),
        Value::Array(items) => out.part(6, |part| {
            for item in items {
                part.part(1, |part| write_value(part, item));
            }
        }),
    }
}

/// Shows each value of a header field.
type EachField<'a> = dyn FnMut(&mut dyn FnMut(&[u8])) + 'a;

/// Adds a header field to a map, if there is one: the values of several are joined.
fn write_joined(out: &mut Message<'_>, number: u32, name: &str, each: &mut EachField<'_>) {
    let mut is_there = false;
    each(&mut |_| is_there = true);
    if !is_there {
        return;
    }
    out.entry(number, name, |entry| {
        entry.rendered(2, |out| {
            let mut is_first = true;
            each(&mut |value| {
                if !std::mem::take(&mut is_first) {
                    out.push(b',');
                }
                out.extend_from_slice(value);
            });
        });
    });
}

/// `RequestMethod`
fn method(name: &[u8]) -> u64 {
    match name {
        b"GET" => 1,
        b"HEAD" => 2,
        b"POST" => 3,
        b"PUT" => 4,
        b"DELETE" => 5,
        b"CONNECT" => 6,
        b"OPTIONS" => 7,
        b"TRACE" => 8,
        b"PATCH" => 9,
        _ => 0,
    }
}

/// `HTTPVersion`
fn version(protocol: Option<&str>) -> u64 {
    match protocol {
        Some("HTTP/1.0") => 1,
        Some("HTTP/1.1") => 2,
        Some("HTTP/2") => 3,
        _ => 0,
    }
}

/// An entry in `HTTPAccessLogEntries` and `TCPAccessLogEntries`.
const ENTRY: u32 = 1;
const NANOS: u64 = 1_000_000_000;
/// `AccessLogType`
const TCP_CONNECTION_END: u64 = 3;
const DOWNSTREAM_END: u64 = 6;
const UDP_SESSION_END: u64 = 13;
/// `Unauthorized.Reason`
const EXTERNAL_SERVICE: u64 = 1;
