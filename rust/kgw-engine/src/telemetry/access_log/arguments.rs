//! Operators that have a parameter: each function reads one and returns the field it asks for.
#![expect(
    clippy::unnecessary_wraps,
    reason = "all have the signature that the table stores"
)]

use std::sync::Arc;

use serde_json::Value;

use super::error::FormatError;
use super::field::{
    AddressForm, AddressOf, Field, GrpcForm, HeaderNames, NameOrder, Original, SecondsOf, TextOf,
};
use super::operators;
use super::time_format::TimeFormat;
use super::timings::Point;
use super::token::Call;
use crate::cel::Expression;

/// The parameter of an operator; empty when there is none.
#[derive(Debug)]
pub(super) struct Argument<'a> {
    pub(super) name: &'static str,
    pub(super) text: &'a str,
    /// How many `COALESCE` this is inside of.
    pub(super) depth: usize,
}

impl Argument<'_> {
    fn bad(&self, expected: &'static str) -> FormatError {
        FormatError::BadParameter {
            name: self.name,
            parameter: self.text.to_owned(),
            expected,
        }
    }
}

/// `CEL(expression)`, whose value is always a text.
pub(super) fn cel(argument: &Argument<'_>) -> Result<Field, FormatError> {
    expression(argument, false)
}

/// `TYPED_CEL(expression)`, whose value keeps its type.
pub(super) fn typed_cel(argument: &Argument<'_>) -> Result<Field, FormatError> {
    expression(argument, true)
}

fn expression(argument: &Argument<'_>, typed: bool) -> Result<Field, FormatError> {
    let compiled = Expression::compile(argument.text).map_err(|error| FormatError::Expression {
        name: argument.name,
        error: error.to_string(),
    })?;
    Ok(Field::Expression {
        expression: Arc::new(compiled),
        typed,
    })
}

pub(super) fn start_time(argument: &Argument<'_>) -> Result<Field, FormatError> {
    time(argument, false, false)
}

pub(super) fn start_time_local(argument: &Argument<'_>) -> Result<Field, FormatError> {
    time(argument, false, true)
}

pub(super) fn emit_time(argument: &Argument<'_>) -> Result<Field, FormatError> {
    time(argument, true, false)
}

pub(super) fn emit_time_local(argument: &Argument<'_>) -> Result<Field, FormatError> {
    time(argument, true, true)
}

fn time(argument: &Argument<'_>, emit: bool, local: bool) -> Result<Field, FormatError> {
    let format = time_format(argument, local)?;
    Ok(Field::Time { emit, format })
}

pub(super) fn date(argument: &Argument<'_>, of: SecondsOf) -> Result<Field, FormatError> {
    let format = time_format(argument, false)?;
    Ok(Field::Date { of, format })
}

fn time_format(argument: &Argument<'_>, local: bool) -> Result<TimeFormat, FormatError> {
    TimeFormat::compile(argument.text, local)
        .map_err(|_| argument.bad("a strftime format, with %s, %f and %1f to %9f"))
}

pub(super) fn details(argument: &Argument<'_>) -> Result<Field, FormatError> {
    let of: TextOf = |r| r.response.details.map(str::as_bytes);
    match argument.text {
        "" => Ok(Field::Underscored(of)),
        "ALLOW_WHITESPACES" => Ok(Field::Text(of)),
        _ => Err(argument.bad("ALLOW_WHITESPACES")),
    }
}

pub(super) fn common_duration(argument: &Argument<'_>) -> Result<Field, FormatError> {
    let bad = || argument.bad("START:END:ms, START:END:us or START:END:ns with two points in time");
    let mut parts = argument.text.split(':');
    let (Some(begin), Some(end), Some(unit), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad());
    };
    let unit_ns = match unit {
        "ms" => MS,
        "us" => 1_000,
        "ns" => 1,
        _ => return Err(bad()),
    };
    let point = |name| {
        POINTS
            .iter()
            .find(|(point, _)| *point == name)
            .map(|(_, point)| *point)
            .ok_or_else(bad)
    };
    Ok(match (point(begin)?, point(end)?) {
        (Some(begin), Some(end)) => Field::Duration {
            begin,
            end,
            unit_ns,
        },
        _ => Field::Missing,
    })
}

pub(super) fn environment(argument: &Argument<'_>) -> Result<Field, FormatError> {
    use std::os::unix::ffi::OsStringExt as _;
    let value = std::env::var_os(argument.text).unwrap_or_else(|| "-".into());
    Ok(Field::Constant(value.into_vec().into()))
}

pub(super) fn hostname(_: &Argument<'_>) -> Result<Field, FormatError> {
    Ok(match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => Field::Constant(name.trim_end().as_bytes().into()),
        Err(_) => Field::Missing,
    })
}

