//! What of a request a descriptor looks at.

use std::borrow::Cow;
use std::net::IpAddr;

use kgw_h1::{Headers, Request};
use serde_json::{Map, Value};

use super::bucket::KeyMaker;
use crate::config::ir::{RateLimitEntry, RateLimitSource};

/// What a filter knows of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'r> {
    pub(super) request: &'r Request,
    pub(super) client: IpAddr,
    pub(super) principal: Option<&'r str>,
    /// What JWT filters have noted.
    pub(super) tokens: Option<&'r Map<String, Value>>,
}

/// One entry of a descriptor.
#[derive(Debug)]
pub(super) struct Entry {
    source: RateLimitSource,
    value: Option<Box<[u8]>>,
}

impl Entry {
    pub(super) fn compile(entry: &RateLimitEntry) -> Result<Self, String> {
        match &entry.source {
            RateLimitSource::RemoteAddress { v4_bits, v6_bits } => {
                if *v4_bits > 32 || *v6_bits > 128 {
                    return Err("an address has 32 or 128 bits".to_owned());
                }
            }
            RateLimitSource::Header { name } => {
                if !kgw_h1::is_valid_name(name.as_bytes()) {
                    return Err(format!("{name:?} is not the name of a header field"));
                }
            }
            RateLimitSource::QueryParameter { name }
            | RateLimitSource::Cookie { name }
            | RateLimitSource::Claim { name } => {
                if name.is_empty() {
                    return Err("what a limit counts by has to have a name".to_owned());
                }
            }
            RateLimitSource::Path
            | RateLimitSource::Method
            | RateLimitSource::Host
            | RateLimitSource::Principal => {}
        }
        Ok(Self {
            source: entry.source.clone(),
            value: entry.value.as_deref().map(|value| value.as_bytes().into()),
        })
    }

    /// Whether requests of different values have different buckets.
    pub(super) fn is_keyed(&self) -> bool {
        self.value.is_none()
    }

    /// Adds what the request has to the key of its bucket. Returns whether it has what it has to have.
    pub(super) fn add(&self, key: &mut KeyMaker, subject: &Subject<'_>) -> bool {
        let Some(value) = self.read(subject) else {
            return false;
        };
        if let Some(wanted) = &self.value {
            return **wanted == *value;
        }
        key.add(&value);
        true
    }

    fn read<'r>(&self, subject: &Subject<'r>) -> Option<Cow<'r, [u8]>> {
        let request = subject.request;
        match &self.source {
            RateLimitSource::RemoteAddress { v4_bits, v6_bits } => {
                let address = network(subject.client, *v4_bits, *v6_bits);
                Some(address.to_string().into_bytes().into())
            }
            // The first one, as in Envoy.
            RateLimitSource::Header { name } => {
                Some(request.headers().get(name.as_bytes())?.into())
            }
            RateLimitSource::QueryParameter { name } => parameter(request.query()?, name),
            RateLimitSource::Cookie { name } => cookie(request.headers(), name.as_bytes()),
            RateLimitSource::Claim { name } => claim(subject.tokens?, name),
            RateLimitSource::Path => Some(request.path_only().into()),
            RateLimitSource::Method => Some(request.method().into()),
            RateLimitSource::Host => Some(host(request.authority())),
            RateLimitSource::Principal => Some(subject.principal?.as_bytes().into()),
        }
    }
}

/// An address without the bits that do not count. An IPv4 address that is written as an IPv6 one is that
/// IPv4 address.
fn network(address: IpAddr, v4_bits: u8, v6_bits: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(v4_bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6_bits)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

/// The first parameter of a name. Names and values are compared decoded: `%61` is `a`, and `+` a space.
fn parameter<'r>(query: &'r [u8], name: &str) -> Option<Cow<'r, [u8]>> {
    query.split(|&byte| byte == b'&').find_map(|parameter| {
        let mut parts = parameter.splitn(2, |&byte| byte == b'=');
        let named = decoded(parts.next()?);
        (*named == *name.as_bytes()).then(|| decoded(parts.next().unwrap_or_default()))
    })
}

