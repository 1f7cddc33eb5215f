//! Which requests and connections are logged: Envoy's access log filters, compiled.
//!
//! A filter looks at a [`Record`], as a format does. What a record cannot say, as the request of a
//! connection that carries none, is as Envoy has it: a missing status is 0, and a missing header field
//! matches nothing. The same filters pick the proxy's own answers that are changed.

use std::str::FromStr;

use kgw_route::{RegexError, ValueRegex};

use super::record::Record;
use super::status::grpc_status;
use crate::cel::{Condition, ConditionError, Moment};
use crate::config::ir::{self, Comparison, StringMatch};
use crate::telemetry::flags::{ResponseFlag, ResponseFlags};

/// A compiled filter.
#[derive(Debug)]
pub struct Filter(Node);

/// A filter that cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// An expression that is no condition.
    #[error(transparent)]
    Cel(#[from] ConditionError),
    /// There is no such response flag.
    #[error("unknown response flag {0:?}")]
    UnknownFlag(String),
    /// A status code that gRPC does not have.
    #[error("{0} is no gRPC status")]
    UnknownStatus(u8),
    /// A denominator that is not 100, 10,000 or 1,000,000.
    #[error("{0} is no denominator of a share")]
    Denominator(u32),
    /// A header field's name or value that is none.
    #[error("{name:?} is no header field: {problem}")]
    Header {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Filters in filters are nested too deep.
    #[error("a filter may be nested at most {MAX_DEPTH} levels deep")]
    TooDeep,
}

#[derive(Debug)]
enum Node {
    And(Box<[Self]>),
    Cel(Box<Condition>),
    Duration(Compare),
    GrpcStatus {
        /// A bit for each status.
        statuses: u32,
        exclude: bool,
    },
    Header {
        /// Lower case.
        name: Box<[u8]>,
        value: ValueIs,
    },
    NotHealthCheck,
    Or(Box<[Self]>),
    ResponseFlag(ResponseFlags),
    Runtime {
        numerator: u64,
        denominator: u64,
        independent: bool,
    },
    StatusCode(Compare),
    Traceable,
}

#[derive(Debug)]
enum ValueIs {
    Exact(Box<[u8]>),
    Present,
    Regex(Box<ValueRegex>),
}

#[derive(Clone, Copy, Debug)]
struct Compare {
    op: Comparison,
    value: u64,
}

// === impl Filter ===

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(filter: &ir::AccessLogFilter) -> Result<Self, FilterError> {
        Node::compile(filter, 1).map(Self)
    }

    /// Whether `record` is to be logged.
    #[must_use]
    pub fn holds(&self, record: &Record<'_>) -> bool {
        self.0.holds(record)
    }
}

// === impl Node ===

impl Node {
    fn compile(filter: &ir::AccessLogFilter, depth: usize) -> Result<Self, FilterError> {
        if depth > MAX_DEPTH {
            return Err(FilterError::TooDeep);
        }
        let all = |filters: &[ir::AccessLogFilter]| {
            let filters = filters.iter().map(|one| Self::compile(one, depth + 1));
            filters.collect::<Result<_, _>>()
        };
        Ok(match filter {
            ir::AccessLogFilter::And { filters } => Self::And(all(filters)?),
            ir::AccessLogFilter::Cel { expression } => {
                Self::Cel(Box::new(Condition::compile(expression, Moment::Log)?))
            }
            ir::AccessLogFilter::Duration { op, value } => {
                Self::Duration(Compare::new(*op, *value))
            }
            ir::AccessLogFilter::GrpcStatus { statuses, exclude } => Self::GrpcStatus {
                statuses: bits_of(statuses)?,
                exclude: *exclude,
            },
            ir::AccessLogFilter::Header { name, value } => Self::header(name, value)?,
            ir::AccessLogFilter::NotHealthCheck => Self::NotHealthCheck,
            ir::AccessLogFilter::Or { filters } => Self::Or(all(filters)?),
            ir::AccessLogFilter::ResponseFlag { flags } => {
                let flags = flags.iter().map(|flag| {
                    ResponseFlag::from_str(flag).map_err(|_| FilterError::UnknownFlag(flag.clone()))
                });
                Self::ResponseFlag(flags.collect::<Result<_, _>>()?)
            }
            ir::AccessLogFilter::Runtime {
                key: _,
                numerator,
                denominator,
                independent,
            } => {
                if !matches!(denominator, 100 | 10_000 | 1_000_000) {
                    return Err(FilterError::Denominator(*denominator));
                }
                Self::Runtime {
                    numerator: u64::from(*numerator),
                    denominator: u64::from(*denominator),
                    independent: *independent,
                }
            }
            ir::AccessLogFilter::StatusCode { op, value } => {
                Self::StatusCode(Compare::new(*op, *value))
            }
            ir::AccessLogFilter::Traceable => Self::Traceable,
        })
    }

