//! The messages of `envoy.service.ext_proc.v3.ExternalProcessor`.

use kgw_h1::Headers;
use serde_json::{Map, Value as Json};

use crate::config::ir::{BodyMode, ProcessingMode, SendMode};
use crate::protobuf::header::HeaderValueOption;
use crate::protobuf::wire::{Field, Value, Writer, read};
use crate::protobuf::{Malformed, json};

/// What is asked about, and answered: the parts of a message, in their order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    Headers,
    Body,
    Trailers,
}

/// Under which name attributes are told.
const ATTRIBUTES: &str = "envoy.filters.http.ext_proc";

/// `ProcessingRequest`: a part of a message, for the service.
#[derive(Debug)]
pub(super) struct ProcessingRequest<'a> {
    pub(super) content: Content<'a>,
    pub(super) of_response: bool,
    /// Dynamic metadata by namespace.
    pub(super) metadata: Map<String, Json>,
    /// Of the first message of a stream.
    pub(super) first: Option<First<'a>>,
}

/// What is told once.
#[derive(Debug)]
pub(super) struct First<'a> {
    pub(super) mode: &'a ProcessingMode,
    pub(super) attributes: Map<String, Json>,
}

/// A part of a message.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Headers {
        /// `:path` and such, in their order.
        pseudo: &'a [(&'a [u8], &'a [u8])],
        fields: &'a Headers,
        end: bool,
    },
    Body {
        data: &'a [u8],
        end: bool,
    },
    Trailers(&'a Headers),
}

impl ProcessingRequest<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = Writer::default();
        let way = u32::from(self.of_response);
        match &self.content {
            Content::Headers {
                pseudo,
                fields,
                end,
            } => message.message(2 + way, |headers| {
                headers.message(1, |map| {
                    for (name, value) in *pseudo {
                        write_field(map, name, value);
                    }
                    write_fields(map, fields);
                });
                headers.int(3, (*end).into());
            }),
            Content::Body { data, end } => message.message(4 + way, |body| {
                body.bytes(1, data);
                body.int(2, (*end).into());
            }),
            Content::Trailers(fields) => message.message(6 + way, |trailers| {
                trailers.message(1, |map| write_fields(map, fields));
            }),
        }
        message.message(8, |metadata| {
            for (namespace, noted) in &self.metadata {
                metadata.message(1, |entry| {
                    entry.bytes(1, namespace.as_bytes());
                    if let Json::Object(noted) = noted {
                        entry.message(2, |of| json::write_fields(of, noted));
                    }
                });
            }
        });
        if let Some(first) = &self.first {
            if !first.attributes.is_empty() {
                message.message(9, |entry| {
                    entry.bytes(1, ATTRIBUTES.as_bytes());
                    entry.message(2, |of| json::write_fields(of, &first.attributes));
                });
            }
            message.message(11, |protocol| {
                protocol.int(1, body_mode(first.mode.request_body));
                protocol.int(2, body_mode(first.mode.response_body));
            });
        }
        message.into_bytes()
    }
}

/// The fields of a `HeaderMap`. The host is a pseudo-field.
fn write_fields(map: &mut Writer, fields: &Headers) {
    for (name, value) in fields {
        if !name.eq_ignore_ascii_case(b"host") {
            write_field(map, &name.to_ascii_lowercase(), value);
        }
    }
}

fn write_field(map: &mut Writer, name: &[u8], value: &[u8]) {
    map.message(1, |header| {
        header.bytes(1, name);
        header.bytes(3, value);
    });
}

fn body_mode(mode: BodyMode) -> i64 {
    match mode {
        BodyMode::None => 0,
        BodyMode::Streamed => 1,
        BodyMode::Buffered => 2,
        BodyMode::BufferedPartial => 3,
        BodyMode::FullDuplexStreamed => 4,
    }
}

/// `ProcessingResponse`: what the service says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ProcessingResponse {
    pub(crate) answer: Option<Answer>,
    pub(crate) metadata: Map<String, Json>,
    pub(crate) mode: Option<ProcessingMode>,
    /// How long it may take for the answer. Milliseconds.
    pub(crate) timeout_ms: Option<u64>,
}

