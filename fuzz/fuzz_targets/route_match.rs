//! Any rules, any request: nothing panics, and the lookup agrees with its explanation.
#![no_main]

use arbitrary::Arbitrary;
use kgw_route::{Builder, PathMatch, Rank, Request, Rule, StringMatch, ValueMatch};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    fall_through: bool,
    rules: Vec<AnyRule>,
    requests: Vec<AnyRequest>,
}

#[derive(Arbitrary, Debug)]
struct AnyRule {
    hostname: AnyHost,
    path: AnyPath,
    method: Option<bool>,
    headers: Vec<(u8, AnyValue)>,
    query: Vec<(u8, AnyValue)>,
    created: Option<u8>,
}

#[derive(Arbitrary, Debug)]
enum AnyHost {
    Any,
    Exact,
    Suffix,
    Given(String),
}

#[derive(Arbitrary, Debug)]
enum AnyPath {
    Exact(String),
    Prefix(String),
    Regex(String),
}

#[derive(Arbitrary, Debug)]
enum AnyValue {
    Exact(String),
    Present,
    Regex(String),
}

#[derive(Arbitrary, Debug)]
struct AnyRequest {
    host: Vec<u8>,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
    get: bool,
    headers: Vec<(u8, Vec<u8>)>,
}

impl Request for AnyRequest {
    fn host(&self) -> &[u8] {
        &self.host
    }

    fn path(&self) -> &[u8] {
        &self.path
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref()
    }

    fn method(&self) -> &[u8] {
        if self.get { b"GET" } else { b"POST" }
    }

    fn any_header(&self, name: &[u8], mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        self.headers
            .iter()
            .any(|(n, value)| name == field_name(*n).as_bytes() && matches(value))
    }
}

fn field_name(number: u8) -> String {
    format!("x-{}", number % 4)
}

fn values(given: Vec<(u8, AnyValue)>) -> Vec<ValueMatch> {
    let value = |value| match value {
        AnyValue::Exact(value) => StringMatch::Exact(value),
        AnyValue::Present => StringMatch::Present,
        AnyValue::Regex(pattern) => StringMatch::Regex(pattern),
    };
    given
        .into_iter()
        .map(|(name, given)| ValueMatch {
            name: field_name(name),
            value: value(given),
        })
        .collect()
}

fuzz_target!(|input: Input| {
    let mut builder = Builder::new().fall_through(input.fall_through);
    for (index, given) in input.rules.into_iter().enumerate() {
        let hostname = match given.hostname {
            AnyHost::Any => "*".to_owned(),
            AnyHost::Exact => "a.x".to_owned(),
            AnyHost::Suffix => "*.x".to_owned(),
            AnyHost::Given(hostname) => hostname,
        };
        let path = match given.path {
            AnyPath::Exact(path) => PathMatch::Exact(format!("/{path}")),
            AnyPath::Prefix(path) => PathMatch::Prefix(format!("/{path}")),
            AnyPath::Regex(pattern) => PathMatch::Regex(pattern),
        };
        let rule = Rule {
            path,
            method: given
                .method
                .map(|get| if get { "GET" } else { "POST" }.to_owned()),
            headers: values(given.headers),
            query: values(given.query),
            rank: Rank {
                created: given.created.map(i64::from),
                ..Rank::default()
            },
        };
        // A refused rule leaves the builder usable.
        let _ = builder.add(&hostname, rule, index);
    }
    let table = builder
        .build()
        .expect("rules that were taken compile together");
    for request in &input.requests {
        let found = table.find(request).map(|found| *found.value);
        let explained = table.explain(request).selected().map(|rule| *rule.value);
        assert_eq!(found, explained);
    }
});
