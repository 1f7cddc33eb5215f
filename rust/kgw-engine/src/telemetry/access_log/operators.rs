//! The operators: their names, their syntax and the fields they stand for.
//!
//! One table, sorted by name. An operator that Envoy has and that can never have a value in this
//! data plane (TLS data on plaintext connections, say) is in the table and prints as missing; one
//! that would show something in Envoy that does not exist here is refused, with the reason.

use super::arguments::{
    Argument, MS, cel, coalesce, common_duration, date, details, dynamic_metadata, emit_time,
    emit_time_local, environment, filter_state, grpc_status, hostname, metadata, path, prefix,
    query_param, query_params, request_header, request_header_without_query, response_header,
    response_trailer, server_name, start_time, start_time_local, typed_cel, upstream_filter_state,
};
use super::error::FormatError;
use super::field::{AddressForm, AddressOf, Field, GrpcForm, Limited, NumberOf, TextOf};
use super::record::Subject;
use super::timings::Point;
use super::token::Call;

/// Compiles one operator.
pub(super) fn compile(call: &Call<'_>) -> Result<Limited, FormatError> {
    compile_nested(call, 0)
}

/// Compiles one operator inside of `depth` others.
pub(super) fn compile_nested(call: &Call<'_>, depth: usize) -> Result<Limited, FormatError> {
    let Some(operator) = find(call.name) else {
        return Err(FormatError::UnknownOperator {
            name: call.name.to_owned(),
            suggestion: most_alike(call.name),
        });
    };
    let name = operator.name;
    // Envoy: an empty parameter counts as none.
    let parameter = call.parameter.filter(|parameter| !parameter.is_empty());
    match operator.parameter {
        Parameter::None if call.parameter.is_some() => {
            return Err(FormatError::TakesNothing { name });
        }
        Parameter::None if call.length.is_some() && !operator.length => {
            return Err(FormatError::TakesNothing { name });
        }
        Parameter::Required if parameter.is_none() => {
            return Err(FormatError::ParameterRequired { name });
        }
        _ if call.length.is_some() && !operator.length => {
            return Err(FormatError::TakesNoLength { name });
        }
        _ => {}
    }
    let parameter = Argument {
        name,
        text: parameter.unwrap_or_default(),
        depth,
    };
    let field = match &operator.source {
        Source::Field(field) => field.clone(),
        Source::Build(build) => build(&parameter)?,
        Source::Unsupported(reason) => return Err(FormatError::Unsupported { name, reason }),
    };
    Ok(Limited {
        field,
        length: call.length,
    })
}

/// The names of all operators that compile, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPERATORS
        .iter()
        .filter(|operator| !matches!(operator.source, Source::Unsupported(_)))
        .map(|operator| operator.name)
}

#[derive(Debug)]
struct Operator {
    name: &'static str,
    parameter: Parameter,
    /// Whether `:length` is allowed.
    length: bool,
    source: Source,
}

#[derive(Debug)]
enum Parameter {
    None,
    Optional,
    Required,
}

