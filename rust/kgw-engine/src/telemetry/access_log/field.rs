//! One value of a log line: where it comes from and how it is written.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use kgw_cel::Cel;
use serde_json::Value;

use super::json;
use super::record::{HeaderLookup, Record};
use super::status::grpc_status;
use super::time_format::TimeFormat;
use super::timings::Point;
use crate::cel::Expression;
use crate::telemetry::flags::ResponseFlag;
use crate::telemetry::grpc;

/// Reads a text from a record.
pub(super) type TextOf = for<'r> fn(&'r Record<'r>) -> Option<&'r [u8]>;
/// Reads a number from a record.
pub(super) type NumberOf = for<'r> fn(&'r Record<'r>) -> Option<u64>;
/// Reads a point in time from a record: seconds since 1970 UTC.
pub(super) type SecondsOf = for<'r> fn(&'r Record<'r>) -> Option<i64>;
/// Reads an address from a record.
pub(super) type AddressOf = for<'r> fn(&'r Record<'r>) -> Option<SocketAddr>;
/// Reads header fields from a record.
pub(super) type HeadersOf = for<'r> fn(&'r Record<'r>) -> Option<&'r dyn HeaderLookup>;

/// An operator, its parameter resolved.
#[derive(Clone, Debug)]
pub(super) enum Field {
    /// Has never a value in this data plane.
    Missing,
    /// Known when the format is compiled.
    Constant(Box<[u8]>),
    /// A text of the record.
    Text(TextOf),
    /// A text in which white space becomes `_`.
    Underscored(TextOf),
    /// A number of the record.
    Number(NumberOf),
    /// A point in time.
    Time { emit: bool, format: TimeFormat },
    /// A point in time that may not be known.
    Date { of: SecondsOf, format: TimeFormat },
    /// The time between two points, in units of so many nanoseconds.
    Duration {
        begin: Point,
        end: Point,
        unit_ns: u64,
    },
    /// An address of the record.
    Address { of: AddressOf, form: AddressForm },
    /// The endpoints of all attempts; by name prints the last one's name instead of its address.
    HostsAttempted { form: AddressForm, names: bool },
    /// The last endpoint's name, or its address.
    HostName { form: AddressForm },
    /// The connections of all attempts.
    ConnectionsAttempted,
    /// The response flags.
    Flags { long: bool },
    /// A request header field, with or without its query.
    RequestHeader { names: HeaderNames, query: bool },
    /// A response header field.
    ResponseHeader(HeaderNames),
    /// A response trailer field.
    ResponseTrailer(HeaderNames),
    /// Sum of the lengths of names and values.
    HeaderBytes(HeadersOf),
    /// The path, with or without its query.
    Path { from: Original, query: bool },
    /// The first query parameter of a name, percent-decoded.
    QueryParam(Box<[u8]>),
    /// The query.
    QueryString(Original),
    /// The TLS server name, or the host.
    ServerName { order: NameOrder, host: Original },
    /// Dynamic metadata: a namespace and a path of keys in it.
    Metadata {
        namespace: Box<str>,
        path: Box<[Box<str>]>,
    },
    /// The status of a gRPC call.
    GrpcStatus(GrpcForm),
    /// A fresh UUID.
    UniqueId,
    /// The value of an expression, as text or of its own type.
    Expression {
        expression: Arc<Expression>,
        typed: bool,
    },
    /// The first that has a value that is not empty.
    Coalesce(Box<[Limited]>),
}

/// A field and the longest text it prints.
#[derive(Clone, Debug)]
pub(super) struct Limited {
    pub(super) field: Field,
    /// Longest text. Bytes.
    pub(super) length: Option<usize>,
}

/// A header field, and the one used when it is missing. Lower case.
#[derive(Clone, Debug)]
pub(super) struct HeaderNames {
    pub(super) name: Box<[u8]>,
    pub(super) alternative: Option<Box<[u8]>>,
}

