//! `RequestRedirect`: the `location` of the answer.

use kgw_h1::Request;

use super::rewrite::rewritten_path;
use crate::config::snapshot::Redirect;

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

    fn redirected(scheme: Option<&str>, port: Option<u16>, listener_port: u16) -> String {
        let own = if listener_port == 443 {
            "https"
        } else {
            "http"
        };
        let mut request = Request::new();
        request
            .parse(
                b"GET /a?b=c HTTP/1.1\r\nhost: example.org:9999\r\n\r\n",
                &Limits {
                    max_head_bytes: 1024,
                    max_fields: 10,
                },
            )
            .unwrap();
        let redirect = Redirect {
            scheme: scheme.map(str::to_owned),
            hostname: None,
            port,
            path: None,
            status: 302,
        };
        String::from_utf8(location(&redirect, &request, own, listener_port)).unwrap()
    }

    #[test]
    fn the_port_is_the_filters_then_the_schemes_then_the_listeners() {
        for (listener, scheme, port, expected) in [
            (80, None, None, "http://example.org/a?b=c"),
            (80, None, Some(80), "http://example.org/a?b=c"),
            (80, None, Some(8080), "http://example.org:8080/a?b=c"),
            (80, Some("https"), None, "https://example.org/a?b=c"),
            (80, Some("https"), Some(443), "https://example.org/a?b=c"),
            (
                80,
                Some("https"),
                Some(8443),
                "https://example.org:8443/a?b=c",
            ),
            (8080, None, None, "http://example.org:8080/a?b=c"),
            (8080, None, Some(80), "http://example.org/a?b=c"),
            (8080, Some("https"), None, "https://example.org/a?b=c"),
            (443, None, None, "https://example.org/a?b=c"),
            (443, None, Some(443), "https://example.org/a?b=c"),
            (443, None, Some(8443), "https://example.org:8443/a?b=c"),
            (443, Some("http"), None, "http://example.org/a?b=c"),
            (443, Some("http"), Some(80), "http://example.org/a?b=c"),
            (
                443,
                Some("http"),
                Some(8080),
                "http://example.org:8080/a?b=c",
            ),
        ] {
            assert_eq!(redirected(scheme, port, listener), expected);
        }
    }

    #[test]
    fn only_a_port_is_cut_off() {
        assert_eq!(without_port(b"a.example:80"), b"a.example");
        assert_eq!(without_port(b"[::1]:80"), b"[::1]");
        assert_eq!(without_port(b"[::1]"), b"[::1]");
        assert_eq!(without_port(b"a.example"), b"a.example");
    }
}
