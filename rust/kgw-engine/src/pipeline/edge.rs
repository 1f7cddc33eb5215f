//! What the proxy says about a request's origin, and what it lets nobody else say.
//!
//! This is Envoy's HTTP connection manager, with `use_remote_address` as kgateway configures it:
//! fields that state identity or steer the proxy are taken off the request, then set. What answers
//! state about the proxy is here too.

use std::io::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use kgw_h1::{Headers, Known, PathOptions, Request, RequestError};

use crate::config::ir::{EscapedSlashes, HttpOptions, ServerHeader, Underscores};

/// Fields that only the proxy itself may set or that would steer it, all of them `x-envoy-…`.
const STRIPPED: [&[u8]; 22] = [
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
    // What sidecars of Istio say about themselves; no hop behind a proxy should believe a client.
    b"peer-metadata",
    b"peer-metadata-id",
];

/// Fields that the proxy states, or lets nobody state. A spelling with `_` is taken off: some servers read it as `-`.
const STATED: [&[u8]; 5] = [
    b"x-envoy-external-address",
    b"x-forwarded-client-cert",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-request-id",
];

/// Fields in which a client can claim to be another address, that the proxy itself does not state.
const CLAIMED: [&[u8]; 7] = [
    b"forwarded",
    b"x-real-ip",
    b"true-client-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-original-forwarded-for",
    b"cf-connecting-ip",
];

fn strip_claimed_addresses(headers: &mut Headers) {
    headers.remove_if(|name, _| {
        matches!(
            name,
            [b'x' | b'X' | b'f' | b'F' | b't' | b'T' | b'c' | b'C', ..]
        ) && CLAIMED.iter().any(|claimed| is_spelling_of(name, claimed))
    });
}

/// Whether a name is `field`, or would be with `-` for each `_`: some servers read it so.
fn is_spelling_of(name: &[u8], field: &[u8]) -> bool {
    name.len() == field.len()
        && name.iter().zip(field).all(|(&byte, &other)| {
            byte.to_ascii_lowercase() == other || byte == b'_' && other == b'-'
        })
}

/// Takes off what clients may not say and states where the request came from. `peer` is who the
/// connection is from, `secure` whether it is TLS, and `trusted` are the parsed
/// `xff_trusted_cidrs`. Returns the client's address as far as it can be trusted: the peer's, or what
/// trusted proxies say.
///
/// # Errors
/// The request is to be answered with the error: it has a name with `_` where those are refused, or
/// it is an HTTP/1.0 request without a host, and there is no host for those.
pub(crate) fn state_origin(
    request: &mut Request,
    options: &HttpOptions,
    trusted: &[IpNet],
    peer: IpAddr,
    secure: bool,
) -> Result<IpAddr, RequestError> {
    if request.authority().is_empty() {
        let host = options.default_host_for_http_10.as_deref();
        if !host.is_some_and(|host| request.set_authority(host.as_bytes())) {
            return Err(RequestError::MissingHost);
        }
    }
    let headers = request.headers_mut();
    judge_underscores(headers, options.underscores)?;
    strip_control_fields(headers);
    if options.use_remote_address && options.xff_trusted_hops == 0 && options.strip_client_address {
        strip_claimed_addresses(headers);
    }
    let client = client_address(headers, options, trusted, peer);
    let scheme: &[u8] = if secure { b"https" } else { b"http" };
    let request_id = &options.request_id;
    if options.use_remote_address {
        let mut text = [0; 64];
        if !options.skip_xff_append {
            append_forwarded_for(headers, ip_text(peer, &mut text));
        }
        headers.set_known(Known::XEnvoyExternalAddress, ip_text(client, &mut text));
        // A trusted proxy in front knows what the client spoke.
        if options.xff_trusted_hops == 0 || headers.get_known(Known::XForwardedProto).is_none() {
            headers.set_known(Known::XForwardedProto, scheme);
        }
    } else if headers.get_known(Known::XForwardedProto).is_none() {
        headers.set_known(Known::XForwardedProto, scheme);
    }
    let is_external = options.use_remote_address && !request_id.preserve_external;
    if request_id.generate && (is_external || headers.get_known(Known::XRequestId).is_none()) {
        set_request_id(headers);
    }
    Ok(client)
}