/// How an address is printed.
#[derive(Clone, Copy, Debug)]
pub(super) enum AddressForm {
    /// With its port.
    Whole,
    /// Without its port.
    Ip,
    /// The network of so many bits.
    Prefix(u8),
}

/// Whether the value before a rewrite is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Original {
    /// The original; missing when nothing was rewritten.
    Only,
    /// The current one.
    Never,
    /// The original, or else the current one.
    Preferred,
}

/// Which name of the server is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum NameOrder {
    SniOnly,
    SniFirst,
    HostFirst,
}

/// How a gRPC status is printed.
#[derive(Clone, Copy, Debug)]
pub(super) enum GrpcForm {
    Camel,
    Snake,
    Number,
}

/// What was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Written {
    /// Nothing: there is no value.
    Missing,
    /// Text.
    Text,
    /// A JSON value that is not a string.
    Json,
}

impl Limited {
    /// Writes the value as plain text, unquoted.
    pub(super) fn write(&self, out: &mut Vec<u8>, record: &Record<'_>) -> Written {
        let start = out.len();
        let written = self.field.write(out, record);
        if let (Some(length), Written::Text) = (self.length, written) {
            out.truncate(start.saturating_add(length).max(start));
        }
        written
    }
}

impl Field {
    /// Returns whether every value is a number, so that JSON needs no quotes.
    pub(super) fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Number(_)
                | Self::Duration { .. }
                | Self::HeaderBytes(_)
                | Self::GrpcStatus(GrpcForm::Number)
        )
    }

    fn write(&self, out: &mut Vec<u8>, record: &Record<'_>) -> Written {
        match self {
            Self::Missing => Written::Missing,
            Self::Constant(value) => text(out, Some(value)),
            Self::Text(of) => text(out, of(record)),
            Self::Underscored(of) => {
                let start = out.len();
                let written = text(out, of(record));
                for byte in &mut out[start..] {
                    if byte.is_ascii_whitespace() {
                        *byte = b'_';
                    }
                }
                written
            }
            Self::Number(of) => number(out, of(record)),
            Self::Time { emit, format } => {
                format.write(
                    out,
                    if *emit {
                        record.emit_unix_ns
                    } else {
                        record.start_unix_ns
                    },
                );
                Written::Text
            }
            Self::Date { of, format } => match of(record) {
                Some(seconds) => {
                    format.write(out, seconds.saturating_mul(1_000_000_000));
                    Written::Text
                }
                None => Written::Missing,
            },
            Self::Duration {
                begin,
                end,
                unit_ns,
            } => number(
                out,
                record
                    .timings
                    .between(*begin, *end)
                    .map(|nanos| nanos / unit_ns),
            ),
            Self::Address { of, form } => match of(record) {
                Some(address) => {
                    form.write(out, address);
                    Written::Text
                }
                None => Written::Missing,
            },
            Self::HostsAttempted { form, names } => {
                let upstream = &record.upstream;
                if upstream.hosts_attempted.is_empty() {
                    return Written::Missing;
                }
                let last = upstream.hosts_attempted.len() - 1;
                for (index, address) in upstream.hosts_attempted.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    match upstream.host_name {
                        Some(name) if *names && index == last => form.write_name(out, name),
                        _ => form.write(out, *address),
                    }
                }
                Written::Text
            }
            Self::HostName { form } => match (record.upstream.host_name, record.upstream.host) {
                (Some(name), Some(_)) => {
                    form.write_name(out, name);
                    Written::Text
                }
                (None, Some(address)) => {
                    form.write(out, address);
                    Written::Text
                }
                (_, None) => Written::Missing,
            },
            Self::ConnectionsAttempted => {
                for (index, id) in record.upstream.connection_ids_attempted.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    json::write_u64(out, *id);
                }
                match record.upstream.connection_ids_attempted {
                    [] => Written::Missing,
                    _ => Written::Text,
                }
            }
            Self::Flags { long } => {
                let spelling = if *long {
                    ResponseFlag::long
                } else {
                    ResponseFlag::short
                };
                if record.flags.is_empty() {
                    out.push(b'-');
                }
                for (index, flag) in record.flags.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(spelling(flag).as_bytes());
                }
                Written::Text
            }
            Self::RequestHeader { names, query } => {
                let value = names.find(|name| record.request.field(name));
                text(
                    out,
                    if *query {
                        value
                    } else {
                        value.map(without_query)
                    },
                )
            }
            Self::ResponseHeader(names) => {
                let mut status = itoa::Buffer::new();
                let code = record.response.code;
                let status = (code != 0).then(|| status.format(code).as_bytes());
                let value = names.find(|name| match name {
                    b":status" => status,
                    name => record.response.field(name),
                });
                text(out, value)
            }
            Self::ResponseTrailer(names) => text(
                out,
                names.find(|name| record.response.trailers?.first(name)),
            ),
            Self::HeaderBytes(of) => {
                number(out, Some(of(record).map_or(0, HeaderLookup::total_bytes)))
            }
            Self::Path { from, query } => {
                let path = from.pick(record, ORIGINAL_PATH, record.request.path);
                text(
                    out,
                    if *query {
                        path
                    } else {
                        path.map(without_query)
                    },
                )
            }
            Self::QueryParam(name) => match query(record.request.path).and_then(|query| {
                query.split(|&byte| byte == b'&').find_map(|pair| {
                    let (key, value) = split_once(pair, b'=').unwrap_or((pair, b""));
                    decoded(key).eq(name.iter().copied()).then_some(value)
                })
            }) {
                Some(value) => {
                    out.extend(decoded(value));
                    Written::Text
                }
                None => Written::Missing,
            },
            Self::QueryString(from) => text(
                out,
                query(from.pick(record, ORIGINAL_PATH, record.request.path)),
            ),
            Self::ServerName { order, host } => {
                let sni = record.downstream.server_name;
                let host = || host.pick(record, ORIGINAL_HOST, record.request.authority);
                text(
                    out,
                    match order {
                        NameOrder::SniOnly => sni,
                        NameOrder::SniFirst => sni.or_else(host),
                        NameOrder::HostFirst => host().or(sni),
                    },
                )
            }
            Self::Metadata { namespace, path } => {
                let value = record.metadata.and_then(|all| all.get(&**namespace));
                match path
                    .iter()
                    .try_fold(value, |value, key| Some(value?.get(&**key)))
                    .flatten()
                {
                    None | Some(Value::Null) => Written::Missing,
                    Some(Value::String(value)) => text(out, Some(value.as_bytes())),
                    Some(value) => {
                        json::write_value(out, value);
                        Written::Json
                    }
                }
            }
            Self::GrpcStatus(form) => form.write(out, record),
            Self::UniqueId => {
                let bytes = fastrand::u128(..).to_ne_bytes();
                let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
                let mut buffer = uuid::Uuid::encode_buffer();
                out.extend_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes());
                Written::Text
            }
            Self::Expression { expression, typed } => {
                let value = if *typed {
                    expression.show(record, super::expression::json)
                } else {
                    let text = |value: &Cel<'_>| super::expression::text(value).map(Value::String);
                    expression.show(record, text)
                };
                match value.flatten() {
                    None => Written::Missing,
                    Some(Value::String(value)) => text(out, Some(value.as_bytes())),
                    Some(value) => {
                        json::write_value(out, &value);
                        Written::Json
                    }
                }
            }
            Self::Coalesce(fields) => {
                let start = out.len();
                for field in fields {
                    let written = field.write(out, record);
                    if written != Written::Missing && out.len() > start {
                        return written;
                    }
                }
                Written::Missing
            }
        }
    }
}

