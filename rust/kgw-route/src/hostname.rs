//! Hostnames: the patterns of rules, and what a request sends.

use std::fmt;
use std::net::Ipv6Addr;

/// The most characters of a hostname (RFC 1035 §2.3.4, without the root's dot).
pub(crate) const MAX_LEN: usize = 253;

/// A rule's hostname, in lower case, without a trailing dot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Pattern {
    /// `foo.example`, or an address as it stands in a `Host` field.
    Exact(Box<str>),
    /// The `example` of `*.example`: one or more labels before it, never it alone.
    Suffix(Box<str>),
    /// `*`.
    Any,
}

// === impl Pattern ===

impl Pattern {
    /// None if it is no hostname.
    pub(crate) fn parse(hostname: &str) -> Option<Self> {
        let lower = hostname.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        if lower == "*" {
            Some(Self::Any)
        } else if let Some(suffix) = name.strip_prefix("*.") {
            is_dns_name(suffix).then(|| Self::Suffix(suffix.into()))
        } else if is_dns_name(name) || is_ipv6_literal(name) {
            Some(Self::Exact(name.into()))
        } else {
            None
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    // Underscores are no host names (RFC 952) but are common in clusters' internal names.
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_LEN && name.split('.').all(is_label)
}

fn is_ipv6_literal(name: &str) -> bool {
    name.strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// The host of a request without port and trailing dot; None if it is longer than a hostname can be, so
/// that only `*` matches it. It may be in any case.
#[inline]
pub(crate) fn requested(raw: &[u8]) -> Option<&[u8]> {
    let name = strip_port(raw);
    let name = name.strip_suffix(b".").unwrap_or(name);
    (name.len() <= MAX_LEN).then_some(name)
}

/// Calls `with_lower` with the host in lower case, which most are. Others are copied on the stack.
#[inline]
pub(crate) fn with_lower<T>(host: &[u8], with_lower: impl FnOnce(&[u8]) -> T) -> T {
    #[cold]
    fn copied<T>(host: &[u8], with_lower: impl FnOnce(&[u8]) -> T) -> T {
        let mut bytes = [0; MAX_LEN];
        let lower = &mut bytes[..host.len()];
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        with_lower(lower)
    }

    if host.iter().any(u8::is_ascii_uppercase) {
        copied(host, with_lower)
    } else {
        with_lower(host)
    }
}

/// The host without `:port`. What is no port (letters, or one of the colons of an IPv6 address
/// without brackets) stays, and makes the host match nothing but `*`.
#[inline]
fn strip_port(host: &[u8]) -> &[u8] {
    let Some(colon) = memchr::memrchr(b':', host) else {
        return host;
    };
    let (name, port) = host.split_at(colon);
    let is_port = port[1..].iter().all(u8::is_ascii_digit);
    let is_name = if name.first() == Some(&b'[') {
        name.last() == Some(&b']')
    } else {
        memchr::memchr(b':', name).is_none()
    };
    if is_port && is_name { name } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(raw: &str) -> String {
        let host = requested(raw.as_bytes()).expect("short enough");
        let lower = with_lower(host, <[u8]>::to_vec);
        String::from_utf8(lower).expect("ASCII in, ASCII out")
    }

    #[test]
    fn port_case_and_trailing_dot_are_removed() {
        for raw in [
            "foo.example",
            "FOO.Example",
            "foo.example:80",
            "foo.example.",
            "foo.example.:1",
        ] {
            assert_eq!(normal(raw), "foo.example", "{raw}");
        }
        assert_eq!(normal("foo.example:"), "foo.example");
        assert_eq!(normal("10.0.0.1:8080"), "10.0.0.1");
        assert_eq!(normal(""), "");
        assert_eq!(normal("."), "");
        assert_eq!(normal(":80"), "");
    }

    #[test]
    fn address_literals_keep_their_colons() {
        assert_eq!(normal("[2001:DB8::1]:15088"), "[2001:db8::1]");
        assert_eq!(normal("[::1]"), "[::1]");
        assert_eq!(normal("::1"), "::1");
    }

    #[test]
    fn what_is_no_port_stays() {
        assert_eq!(normal("foo.example:http"), "foo.example:http");
        assert_eq!(normal("foo:1:2"), "foo:1:2");
        assert_eq!(normal("[::1"), "[::1");
    }

    #[test]
    fn too_long_is_no_host() {
        assert_eq!(normal(&"A".repeat(MAX_LEN)), "a".repeat(MAX_LEN));
        assert!(requested(&[b'A'; MAX_LEN]).is_some());
        assert!(requested(&[b'A'; MAX_LEN + 1]).is_none());
    }

    #[test]
    fn patterns() {
        assert_eq!(Pattern::parse("*"), Some(Pattern::Any));
        assert_eq!(
            Pattern::parse("Foo.Example."),
            Some(Pattern::Exact("foo.example".into()))
        );
        assert_eq!(
            Pattern::parse("*.Example"),
            Some(Pattern::Suffix("example".into()))
        );
        assert_eq!(
            Pattern::parse("[::1]"),
            Some(Pattern::Exact("[::1]".into()))
        );
        assert_eq!(
            Pattern::parse("10.0.0.1"),
            Some(Pattern::Exact("10.0.0.1".into()))
        );
        let long = "a".repeat(64);
        for bad in [
            "",
            ".",
            "a..b",
            "*.",
            "*.*.b",
            "a.*",
            "*a.b",
            "a b",
            "-a.b",
            "a-.b",
            "a:80",
            "[::1]:80",
            "[::g]",
            "::1",
            "b\u{fc}.de",
            &long,
        ] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }
}
