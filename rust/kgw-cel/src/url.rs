//! URLs as Go's `net/url` reads those of requests: absolute, or a path from the root.

use std::fmt::Write as _;

/// A URL in its parts, each as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub(crate) scheme: String,
    /// With the port, if there is one.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
    opaque: String,
}

impl Url {
    /// Reads a URL; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return None;
        }
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            _ => (String::new(), text),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Self {
            scheme,
            host: String::new(),
            path: String::new(),
            query: query.to_owned(),
            opaque: String::new(),
        };
        if !rest.starts_with('/') {
            if url.scheme.is_empty() {
                return None;
            }
            rest.clone_into(&mut url.opaque);
            return Some(url);
        }
        let path = match rest.strip_prefix("//") {
            Some(after) if !url.scheme.is_empty() || !rest.starts_with("///") => {
                let end = after.find('/').unwrap_or(after.len());
                let (authority, path) = after.split_at(end);
                let host = authority
                    .rsplit_once('@')
                    .map_or(authority, |(_, host)| host);
                is_host(host).then_some(())?;
                host.clone_into(&mut url.host);
                path
            }
            _ => rest,
        };
        has_escapes(path).then_some(())?;
        path.clone_into(&mut url.path);
        Some(url)
    }

    /// The host without its port, and without the brackets of an IPv6 address.
    pub(crate) fn hostname(&self) -> &str {
        match self
            .host
            .strip_prefix('[')
            .and_then(|host| host.split_once(']'))
        {
            Some((inside, _)) => inside,
            None => self
                .host
                .split_once(':')
                .map_or(&self.host, |(host, _)| host),
        }
    }

    /// The port, or nothing.
    pub(crate) fn port(&self) -> &str {
        let after = self
            .host
            .rsplit_once(']')
            .map_or(&*self.host, |(_, after)| after);
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }

    /// The path with everything escaped that has to be.
    pub(crate) fn escaped_path(&self) -> String {
        let mut written = String::with_capacity(self.path.len());
        for byte in self.path.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) {
                written.push(char::from(byte));
            } else {
                let _ = write!(written, "%{byte:02X}");
            }
        }
        written
    }

    /// The parameters of the query, decoded, in order.
    pub(crate) fn parameters(&self) -> Vec<(String, String)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decoded(name)?, decoded(value)?))
            })
            .collect()
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn is_host(text: &str) -> bool {
    let (name, port) = if let Some(inside) = text.strip_prefix('[') {
        let Some((address, after)) = inside.split_once(']') else {
            return false;
        };
        let address = address
            .split_once("%25")
            .map_or(address, |(address, _)| address);
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        ("", after)
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    (text.starts_with('[') || !port.contains(':'))
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && has_escapes(name)
        && !name.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}'])
}

/// Whether every `%` begins an escape.
fn has_escapes(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

fn decoded(text: &str) -> Option<String> {
    has_escapes(text).then_some(())?;
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    let plain = |bytes: &mut Vec<u8>, part: &str| {
        bytes.extend(
            part.bytes()
                .map(|byte| if byte == b'+' { b' ' } else { byte }),
        );
    };
    plain(&mut bytes, parts.next().unwrap_or(""));
    for part in parts {
        let (escape, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(escape, 16).ok()?);
        plain(&mut bytes, rest);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_go() {
        let url = Url::parse("https://user@[::1]:80/a b?k=1%20&k=2").expect("a URL");
        assert_eq!((url.hostname(), url.port()), ("::1", "80"));
        assert_eq!(url.escaped_path(), "/a%20b");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(url.parameters(), [pair("k", "1 "), pair("k", "2")]);
        for text in [
            "../a",
            "a",
            "",
            "http://a:b/",
            "http://[::1",
            "/%zz",
            "http://a\n",
        ] {
            assert_eq!(Url::parse(text), None, "{text:?}");
        }
        for text in [
            "/a",
            "https://example.com:8080",
            "spiffe://a/b",
            "mailto:a@b",
        ] {
            assert!(Url::parse(text).is_some(), "{text:?}");
        }
    }
}
