//! What a request is counted by.
//!
//! A descriptor is a list of keys and values. Values are of the request; a request that lacks one of them is
//! not counted by that descriptor, but by the others (Envoy: the same).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use kgw_h1::{Known, Request};
use serde_json::Value;
use smallvec::{SmallVec, smallvec};

use super::MAX_DESCRIPTORS;
use crate::config::ir::{
    GlobalDescriptor, GlobalDescriptorEntry, RateLimit, RateLimitHits, RateLimitValue,
};
use crate::conn::filtering::Noted;
use crate::protobuf::text;

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) request: &'a Request,
    /// The client, as far as it can be trusted.
    pub(crate) client: SocketAddr,
    pub(crate) is_secure: bool,
    /// The client's identity.
    pub(crate) principal: Option<&'a str>,
    /// What filters before noted, by namespace.
    pub(crate) noted: Option<&'a Noted>,
}

/// What a request is counted by.
#[derive(Debug)]
pub(crate) struct Descriptor<'a> {
    pub(crate) entries: Vec<(&'a str, String)>,
    /// Its limit, if it has one of its own.
    pub(crate) limit: Option<&'a RateLimit>,
    /// What the request counts, if that is another number than for all.
    pub(crate) hits: Option<u32>,
}

/// How descriptors are made.
#[derive(Debug)]
pub(super) struct CompiledDescriptor {
    entries: Box<[GlobalDescriptorEntry]>,
    pub(super) limit: Option<RateLimit>,
    hits: Option<Hits>,
}

/// What a request counts.
#[derive(Debug)]
pub(super) enum Hits {
    Constant(u32),
    Header(Box<[u8]>),
}

/// Values of an entry: mostly there is one.
type Values = SmallVec<[String; 1]>;

impl CompiledDescriptor {
    pub(super) fn compile(descriptor: &GlobalDescriptor) -> Result<Self, String> {
        if descriptor.entries.is_empty() {
            return Err("a descriptor of a rate limit has no entry".to_owned());
        }
        descriptor.entries.iter().try_for_each(check)?;
        if let Some(limit) = &descriptor.limit {
            check_limit(limit)?;
        }
        Ok(Self {
            entries: descriptor.entries.clone().into_boxed_slice(),
            limit: descriptor.limit.clone(),
            hits: descriptor.hits.as_ref().map(Hits::compile).transpose()?,
        })
    }

    /// Adds what a request is counted by: nothing if it lacks an entry, and several where it has several
    /// values, as long as there is room.
    pub(super) fn add<'a>(&'a self, subject: &Subject<'_>, all: &mut Vec<Descriptor<'a>>) {
        let mut made: SmallVec<[Vec<(&str, String)>; 1]> = smallvec![Vec::new()];
        for entry in &self.entries {
            let mut values = values(entry, subject);
            if !entry.each {
                values.truncate(1);
            }
            if let ([value], [entries]) = (&mut values[..], &mut made[..]) {
                entries.push((&entry.key, std::mem::take(value)));
                continue;
            }
            let combined = made.iter().flat_map(|entries| {
                values.iter().map(move |value| {
                    let mut entries = entries.clone();
                    entries.push((&*entry.key, value.clone()));
                    entries
                })
            });
            made = combined.take(MAX_DESCRIPTORS).collect();
        }
        let room = MAX_DESCRIPTORS.saturating_sub(all.len());
        let hits = self.hits.as_ref().map(|hits| hits.of(subject.request));
        all.extend(made.into_iter().take(room).map(|entries| Descriptor {
            entries,
            limit: self.limit.as_ref(),
            hits,
        }));
    }
}

impl Hits {
    pub(super) fn compile(hits: &RateLimitHits) -> Result<Self, String> {
        match hits {
            RateLimitHits::Constant { value: 0 } => {
                Err("a request counts nothing for its rate limit".to_owned())
            }
            RateLimitHits::Constant { value } => Ok(Self::Constant(*value)),
            RateLimitHits::Header { name } => {
                check_name(name)?;
                Ok(Self::Header(name.to_ascii_lowercase().into_bytes().into()))
            }
        }
    }

    pub(super) fn of(&self, request: &Request) -> u32 {
        match self {
            Self::Constant(value) => *value,
            Self::Header(name) => {
                let value = request.headers().get(name);
                let value = value.and_then(|value| std::str::from_utf8(value).ok());
                value
                    .and_then(|value| value.trim().parse().ok())
                    .unwrap_or(1)
            }
        }
    }
}

