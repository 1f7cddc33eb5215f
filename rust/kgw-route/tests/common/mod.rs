//! A request made of plain values, and shorthand for rules.
#![allow(dead_code, reason = "each test binary uses its part")]

use kgw_route::{PathMatch, Request, Rule, StringMatch, ValueMatch};

#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) method: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Plain {
    /// `GET` of a target such as `/path?query`.
    pub(crate) fn get(host: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self {
            host: host.to_owned(),
            path: path.to_owned(),
            query,
            method: "GET".to_owned(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Request for Plain {
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref().map(str::as_bytes)
    }

    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn any_header(&self, name: &[u8], mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        self.headers
            .iter()
            .any(|(n, value)| n.as_bytes().eq_ignore_ascii_case(name) && matches(value.as_bytes()))
    }
}

pub(crate) fn prefix(path: &str) -> Rule {
    Rule::new(PathMatch::Prefix(path.to_owned()))
}

pub(crate) fn exact(path: &str) -> Rule {
    Rule::new(PathMatch::Exact(path.to_owned()))
}

pub(crate) fn regex(pattern: &str) -> Rule {
    Rule::new(PathMatch::Regex(pattern.to_owned()))
}

/// A predicate: the value `*` is any, `~x` the regular expression `x`.
pub(crate) fn named(name: &str, value: &str) -> ValueMatch {
    let value = match value.strip_prefix('~') {
        Some(pattern) => StringMatch::Regex(pattern.to_owned()),
        None if value == "*" => StringMatch::Present,
        None => StringMatch::Exact(value.to_owned()),
    };
    ValueMatch {
        name: name.to_owned(),
        value,
    }
}