    fn header(name: &str, value: &StringMatch) -> Result<Self, FilterError> {
        let wrong = |problem: String| FilterError::Header {
            name: name.to_owned(),
            problem,
        };
        let plain = name.strip_prefix(':').unwrap_or(name);
        if !kgw_h1::is_valid_name(plain.as_bytes()) {
            return Err(wrong("it has characters that no name has".to_owned()));
        }
        let regex = |error: RegexError| wrong(error.to_string());
        Ok(Self::Header {
            name: name.to_ascii_lowercase().into_bytes().into(),
            value: match value {
                StringMatch::Exact(value) => ValueIs::Exact(value.as_bytes().into()),
                StringMatch::Present => ValueIs::Present,
                StringMatch::Regex(pattern) => {
                    let compiled = ValueRegex::new(pattern).map_err(regex)?;
                    ValueIs::Regex(Box::new(compiled))
                }
            },
        })
    }

    fn holds(&self, record: &Record<'_>) -> bool {
        match self {
            Self::And(filters) => filters.iter().all(|one| one.holds(record)),
            Self::Cel(condition) => condition.holds_of_record(record),
            Self::Duration(compare) => compare.holds(record.duration_ns() / NANOS_PER_MS),
            Self::GrpcStatus { statuses, exclude } => {
                // Envoy: what says nothing at all counts as unknown, and what says nonsense as no status.
                let status = grpc_status(record).unwrap_or(Ok(UNKNOWN));
                let found = status.is_ok_and(|status| {
                    u32::try_from(status).is_ok_and(|status| {
                        statuses
                            .checked_shr(status)
                            .is_some_and(|bits| bits & 1 == 1)
                    })
                });
                found != *exclude
            }
            Self::Header { name, value } => {
                let mut found = false;
                record
                    .request
                    .each_field(name, &mut |one| found |= value.holds(one));
                found
            }
            Self::NotHealthCheck => !record.is_health_check(),
            Self::Or(filters) => filters.iter().any(|one| one.holds(record)),
            Self::ResponseFlag(flags) if flags.is_empty() => !record.flags.is_empty(),
            Self::ResponseFlag(flags) => flags.iter().any(|flag| record.flags.contains(flag)),
            Self::Runtime {
                numerator,
                denominator,
                independent,
            } => {
                let id = record.request.id.filter(|_| !independent);
                let number = id.and_then(number_of).unwrap_or_else(|| fastrand::u64(..));
                number % denominator < *numerator
            }
            Self::StatusCode(compare) => compare.holds(u64::from(record.response.code)),
            Self::Traceable => record.is_trace_forced,
        }
    }
}

impl ValueIs {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => **expected == *value,
            Self::Present => true,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl Compare {
    fn new(op: Comparison, value: u32) -> Self {
        Self {
            op,
            value: u64::from(value),
        }
    }

    fn holds(self, value: u64) -> bool {
        match self.op {
            Comparison::Eq => value == self.value,
            Comparison::Ge => value >= self.value,
            Comparison::Le => value <= self.value,
        }
    }
}

/// A number that a request id stands for, the same at every proxy on the request's way: its first eight
/// digits (Envoy's `UUIDRequestIDExtension`).
fn number_of(id: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(id.get(..8)?).ok()?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

fn bits_of(statuses: &[u8]) -> Result<u32, FilterError> {
    let mut bits = 0;
    for &status in statuses {
        if status > LAST_STATUS {
            return Err(FilterError::UnknownStatus(status));
        }
        bits |= 1 << status;
    }
    Ok(bits)
}

/// Filters in filters. CRDs are flat, so this is only a bound for what is made elsewhere.
const MAX_DEPTH: usize = 32;
const NANOS_PER_MS: u64 = 1_000_000;
const UNKNOWN: u64 = 2;
/// `UNAUTHENTICATED`.
const LAST_STATUS: u8 = 16;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::record::HeaderLookup;
    use super::super::{Point, Request};
    use super::*;

    fn filter(value: Value) -> Filter {
        let parsed: ir::AccessLogFilter = serde_json::from_value(value).expect("a filter");
        Filter::compile(&parsed).expect("compiles")
    }

    fn refused(value: Value) -> String {
        let parsed: ir::AccessLogFilter = serde_json::from_value(value).expect("a filter");
        Filter::compile(&parsed).expect_err("is wrong").to_string()
    }

    fn with_code(code: u16) -> Record<'static> {
        let mut record = Record::new();
        record.response.code = code;
        record
    }