#[derive(Debug)]
enum Source {
    Field(Field),
    Build(fn(&Argument<'_>) -> Result<Field, FormatError>),
    Unsupported(&'static str),
}

// === The table's vocabulary ===

const fn field(name: &'static str, field: Field) -> Operator {
    Operator {
        name,
        parameter: Parameter::None,
        length: false,
        source: Source::Field(field),
    }
}

const fn text(name: &'static str, of: TextOf) -> Operator {
    field(name, Field::Text(of))
}

/// A text about the client's TLS session.
macro_rules! downstream_tls {
    ($name:literal, $of:ident) => {
        text($name, |r| r.downstream.tls?.$of().map(str::as_bytes))
    };
}

/// A text about the TLS session with the endpoint.
macro_rules! upstream_tls {
    ($name:literal, $of:ident) => {
        text($name, |r| r.upstream.tls?.$of().map(str::as_bytes))
    };
}

const fn underscored(name: &'static str, of: TextOf) -> Operator {
    field(name, Field::Underscored(of))
}

const fn number(name: &'static str, of: NumberOf) -> Operator {
    field(name, Field::Number(of))
}

const fn address(name: &'static str, of: AddressOf) -> Operator {
    field(
        name,
        Field::Address {
            of,
            form: AddressForm::Whole,
        },
    )
}

const fn millis(name: &'static str, begin: Point, end: Point) -> Operator {
    field(
        name,
        Field::Duration {
            begin,
            end,
            unit_ns: MS,
        },
    )
}

const fn missing(name: &'static str) -> Operator {
    field(name, Field::Missing)
}

const fn missing_with_parameter(name: &'static str) -> Operator {
    let source = Source::Field(Field::Missing);
    Operator {
        name,
        parameter: Parameter::Optional,
        length: true,
        source,
    }
}

const fn unsupported(name: &'static str, reason: &'static str) -> Operator {
    let source = Source::Unsupported(reason);
    Operator {
        name,
        parameter: Parameter::Optional,
        length: true,
        source,
    }
}

type Build = fn(&Argument<'_>) -> Result<Field, FormatError>;

const fn optional(name: &'static str, build: Build) -> Operator {
    Operator {
        name,
        parameter: Parameter::Optional,
        length: false,
        source: Source::Build(build),
    }
}

const fn optional_with_length(name: &'static str, build: Build) -> Operator {
    Operator {
        name,
        parameter: Parameter::Optional,
        length: true,
        source: Source::Build(build),
    }
}

const fn required(name: &'static str, build: Build) -> Operator {
    Operator {
        name,
        parameter: Parameter::Required,
        length: false,
        source: Source::Build(build),
    }
}

const fn required_with_length(name: &'static str, build: Build) -> Operator {
    Operator {
        name,
        parameter: Parameter::Required,
        length: true,
        source: Source::Build(build),
    }
}

fn port(address: Option<std::net::SocketAddr>) -> Option<u64> {
    address.map(|address| address.port().into())
}

fn find(name: &str) -> Option<&'static Operator> {
    OPERATORS
        .binary_search_by(|operator| operator.name.cmp(name))
        .ok()
        .map(|at| &OPERATORS[at])
}

/// Returns the operator whose name differs least, if it differs little.
fn most_alike(name: &str) -> Option<&'static str> {
    let allowed = (name.len() / 3).min(4);
    names()
        .filter(|other| other.len().abs_diff(name.len()) <= allowed)
        .map(|other| (edit_distance(name.as_bytes(), other.as_bytes()), other))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, other)| other)
}

/// Levenshtein's distance.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

const EXTENSION: &str = "it is an extension that has to be declared in Envoy's own configuration";