impl HeaderNames {
    fn find<'a>(&self, field: impl Fn(&[u8]) -> Option<&'a [u8]>) -> Option<&'a [u8]> {
        field(&self.name).or_else(|| field(self.alternative.as_deref()?))
    }
}

impl AddressForm {
    fn write(self, out: &mut Vec<u8>, address: SocketAddr) {
        // Writing to a `Vec` cannot fail.
        let _ = match self {
            Self::Whole => write!(out, "{address}"),
            Self::Ip => write!(out, "{}", address.ip()),
            Self::Prefix(bits) => {
                let (network, bits) = network(address.ip(), bits);
                write!(out, "{network}/{bits}")
            }
        };
    }

    fn write_name(self, out: &mut Vec<u8>, name: &str) {
        let name = match self {
            Self::Whole => name,
            Self::Ip | Self::Prefix(_) => match name.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                _ => name,
            },
        };
        out.extend_from_slice(name.as_bytes());
    }
}

impl Original {
    fn pick<'a>(
        self,
        record: &Record<'a>,
        original: &[u8],
        current: Option<&'a [u8]>,
    ) -> Option<&'a [u8]> {
        let original = || record.request.field(original);
        match self {
            Self::Only => original(),
            Self::Never => current,
            Self::Preferred => original().or(current),
        }
    }
}