    #[test]
    fn numbers_are_compared() {
        for (op, expected) in [
            ("eq", [false, true, false]),
            ("ge", [false, true, true]),
            ("le", [true, true, false]),
        ] {
            let status = filter(json!({"type": "status_code", "op": op, "value": 404}));
            let found = [403, 404, 405].map(|code| status.holds(&with_code(code)));
            assert_eq!(found, expected, "{op}");
            let duration = filter(json!({"type": "duration", "op": op, "value": 7}));
            let found = [6_999_999, 7_999_999, 8_000_000].map(|nanos| {
                let mut record = Record::new();
                record.timings.set(Point::DownstreamRxBegin, 1);
                record.timings.set(Point::StreamEnd, 1 + nanos);
                duration.holds(&record)
            });
            assert_eq!(found, expected, "{op}");
        }
        let none = filter(json!({"type": "status_code", "op": "le", "value": 0}));
        assert!(none.holds(&Record::new()));
    }

    #[test]
    fn any_value_of_a_header_may_match() {
        let fields: &[(&str, &[u8])] = &[("x-a", b"1"), ("X-A", b"22"), ("x-b", b"")];
        let mut record = Record::new();
        record.request = Request {
            path: Some(b"/p?q"),
            authority: Some(b"host.example"),
            headers: Some(&fields as &dyn HeaderLookup),
            ..Request::default()
        };
        for (name, value, expected) in [
            ("x-a", json!({"exact": "22"}), true),
            ("X-A", json!({"exact": "1"}), true),
            ("x-a", json!({"exact": "1,22"}), false),
            ("x-a", json!({"regex": "2+"}), true),
            ("x-a", json!({"regex": "2"}), false),
            ("x-b", json!("present"), true),
            ("x-b", json!({"exact": ""}), true),
            ("x-c", json!("present"), false),
            (":path", json!({"exact": "/p?q"}), true),
            ("Host", json!({"exact": "host.example"}), true),
            (":authority", json!({"exact": "host.example"}), true),
            (":method", json!("present"), false),
        ] {
            let found = filter(json!({"type": "header", "name": name, "value": value}));
            assert_eq!(found.holds(&record), expected, "{name} {value}");
        }
    }

    #[test]
    fn flags_match_if_any_of_them_is_set() {
        let mut record = Record::new();
        let some = filter(json!({"type": "response_flag", "flags": ["UH", "DC"]}));
        let any = filter(json!({"type": "response_flag", "flags": []}));
        assert!(!some.holds(&record) && !any.holds(&record));
        record.flags.set(ResponseFlag::RateLimited);
        assert!(!some.holds(&record) && any.holds(&record));
        record
            .flags
            .set(ResponseFlag::DownstreamConnectionTermination);
        assert!(some.holds(&record));
        for flag in ResponseFlag::ALL {
            let one = filter(json!({"type": "response_flag", "flags": [flag.short()]}));
            let mut record = Record::new();
            assert!(!one.holds(&record));
            record.flags.set(flag);
            assert!(one.holds(&record));
        }
    }