/// Every operator, sorted by name.
static OPERATORS: &[Operator] = &[
    text("ACCESS_LOG_TYPE", |r| {
        Some(match r.subject {
            Subject::Request => b"DownstreamEnd",
            Subject::Connection => b"TcpConnectionEnd",
            Subject::Datagrams => b"UdpSessionEnd",
        })
    }),
    number("BYTES_RECEIVED", |r| Some(r.request.body_bytes)),
    number("BYTES_RETRANSMITTED", |_| Some(0)),
    number("BYTES_SENT", |r| Some(r.response.body_bytes)),
    required_with_length("CEL", cel),
    missing_with_parameter("CLUSTER_METADATA"),
    required_with_length("COALESCE", coalesce),
    required("COMMON_DURATION", common_duration),
    number("CONNECTION_ID", |r| r.downstream.connection_id),
    underscored("CONNECTION_TERMINATION_DETAILS", |r| {
        r.connection_termination_details.map(str::as_bytes)
    }),
    text("CUSTOM_FLAGS", |_| Some(b"")),
    number("DOWNSTREAM_CX_RTT", |_| Some(0)),
    number("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", |r| {
        Some(r.downstream.wire.header_received)
    }),
    number("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", |r| {
        Some(r.downstream.wire.header_sent)
    }),
    text("DOWNSTREAM_DETECTED_CLOSE_TYPE", |r| {
        r.downstream.detected_close_type.map(str::as_bytes)
    }),
    address("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", |r| {
        r.downstream.direct_local
    }),
    optional("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", |argument| {
        prefix(argument, |r| r.downstream.direct_local)
    }),
    number("DOWNSTREAM_DIRECT_LOCAL_PORT", |r| {
        port(r.downstream.direct_local)
    }),
    address("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", |r| {
        r.downstream.direct_remote
    }),
    optional(
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        |argument| prefix(argument, |r| r.downstream.direct_remote),
    ),
    number("DOWNSTREAM_DIRECT_REMOTE_PORT", |r| {
        port(r.downstream.direct_remote)
    }),
    missing("DOWNSTREAM_HANDSHAKE_DURATION"),
    number("DOWNSTREAM_HEADER_BYTES_RECEIVED", |r| {
        Some(r.downstream.wire.header_received)
    }),
    number("DOWNSTREAM_HEADER_BYTES_SENT", |r| {
        Some(r.downstream.wire.header_sent)
    }),
    address("DOWNSTREAM_LOCAL_ADDRESS", |r| r.downstream.local),
    missing("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID"),
    optional("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", |argument| {
        prefix(argument, |r| r.downstream.local)
    }),
    underscored("DOWNSTREAM_LOCAL_CLOSE_REASON", |r| {
        r.downstream.local_close_reason.map(str::as_bytes)
    }),
    missing("DOWNSTREAM_LOCAL_DNS_SAN"),
    missing("DOWNSTREAM_LOCAL_EMAIL_SAN"),
    missing("DOWNSTREAM_LOCAL_IP_SAN"),
    missing("DOWNSTREAM_LOCAL_OTHERNAME_SAN"),
    number("DOWNSTREAM_LOCAL_PORT", |r| port(r.downstream.local)),
    missing("DOWNSTREAM_LOCAL_SUBJECT"),
    missing("DOWNSTREAM_LOCAL_URI_SAN"),
    downstream_tls!("DOWNSTREAM_PEER_CERT", peer_certificate),
    optional_with_length("DOWNSTREAM_PEER_CERT_V_END", |argument| {
        date(argument, |r| Some(r.downstream.tls?.peer_validity()?.1))
    }),
    optional_with_length("DOWNSTREAM_PEER_CERT_V_START", |argument| {
        date(argument, |r| Some(r.downstream.tls?.peer_validity()?.0))
    }),
    downstream_tls!(
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
        peer_chain_fingerprints_1
    ),
    downstream_tls!(
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
        peer_chain_fingerprints_256
    ),
    downstream_tls!("DOWNSTREAM_PEER_CHAIN_SERIALS", peer_chain_serials),
    downstream_tls!("DOWNSTREAM_PEER_DNS_SAN", peer_dns_names),
    downstream_tls!("DOWNSTREAM_PEER_EMAIL_SAN", peer_emails),
    downstream_tls!("DOWNSTREAM_PEER_FINGERPRINT_1", peer_fingerprint_1),
    downstream_tls!("DOWNSTREAM_PEER_FINGERPRINT_256", peer_fingerprint_256),
    downstream_tls!("DOWNSTREAM_PEER_IP_SAN", peer_addresses),
    downstream_tls!("DOWNSTREAM_PEER_ISSUER", peer_issuer),
    missing("DOWNSTREAM_PEER_OTHERNAME_SAN"),
    downstream_tls!("DOWNSTREAM_PEER_SERIAL", peer_serial),
    downstream_tls!("DOWNSTREAM_PEER_SUBJECT", peer_subject),
    downstream_tls!("DOWNSTREAM_PEER_URI_SAN", peer_uris),
    address("DOWNSTREAM_REMOTE_ADDRESS", |r| r.downstream.remote),
    optional("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", |argument| {
        prefix(argument, |r| r.downstream.remote)
    }),
    number("DOWNSTREAM_REMOTE_PORT", |r| port(r.downstream.remote)),
    text("DOWNSTREAM_TLS_CIPHER", |r| {
        Some(r.downstream.tls?.cipher().as_bytes())
    }),
    downstream_tls!("DOWNSTREAM_TLS_GROUP", group),
    missing("DOWNSTREAM_TLS_SESSION_ID"),
    text("DOWNSTREAM_TLS_VERSION", |r| {
        Some(r.downstream.tls?.version().as_bytes())
    }),
    underscored("DOWNSTREAM_TRANSPORT_FAILURE_REASON", |r| {
        r.downstream.transport_failure_reason.map(str::as_bytes)
    }),
    number("DOWNSTREAM_WIRE_BYTES_RECEIVED", |r| {
        Some(r.downstream.wire.received)
    }),
    number("DOWNSTREAM_WIRE_BYTES_SENT", |r| {
        Some(r.downstream.wire.sent)
    }),
    number("DURATION", |r| Some(r.duration_ns() / MS)),
    required_with_length("DYNAMIC_METADATA", dynamic_metadata),
    optional("EMIT_TIME", emit_time),
    optional("EMIT_TIME_LOCAL", emit_time_local),
    required_with_length("ENVIRONMENT", environment),
    unsupported("FILE_CONTENT", EXTENSION),
    text("FILTER_CHAIN_NAME", |r| {
        r.filter_chain_name.map(str::as_bytes)
    }),
    required_with_length("FILTER_STATE", filter_state),
    optional("GRPC_STATUS", grpc_status),
    field("GRPC_STATUS_NUMBER", Field::GrpcStatus(GrpcForm::Number)),
    optional("HOSTNAME", hostname),
    text("LISTENER_NAME", |r| r.listener_name.map(str::as_bytes)),
    text("LOCAL_REPLY_BODY", |r| Some(r.response.local_reply_body)),
    required_with_length("METADATA", metadata),
    number("PACKETS_RETRANSMITTED", |_| Some(0)),
    optional_with_length("PATH", path),
    text("PROTOCOL", |r| r.request.protocol.map(str::as_bytes)),
    required_with_length("QUERY_PARAM", query_param),
    optional_with_length("QUERY_PARAMS", query_params),
    required_with_length("REQ", request_header),
    optional("REQUESTED_SERVER_NAME", server_name),
    millis(
        "REQUEST_DURATION",
        Point::DownstreamRxBegin,
        Point::DownstreamRxEnd,
    ),
    required_with_length("REQUEST_HEADER", request_header),
    field(
        "REQUEST_HEADERS_BYTES",
        Field::HeaderBytes(|r| r.request.headers),
    ),
    millis(
        "REQUEST_TX_DURATION",
        Point::DownstreamRxBegin,
        Point::UpstreamTxEnd,
    ),
    required_with_length("REQ_WITHOUT_QUERY", request_header_without_query),
    required_with_length("RESP", response_header),
    number("RESPONSE_CODE", |r| Some(r.response.code.into())),
    optional("RESPONSE_CODE_DETAILS", details),
    millis(
        "RESPONSE_DURATION",
        Point::DownstreamRxBegin,
        Point::UpstreamRxBegin,
    ),
    field("RESPONSE_FLAGS", Field::Flags { long: false }),
    field("RESPONSE_FLAGS_LONG", Field::Flags { long: true }),
    required_with_length("RESPONSE_HEADER", response_header),
    field(
        "RESPONSE_HEADERS_BYTES",
        Field::HeaderBytes(|r| r.response.headers),
    ),
    required_with_length("RESPONSE_TRAILER", response_trailer),
    field(
        "RESPONSE_TRAILERS_BYTES",
        Field::HeaderBytes(|r| r.response.trailers),
    ),
    millis(
        "RESPONSE_TX_DURATION",
        Point::UpstreamRxBegin,
        Point::DownstreamTxEnd,
    ),
    missing("ROUNDTRIP_DURATION"),
    text("ROUTE_NAME", |r| r.route_name.map(str::as_bytes)),
    missing("ROUTE_RESOLUTION_COUNT"),
    missing("ROUTE_RESOLUTION_TIME_US"),
    unsupported("SECRET", EXTENSION),
    missing("SPAN_ID"),
    optional("START_TIME", start_time),
    optional("START_TIME_LOCAL", start_time_local),
    text("STREAM_ID", |r| r.request.id),
    unsupported("STREAM_INFO_REQ", EXTENSION),
    missing("TLS_JA3_FINGERPRINT"),
    missing("TLS_JA4_FINGERPRINT"),
    missing("TRACE_ID"),
    required_with_length("TRAILER", response_trailer),
    required_with_length("TYPED_CEL", typed_cel),
    field("UNIQUE_ID", Field::UniqueId),
    text("UPSTREAM_CLUSTER", |r| r.cluster.map(str::as_bytes)),
    text("UPSTREAM_CLUSTER_RAW", |r| r.cluster.map(str::as_bytes)),
    number("UPSTREAM_CONNECTION_ID", |r| Some(r.upstream.connection_id)),
    field(
        "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
        Field::ConnectionsAttempted,
    ),
    number("UPSTREAM_CONNECTION_POOL_READY_DURATION", |r| {
        r.pool_ready_ns.map(|ns| ns / MS)
    }),
    number("UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", |r| {
        Some(r.upstream.wire.header_received)
    }),
    number("UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", |r| {
        Some(r.upstream.wire.header_sent)
    }),
    text("UPSTREAM_DETECTED_CLOSE_TYPE", |r| {
        r.upstream.detected_close_type.map(str::as_bytes)
    }),
    required_with_length("UPSTREAM_FILTER_STATE", upstream_filter_state),
    number("UPSTREAM_HEADER_BYTES_RECEIVED", |r| {
        Some(r.upstream.wire.header_received)
    }),
    number("UPSTREAM_HEADER_BYTES_SENT", |r| {
        Some(r.upstream.wire.header_sent)
    }),
    address("UPSTREAM_HOST", |r| r.upstream.host),
    field(
        "UPSTREAM_HOSTS_ATTEMPTED",
        Field::HostsAttempted {
            form: AddressForm::Whole,
            names: false,
        },
    ),
    field(
        "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
        Field::HostsAttempted {
            form: AddressForm::Ip,
            names: false,
        },
    ),
    field(
        "UPSTREAM_HOST_NAME",
        Field::HostName {
            form: AddressForm::Whole,
        },
    ),
    field(
        "UPSTREAM_HOST_NAMES_ATTEMPTED",
        Field::HostsAttempted {
            form: AddressForm::Whole,
            names: true,
        },
    ),
    field(
        "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
        Field::HostsAttempted {
            form: AddressForm::Ip,
            names: true,
        },
    ),
    field(
        "UPSTREAM_HOST_NAME_WITHOUT_PORT",
        Field::HostName {
            form: AddressForm::Ip,
        },
    ),
    address("UPSTREAM_LOCAL_ADDRESS", |r| r.upstream.local),
    optional("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", |argument| {
        prefix(argument, |r| r.upstream.local)
    }),
    underscored("UPSTREAM_LOCAL_CLOSE_REASON", |r| {
        r.upstream.local_close_reason.map(str::as_bytes)
    }),
    missing("UPSTREAM_LOCAL_DNS_SAN"),
    missing("UPSTREAM_LOCAL_IP_SAN"),
    number("UPSTREAM_LOCAL_PORT", |r| port(r.upstream.local)),
    missing("UPSTREAM_LOCAL_SUBJECT"),
    missing("UPSTREAM_LOCAL_URI_SAN"),
    missing_with_parameter("UPSTREAM_METADATA"),
    upstream_tls!("UPSTREAM_PEER_CERT", peer_certificate),
    optional_with_length("UPSTREAM_PEER_CERT_V_END", |argument| {
        date(argument, |r| Some(r.upstream.tls?.peer_validity()?.1))
    }),
    optional_with_length("UPSTREAM_PEER_CERT_V_START", |argument| {
        date(argument, |r| Some(r.upstream.tls?.peer_validity()?.0))
    }),
    upstream_tls!("UPSTREAM_PEER_DNS_SAN", peer_dns_names),
    upstream_tls!("UPSTREAM_PEER_IP_SAN", peer_addresses),
    upstream_tls!("UPSTREAM_PEER_ISSUER", peer_issuer),
    upstream_tls!("UPSTREAM_PEER_SUBJECT", peer_subject),
    upstream_tls!("UPSTREAM_PEER_URI_SAN", peer_uris),
    text("UPSTREAM_PROTOCOL", |r| {
        r.upstream.protocol.map(str::as_bytes)
    }),
    address("UPSTREAM_REMOTE_ADDRESS", |r| r.upstream.host),
    missing("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID"),
    optional("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", |argument| {
        prefix(argument, |r| r.upstream.host)
    }),
    number("UPSTREAM_REMOTE_PORT", |r| port(r.upstream.host)),
    number("UPSTREAM_REQUEST_ATTEMPT_COUNT", |r| {
        Some(r.upstream.attempts.into())
    }),
    upstream_tls!("UPSTREAM_SERVER_NAME", server_name),
    text("UPSTREAM_TLS_CIPHER", |r| {
        Some(r.upstream.tls?.cipher().as_bytes())
    }),
    upstream_tls!("UPSTREAM_TLS_GROUP", group),
    missing("UPSTREAM_TLS_SESSION_ID"),
    text("UPSTREAM_TLS_VERSION", |r| {
        Some(r.upstream.tls?.version().as_bytes())
    }),
    underscored("UPSTREAM_TRANSPORT_FAILURE_REASON", |r| {
        r.upstream.transport_failure_reason.map(str::as_bytes)
    }),
    number("UPSTREAM_WIRE_BYTES_RECEIVED", |r| {
        Some(r.upstream.wire.received)
    }),
    number("UPSTREAM_WIRE_BYTES_SENT", |r| Some(r.upstream.wire.sent)),
    missing("VIRTUAL_CLUSTER_NAME"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(OPERATORS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn suggestions_are_close() {
        assert_eq!(most_alike("RESPONSE_CDE"), Some("RESPONSE_CODE"));
        assert_eq!(most_alike("REQUEST_METHOD"), None);
        assert_eq!(most_alike("X"), None);
    }
}
