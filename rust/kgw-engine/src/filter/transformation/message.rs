//! Messages as templates see them, and the names of their parts.

use std::sync::{Arc, LazyLock};

use kgw_h1::{Headers, Request};
use kgw_template::Facts;
use serde_json::{Map, Value};

use crate::filter::header_mutation::is_reserved;

/// Which of both messages of an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// A part of a head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Part {
    Method,
    Authority,
    Path,
    Status,
    Field(Box<[u8]>),
}

/// The heads of an exchange as they were when its message came.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) request: Head,
    /// While the response is transformed.
    pub(super) response: Option<Head>,
    pub(super) metadata: Map<String, Value>,
}

/// A head.
#[derive(Default)]
pub(super) struct Head {
    fields: Headers,
    pseudo: Vec<(&'static str, String)>,
}

// === impl Part ===

impl Part {
    pub(super) fn parse(name: &str, direction: Direction) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        let part = match (direction, lower.as_str()) {
            (Direction::Request, ":method") => Self::Method,
            (Direction::Request, ":authority" | "host") => Self::Authority,
            (Direction::Request, ":path") => Self::Path,
            (Direction::Response, ":status") => Self::Status,
            (_, lower) if lower.starts_with(':') => {
                return Err(format!("{name} cannot be changed by a template"));
            }
            (_, lower) if !kgw_h1::is_valid_name(lower.as_bytes()) => {
                return Err(format!("{name:?} is not a header field name"));
            }
            // The proxy decides how messages are framed, and what connections do.
            (_, lower) if is_reserved(lower.as_bytes()) => {
                return Err(format!(
                    "header field {name} cannot be changed by a template"
                ));
            }
            (_, lower) => Self::Field(lower.as_bytes().into()),
        };
        Ok(part)
    }
}

// === impl Head ===

impl Head {
    pub(super) fn of_request(request: &Request) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = request.headers().clone();
        let scheme = fields.get(b"x-forwarded-proto").unwrap_or(b"http");
        Self {
            pseudo: vec![
                (":method", text(request.method())),
                (":authority", text(request.authority())),
                (":path", text(request.path())),
                (":scheme", text(scheme)),
            ],
            fields,
        }
    }

    pub(super) fn of_response(status: u16, fields: &Headers) -> Self {
        Self {
            fields: fields.clone(),
            pseudo: vec![(":status", status.to_string())],
        }
    }

    fn value(&self, name: &str) -> Option<String> {
        if name.starts_with(':') {
            let mut pseudo = self.pseudo.iter();
            return pseudo
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.clone());
        }
        let mut values = self.fields.get_all(name.as_bytes());
        let mut all = String::from_utf8_lossy(values.next()?).into_owned();
        for value in values {
            all.push_str(", ");
            all.push_str(&String::from_utf8_lossy(value));
        }
        Some(all)
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Fields may be secret.
        f.debug_struct("Head").finish_non_exhaustive()
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// For templates that ask for nothing.
    pub(super) fn nothing() -> Arc<dyn Facts> {
        static NOTHING: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
            Arc::new(Snapshot {
                request: Head::default(),
                response: None,
                metadata: Map::new(),
            })
        });
        Arc::clone(&*NOTHING) as Arc<dyn Facts>
    }
}

impl Facts for Snapshot {
    fn header(&self, name: &str) -> Option<String> {
        self.response.as_ref().unwrap_or(&self.request).value(name)
    }

    fn request_header(&self, name: &str) -> Option<String> {
        self.request.value(name)
    }

    fn metadata(&self, namespace: &str) -> Option<Value> {
        self.metadata.get(namespace).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        use Direction::{Request, Response};
        for (name, direction, part) in [
            (":PATH", Request, Some(Part::Path)),
            (":method", Request, Some(Part::Method)),
            ("Host", Request, Some(Part::Authority)),
            (":status", Request, None),
            (":status", Response, Some(Part::Status)),
            (":path", Response, None),
            ("X-A", Response, Some(Part::Field(b"x-a"[..].into()))),
            ("x a", Request, None),
            ("", Request, None),
            ("Content-Length", Response, None),
            ("transfer-encoding", Request, None),
        ] {
            assert_eq!(Part::parse(name, direction).ok(), part, "{name}");
        }
    }
}
