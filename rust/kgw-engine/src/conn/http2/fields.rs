//! Header fields between the two forms in which the versions of HTTP carry them.

use http::{HeaderMap, HeaderName, HeaderValue};
use kgw_h1::Headers;

/// Fields that are about a connection and have no place in HTTP/2 (RFC 9113 8.2.2).
const OF_CONNECTIONS: [&[u8]; 5] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"transfer-encoding",
    b"upgrade",
];

/// The fields of an HTTP/2 message that may be sent, in their order.
pub(crate) fn map_of(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len());
    append_to(&mut map, headers);
    map
}

/// Appends `headers` to `map`, save for what has no place in HTTP/2.
pub(crate) fn append_to(map: &mut HeaderMap, headers: &Headers) {
    for (name, value) in headers {
        if OF_CONNECTIONS
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
            || name.eq_ignore_ascii_case(b"te") && !value.eq_ignore_ascii_case(b"trailers")
        {
            continue;
        }
        // Both hold for every field that `Headers` takes.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
}

/// The trailer fields of an HTTP/2 message, save for those that may not be there.
pub(crate) fn headers_of(map: &HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        if kgw_h1::may_be_trailer(name.as_str().as_bytes()) {
            headers.append(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    headers
}

/// The fields of an HTTP/2 message, as the parser takes them.
pub(crate) fn iter(map: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    map.iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}
