//! What spans say beside the usual, as the configuration has it.

use serde_json::Value;

use crate::config::ir::{TraceAttribute, TraceValue};
use crate::telemetry::access_log::Record;

/// Attributes of unique names.
#[derive(Debug, Default)]
pub(super) struct Attributes(Box<[(Box<str>, From)]>);

/// Where a value is from.
#[derive(Debug)]
enum From {
    Literal(Box<str>),
    Field {
        name: Box<str>,
        default: Box<str>,
    },
    Metadata {
        way: Box<[Box<str>]>,
        default: Box<str>,
    },
}

impl Attributes {
    /// Compiles attributes; of several of a name, the last counts. Variables of the environment are read.
    pub(super) fn compile(given: &[TraceAttribute]) -> Self {
        let mut found: Vec<(Box<str>, From)> = Vec::with_capacity(given.len());
        for TraceAttribute { name, value } in given {
            let from = match value {
                TraceValue::Literal { value } => From::Literal(value.as_str().into()),
                TraceValue::Environment { name, default } => From::Literal(
                    std::env::var(name)
                        .ok()
                        .filter(|value| !value.is_empty())
                        .unwrap_or_else(|| default.clone())
                        .into(),
                ),
                TraceValue::RequestHeader { name, default } => From::Field {
                    name: name.to_ascii_lowercase().into(),
                    default: default.as_str().into(),
                },
                TraceValue::Metadata {
                    namespace,
                    path,
                    default,
                } => From::Metadata {
                    way: std::iter::once(namespace)
                        .chain(path)
                        .map(|key| key.as_str().into())
                        .collect(),
                    default: default.as_str().into(),
                },
            };
            found.retain(|(other, _)| **other != **name);
            found.push((name.as_str().into(), from));
        }
        Self(found.into())
    }

    /// Whether one has this name.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|(other, _)| other.as_bytes() == name)
    }

    /// Shows those that have a value, but for those of which the name is to be left out.
    pub(super) fn each(
        &self,
        record: &Record<'_>,
        is_left_out: impl Fn(&[u8]) -> bool,
        mut show: impl FnMut(&[u8], &[u8]),
    ) {
        for (name, from) in &self.0 {
            if is_left_out(name.as_bytes()) {
                continue;
            }
            let rendered;
            let value = match from {
                From::Literal(value) => value.as_bytes(),
                From::Field { name, default } => record
                    .request
                    .field(name.as_bytes())
                    .unwrap_or(default.as_bytes()),
                From::Metadata { way, default } => match noted(record, way) {
                    Some(value) => {
                        rendered = value;
                        rendered.as_bytes()
                    }
                    None => default.as_bytes(),
                },
            };
            if !value.is_empty() {
                show(name.as_bytes(), value);
            }
        }
    }
}

/// What filters noted about a request, as text.
fn noted(record: &Record<'_>, way: &[Box<str>]) -> Option<String> {
    let (namespace, path) = way.split_first()?;
    let mut found = record.metadata?.get(&**namespace)?;
    for key in path {
        found = found.get(&**key)?;
    }
    match found {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
