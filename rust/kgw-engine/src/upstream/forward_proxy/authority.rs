//! The host and port that a request names.

use std::net::Ipv6Addr;

/// Bytes of a name (RFC 1035 2.3.4, without the root).
const MAX_NAME: usize = 253;

/// Bytes of a label.
const MAX_LABEL: usize = 63;

/// Returns the name or address, in lower case and without brackets or the root's dot, and the port.
/// None is none that could be looked up.
pub(super) fn parse(authority: &[u8], default_port: u16) -> Option<(String, u16)> {
    let text = std::str::from_utf8(authority).ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']')?;
            let host: Ipv6Addr = host.parse().ok()?;
            let port = match behind {
                "" => None,
                behind => Some(behind.strip_prefix(':')?),
            };
            (host.to_string(), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(text)?, None),
        },
    };
    let port = match port {
        None => default_port,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0)?
        }
        Some(_) => return None,
    };
    Some((host, port))
}

fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_plain)
    };
    (text.len() <= MAX_NAME && text.split('.').all(is_label)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_found() {
        let found = |text: &str| parse(text.as_bytes(), 80);
        let host = |name: &str, port| Some((name.to_owned(), port));
        assert_eq!(found("API.example.com"), host("api.example.com", 80));
        assert_eq!(
            found("a_b.example.com.:8080"),
            host("a_b.example.com", 8080)
        );
        assert_eq!(found("192.0.2.1:1"), host("192.0.2.1", 1));
        assert_eq!(found("[2001:DB8::1]"), host("2001:db8::1", 80));
        assert_eq!(found("[::1]:65535"), host("::1", 65535));
    }

    #[test]
    fn what_is_no_host_is_not_looked_up() {
        let long = format!("{}.example", "a".repeat(64));
        let longer = vec!["a"; 200].join(".");
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a@b",
            "a:",
            "a:b",
            "a:0",
            "a:65536",
            "a:+1",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]x",
            "[a]",
            "[::1%1]",
            "[fe80::1%25eth0]",
            "\u{e4}.example",
            "*",
            "a%00",
            &long,
            &longer,
        ] {
            assert_eq!(parse(text.as_bytes(), 80), None, "{text}");
        }
        assert_eq!(parse(b"\xff", 80), None);
    }
}
