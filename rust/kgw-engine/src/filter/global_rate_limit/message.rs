//! The messages of `envoy.service.ratelimit.v3.RateLimitService`, as far as they are used here.

use serde_json::{Map, Value as Json};

use super::{Question, Status};
use crate::config::ir::RateLimitUnit;
use crate::protobuf::Malformed;
use crate::protobuf::header::HeaderValue;
use crate::protobuf::json::fields;
use crate::protobuf::wire::{Field, Writer, read};

/// Most statuses of an answer that are looked at.
const MAX_STATUSES: usize = 256;

/// `RateLimitRequest`
pub(super) fn encode(domain: &str, question: &Question<'_>) -> Vec<u8> {
    let mut message = Writer::default();
    message.bytes(1, domain.as_bytes());
    for descriptor in &question.descriptors {
        message.message(2, |of| {
            for (key, value) in &descriptor.entries {
                of.entry(1, key, value);
            }
            if let Some(limit) = descriptor.limit {
                of.message(2, |of| {
                    of.int(1, limit.requests.into());
                    of.int(2, unit(limit.unit));
                });
            }
            if let Some(hits) = descriptor.hits {
                of.message(3, |of| of.int(1, hits.into()));
            }
        });
    }
    message.int(3, question.hits.unwrap_or(0).into());
    message.into_bytes()
}

/// `RateLimitUnit`
fn unit(unit: RateLimitUnit) -> i64 {
    match unit {
        RateLimitUnit::Second => 1,
        RateLimitUnit::Minute => 2,
        RateLimitUnit::Hour => 3,
        RateLimitUnit::Day => 4,
    }
}

/// Seconds of a `RateLimitResponse.RateLimit.Unit`, as Envoy has them: a month is 30 days, a year 365. 0 is
/// a unit that nobody knows.
fn seconds(unit: i64) -> u64 {
    match unit {
        1 => 1,
        2 => 60,
        3 => 60 * 60,
        4 => 24 * 60 * 60,
        5 => 30 * 24 * 60 * 60,
        6 => 365 * 24 * 60 * 60,
        7 => 7 * 24 * 60 * 60,
        _ => 0,
    }
}

/// `RateLimitResponse.Code`
pub(super) const OVER_LIMIT: i64 = 2;

/// `RateLimitResponse`
#[derive(Debug, Default)]
pub(super) struct RateLimitResponse<'a> {
    pub(super) overall_code: i64,
    pub(super) statuses: Vec<Status>,
    pub(super) response_headers: Vec<HeaderValue<'a>>,
    pub(super) request_headers: Vec<HeaderValue<'a>>,
    pub(super) raw_body: &'a [u8],
    pub(super) metadata: Map<String, Json>,
}

impl<'a> RateLimitResponse<'a> {
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            match number {
                1 => found.overall_code = value.int(),
                2 if found.statuses.len() < MAX_STATUSES => {
                    found.statuses.extend(status(value.bytes())?);
                }
                3 => {
                    let header = HeaderValue::decode(value.bytes())?;
                    found.response_headers.push(header);
                }
                4 => {
                    let header = HeaderValue::decode(value.bytes())?;
                    found.request_headers.push(header);
                }
                5 => found.raw_body = value.bytes(),
                6 => found.metadata.extend(fields(value.bytes())?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// `RateLimitResponse.DescriptorStatus`, if it names a limit.
fn status(message: &[u8]) -> Result<Option<Status>, Malformed> {
    let mut found = Status::default();
    let mut has_limit = false;
    read(message, |Field { number, value }| {
        match number {
            2 => {
                has_limit = true;
                limit(value.bytes(), &mut found)?;
            }
            3 => found.remaining = number_of(value.int()),
            4 => read(value.bytes(), |Field { number, value }| {
                if number == 1 {
                    found.reset = number_of(value.int());
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(has_limit.then_some(found))
}

/// `RateLimitResponse.RateLimit`
fn limit(message: &[u8], found: &mut Status) -> Result<(), Malformed> {
    read(message, |Field { number, value }| {
        match number {
            1 => found.requests = number_of(value.int()),
            2 => found.window = seconds(value.int()),
            3 => found.name = String::from_utf8_lossy(value.bytes()).into_owned(),
            _ => {}
        }
        Ok(())
    })
}

fn number_of(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::Descriptor;
    use super::*;
    use crate::config::ir::RateLimit;

    #[test]
    fn a_question_is_as_other_encoders_write_it() {
        let limit = RateLimit {
            requests: 5,
            unit: RateLimitUnit::Hour,
            burst: Some(9),
            name: Some("not told".to_owned()),
        };
        let entries = vec![("k", "v".to_owned()), ("e", String::new())];
        let descriptors = vec![
            Descriptor {
                entries,
                limit: Some(&limit),
                hits: Some(0),
            },
            Descriptor {
                entries: vec![("m", "GET".to_owned())],
                limit: None,
                hits: None,
            },
        ];
        let question = Question {
            descriptors,
            hits: Some(300),
        };
        let expected: [&[u8]; 4] = [
            b"\x0a\x04shop",
            b"\x12\x15\x0a\x06\x0a\x01k\x12\x01v\x0a\x03\x0a\x01e\x12\x04\x08\x05\x10\x03\x1a\x00",
            b"\x12\x0a\x0a\x08\x0a\x01m\x12\x03GET",
            b"\x18\xac\x02",
        ];
        assert_eq!(
            encode("shop", &question).escape_ascii().to_string(),
            expected.concat().escape_ascii().to_string()
        );
    }

    #[test]
    fn a_status_without_a_limit_tells_nothing() {
        let message = b"\x08\x02\x12\x02\x08\x01\x12\x0c\x12\x04\x08\x0a\x10\x02\x18\x03\x22\x02\x08\x11\x2a\x01b";
        let found = RateLimitResponse::decode(message).unwrap();
        assert_eq!(
            (found.overall_code, found.raw_body),
            (OVER_LIMIT, &b"b"[..])
        );
        let expected = Status {
            requests: 10,
            window: 60,
            name: String::new(),
            remaining: 3,
            reset: 17,
        };
        assert_eq!(found.statuses, [expected]);
    }

    #[test]
    fn what_is_no_message_is_no_answer() {
        for message in [
            &b"\xff"[..],
            b"\x12\x05\x08",
            b"\x12\x02\x12\x05",
            b"\x1a\x01\x0f",
        ] {
            assert!(RateLimitResponse::decode(message).is_err(), "{message:?}");
        }
    }
}
