//! Hop-by-hop fields (RFC 9110 §7.6.1).

use crate::chars;
use crate::headers::Headers;
use crate::known::Known;
use crate::{Request, Response};

/// Removes what concerns the client's connection only, so that the rest can go to a backend.
///
/// Removed: `Connection` and the fields it names, `Keep-Alive`, `Proxy-Connection`,
/// `Proxy-Authenticate`, `Proxy-Authorization` (Envoy passes the last two), `Transfer-Encoding`,
/// `Trailer` (trailers are dropped), `HTTP2-Settings`, and `TE` unless it says `trailers`.
/// `Content-Length` stays readable; the encoder overwrites it. With `keep_upgrade` the `Upgrade`
/// field stays and `Connection: Upgrade` is put back; otherwise it goes too.
pub fn strip_hop_by_hop_request(request: &mut Request, keep_upgrade: bool) {
    let keep_upgrade = keep_upgrade && request.upgrade().is_some();
    let headers = request.headers_mut();
    let takes_trailers = headers
        .get_all_known(Known::Te)
        .flat_map(chars::list)
        .any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    strip(headers, keep_upgrade);
    if takes_trailers {
        headers.set(b"te", b"trailers");
    } else {
        headers.remove_known(Known::Te);
    }
    headers.remove_known(Known::ProxyAuthenticate);
    headers.remove_known(Known::ProxyAuthorization);
    headers.remove_known(Known::Http2Settings);
}

/// Removes what concerns the backend's connection only, so that the rest can go to the client.
///
/// Removed: `Connection` and the fields it names (Envoy passes those), `Keep-Alive`,
/// `Proxy-Connection`, `TE`, `Transfer-Encoding`, `Trailer`, and `Upgrade` unless `keep_upgrade`.
/// `Proxy-Authenticate` stays: a 407 from a backend is for the client to see.
pub fn strip_hop_by_hop_response(response: &mut Response, keep_upgrade: bool) {
    let keep_upgrade = keep_upgrade && response.status() == 101;
    let headers = response.headers_mut();
    strip(headers, keep_upgrade);
    headers.remove_known(Known::Te);
}

/// Returns whether a `Connection` option of a request may be honoured.
///
/// Naming a field asks the proxy to remove it. Envoy refuses pseudo-headers and `X-Forwarded-*`;
/// kgw also refuses what routing, framing, authentication or the proxy itself relies on.
pub(crate) fn may_nominate(option: &[u8]) -> bool {
    if !crate::is_valid_name(option) {
        return false;
    }
    match Known::of(option) {
        Some(
            Known::Host
            | Known::Authorization
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::ContentType
            | Known::ContentEncoding
            | Known::Cookie
            | Known::Expect
            | Known::Forwarded
            | Known::XRequestId,
        ) => false,
        _ => ![&b"x-envoy-"[..], b"x-forwarded-"].iter().any(|prefix| {
            option
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        }),
    }
}

fn strip(headers: &mut Headers, keep_upgrade: bool) {
    if headers.get_known(Known::Connection).is_some() {
        let nominated: smallvec::SmallVec<[smallvec::SmallVec<[u8; 32]>; 4]> = headers
            .get_all_known(Known::Connection)
            .flat_map(chars::list)
            .filter(|option| {
                !matches!(
                    Known::of(option),
                    Some(
                        Known::KeepAlive
                            | Known::Upgrade
                            | Known::Te
                            | Known::Host
                            | Known::ContentLength
                    )
                ) && !option.eq_ignore_ascii_case(b"close")
            })
            .map(smallvec::SmallVec::from_slice)
            .collect();
        for name in nominated {
            headers.remove(&name);
        }
        headers.remove_known(Known::Connection);
    }
    for known in [
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::TransferEncoding,
        Known::Trailer,
    ] {
        headers.remove_known(known);
    }
    if keep_upgrade {
        headers.append(b"connection", b"Upgrade");
    } else {
        headers.remove_known(Known::Upgrade);
    }
}
