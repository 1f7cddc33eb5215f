//! A made-up request, to show what a format prints.

use super::record::{Downstream, HeaderLookup, Record, Request, Response, Upstream, WireBytes};
use super::timings::{Point, Timings};
use crate::telemetry::flags::{ResponseFlag, ResponseFlags};

/// Calls `show` with the record of a sample request: the fourth of a minute, which a rate limit of
/// three refuses, from a workload of a mesh to a service behind a waypoint.
pub fn sample<T>(show: impl FnOnce(&Record<'_>) -> T) -> T {
    let start_unix_ns = 1_744_310_194_047_000_000;
    let mut timings = Timings::new();
    timings.set(Point::DownstreamRxBegin, 0);
    timings.set(Point::StreamEnd, 1_250_000);
    let request: &[(&str, &[u8])] = &[
        ("user-agent", b"curl/8.5.0"),
        ("accept", b"*/*"),
        ("x-forwarded-for", b"10.244.0.12"),
        ("x-forwarded-proto", b"http"),
        ("x-request-id", REQUEST_ID),
    ];
    let response: &[(&str, &[u8])] = &[
        ("content-length", b"18"),
        ("content-type", b"text/plain"),
        ("date", b"Thu, 10 Apr 2025 18:36:34 GMT"),
        ("server", b"kgw"),
        ("retry-after", b"20"),
    ];
    let address = |ip, port| Some(std::net::SocketAddr::from((ip, port)));
    let record = Record {
        start_unix_ns,
        emit_unix_ns: start_unix_ns + 1_250_000,
        timings,
        request: Request {
            protocol: Some("HTTP/1.1"),
            method: Some(b"GET"),
            path: Some(b"/"),
            authority: Some(b"ollama"),
            scheme: Some(b"http"),
            headers: Some(&request as &dyn HeaderLookup),
            id: Some(REQUEST_ID),
            body_bytes: 0,
        },
        response: Response {
            code: 429,
            details: Some("local_rate_limited"),
            headers: Some(&response as &dyn HeaderLookup),
            body_bytes: 18,
            local_reply_body: b"local_rate_limited",
            ..Response::default()
        },
        flags: ResponseFlags::from(ResponseFlag::RateLimited),
        listener_name: Some("default/waypoint/proxy"),
        filter_chain_name: Some("default/ollama:80"),
        route_name: Some("default/ollama/0/0"),
        cluster: Some("default/ollama:80"),
        downstream: Downstream {
            connection_id: Some(7),
            remote: address([10, 244, 0, 12], 40_212),
            local: address([10, 96, 7, 4], 80),
            direct_remote: address([127, 0, 0, 1], 53_110),
            direct_local: address([127, 0, 0, 1], 15_088),
            wire: WireBytes {
                sent: 178,
                received: 76,
                header_sent: 160,
                header_received: 76,
            },
            detected_close_type: Some("Normal"),
            ..Downstream::default()
        },
        upstream: Upstream::default(),
        peer_principal: Some(b"spiffe://cluster.local/ns/default/sa/client"),
        ..Record::new()
    };
    show(&record)
}

const REQUEST_ID: &[u8] = b"88c6504b-d3e3-4921-92af-d06f0f0ce877";