    #[test]
    fn grpc_statuses_are_those_that_are_said_or_stood_for() {
        let of = |status: Option<&'static [u8]>, code| {
            let exclude = [false, true].map(|exclude| {
                let found =
                    filter(json!({"type": "grpc_status", "statuses": [2, 14], "exclude": exclude}));
                let fields = status.map(|status| [("grpc-status", status)]);
                let fields = fields.as_ref().map_or(&[][..], |fields| &fields[..]);
                let mut record = with_code(code);
                record.response.trailers = Some(&fields as &dyn HeaderLookup);
                found.holds(&record)
            });
            assert_ne!(exclude[0], exclude[1]);
            exclude[0]
        };
        assert!(of(Some(b"14"), 200));
        assert!(!of(Some(b"0"), 200));
        assert!(!of(Some(b"nonsense"), 200));
        assert!(!of(Some(b"99"), 200));
        assert!(of(None, 503));
        assert!(of(None, 200), "Envoy: 200 stands for unknown");
        assert!(!of(None, 404));
        assert!(of(None, 0), "nothing at all is unknown");
    }

    #[test]
    fn a_share_is_told_by_the_request_id() {
        let share = |numerator: u32, denominator: u32| {
            filter(json!({
                "type": "runtime", "key": "k", "numerator": numerator, "denominator": denominator,
            }))
        };
        let with_id = |id: &'static [u8]| {
            let mut record = Record::new();
            record.request.id = Some(id);
            record
        };
        // 0x0000002a is 42.
        let record = with_id(b"0000002a-0000-4000-8000-000000000000");
        assert!(share(43, 100).holds(&record));
        assert!(!share(42, 100).holds(&record));
        assert!(!share(42, 1_000_000).holds(&record));
        assert!(share(43, 10_000).holds(&record));
        for record in [
            Record::new(),
            with_id(b"short"),
            with_id(b"not-hexadecimal"),
        ] {
            assert!(share(100, 100).holds(&record));
            assert!(!share(0, 100).holds(&record));
        }
        let independent = filter(json!({
            "type": "runtime", "key": "k", "numerator": 50, "denominator": 100, "independent": true,
        }));
        let found = (0..1_000).filter(|_| independent.holds(&record)).count();
        assert!((300..700).contains(&found), "{found}");
    }

    #[test]
    fn conditions_are_about_what_happened() {
        let cel = |expression: &str| filter(json!({"type": "cel", "expression": expression}));
        let late = cel("response.code >= 400 && response.code < 500");
        assert!(late.holds(&with_code(404)) && !late.holds(&with_code(500)));
        // What is missing is no match.
        assert!(!cel("request.headers['x-none'] == 'a'").holds(&with_code(200)));
        let refused_one = refused(json!({"type": "cel", "expression": "nothing.at.all == 1"}));
        assert!(refused_one.contains("nothing"), "{refused_one}");
        refused(json!({"type": "cel", "expression": "1 +"}));
    }

    #[test]
    fn filters_are_combined() {
        let at_least = |value: u32| json!({"type": "status_code", "op": "ge", "value": value});
        let at_most = |value: u32| json!({"type": "status_code", "op": "le", "value": value});
        let both = json!({"type": "and", "filters": [at_least(400), at_most(499)]});
        let either = filter(json!({"type": "or", "filters": [both, at_least(503)]}));
        let found = [399, 400, 499, 500, 503].map(|code| either.holds(&with_code(code)));
        assert_eq!(found, [false, true, true, false, true]);
    }

    #[test]
    fn health_checks_and_traces_are_told_by_what_was_done() {
        let not_health_check = filter(json!({"type": "not_health_check"}));
        let traceable = filter(json!({"type": "traceable"}));
        let mut record = Record::new();
        assert!(not_health_check.holds(&record) && !traceable.holds(&record));
        record.response.details = Some("health_check_ok");
        record.is_trace_forced = true;
        assert!(!not_health_check.holds(&record) && traceable.holds(&record));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let nested = |depth: usize| {
            (1..depth).fold(
                json!({"type": "traceable"}),
                |inner, _| json!({"type": "and", "filters": [inner, {"type": "traceable"}]}),
            )
        };
        filter(nested(MAX_DEPTH));
        for (value, message) in [
            (
                json!({"type": "response_flag", "flags": ["XX"]}),
                "unknown response flag \"XX\"",
            ),
            (
                json!({"type": "grpc_status", "statuses": [17]}),
                "17 is no gRPC status",
            ),
            (
                json!({"type": "runtime", "key": "k", "numerator": 1, "denominator": 7}),
                "7 is no denominator of a share",
            ),
            (
                json!({"type": "header", "name": "a b", "value": "present"}),
                "\"a b\" is no header field: it has characters that no name has",
            ),
            (
                nested(MAX_DEPTH + 1),
                "a filter may be nested at most 32 levels deep",
            ),
        ] {
            assert_eq!(refused(value), message);
        }
        let regex = json!({"type": "header", "name": "a", "value": {"regex": "("}});
        assert!(refused(regex).contains("is no header field"));
    }
}
