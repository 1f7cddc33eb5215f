//! What a filter says of itself.

use serde::Deserialize;

use crate::config::ir::{OnError, Predicate};

/// A filter, as far as the engine needs to know.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Declaration {
    /// The name that configurations use.
    pub name: String,
    /// Names of routes that it is attached to without being named by them: whole names, or whole leading
    /// segments of them (`namespace/route`); `*` is every route.
    #[serde(default)]
    pub routes: Vec<String>,
    /// It decides about requests.
    pub on_request: bool,
    /// It decides about responses.
    pub on_response: bool,
    /// It sees the bodies of requests piece by piece (Envoy `ext_proc`: `STREAMED`).
    #[serde(default)]
    pub on_request_chunk: bool,
    /// It sees the bodies of responses piece by piece.
    #[serde(default)]
    pub on_response_chunk: bool,
    /// Time for one decision. Milliseconds, at least 1.
    pub timeout_ms: u64,
    /// What becomes of a message that there is no decision about.
    pub on_error: OnError,
    /// The requests that it is asked about.
    #[serde(default)]
    pub predicate: Predicate,
    /// It decides about requests together with their bodies, once all of them is there (Envoy
    /// `ext_proc`: `BUFFERED`).
    #[serde(default)]
    pub request_body: bool,
    /// It decides about responses together with their bodies.
    #[serde(default)]
    pub response_body: bool,
    /// The longest body that it takes as a whole. Bytes.
    #[serde(default)]
    pub max_body: usize,
}

/// A declaration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadDeclaration {
    /// The bytes are no declarations.
    #[error("the declarations of filters are not in the form this engine reads: {0}")]
    Malformed(#[from] serde_json::Error),
    /// There are more filters than numbers for them.
    #[error("there are {0} filters, more than 65535")]
    TooMany(usize),
}

impl Declaration {
    /// Reads declarations, a JSON list.
    pub fn list(json: &[u8]) -> Result<Vec<Self>, BadDeclaration> {
        let list: Vec<Self> = serde_json::from_slice(json)?;
        if list.len() > usize::from(u16::MAX) {
            return Err(BadDeclaration::TooMany(list.len()));
        }
        Ok(list)
    }

    /// Whether the filter is attached to a route of this name.
    pub(crate) fn is_attached_to(&self, route: &str) -> bool {
        self.routes.iter().any(|pattern| {
            pattern == "*"
                || route
                    .strip_prefix(pattern.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_named_by_leading_segments() {
        let attached = |routes: &[&str]| {
            let routes = serde_json::to_string(routes).unwrap();
            let json = format!(
                r#"[{{"name": "n", "routes": {routes}, "on_request": true, "on_response": false,
                     "timeout_ms": 1, "on_error": "deny"}}]"#
            );
            Declaration::list(json.as_bytes()).unwrap()[0].is_attached_to("ns/web/0/1")
        };
        for (routes, expected) in [
            (&["*"][..], true),
            (&["ns/web"], true),
            (&["ns"], true),
            (&["ns/web/0/1"], true),
            (&["other", "ns/web/0"], true),
            (&["ns/we"], false),
            (&["ns/web/1"], false),
            (&["web"], false),
            (&[], false),
        ] {
            assert_eq!(attached(routes), expected, "{routes:?}");
        }
    }
}