/// Whether a limit is one.
pub(super) fn check_limit(limit: &RateLimit) -> Result<(), String> {
    if limit.requests == 0 || limit.burst == Some(0) {
        return Err("a rate limit allows nothing".to_owned());
    }
    Ok(())
}

fn check(entry: &GlobalDescriptorEntry) -> Result<(), String> {
    if entry.key.is_empty() {
        return Err("an entry of a rate limit has no key".to_owned());
    }
    match &entry.value {
        RateLimitValue::Header { name } => {
            let is_pseudo = matches!(
                name.as_str(),
                ":path" | ":method" | ":authority" | ":scheme"
            );
            if is_pseudo {
                return Ok(());
            }
            check_name(name)
        }
        RateLimitValue::RemoteAddress {
            ipv4_prefix,
            ipv6_prefix,
        } if !(1..=32).contains(ipv4_prefix) || !(1..=128).contains(ipv6_prefix) => {
            Err("not so many bits of an address can count".to_owned())
        }
        RateLimitValue::Metadata { path, .. } if path.is_empty() => {
            Err("an entry of a rate limit has no path in what was noted".to_owned())
        }
        RateLimitValue::Query { name } | RateLimitValue::Cookie { name } if name.is_empty() => {
            Err("an entry of a rate limit has no name".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if kgw_h1::is_valid_name(name.as_bytes()) {
        Ok(())
    } else {
        Err(format!("{name:?} is not a header field name"))
    }
}

/// The values that a request has.
fn values(entry: &GlobalDescriptorEntry, subject: &Subject<'_>) -> Values {
    let request = subject.request;
    match &entry.value {
        RateLimitValue::Generic { value } => smallvec![value.clone()],
        RateLimitValue::Header { name } => header(name, subject),
        RateLimitValue::RemoteAddress {
            ipv4_prefix,
            ipv6_prefix,
        } => smallvec![address(subject.client.ip(), *ipv4_prefix, *ipv6_prefix)],
        RateLimitValue::Path { query: true } => smallvec![text(request.path())],
        RateLimitValue::Path { query: false } => smallvec![text(request.path_only())],
        RateLimitValue::Method => smallvec![text(request.method())],
        RateLimitValue::Host => host(request).into_iter().collect(),
        RateLimitValue::Query { name } => query(request, name.as_bytes()),
        RateLimitValue::Cookie { name } => cookies(request, name.as_bytes()),
        RateLimitValue::Metadata { namespace, path } => {
            let noted = subject.noted.and_then(|all| all.get(namespace.as_str()));
            let (first, deeper) = match &path[..] {
                [] => return Values::new(),
                [first, deeper @ ..] => (first, deeper),
            };
            let first = noted.and_then(|noted| noted.get(first));
            let found = deeper.iter().fold(first, |at, step| at?.get(step));
            found.map(listed).unwrap_or_default()
        }
        RateLimitValue::Principal => subject.principal.map(str::to_owned).into_iter().collect(),
    }
}

fn header(name: &str, subject: &Subject<'_>) -> Values {
    let request = subject.request;
    match name {
        ":path" => smallvec![text(request.path())],
        ":method" => smallvec![text(request.method())],
        ":authority" => smallvec![text(request.authority())],
        ":scheme" if subject.is_secure => smallvec!["https".to_owned()],
        ":scheme" => smallvec!["http".to_owned()],
        name if name.eq_ignore_ascii_case("host") => smallvec![text(request.authority())],
        name => request
            .headers()
            .get_all(name.as_bytes())
            .map(text)
            .collect(),
    }
}

/// An address, or the network that it is in.
fn address(ip: IpAddr, ipv4_prefix: u8, ipv6_prefix: u8) -> String {
    let ip = ip.to_canonical();
    let (bits, all) = match ip {
        IpAddr::V4(_) => (ipv4_prefix, 32),
        IpAddr::V6(_) => (ipv6_prefix, 128),
    };
    if bits == all {
        return ip.to_string();
    }
    match IpNet::new(ip, bits) {
        Ok(network) => network.trunc().to_string(),
        Err(_) => ip.to_string(),
    }
}

fn host(request: &Request) -> Option<String> {
    let authority = text(request.authority()).to_ascii_lowercase();
    let without_port = match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => &authority,
    };
    (!without_port.is_empty()).then(|| without_port.to_owned())
}

fn query(request: &Request, wanted: &[u8]) -> Values {
    let query = request.query().unwrap_or_default();
    let parameters = query.split(|&byte| byte == b'&');
    let parameters = parameters.filter_map(|parameter| {
        let mut parts = parameter.splitn(2, |&byte| byte == b'=');
        let name = decoded(parts.next()?);
        let value = decoded(parts.next().unwrap_or_default());
        (*name == *wanted).then(|| text(&value))
    });
    parameters.collect()
}

/// A part of a query without its escapes (`application/x-www-form-urlencoded`). What is no escape stays.
fn decoded(part: &[u8]) -> Cow<'_, [u8]> {
    if !part.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(part);
    }
    let digit = |at: usize| part.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut out = Vec::with_capacity(part.len());
    let mut at = 0;
    while let Some(&byte) = part.get(at) {
        at += 1;
        match (byte, digit(at), digit(at + 1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

fn cookies(request: &Request, wanted: &[u8]) -> Values {
    let fields = request.headers().get_all_known(Known::Cookie);
    let pairs = fields.flat_map(|field| field.split(|&byte| byte == b';'));
    let pairs = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = memchr::memchr(b'=', pair)?;
        (&pair[..at] == wanted).then(|| text(pair[at + 1..].trim_ascii()))
    });
    pairs.collect()
}

/// What was noted as text: of a list, each of its items.
fn listed(noted: &Value) -> Values {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    match noted {
        Value::Array(items) => items.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use kgw_h1::Limits;
    use serde_json::json;

    use super::*;

    fn request(line: &str, fields: &str) -> Request {
        let limits = Limits {
            max_head_bytes: 64 * 1024,
            max_fields: 100,
        };
        let mut request = Request::new();
        let bytes = format!("{line} HTTP/1.1\r\nhost: A.example:8080\r\n{fields}\r\n");
        request.parse(bytes.as_bytes(), &limits).unwrap();
        request
    }

    /// What a request is counted by, as `key=value,key=value`.
    fn made(descriptor: &Value, request: &Request) -> Vec<String> {
        let descriptor: GlobalDescriptor = serde_json::from_value(descriptor.clone()).unwrap();
        let compiled = CompiledDescriptor::compile(&descriptor).unwrap();
        let noted = json!({"sub": "ann", "groups": ["x", 2, null], "deep": {"n": 7}});
        let noted = Noted::from([("jwt".into(), noted.as_object().unwrap().clone())]);
        let subject = Subject {
            request,
            client: "[::ffff:10.1.2.3]:99".parse().unwrap(),
            is_secure: true,
            principal: Some("spiffe://mesh/ns/a/sa/b"),
            noted: Some(&noted),
        };
        let mut all = Vec::new();
        compiled.add(&subject, &mut all);
        let shown = |descriptor: &Descriptor<'_>| {
            let entries = descriptor.entries.iter();
            let entries: Vec<_> = entries
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            entries.join(",")
        };
        all.iter().map(shown).collect()
    }

    /// The values of one entry.
    fn of(value: &Value, each: bool, request: &Request) -> Vec<String> {
        let descriptor = json!({"entries": [{"key": "k", "value": value, "each": each}]});
        let made = made(&descriptor, request).into_iter();
        made.map(|one| one.strip_prefix("k=").unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_kind_of_value() {
        let request = request(
            "GET /a%20b?x=1&y=a%20b+c&x=2&z",
            "x-user: ann\r\ncookie: s=1; t=2\r\nX-User: bob\r\nx-empty:\r\n",
        );
        for (value, expected) in [
            (json!({"type": "generic", "value": "v"}), "v"),
            (json!({"type": "header", "name": "X-User"}), "ann"),
            (json!({"type": "header", "name": "x-empty"}), ""),
            (json!({"type": "header", "name": ":method"}), "GET"),
            (
                json!({"type": "header", "name": ":authority"}),
                "A.example:8080",
            ),
            (json!({"type": "header", "name": ":scheme"}), "https"),
            (json!({"type": "remote_address"}), "10.1.2.3"),
            (
                json!({"type": "remote_address", "ipv4_prefix": 16}),
                "10.1.0.0/16",
            ),
            (json!({"type": "path"}), "/a%20b?x=1&y=a%20b+c&x=2&z"),
            (json!({"type": "path", "query": false}), "/a%20b"),
            (json!({"type": "method"}), "GET"),
            (json!({"type": "host"}), "a.example"),
            (json!({"type": "query", "name": "y"}), "a b c"),
            (json!({"type": "query", "name": "z"}), ""),
            (json!({"type": "cookie", "name": "t"}), "2"),
            (
                json!({"type": "metadata", "namespace": "jwt", "path": ["sub"]}),
                "ann",
            ),
            (
                json!({"type": "metadata", "namespace": "jwt", "path": ["deep", "n"]}),
                "7",
            ),
            (json!({"type": "principal"}), "spiffe://mesh/ns/a/sa/b"),
        ] {
            assert_eq!(of(&value, false, &request), [expected], "{value}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_counted() {
        let request = request("GET /", "");
        for value in [
            json!({"type": "header", "name": "x-user"}),
            json!({"type": "query", "name": "y"}),
            json!({"type": "cookie", "name": "t"}),
            json!({"type": "metadata", "namespace": "jwt", "path": ["nobody"]}),
            json!({"type": "metadata", "namespace": "none", "path": ["sub"]}),
            json!({"type": "metadata", "namespace": "jwt", "path": ["deep"]}),
        ] {
            for each in [false, true] {
                assert_eq!(of(&value, each, &request), [""; 0], "{value}");
            }
        }
    }

    #[test]
    fn several_values_are_several_descriptors_if_they_are_to_be() {
        let request = request("GET /?x=1&x=2", "");
        let groups = json!({"type": "metadata", "namespace": "jwt", "path": ["groups"]});
        assert_eq!(of(&groups, false, &request), ["x"]);
        assert_eq!(of(&groups, true, &request), ["x", "2"]);
        let both = json!({"entries": [
            {"key": "g", "value": groups, "each": true},
            {"key": "q", "value": {"type": "query", "name": "x"}, "each": true},
            {"key": "m", "value": {"type": "method"}},
        ]});
        assert_eq!(
            made(&both, &request),
            [
                "g=x,q=1,m=GET",
                "g=x,q=2,m=GET",
                "g=2,q=1,m=GET",
                "g=2,q=2,m=GET"
            ]
        );
    }

    #[test]
    fn there_are_not_more_descriptors_than_may_be() {
        let many = (0..100)
            .map(|n| format!("x={n}"))
            .collect::<Vec<_>>()
            .join("&");
        let request = request(&format!("GET /?{many}"), "");
        let entry = json!({"key": "q", "value": {"type": "query", "name": "x"}, "each": true});
        let descriptor = json!({"entries": [entry.clone(), entry.clone(), entry]});
        assert_eq!(made(&descriptor, &request).len(), MAX_DESCRIPTORS);
    }

    #[test]
    fn hits_are_of_a_field_or_constant() {
        let hits = |json: Value, fields: &str| {
            let hits: RateLimitHits = serde_json::from_value(json).unwrap();
            Hits::compile(&hits).unwrap().of(&request("GET /", fields))
        };
        assert_eq!(hits(json!({"type": "constant", "value": 5}), ""), 5);
        let header = json!({"type": "header", "name": "X-Cost"});
        for (value, expected) in [("7", 7), ("0", 0), ("x", 1), ("-1", 1), ("", 1)] {
            let field = format!("x-cost: {value}\r\n");
            assert_eq!(hits(header.clone(), &field), expected, "{value}");
        }
        assert_eq!(hits(header, ""), 1);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (descriptor, problem) in [
            (json!({"entries": []}), "no entry"),
            (
                json!({"entries": [{"key": "", "value": {"type": "method"}}]}),
                "no key",
            ),
            (
                json!({"entries": [{"key": "k", "value": {"type": "header", "name": "a b"}}]}),
                "a b",
            ),
            (
                json!({"entries": [{"key": "k", "value": {"type": "remote_address", "ipv4_prefix": 33}}]}),
                "bits",
            ),
            (
                json!({"entries": [{"key": "k", "value": {"type": "method"}}],
                       "limit": {"requests": 0, "unit": "second"}}),
                "nothing",
            ),
            (
                json!({"entries": [{"key": "k", "value": {"type": "method"}}],
                       "hits": {"type": "constant", "value": 0}}),
                "nothing",
            ),
        ] {
            let parsed: GlobalDescriptor = serde_json::from_value(descriptor).unwrap();
            let error = CompiledDescriptor::compile(&parsed).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
