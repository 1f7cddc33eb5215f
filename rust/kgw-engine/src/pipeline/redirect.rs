//! `RequestRedirect`: the `location` of the answer.

use kgw_h1::Request;

use super::rewrite::rewritten_path;
use crate::config::ir::Redirect;

/// Returns the absolute URL that `request`, received on `port` by `scheme`, is redirected to.
///
/// The port is the filter's; else, if the filter names a scheme, that scheme's; else the listener's.
/// 80 for http and 443 for https are left out (Gateway API `HTTPRequestRedirectFilter.port`).
pub(crate) fn location(redirect: &Redirect, request: &Request, scheme: &str, port: u16) -> Vec<u8> {
    let scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let default_port = if scheme.eq_ignore_ascii_case("https") {
        443
    } else {
        80
    };
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => default_port,
        (None, None) => port,
    };
    let host = match &redirect.hostname {
        Some(hostname) => hostname.as_bytes(),
        None => without_port(request.authority()),
    };
    let mut location = Vec::with_capacity(64 + request.path().len());
    location.extend_from_slice(scheme.as_bytes());
    location.extend_from_slice(b"://");
    location.extend_from_slice(host);
    if port != default_port {
        location.push(b':');
        location.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    match &redirect.path {
        Some(path) => location.extend_from_slice(&rewritten_path(path, request.path())),
        None => location.extend_from_slice(request.path()),
    }
    location
}

fn without_port(authority: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', authority) {
        // A colon inside the brackets of an IPv6 literal is no port's.
        Some(at) if !authority[at..].contains(&b']') => &authority[..at],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kgw_h1::Limits;

    use crate::config::ir::PathRewrite;

    fn request(target: &str) -> Request {
        let limits = Limits {
            max_head_bytes: 1024,
            max_fields: 10,
        };
        let mut request = Request::new();
        let bytes = format!("GET {target} HTTP/1.1\r\nhost: example.org:9999\r\n\r\n");
        request.parse(bytes.as_bytes(), &limits).unwrap();
        request
    }

    fn redirect() -> Redirect {
        Redirect {
            scheme: None,
            hostname: None,
            port: None,
            path: None,
            status: 302,
        }
    }

    fn location_of(redirect: &Redirect, target: &str, port: u16, secure: bool) -> String {
        let scheme = if secure { "https" } else { "http" };
        String::from_utf8(location(redirect, &request(target), scheme, port)).unwrap()
    }

    /// The table of the Gateway API's `HTTPRouteRedirectPortAndScheme`.
    #[test]
    fn the_port_is_the_filters_then_the_schemes_then_the_listeners() {
        for (listener, secure, scheme, port, expected) in [
            (80, false, None, None, "http://example.org/a?b=c"),
            (80, false, None, Some(80), "http://example.org/a?b=c"),
            (80, false, None, Some(8080), "http://example.org:8080/a?b=c"),
            (80, false, Some("https"), None, "https://example.org/a?b=c"),
            (
                80,
                false,
                Some("https"),
                Some(443),
                "https://example.org/a?b=c",
            ),
            (
                80,
                false,
                Some("https"),
                Some(8443),
                "https://example.org:8443/a?b=c",
            ),
            (8080, false, None, None, "http://example.org:8080/a?b=c"),
            (8080, false, None, Some(80), "http://example.org/a?b=c"),
            (
                8080,
                false,
                Some("https"),
                None,
                "https://example.org/a?b=c",
            ),
            (443, true, None, None, "https://example.org/a?b=c"),
            (443, true, None, Some(443), "https://example.org/a?b=c"),
            (
                443,
                true,
                None,
                Some(8443),
                "https://example.org:8443/a?b=c",
            ),
            (443, true, Some("http"), None, "http://example.org/a?b=c"),
            (
                443,
                true,
                Some("http"),
                Some(80),
                "http://example.org/a?b=c",
            ),
            (
                443,
                true,
                Some("http"),
                Some(8080),
                "http://example.org:8080/a?b=c",
            ),
            (8443, true, None, None, "https://example.org:8443/a?b=c"),
        ] {
            let redirect = Redirect {
                scheme: scheme.map(str::to_owned),
                port,
                ..redirect()
            };
            let found = location_of(&redirect, "/a?b=c", listener, secure);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn host_and_path_are_replaced_and_the_query_is_kept() {
        let redirect = Redirect {
            hostname: Some("other.example".to_owned()),
            path: Some(PathRewrite::Prefix {
                from: "/a".to_owned(),
                to: "/z/".to_owned(),
            }),
            ..redirect()
        };
        for (target, expected) in [
            ("/a", "http://other.example/z"),
            ("/a/", "http://other.example/z/"),
            ("/a/b?c=/a", "http://other.example/z/b?c=/a"),
        ] {
            assert_eq!(location_of(&redirect, target, 80, false), expected);
        }
        let full = Redirect {
            path: Some(PathRewrite::Full("/full".to_owned())),
            ..redirect
        };
        let found = location_of(&full, "/a/b?c=d", 80, false);
        assert_eq!(found, "http://other.example/full?c=d");
    }

    #[test]
    fn only_a_port_is_cut_off() {
        assert_eq!(without_port(b"a.example:80"), b"a.example");
        assert_eq!(without_port(b"[::1]:80"), b"[::1]");
        assert_eq!(without_port(b"[::1]"), b"[::1]");
        assert_eq!(without_port(b"a.example"), b"a.example");
    }
}