impl GrpcForm {
    /// Writes the status of a gRPC call: from the trailers, the header, or the HTTP status.
    fn write(self, out: &mut Vec<u8>, record: &Record<'_>) -> Written {
        let content_type = record.request.field(b"content-type").unwrap_or_default();
        if !grpc::is_grpc(content_type) {
            return Written::Missing;
        }
        let Some(status) = grpc_status(record) else {
            return Written::Missing;
        };
        let Ok(code) = status else {
            out.extend_from_slice(b"-1");
            return if matches!(self, Self::Number) {
                Written::Json
            } else {
                Written::Text
            };
        };
        match (self, GRPC_STATUS.get(code as usize)) {
            (Self::Number, _) => {
                json::write_u64(out, code);
                return Written::Json;
            }
            (Self::Camel, Some((camel, _))) => out.extend_from_slice(camel.as_bytes()),
            (Self::Snake, Some((_, snake))) => out.extend_from_slice(snake.as_bytes()),
            (_, None) => json::write_u64(out, code),
        }
        Written::Text
    }
}

fn text(out: &mut Vec<u8>, value: Option<&[u8]>) -> Written {
    match value {
        Some(value) => {
            out.extend_from_slice(value);
            Written::Text
        }
        None => Written::Missing,
    }
}

fn number(out: &mut Vec<u8>, value: Option<u64>) -> Written {
    match value {
        Some(value) => {
            json::write_u64(out, value);
            Written::Json
        }
        None => Written::Missing,
    }
}

fn without_query(path: &[u8]) -> &[u8] {
    split_once(path, b'?').map_or(path, |(path, _)| path)
}

fn query(path: Option<&[u8]>) -> Option<&[u8]> {
    split_once(path?, b'?').map(|(_, query)| query)
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = memchr::memchr(at, text)?;
    Some((&text[..position], &text[position + 1..]))
}

/// Percent-decodes; what is no escape stays as it is, and so does `+` (as in Envoy).
fn decoded(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        if let [b'%', high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            rest = after;
            return Some(high << 4 | low);
        }
        let (first, after) = rest.split_first()?;
        rest = after;
        Some(*first)
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Returns the network of `address` and its length, which is at most the address's.
fn network(address: IpAddr, bits: u8) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(address) => {
            let bits = bits.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            (Ipv4Addr::from_bits(address.to_bits() & mask).into(), bits)
        }
        IpAddr::V6(address) => {
            let bits = bits.min(128);
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            (Ipv6Addr::from_bits(address.to_bits() & mask).into(), bits)
        }
    }
}

const ORIGINAL_PATH: &[u8] = b"x-envoy-original-path";
const ORIGINAL_HOST: &[u8] = b"x-envoy-original-host";

/// Camel and snake spellings by status code.
const GRPC_STATUS: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];