/// What it says about what it was asked.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Common {
        of_response: bool,
        part: Part,
        common: Common,
    },
    Immediate(Immediate),
}

/// `CommonResponse`: what becomes of a part, and of trailer fields.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Common {
    /// Nothing more of the message is sent to the service, and its body is the one given here.
    pub(crate) replace: bool,
    pub(crate) headers: HeaderMutation,
    pub(crate) body: Option<BodyMutation>,
    pub(crate) clear_route: bool,
}

/// `BodyMutation`
#[derive(Debug, PartialEq)]
pub(crate) enum BodyMutation {
    Body(Vec<u8>),
    Clear,
    /// `StreamedBodyResponse`: a piece, and whether it is the last one.
    Streamed(Vec<u8>, bool),
}

/// `HeaderMutation`
#[derive(Debug, Default, PartialEq)]
pub(crate) struct HeaderMutation {
    pub(crate) set: Vec<SetHeader>,
    pub(crate) remove: Vec<Vec<u8>>,
}

/// A `HeaderValueOption`, as far as it counts here.
#[derive(Debug, PartialEq)]
pub(crate) struct SetHeader {
    /// In lower case.
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) append: bool,
}

/// `ImmediateResponse`: what the client gets.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Immediate {
    pub(crate) status: i64,
    pub(crate) headers: HeaderMutation,
    pub(crate) body: Vec<u8>,
    pub(crate) grpc_status: Option<i64>,
    pub(crate) details: Vec<u8>,
}