fn header_names(argument: &Argument<'_>) -> Result<HeaderNames, FormatError> {
    let lower = |name: &str| name.to_ascii_lowercase().into_bytes().into_boxed_slice();
    let mut names = argument.text.split('?');
    let name = names.next().filter(|name| !name.is_empty());
    let alternative = names.next();
    match (name, alternative, names.next()) {
        (Some(_), Some(""), _) | (None, _, _) | (_, _, Some(_)) => {
            Err(argument.bad("a header name, or two separated by ?"))
        }
        (Some(name), alternative, None) => Ok(HeaderNames {
            name: lower(name),
            alternative: alternative.map(lower),
        }),
    }
}

pub(super) fn request_header(argument: &Argument<'_>) -> Result<Field, FormatError> {
    Ok(Field::RequestHeader {
        names: header_names(argument)?,
        query: true,
    })
}

pub(super) fn request_header_without_query(argument: &Argument<'_>) -> Result<Field, FormatError> {
    Ok(Field::RequestHeader {
        names: header_names(argument)?,
        query: false,
    })
}

pub(super) fn response_header(argument: &Argument<'_>) -> Result<Field, FormatError> {
    Ok(Field::ResponseHeader(header_names(argument)?))
}

pub(super) fn response_trailer(argument: &Argument<'_>) -> Result<Field, FormatError> {
    Ok(Field::ResponseTrailer(header_names(argument)?))
}