/// Puts on an answer what listeners state: `server`, and `x-request-id` if they do. `request_id` is
/// the request's, if there is a request.
pub(crate) fn finish_response(
    headers: &mut Headers,
    options: &HttpOptions,
    request_id: Option<&[u8]>,
) {
    let is_stated = match options.server_header {
        ServerHeader::Overwrite => true,
        ServerHeader::AppendIfAbsent => headers.get_known(Known::Server).is_none(),
        ServerHeader::PassThrough => false,
    };
    if is_stated {
        headers.set_known(Known::Server, options.server_name.as_bytes());
    }
    if let Some(id) = request_id.filter(|_| options.request_id.in_response) {
        headers.set_known(Known::XRequestId, id);
    }
}

/// How paths are brought into the form that is matched, logged and forwarded.
pub(crate) fn path_options(options: &HttpOptions) -> PathOptions {
    PathOptions {
        normalize: options.normalize_path,
        merge_slashes: options.merge_slashes,
        escaped_slashes: match options.escaped_slashes {
            EscapedSlashes::KeepUnchanged => kgw_h1::EscapedSlashes::Keep,
            EscapedSlashes::Reject => kgw_h1::EscapedSlashes::Reject,
            EscapedSlashes::UnescapeAndForward => kgw_h1::EscapedSlashes::Unescape,
            EscapedSlashes::UnescapeAndRedirect => kgw_h1::EscapedSlashes::Redirect,
        },
        strict: options.strict_paths,
    }
}

/// The client's address (Envoy, "x-forwarded-for" in its HTTP connection manager): what the trusted
/// proxy farthest out wrote, or the peer's where the field does not go back that far.
fn client_address(
    headers: &Headers,
    options: &HttpOptions,
    trusted: &[IpNet],
    peer: IpAddr,
) -> IpAddr {
    let hops = options.xff_trusted_hops as usize;
    if options.use_remote_address {
        // Not yet appended: the hop next to the client is the last but `hops - 1`.
        return match hops {
            0 => peer,
            _ => forwarded_for(headers)
                .nth(hops - 1)
                .flatten()
                .unwrap_or(peer),
        };
    }
    if trusted.is_empty() {
        return forwarded_for(headers).nth(hops).flatten().unwrap_or(peer);
    }
    let is_trusted = |address: IpAddr| {
        let address = address.to_canonical();
        trusted.iter().any(|network| network.contains(&address))
    };
    let mut client = peer;
    if is_trusted(peer) {
        for address in forwarded_for(headers) {
            let Some(address) = address else {
                return client;
            };
            client = address;
            if !is_trusted(address) {
                break;
            }
        }
    }
    client
}

/// Iterates the addresses of `x-forwarded-for` from the right, over all of its lines; what is no
/// address is `None`.
fn forwarded_for(headers: &Headers) -> impl Iterator<Item = Option<IpAddr>> {
    let lines: smallvec::SmallVec<[&[u8]; 2]> = headers.get_all(b"x-forwarded-for").collect();
    lines.into_iter().rev().flat_map(|line| {
        line.rsplit(|&byte| byte == b',').map(|entry| {
            let entry = std::str::from_utf8(entry.trim_ascii()).ok()?;
            entry.parse().ok()
        })
    })
}