/// Text of a query without its encoding. What is no encoding stands for itself.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return text.into();
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => plain.push(b' '),
            (b'%', &[high, low, ref further @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                plain.push(digit(high) << 4 | digit(low));
                rest = further;
            }
            _ => plain.push(byte),
        }
    }
    plain.into()
}

/// The value of a hexadecimal digit.
fn digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The first cookie of a name, without the quotes that its value may have (RFC 6265 4.1.1).
fn cookie<'r>(headers: &'r Headers, name: &[u8]) -> Option<Cow<'r, [u8]>> {
    let value = headers
        .get_all(b"cookie")
        .flat_map(|cookies| cookies.split(|&byte| byte == b';'))
        .filter_map(|cookie| cookie.trim_ascii().strip_prefix(name))
        .find_map(|rest| rest.strip_prefix(b"="))?;
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    Some(inner.unwrap_or(value).into())
}

/// A host without its port, in lower case.
fn host(authority: &[u8]) -> Cow<'_, [u8]> {
    let end = match authority.iter().rposition(|&byte| byte == b':') {
        // Not one inside an IPv6 address.
        Some(colon) if !authority[colon..].contains(&b']') => colon,
        _ => authority.len(),
    };
    let host = &authority[..end];
    if host.iter().any(u8::is_ascii_uppercase) {
        host.to_ascii_lowercase().into()
    } else {
        host.into()
    }
}

/// A claim of any of the tokens that were verified: of the whole name, or else along its dots. It may be
/// noted beside them as well.
fn claim<'r>(tokens: &'r Map<String, Value>, name: &str) -> Option<Cow<'r, [u8]>> {
    let of_tokens = tokens.values().filter_map(Value::as_object);
    let found = of_tokens
        .chain([tokens])
        .find_map(|claims| claims.get(name).or_else(|| along(claims, name)))?;
    match found {
        Value::Null => None,
        Value::String(text) => Some(text.as_bytes().into()),
        other => Some(other.to_string().into_bytes().into()),
    }
}