pub(super) fn path(argument: &Argument<'_>) -> Result<Field, FormatError> {
    let bad = || argument.bad("WQ or NQ, and then ORIG, PATH or ORIG_OR_PATH behind a colon");
    let (query, from) = argument.text.split_once(':').unwrap_or((argument.text, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        _ => return Err(bad()),
    };
    let from = match from {
        "" | "ORIG_OR_PATH" => Original::Preferred,
        "ORIG" => Original::Only,
        "PATH" => Original::Never,
        _ => return Err(bad()),
    };
    Ok(Field::Path { from, query })
}

pub(super) fn query_param(argument: &Argument<'_>) -> Result<Field, FormatError> {
    Ok(Field::QueryParam(argument.text.as_bytes().into()))
}

pub(super) fn query_params(argument: &Argument<'_>) -> Result<Field, FormatError> {
    match argument.text {
        // Envoy prints the query undecoded in both cases, and so it stays comparable.
        "" | "ORIG" | "DECODED" => Ok(Field::QueryString(Original::Never)),
        _ => Err(argument.bad("ORIG or DECODED")),
    }
}

pub(super) fn server_name(argument: &Argument<'_>) -> Result<Field, FormatError> {
    let bad = || {
        argument.bad(
            "SNI_ONLY, SNI_FIRST or HOST_FIRST, and then ORIG, HOST or ORIG_OR_HOST behind a colon",
        )
    };
    let (order, host) = argument.text.split_once(':').unwrap_or((argument.text, ""));
    let order = match order {
        "" | "SNI_ONLY" => NameOrder::SniOnly,
        "SNI_FIRST" => NameOrder::SniFirst,
        "HOST_FIRST" => NameOrder::HostFirst,
        _ => return Err(bad()),
    };
    let host = match host {
        "" | "ORIG_OR_HOST" => Original::Preferred,
        "ORIG" => Original::Only,
        "HOST" => Original::Never,
        _ => return Err(bad()),
    };
    Ok(Field::ServerName { order, host })
}

pub(super) fn dynamic_metadata(argument: &Argument<'_>) -> Result<Field, FormatError> {
    Ok(metadata_path(argument.text))
}

fn metadata_path(text: &str) -> Field {
    let mut parts = text.split(':').map(Box::from);
    let namespace = parts.next().unwrap_or_default();
    Field::Metadata {
        namespace,
        path: parts.collect(),
    }
}

/// `METADATA(TYPE:namespace:key…)`; only dynamic metadata exists here.
pub(super) fn metadata(argument: &Argument<'_>) -> Result<Field, FormatError> {
    let (of, path) = argument.text.split_once(':').unwrap_or((argument.text, ""));
    match of {
        "DYNAMIC" => Ok(metadata_path(path)),
        "CLUSTER"
        | "ROUTE"
        | "UPSTREAM_HOST"
        | "LISTENER"
        | "LISTENER_FILTER_CHAIN"
        | "VIRTUAL_HOST" => Ok(Field::Missing),
        _ => Err(argument.bad(
            "DYNAMIC, CLUSTER, ROUTE, UPSTREAM_HOST, LISTENER, \
             LISTENER_FILTER_CHAIN or VIRTUAL_HOST, and then a namespace and keys",
        )),
    }
}

/// `FILTER_STATE(key:PLAIN)`; the only state is the mesh identity, a string in either form.
pub(super) fn filter_state(argument: &Argument<'_>) -> Result<Field, FormatError> {
    let mut parts = argument.text.split(':');
    let key = parts.next().unwrap_or_default();
    match (parts.next(), parts.next(), parts.next()) {
        (None | Some("PLAIN" | "TYPED"), None, None) if key == PEER_PRINCIPAL => {
            Ok(Field::Text(|r| r.peer_principal))
        }
        (None | Some("PLAIN" | "TYPED"), None, None) | (Some("FIELD"), Some(_), None) => {
            Ok(Field::Missing)
        }
        _ => Err(argument.bad("a key, and then PLAIN, TYPED or FIELD:name")),
    }
}

pub(super) fn upstream_filter_state(argument: &Argument<'_>) -> Result<Field, FormatError> {
    filter_state(argument).map(|_| Field::Missing)
}

pub(super) fn grpc_status(argument: &Argument<'_>) -> Result<Field, FormatError> {
    match argument.text {
        "" | "CAMEL_STRING" => Ok(Field::GrpcStatus(GrpcForm::Camel)),
        "SNAKE_STRING" => Ok(Field::GrpcStatus(GrpcForm::Snake)),
        "NUMBER" => Ok(Field::GrpcStatus(GrpcForm::Number)),
        _ => Err(argument.bad("CAMEL_STRING, SNAKE_STRING or NUMBER")),
    }
}

pub(super) fn prefix(argument: &Argument<'_>, of: AddressOf) -> Result<Field, FormatError> {
    let form = match argument.text {
        "" => AddressForm::Ip,
        bits => match bits.parse() {
            Ok(bits @ 0..=128) => AddressForm::Prefix(bits),
            _ => return Err(argument.bad("a prefix length of 0 to 128 bits")),
        },
    };
    Ok(Field::Address { of, form })
}

/// `COALESCE({"operators": ["NAME", {"command": "REQ", "param": "x", "max_length": 9}]})`.
pub(super) fn coalesce(argument: &Argument<'_>) -> Result<Field, FormatError> {
    if argument.depth == MAX_COALESCE {
        return Err(FormatError::TooDeep { max: MAX_COALESCE });
    }
    let bad = || argument.bad(r#"{"operators": ["NAME", {"command": "NAME", "param": "…"}]}"#);
    let value: Value = serde_json::from_str(argument.text).map_err(|_| bad())?;
    let operators = value
        .get("operators")
        .and_then(Value::as_array)
        .ok_or_else(bad)?;
    if operators.is_empty() {
        return Err(bad());
    }
    let fields = operators.iter().map(|operator| {
        let call = match operator {
            Value::String(name) => Call {
                name,
                parameter: None,
                length: None,
            },
            Value::Object(fields) => {
                let text = |key| match fields.get(key) {
                    None => Ok(None),
                    Some(Value::String(text)) => Ok(Some(text.as_str())),
                    Some(_) => Err(bad()),
                };
                let length = match fields.get("max_length") {
                    None => None,
                    Some(length) => Some(length.as_u64().ok_or_else(bad)? as usize),
                };
                let name = text("command")?.ok_or_else(bad)?;
                Call {
                    name,
                    parameter: text("param")?,
                    length,
                }
            }
            _ => return Err(bad()),
        };
        operators::compile_nested(&call, argument.depth + 1)
    });
    Ok(Field::Coalesce(fields.collect::<Result<_, _>>()?))
}

/// Nanoseconds in a millisecond.
pub(super) const MS: u64 = 1_000_000;
const MAX_COALESCE: usize = 4;
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

/// The points of `COMMON_DURATION`; those without a [`Point`] are never reached over HTTP.
const POINTS: [(&str, Option<Point>); 15] = [
    ("DS_RX_BEG", Some(Point::DownstreamRxBegin)),
    ("DS_RX_END", Some(Point::DownstreamRxEnd)),
    ("US_CX_BEG", Some(Point::UpstreamConnectBegin)),
    ("US_CX_END", Some(Point::UpstreamConnectEnd)),
    ("US_HS_END", Some(Point::UpstreamHandshakeEnd)),
    ("US_TX_BEG", Some(Point::UpstreamTxBegin)),
    ("US_TX_END", Some(Point::UpstreamTxEnd)),
    ("US_RX_BEG", Some(Point::UpstreamRxBegin)),
    ("US_RX_BODY_BEG", Some(Point::UpstreamRxBodyBegin)),
    ("US_RX_END", Some(Point::UpstreamRxEnd)),
    ("DS_TX_BEG", Some(Point::DownstreamTxBegin)),
    ("DS_TX_END", Some(Point::DownstreamTxEnd)),
    ("DS_CX_BEG", None),
    ("DS_CX_END", None),
    ("DS_HS_END", None),
];
