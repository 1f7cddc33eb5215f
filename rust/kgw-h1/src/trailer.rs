//! Which fields a trailer section may hold (RFC 9110 §6.5.1).

use crate::known::Known;

/// Returns whether a field may be passed on as a trailer.
///
/// A trailer arrives when the message has long been framed, routed, authorised and answered, so
/// whatever takes part in those must have been in the head. Names that a reader might take for one
/// of those, with `_` for `-`, are treated alike.
pub fn may_be_trailer(name: &[u8]) -> bool {
    if !crate::is_valid_name(name) {
        return false;
    }
    let dashed;
    let name = if memchr::memchr(b'_', name).is_some() {
        dashed = name
            .iter()
            .map(|&byte| if byte == b'_' { b'-' } else { byte })
            .collect::<smallvec::SmallVec<[u8; 64]>>();
        &*dashed
    } else {
        name
    };
    let is_known = matches!(
        Known::of(name),
        Some(
            Known::Host
                | Known::Connection
                | Known::ContentLength
                | Known::TransferEncoding
                | Known::Te
                | Known::Upgrade
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::ProxyAuthenticate
                | Known::ProxyAuthorization
                | Known::Trailer
                | Known::Expect
                | Known::Date
                | Known::Via
                | Known::ContentType
                | Known::ContentEncoding
                | Known::Location
                | Known::Origin
                | Known::Vary
                | Known::Cookie
                | Known::SetCookie
                | Known::Authorization
                | Known::RetryAfter
                | Known::Forwarded
                | Known::XRequestId
                | Known::GrpcTimeout
        )
    );
    let lower = name.to_ascii_lowercase();
    !(is_known
        || PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
        || OTHERS.contains(&&*lower))
}

/// Fields that speak for the proxy or for the origin of a request.
const PREFIXES: [&[u8]; 3] = [b"x-envoy-", b"x-forwarded-", b"if-"];

/// Request modifiers, authentication, response control, content format and what states who a client
/// is, beside the known names.
const OTHERS: [&[u8]; 21] = [
    b"age",
    b"authentication-info",
    b"cache-control",
    b"cf-connecting-ip",
    b"content-location",
    b"content-range",
    b"expires",
    b"max-forwards",
    b"pragma",
    b"proxy-authentication-info",
    b"range",
    b"strict-transport-security",
    b"true-client-ip",
    b"warning",
    b"www-authenticate",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-http-method-override",
    b"x-original-forwarded-for",
    b"x-original-url",
    b"x-real-ip",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_about_a_message_is_no_trailer() {
        for name in [
            "Content-Length",
            "transfer_encoding",
            "Host",
            "authorization",
            "Set-Cookie",
            "X-Forwarded-For",
            "X-Client-IP",
            "CF-Connecting-IP",
            "x_forwarded_for",
            "X-Envoy-Internal",
            "If-Match",
            "Range",
            "Trailer",
            "a b",
            "",
        ] {
            assert!(!may_be_trailer(name.as_bytes()), "{name}");
        }
        for name in [
            "grpc-status",
            "Grpc-Message",
            "x-checksum",
            "Server-Timing",
            "ETag",
            "digest",
        ] {
            assert!(may_be_trailer(name.as_bytes()), "{name}");
        }
    }
}