fn along<'r>(claims: &'r Map<String, Value>, name: &str) -> Option<&'r Value> {
    let mut names = name.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use kgw_h1::Limits;
    use serde_json::json;

    use super::*;

    const HEAD: &[u8] = b"PUT /shop/cart?a=1&b=x%20y+z&%61b=%zz&c&a=2 HTTP/1.1\r\n\
        Host: Shop.Example:8080\r\n\
        x-user: anna\r\nx-many: 1\r\nX-Many: 2\r\nx-empty:\r\n\
        cookie: theme=dark; id=\"7\"\r\ncookie: id=8\r\n\r\n";

    fn request(head: &[u8]) -> Request {
        let mut request = Request::new();
        let limits = Limits {
            max_head_bytes: 1_000,
            max_fields: 10,
        };
        request.parse(head, &limits).unwrap();
        request
    }

    fn read(source: &serde_json::Value) -> Option<String> {
        let request = request(HEAD);
        let tokens =
            json!({"issuer": {"sub": "anna", "realm": {"tier": 3}, "a.b": true, "no": null}});
        let subject = Subject {
            request: &request,
            client: "::ffff:10.1.2.3".parse().unwrap(),
            principal: Some("spiffe://a/ns/b/sa/c"),
            tokens: tokens.as_object(),
        };
        let entry = serde_json::from_value(json!({"source": source})).unwrap();
        let value = Entry::compile(&entry).unwrap().read(&subject)?.into_owned();
        Some(String::from_utf8(value).unwrap())
    }

    fn named(kind: &str, name: &str) -> Option<String> {
        read(&json!({"type": kind, "name": name}))
    }

    #[test]
    fn each_source_has_its_value() {
        let of = |kind: &str| read(&json!({"type": kind}));
        assert_eq!(of("path").as_deref(), Some("/shop/cart"));
        assert_eq!(of("method").as_deref(), Some("PUT"));
        assert_eq!(of("host").as_deref(), Some("shop.example"));
        assert_eq!(of("principal").as_deref(), Some("spiffe://a/ns/b/sa/c"));
        assert_eq!(named("header", "X-User").as_deref(), Some("anna"));
        assert_eq!(named("header", "x-many").as_deref(), Some("1"));
        assert_eq!(named("header", "x-empty").as_deref(), Some(""));
        assert_eq!(named("header", "x-none"), None);
        assert_eq!(named("cookie", "id").as_deref(), Some("7"));
        assert_eq!(named("cookie", "theme").as_deref(), Some("dark"));
        assert_eq!(named("cookie", "i"), None);
    }

    #[test]
    fn a_query_is_compared_decoded() {
        assert_eq!(named("query_parameter", "a").as_deref(), Some("1"));
        assert_eq!(named("query_parameter", "b").as_deref(), Some("x y z"));
        assert_eq!(named("query_parameter", "ab").as_deref(), Some("%zz"));
        assert_eq!(named("query_parameter", "c").as_deref(), Some(""));
        assert_eq!(named("query_parameter", "d"), None);
    }

    #[test]
    fn a_claim_has_its_name_or_a_way_to_it() {
        assert_eq!(named("claim", "sub").as_deref(), Some("anna"));
        assert_eq!(named("claim", "realm.tier").as_deref(), Some("3"));
        assert_eq!(named("claim", "a.b").as_deref(), Some("true"));
        assert_eq!(named("claim", "issuer.sub").as_deref(), Some("anna"));
        for absent in ["no", "realm.other", "sub.other", "x"] {
            assert_eq!(named("claim", absent), None, "{absent}");
        }
    }

    #[test]
    fn of_an_address_as_many_bits_count_as_are_said() {
        let address = |text: &str, v4, v6| {
            let address = network(text.parse().unwrap(), v4, v6);
            address.to_string()
        };
        assert_eq!(address("10.1.2.3", 32, 128), "10.1.2.3");
        assert_eq!(address("10.1.2.3", 24, 128), "10.1.2.0");
        assert_eq!(address("10.1.2.3", 0, 0), "0.0.0.0");
        assert_eq!(address("2001:db8:1:2:3:4:5:6", 32, 64), "2001:db8:1:2::");
        assert_eq!(address("2001:db8::1", 32, 128), "2001:db8::1");
        assert_eq!(address("2001:db8::1", 32, 0), "::");
        assert_eq!(address("::ffff:10.1.2.3", 24, 0), "10.1.2.0");
        let client = json!({"type": "remote_address", "v4_bits": 32, "v6_bits": 64});
        assert_eq!(read(&client).as_deref(), Some("10.1.2.3"));
    }

    #[test]
    fn a_host_may_be_an_address() {
        assert_eq!(&*host(b"[::1]:80"), b"[::1]");
        assert_eq!(&*host(b"[::1]"), b"[::1]");
        assert_eq!(&*host(b"10.0.0.1"), b"10.0.0.1");
    }

    #[test]
    fn a_value_that_has_to_be_there_is_compared_and_no_key() {
        let bucket = super::super::Bucket::new(1, 1, std::time::Duration::from_secs(1), 1).unwrap();
        let request = request(HEAD);
        let subject = Subject {
            request: &request,
            client: "10.0.0.1".parse().unwrap(),
            principal: None,
            tokens: None,
        };
        let has = |value: &str| {
            let source = json!({"type": "header", "name": "x-user"});
            let entry = json!({"source": source, "value": value});
            let entry = Entry::compile(&serde_json::from_value(entry).unwrap()).unwrap();
            assert!(!entry.is_keyed());
            let mut key = bucket.key();
            let has = entry.add(&mut key, &subject);
            assert_eq!(key.finish(), bucket.key().finish());
            has
        };
        assert!(has("anna"));
        assert!(!has("bert"));
    }
}