fn judge_underscores(headers: &mut Headers, action: Underscores) -> Result<(), RequestError> {
    let has_underscore = |name: &[u8]| memchr::memchr(b'_', name).is_some();
    match action {
        Underscores::Reject if headers.iter().any(|(name, _)| has_underscore(name)) => {
            Err(RequestError::UnexpectedUnderscore)
        }
        Underscores::Allow | Underscores::Reject => Ok(()),
        Underscores::Drop => {
            headers.remove_if(|name, _| has_underscore(name));
            Ok(())
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

/// States one hop more in `x-forwarded-for`.
pub(crate) fn append_hop(headers: &mut Headers, address: IpAddr) {
    append_forwarded_for(headers, ip_text(address, &mut [0; 64]));
}

/// All `x-forwarded-for` lines become one, with the client at its end.
fn append_forwarded_for(headers: &mut Headers, client: &[u8]) {
    let mut chain = Vec::new();
    for value in headers.get_all_known(Known::XForwardedFor) {
        chain.extend_from_slice(value);
        chain.push(b',');
    }
    if chain.is_empty() {
        headers.append_known(Known::XForwardedFor, client);
    } else {
        chain.extend_from_slice(client);
        headers.set_known(Known::XForwardedFor, &chain);
    }
}

fn set_request_id(headers: &mut Headers) {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    headers.set_known(
        Known::XRequestId,
        id.hyphenated().encode_lower(&mut text).as_bytes(),
    );
}

fn ip_text(address: IpAddr, buffer: &mut [u8; 64]) -> &[u8] {
    if let IpAddr::V4(address) = address {
        // Formatting in general costs ten times as much, and this runs twice a request.
        let mut number = itoa::Buffer::new();
        let mut length = 0;
        for (index, octet) in address.octets().into_iter().enumerate() {
            if index > 0 {
                buffer[length] = b'.';
                length += 1;
            }
            let digits = number.format(octet).as_bytes();
            buffer[length..length + digits.len()].copy_from_slice(digits);
            length += digits.len();
        }
        return &buffer[..length];
    }
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

    use crate::config::ir::RequestIdOptions;

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

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

    fn stated(fields: &str, options: &HttpOptions) -> (Request, IpAddr) {
        let mut request = request(fields);
        let trusted: Vec<IpNet> = options
            .xff_trusted_cidrs
            .iter()
            .map(|network| network.parse().unwrap())
            .collect();
        let client = state_origin(&mut request, options, &trusted, PEER, false).unwrap();
        (request, client)
    }

    fn origin(fields: &str) -> Request {
        stated(fields, &HttpOptions::default()).0
    }

    fn field<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
        let value = request.headers().get(name.as_bytes())?;
        Some(std::str::from_utf8(value).unwrap())
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

    /// Rows of (`use_remote_address`, trusted hops, trusted networks, field lines, client).
    #[test]
    fn whose_address_is_the_clients() {
        let one = "x-forwarded-for: 1.1.1.1\r\n";
        let three = "x-forwarded-for: 1.1.1.1, 2.2.2.2\r\nx-forwarded-for: 3.3.3.3\r\n";
        let junk = "x-forwarded-for: 1.1.1.1, unknown\r\n";
        let v6 = "x-forwarded-for: 2001:db8::1,::ffff:10.9.9.9\r\n";
        let inside = "x-forwarded-for: 10.5.5.5, 10.6.6.6\r\n";
        let ten: &[&str] = &["10.0.0.0/8"];
        for (remote, hops, networks, fields, expected) in [
            (true, 0, &[][..], "", "10.1.2.3"),
            (true, 0, &[], three, "10.1.2.3"),
            (true, 1, &[], three, "3.3.3.3"),
            (true, 2, &[], three, "2.2.2.2"),
            (true, 3, &[], three, "1.1.1.1"),
            (true, 4, &[], three, "10.1.2.3"),
            (true, 1, &[], "", "10.1.2.3"),
            (true, 1, &[], junk, "10.1.2.3"),
            (true, 2, &[], v6, "2001:db8::1"),
            // Networks say nothing where the peer is the client.
            (true, 0, ten, three, "10.1.2.3"),
            (false, 0, &[], "", "10.1.2.3"),
            (false, 0, &[], one, "1.1.1.1"),
            (false, 0, &[], three, "3.3.3.3"),
            (false, 1, &[], three, "2.2.2.2"),
            (false, 3, &[], three, "10.1.2.3"),
            (false, 0, &[], junk, "10.1.2.3"),
            (false, 0, ten, "", "10.1.2.3"),
            (false, 0, ten, three, "3.3.3.3"),
            (false, 0, &["10.0.0.0/8", "3.3.3.0/24"], three, "2.2.2.2"),
            (false, 0, &["10.0.0.0/8", "0.0.0.0/0"], three, "1.1.1.1"),
            (false, 0, &["192.168.0.0/16"], three, "10.1.2.3"),
            (false, 0, ten, v6, "2001:db8::1"),
            (false, 0, ten, inside, "10.5.5.5"),
            (false, 0, ten, junk, "10.1.2.3"),
        ] {
            let options = HttpOptions {
                use_remote_address: remote,
                xff_trusted_hops: hops,
                xff_trusted_cidrs: networks.iter().map(|&one| one.to_owned()).collect(),
                ..HttpOptions::default()
            };
            let (request, client) = stated(fields, &options);
            let row = (remote, hops, networks, fields);
            assert_eq!(client.to_string(), expected, "{row:?}");
            let external = field(&request, "x-envoy-external-address");
            assert_eq!(external, remote.then_some(expected), "{row:?}");
        }
    }

    #[test]
    fn the_chain_is_appended_to_only_where_asked_for() {
        let fields = "x-forwarded-for: 1.1.1.1\r\n";
        for (remote, skip, expected) in [
            (true, false, "1.1.1.1,10.1.2.3"),
            (true, true, "1.1.1.1"),
            (false, false, "1.1.1.1"),
        ] {
            let options = HttpOptions {
                use_remote_address: remote,
                skip_xff_append: skip,
                ..HttpOptions::default()
            };
            let (request, _) = stated(fields, &options);
            assert_eq!(field(&request, "x-forwarded-for"), Some(expected));
        }
    }

    #[test]
    fn the_scheme_is_the_connections_unless_a_trusted_proxy_says() {
        for (remote, hops, given, secure, expected) in [
            (true, 0, "", false, "http"),
            (true, 0, "", true, "https"),
            (true, 0, "https", false, "http"),
            (true, 0, "http", true, "https"),
            (true, 1, "https", false, "https"),
            (true, 1, "", true, "https"),
            (false, 0, "https", false, "https"),
            (false, 0, "", true, "https"),
        ] {
            let options = HttpOptions {
                use_remote_address: remote,
                xff_trusted_hops: hops,
                ..HttpOptions::default()
            };
            let mut request = match given {
                "" => request(""),
                given => request(&["x-forwarded-proto: ", given, "\r\n"].concat()),
            };
            state_origin(&mut request, &options, &[], PEER, secure).unwrap();
            let row = (remote, hops, given, secure);
            assert_eq!(
                field(&request, "x-forwarded-proto"),
                Some(expected),
                "{row:?}"
            );
        }
    }

    #[test]
    fn request_ids_by_policy() {
        /// What becomes of an id.
        #[derive(Debug, PartialEq)]
        enum Id {
            None,
            Kept,
            New,
        }
        for (remote, generate, preserve, given, expected) in [
            (true, true, false, false, Id::New),
            (true, true, false, true, Id::New),
            (true, true, true, true, Id::Kept),
            (true, true, true, false, Id::New),
            (true, false, false, true, Id::Kept),
            (true, false, false, false, Id::None),
            (false, true, false, true, Id::Kept),
            (false, true, false, false, Id::New),
        ] {
            let options = HttpOptions {
                use_remote_address: remote,
                request_id: RequestIdOptions {
                    generate,
                    preserve_external: preserve,
                    in_response: false,
                    ..RequestIdOptions::default()
                },
                ..HttpOptions::default()
            };
            let (request, _) = stated(if given { "x-request-id: mine\r\n" } else { "" }, &options);
            let found = match field(&request, "x-request-id") {
                None => Id::None,
                Some("mine") => Id::Kept,
                Some(_) => Id::New,
            };
            assert_eq!(found, expected, "{:?}", (remote, generate, preserve, given));
        }
    }

    #[test]
    fn underscores_by_policy() {
        let with = |underscores| HttpOptions {
            underscores,
            ..HttpOptions::default()
        };
        let fields = "x_a: 1\r\nx-b: 2\r\n";
        let (kept, _) = stated(fields, &with(Underscores::Allow));
        assert_eq!(field(&kept, "x_a"), Some("1"));
        let (dropped, _) = stated(fields, &with(Underscores::Drop));
        assert_eq!(
            (field(&dropped, "x_a"), field(&dropped, "x-b")),
            (None, Some("2"))
        );
        let reject = with(Underscores::Reject);
        let refused = state_origin(&mut request(fields), &reject, &[], PEER, false);
        assert_eq!(refused, Err(RequestError::UnexpectedUnderscore));
        assert!(state_origin(&mut request("x-b: 2\r\n"), &reject, &[], PEER, false).is_ok());
    }

    #[test]
    fn old_requests_without_a_host_get_the_default_one() {
        let limits = Limits {
            max_head_bytes: 4096,
            max_fields: 100,
        };
        for (host, expected) in [
            (Some("d.test"), Ok("d.test")),
            (Some("no host"), Err(RequestError::MissingHost)),
            (None, Err(RequestError::MissingHost)),
        ] {
            let options = HttpOptions {
                default_host_for_http_10: host.map(str::to_owned),
                ..HttpOptions::default()
            };
            let mut request = Request::new();
            request.set_accept_http_10(true);
            request.parse(b"GET / HTTP/1.0\r\n\r\n", &limits).unwrap();
            let found = state_origin(&mut request, &options, &[], PEER, false);
            assert_eq!(
                found.map(|_| std::str::from_utf8(request.authority()).unwrap()),
                expected
            );
        }
    }

    #[test]
    fn what_answers_state() {
        use ServerHeader::{AppendIfAbsent, Overwrite, PassThrough};
        for (server_header, given, expected) in [
            (Overwrite, Some("up"), Some("kgw")),
            (Overwrite, None, Some("kgw")),
            (AppendIfAbsent, Some("up"), Some("up")),
            (AppendIfAbsent, None, Some("kgw")),
            (PassThrough, Some("up"), Some("up")),
            (PassThrough, None, None),
        ] {
            let mut options = HttpOptions {
                server_header,
                ..HttpOptions::default()
            };
            let mut headers = Headers::new();
            if let Some(server) = given {
                headers.append(b"server", server.as_bytes());
            }
            finish_response(&mut headers, &options, Some(b"id"));
            assert_eq!(headers.get(b"server"), expected.map(str::as_bytes));
            assert_eq!(headers.get(b"x-request-id"), None);
            options.request_id.in_response = true;
            finish_response(&mut headers, &options, Some(b"id"));
            assert_eq!(headers.get(b"x-request-id"), Some(&b"id"[..]));
        }
    }

    #[test]
    fn other_fields_stay() {
        let request = origin("traceparent: 00-a-b-01\r\nx-envoy-foo: 1\r\nx-real-ips: 9.9.9.9\r\n");
        assert_eq!(
            request.headers().get(b"traceparent"),
            Some(&b"00-a-b-01"[..])
        );
        assert_eq!(request.headers().get(b"x-envoy-foo"), Some(&b"1"[..]));
        assert_eq!(request.headers().get(b"x-real-ips"), Some(&b"9.9.9.9"[..]));
    }

    #[test]
    fn a_client_cannot_claim_an_address_unless_a_proxy_in_front_is_trusted() {
        let claims = "Forwarded: for=9.9.9.9\r\nX_Real_IP: 9.9.9.9\r\nTrue-Client-IP: 9.9.9.9\r\n";
        let left = |options: &HttpOptions| {
            let mut request = request(claims);
            let peer = "10.1.2.3".parse().unwrap();
            state_origin(&mut request, options, &[], peer, false).unwrap();
            let claimed = request
                .headers()
                .iter()
                .filter(|(_, value)| value.ends_with(b"9.9.9.9"));
            claimed.count()
        };
        assert_eq!(left(&HttpOptions::default()), 0);
        for trusting in [
            HttpOptions {
                xff_trusted_hops: 1,
                ..HttpOptions::default()
            },
            HttpOptions {
                strip_client_address: false,
                ..HttpOptions::default()
            },
        ] {
            assert_eq!(left(&trusting), 3);
        }
    }
}
