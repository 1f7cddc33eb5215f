//! What an OpenTelemetry collector is told: a log record for each request, with body and attributes from
//! formats.
//!
//! Numbers are those of `opentelemetry.proto.logs.v1` and `opentelemetry.proto.common.v1`.

use super::super::error::FormatError;
use super::super::format::{FormatOptions, LogProgram};
use super::super::record::Record;
use crate::config::ir::LogValue;
use crate::protobuf::in_place::Message;

/// What records hold.
#[derive(Debug)]
pub(super) struct Records {
    body: Option<Form>,
    attributes: Forms,
}

/// Values by their names.
type Forms = Box<[(Box<str>, Form)]>;

/// A value whose texts are made for each record.
#[derive(Debug)]
enum Form {
    Array(Box<[Self]>),
    KeyValues(Forms),
    Text(LogProgram),
}

impl Records {
    /// Compiles the formats of records.
    ///
    /// # Errors
    /// One of them is wrong.
    pub(super) fn compile(
        body: Option<&LogValue>,
        attributes: &[(String, LogValue)],
    ) -> Result<Self, FormatError> {
        Ok(Self {
            body: body.map(|body| Form::compile(body, 1)).transpose()?,
            attributes: Form::compile_all(attributes, 1)?,
        })
    }

    /// Writes a record (`LogRecord`), with number and length in front.
    pub(super) fn write(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        Message(out).part(LOG_RECORD, |one| {
            one.fixed64(1, record.start_unix_ns.max(0).unsigned_abs());
            if let Some(body) = &self.body {
                one.part(5, |part| body.write(part, record));
            }
            for (key, form) in &self.attributes {
                one.part(6, |pair| {
                    pair.text(1, &**key);
                    pair.part(2, |part| form.write(part, record));
                });
            }
            if let Some((trace, span)) = record.request.trace_ids() {
                one.bytes(9, &trace);
                one.bytes(10, &span);
            }
        });
    }
}

impl Form {
    fn compile(value: &LogValue, depth: usize) -> Result<Self, FormatError> {
        if depth > MAX_DEPTH {
            return Err(FormatError::TooDeep { max: MAX_DEPTH });
        }
        Ok(match value {
            LogValue::Array(items) => {
                let items = items.iter().map(|item| Self::compile(item, depth + 1));
                Self::Array(items.collect::<Result<_, _>>()?)
            }
            LogValue::KeyValues(pairs) => Self::KeyValues(Self::compile_all(pairs, depth + 1)?),
            LogValue::String(format) => {
                Self::Text(LogProgram::text(format, FormatOptions::default())?)
            }
        })
    }

    fn compile_all(pairs: &[(String, LogValue)], depth: usize) -> Result<Forms, FormatError> {
        let pairs = pairs.iter();
        let compiled =
            pairs.map(|(key, value)| Ok((Box::from(&**key), Self::compile(value, depth)?)));
        compiled.collect()
    }

    /// Writes an `AnyValue`.
    fn write(&self, out: &mut Message<'_>, record: &Record<'_>) {
        match self {
            Self::Array(items) => out.part(5, |list| {
                for item in items {
                    list.part(1, |part| item.write(part, record));
                }
            }),
            Self::KeyValues(pairs) => out.part(6, |list| {
                for (key, form) in pairs {
                    list.part(1, |pair| {
                        pair.text(1, &**key);
                        pair.part(2, |part| form.write(part, record));
                    });
                }
            }),
            Self::Text(program) => out.rendered(1, |text| program.render(record, text)),
        }
    }
}

/// Writes what all records are of (`Resource`, in `ResourceLogs`).
pub(super) fn write_resource<'a>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    attributes: &[(String, LogValue)],
) {
    Message(out).part(1, |resource| {
        for (key, value) in labels {
            resource.part(1, |pair| {
                pair.text(1, key);
                pair.part(2, |part| {
                    part.rendered(1, |text| text.extend_from_slice(value.as_bytes()));
                });
            });
        }
        for (key, value) in attributes {
            write_pair(resource, 1, key, value);
        }
    });
}

fn write_pair(out: &mut Message<'_>, number: u32, key: &str, value: &LogValue) {
    out.part(number, |pair| {
        pair.text(1, key);
        pair.part(2, |part| write_value(part, value));
    });
}

fn write_value(out: &mut Message<'_>, value: &LogValue) {
    match value {
        LogValue::Array(items) => out.part(5, |list| {
            for item in items {
                list.part(1, |part| write_value(part, item));
            }
        }),
        LogValue::KeyValues(pairs) => out.part(6, |list| {
            for (key, value) in pairs {
                write_pair(list, 1, key, value);
            }
        }),
        LogValue::String(value) => {
            out.rendered(1, |text| text.extend_from_slice(value.as_bytes()));
        }
    }
}

/// A record in `ScopeLogs`.
const LOG_RECORD: u32 = 2;
/// Values in values, of resources too: JSON that is nested deeper does not get here.
const MAX_DEPTH: usize = 32;
