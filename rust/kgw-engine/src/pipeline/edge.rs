//! What the proxy says about a request's origin, and what it lets nobody else say.
//!
//! This is Envoy's HTTP connection manager with `use_remote_address`, as kgateway configures it:
//! fields that state identity or steer the proxy are taken off the request, then set.

use std::io::Write;
use std::net::IpAddr;

use kgw_h1::{Headers, Request};

use crate::config::ir::HttpOptions;

/// Fields that only the proxy itself may set or that would steer it, all of them `x-envoy-…`.
const STRIPPED: [&[u8]; 20] = [
    b"retry-on",
    b"retry-grpc-on",
    b"max-retries",
    b"retriable-status-codes",
    b"retriable-header-names",
    b"upstream-rq-timeout-ms",
    b"upstream-rq-per-try-timeout-ms",
    b"upstream-rq-timeout-alt-response",
    b"upstream-alt-stat-name",
    b"upstream-stream-duration-ms",
    b"decorator-operation",
    b"downstream-service-cluster",
    b"downstream-service-node",
    b"force-trace",
    b"ip-tags",
    b"original-path",
    b"original-host",
    b"internal",
    b"expected-rq-timeout-ms",
    b"hedge-on-per-try-timeout",
];

/// Fields that the proxy states, or lets nobody state. A spelling with `_` is taken off: some servers read it as `-`.
const STATED: [&[u8]; 5] = [
    b"x-envoy-external-address",
    b"x-forwarded-client-cert",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-request-id",
];

/// Takes off what clients may not say and states where the request came from.
pub(crate) fn state_origin(request: &mut Request, options: &HttpOptions, client: IpAddr) {
    let headers = request.headers_mut();
    strip_control_fields(headers);
    if options.use_remote_address {
        let mut text = [0; 64];
        let client = ip_text(client, &mut text);
        append_forwarded_for(headers, client);
        headers.set(b"x-forwarded-proto", b"http");
        headers.set(b"x-envoy-external-address", client);
        set_request_id(headers);
    } else {
        if headers.get(b"x-forwarded-proto").is_none() {
            headers.set(b"x-forwarded-proto", b"http");
        }
        if headers.get(b"x-request-id").is_none() {
            set_request_id(headers);
        }
    }
}

fn strip_control_fields(headers: &mut Headers) {
    headers.remove_if(|name, _| {
        // Almost every field is told apart by its first two bytes.
        if !matches!(name, [b'x' | b'X', b'-' | b'_', ..]) {
            return false;
        }
        if memchr::memchr(b'_', name).is_some() {
            return is_alias(name);
        }
        match name.split_at_checked(b"x-envoy-".len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(b"x-envoy-") => STRIPPED
                .iter()
                .any(|stripped| rest.eq_ignore_ascii_case(stripped)),
            _ => name.eq_ignore_ascii_case(b"x-forwarded-client-cert"),
        }
    });
}

/// Whether a name with `_` would be one of the proxy's own with `-`.
fn is_alias(name: &[u8]) -> bool {
    let dashed: Vec<u8> = name
        .iter()
        .map(|&byte| {
            if byte == b'_' {
                b'-'
            } else {
                byte.to_ascii_lowercase()
            }
        })
        .collect();
    STATED.contains(&&*dashed)
        || dashed
            .strip_prefix(b"x-envoy-")
            .is_some_and(|rest| STRIPPED.contains(&rest))
}

/// All `x-forwarded-for` lines become one, with the client at its end.
fn append_forwarded_for(headers: &mut Headers, client: &[u8]) {
    const NAME: &[u8] = b"x-forwarded-for";
    let mut chain = Vec::new();
    for value in headers.get_all(NAME) {
        chain.extend_from_slice(value);
        chain.push(b',');
    }
    if chain.is_empty() {
        headers.append(NAME, client);
    } else {
        chain.extend_from_slice(client);
        headers.set(NAME, &chain);
    }
}

fn set_request_id(headers: &mut Headers) {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    headers.set(
        b"x-request-id",
        id.hyphenated().encode_lower(&mut text).as_bytes(),
    );
}

fn ip_text(address: IpAddr, buffer: &mut [u8; 64]) -> &[u8] {
    let mut rest = &mut buffer[..];
    let before = rest.len();
    // The longest text form of an IPv6 address has 45 bytes.
    let _ = write!(rest, "{address}");
    let length = before - rest.len();
    &buffer[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use kgw_h1::Limits;

    fn request(fields: &str) -> Request {
        let mut request = Request::new();
        let bytes = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        request
            .parse(
                bytes.as_bytes(),
                &Limits {
                    max_head_bytes: 4096,
                    max_fields: 100,
                },
            )
            .unwrap();
        request
    }

    fn origin(fields: &str) -> Request {
        let mut request = request(fields);
        state_origin(
            &mut request,
            &HttpOptions::default(),
            "10.1.2.3".parse().unwrap(),
        );
        request
    }

    #[test]
    fn a_client_cannot_forge_what_the_proxy_states() {
        let mut forged = String::new();
        for name in STRIPPED {
            let name = std::str::from_utf8(name).unwrap();
            forged.push_str(&["X-Envoy-", name, ": forged\r\n"].concat());
            forged.push_str(&["x_envoy_", &name.replace('-', "_"), ": forged\r\n"].concat());
        }
        for name in STATED {
            let name = std::str::from_utf8(name).unwrap();
            forged.push_str(&[&name.replace('-', "_"), ": forged\r\n"].concat());
        }
        forged.push_str("x-forwarded-client-cert: forged\r\n");
        for name in [
            "x-request-id",
            "x-forwarded-proto",
            "x-envoy-external-address",
        ] {
            forged.push_str(name);
            forged.push_str(": forged\r\n");
        }
        let request = origin(&forged);
        assert!(
            request
                .headers()
                .iter()
                .all(|(_, value)| value != b"forged")
        );
        assert_eq!(
            request.headers().get(b"x-envoy-external-address"),
            Some(&b"10.1.2.3"[..])
        );
        assert_eq!(
            request.headers().get(b"x-forwarded-proto"),
            Some(&b"http"[..])
        );
    }

    #[test]
    fn forwarded_for_lines_are_merged_and_the_client_appended() {
        let request = origin("x-forwarded-for: 1.1.1.1\r\nx: y\r\nX-Forwarded-For: 2.2.2.2\r\n");
        let values: Vec<_> = request.headers().get_all(b"x-forwarded-for").collect();
        assert_eq!(values, [&b"1.1.1.1,2.2.2.2,10.1.2.3"[..]]);
    }

    #[test]
    fn request_ids_are_uuids_and_differ() {
        let id = |request: &Request| request.headers().get(b"x-request-id").unwrap().to_vec();
        let (one, other) = (id(&origin("")), id(&origin("")));
        assert_eq!(
            uuid::Uuid::try_parse_ascii(&one).unwrap().get_version_num(),
            4
        );
        assert_ne!(one, other);
    }

    #[test]
    fn other_fields_stay() {
        let request = origin("traceparent: 00-a-b-01\r\nx-envoy-foo: 1\r\nx-real-ip: 9.9.9.9\r\n");
        assert_eq!(
            request.headers().get(b"traceparent"),
            Some(&b"00-a-b-01"[..])
        );
        assert_eq!(request.headers().get(b"x-envoy-foo"), Some(&b"1"[..]));
        assert_eq!(request.headers().get(b"x-real-ip"), Some(&b"9.9.9.9"[..]));
    }
}