impl ProcessingResponse {
    pub(crate) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            let content = value.bytes();
            match (number, value) {
                (1..=6, Value::Bytes(_)) => {
                    let part = [Part::Headers, Part::Body, Part::Trailers]
                        [usize::try_from((number - 1) / 2).map_err(|_| Malformed)?];
                    found.answer = Some(Answer::Common {
                        of_response: number % 2 == 0,
                        part,
                        common: Common::of_part(part, content)?,
                    });
                }
                (7, Value::Bytes(_)) => {
                    found.answer = Some(Answer::Immediate(Immediate::decode(content)?));
                }
                (8, _) => found.metadata.extend(json::fields(content)?),
                (9, _) => found.mode = Some(mode(content)?),
                (10, _) => found.timeout_ms = Some(milliseconds(content)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl Common {
    fn of_part(part: Part, message: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            match (number, part) {
                (1, Part::Trailers) => found.headers = HeaderMutation::decode(value.bytes())?,
                (1, _) => found = Self::decode(value.bytes())?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            match number {
                1 => found.replace = value.int() == CONTINUE_AND_REPLACE,
                2 => found.headers = HeaderMutation::decode(value.bytes())?,
                3 => found.body = BodyMutation::decode(value.bytes())?,
                5 => found.clear_route = value.int() != 0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// `CommonResponse.ResponseStatus`
const CONTINUE_AND_REPLACE: i64 = 1;

impl BodyMutation {
    fn decode(message: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut found = None;
        read(message, |Field { number, value }| {
            match number {
                1 => found = Some(Self::Body(value.bytes().to_vec())),
                2 => found = (value.int() != 0).then_some(Self::Clear),
                3 => {
                    let (mut data, mut end) = (Vec::new(), false);
                    read(value.bytes(), |Field { number, value }| {
                        match number {
                            1 => data = value.bytes().to_vec(),
                            2 => end = value.int() != 0,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    found = Some(Self::Streamed(data, end));
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl HeaderMutation {
    fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            match number {
                1 => {
                    let option = HeaderValueOption::decode(value.bytes())?;
                    found.set.push(SetHeader {
                        name: option.name.to_ascii_lowercase(),
                        value: raw_value(value.bytes())?.to_vec(),
                        append: option.append == Some(true),
                    });
                }
                2 => found.remove.push(value.bytes().to_ascii_lowercase()),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

/// The `raw_value` of a `HeaderValueOption`: values travel there alone (Envoy: what is in `value` is
/// taken for nothing).
fn raw_value(message: &[u8]) -> Result<&[u8], Malformed> {
    let mut found: &[u8] = b"";
    read(message, |Field { number, value }| {
        if number == 1 {
            read(value.bytes(), |Field { number, value }| {
                if number == 3 {
                    found = value.bytes();
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(found)
}

impl Immediate {
    fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            match number {
                1 => found.status = int_of(value.bytes())?,
                2 => found.headers = HeaderMutation::decode(value.bytes())?,
                3 => found.body = value.bytes().to_vec(),
                4 => found.grpc_status = Some(int_of(value.bytes())?),
                5 => found.details = value.bytes().to_vec(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// The one number of an `HttpStatus` or a `GrpcStatus`.
fn int_of(message: &[u8]) -> Result<i64, Malformed> {
    let mut found = 0;
    read(message, |Field { number, value }| {
        if number == 1 {
            found = value.int();
        }
        Ok(())
    })?;
    Ok(found)
}

/// A `ProcessingMode`. A mode of bodies that is not known here is none.
fn mode(message: &[u8]) -> Result<ProcessingMode, Malformed> {
    let mut found = ProcessingMode::default();
    let send = |value: i64| match value {
        1 => SendMode::Send,
        2 => SendMode::Skip,
        _ => SendMode::Default,
    };
    let body = |value: i64| match value {
        1 => BodyMode::Streamed,
        2 => BodyMode::Buffered,
        3 => BodyMode::BufferedPartial,
        4 => BodyMode::FullDuplexStreamed,
        _ => BodyMode::None,
    };
    read(message, |Field { number, value }| {
        let value = value.int();
        match number {
            1 => found.request_header = send(value),
            2 => found.response_header = send(value),
            3 => found.request_body = body(value),
            4 => found.response_body = body(value),
            5 => found.request_trailer = send(value),
            6 => found.response_trailer = send(value),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// A `google.protobuf.Duration`; one that is negative is none at all.
fn milliseconds(message: &[u8]) -> Result<u64, Malformed> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    read(message, |Field { number, value }| {
        match number {
            1 => seconds = value.int(),
            2 => nanos = value.int(),
            _ => {}
        }
        Ok(())
    })?;
    let total = seconds
        .saturating_mul(1_000)
        .saturating_add(nanos / 1_000_000);
    Ok(u64::try_from(total).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        write(&mut writer);
        writer.into_bytes()
    }

    #[test]
    fn header_fields_are_told_with_their_bytes() {
        let mut fields = Headers::new();
        fields.append(b"Host", b"a");
        fields.append(b"X-A", b"\xff");
        let request = ProcessingRequest {
            content: Content::Headers {
                pseudo: &[(b":path", b"/")],
                fields: &fields,
                end: true,
            },
            of_response: false,
            metadata: Map::new(),
            first: None,
        };
        let expected = b"\x12\x1a\x0a\x16\x0a\x0a\x0a\x05:path\x1a\x01/\
            \x0a\x08\x0a\x03x-a\x1a\x01\xff\x18\x01\x42\x00";
        assert_eq!(request.encode(), expected);
    }

    #[test]
    fn bodies_and_trailers_are_told() {
        let body = |of_response, data: &[u8], end| {
            let content = Content::Body { data, end };
            ProcessingRequest {
                content,
                of_response,
                metadata: Map::new(),
                first: None,
            }
            .encode()
        };
        assert_eq!(body(false, b"ab", false), b"\x22\x04\x0a\x02ab\x42\x00");
        assert_eq!(body(true, b"", true), b"\x2a\x02\x10\x01\x42\x00");
        let trailers = ProcessingRequest {
            content: Content::Trailers(&Headers::new()),
            of_response: true,
            metadata: Map::new(),
            first: None,
        };
        assert_eq!(trailers.encode(), b"\x3a\x02\x0a\x00\x42\x00");
    }

    #[test]
    fn the_first_message_says_more() {
        let mode = ProcessingMode {
            request_body: BodyMode::Buffered,
            response_body: BodyMode::FullDuplexStreamed,
            ..ProcessingMode::default()
        };
        let attributes = json!({"a": "b"});
        let metadata = json!({"n": {"k": true}});
        let of = |json: Json| json.as_object().cloned().unwrap();
        let request = ProcessingRequest {
            content: Content::Body {
                data: b"",
                end: false,
            },
            of_response: false,
            metadata: of(metadata),
            first: Some(First {
                mode: &mode,
                attributes: of(attributes),
            }),
        };
        let mut seen = Vec::new();
        let encoded = request.encode();
        read(&encoded, |Field { number, value }| {
            seen.push((number, value.bytes().to_vec()));
            Ok(())
        })
        .unwrap();
        let numbers: Vec<_> = seen.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [4, 8, 9, 11]);
        assert_eq!(
            seen[1].1,
            b"\x0a\x0e\x0a\x01n\x12\x09\x0a\x07\x0a\x01k\x12\x02\x20\x01"
        );
        assert_eq!(seen[3].1, b"\x08\x02\x10\x04");
    }

    #[test]
    fn answers_are_read() {
        let read = |message: &[u8]| ProcessingResponse::decode(message).unwrap();
        assert_eq!(read(b""), ProcessingResponse::default());
        let encoded = message(|response| {
            response.message(1, |headers| {
                headers.message(1, |common| {
                    common.int(1, 1);
                    common.message(2, |mutation| {
                        mutation.message(1, |option| {
                            option.message(1, |header| {
                                header.bytes(1, b"X-A");
                                header.bytes(2, b"no");
                                header.bytes(3, b"1");
                            });
                            option.message(2, |append| append.int(1, 1));
                        });
                        mutation.bytes(2, b"X-B");
                    });
                    common.message(3, |body| body.bytes(1, b"new"));
                    common.int(5, 1);
                });
            });
            response.message(10, |time| {
                time.int(1, 1);
                time.int(2, 5_000_000);
            });
            response.message(9, |mode| {
                mode.int(2, 2);
                mode.int(3, 3);
            });
        });
        let found = read(&encoded);
        assert_eq!(found.timeout_ms, Some(1005));
        assert_eq!(
            found.mode,
            Some(ProcessingMode {
                response_header: SendMode::Skip,
                request_body: BodyMode::BufferedPartial,
                ..ProcessingMode::default()
            })
        );
        let Some(Answer::Common {
            of_response: false,
            part: Part::Headers,
            common,
        }) = found.answer
        else {
            panic!("{found:?}");
        };
        assert_eq!(
            common,
            Common {
                replace: true,
                headers: HeaderMutation {
                    set: vec![SetHeader {
                        name: b"x-a".to_vec(),
                        value: b"1".to_vec(),
                        append: true,
                    }],
                    remove: vec![b"x-b".to_vec()],
                },
                body: Some(BodyMutation::Body(b"new".to_vec())),
                clear_route: true,
            }
        );
    }

    #[test]
    fn kinds_of_answers() {
        for (number, of_response, part) in [
            (1, false, Part::Headers),
            (2, true, Part::Headers),
            (3, false, Part::Body),
            (4, true, Part::Body),
            (5, false, Part::Trailers),
            (6, true, Part::Trailers),
        ] {
            let encoded = message(|response| response.message(number, |_| {}));
            let expected = Answer::Common {
                of_response,
                part,
                common: Common::default(),
            };
            let found = ProcessingResponse::decode(&encoded).unwrap();
            assert_eq!(found.answer, Some(expected));
        }
        let encoded = message(|response| {
            response.message(7, |immediate| {
                immediate.message(1, |status| status.int(1, 403));
                immediate.bytes(3, b"no");
                immediate.message(4, |status| status.int(1, 7));
                immediate.bytes(5, b"why");
            });
        });
        let found = ProcessingResponse::decode(&encoded).unwrap();
        let expected = Immediate {
            status: 403,
            headers: HeaderMutation::default(),
            body: b"no".to_vec(),
            grpc_status: Some(7),
            details: b"why".to_vec(),
        };
        assert_eq!(found.answer, Some(Answer::Immediate(expected)));
    }

    #[test]
    fn nonsense_is_no_answer() {
        for bytes in [
            &b"\xff\xff"[..],
            b"\x0a\x05\x0a",
            b"\x0a\x02\x0a\x05",
            b"\x07",
        ] {
            assert_eq!(
                ProcessingResponse::decode(bytes),
                Err(Malformed),
                "{bytes:x?}"
            );
        }
        let negative = message(|response| {
            response.message(10, |time| time.int(1, -5));
        });
        let found = ProcessingResponse::decode(&negative).unwrap();
        assert_eq!(found.timeout_ms, Some(0));
    }
}
