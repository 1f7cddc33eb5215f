//! Everything an access log line can say about one request.

use std::net::SocketAddr;

use serde_json::{Map, Value};

use super::timings::{Point, Timings};
use crate::telemetry::flags::ResponseFlags;
use crate::telemetry::tracing::TraceParent;
use crate::tls::TlsInfo;

/// What the data plane knows about one request when it is over.
///
/// A record borrows everything and is built without allocation. [`Record::new`] fills in "nothing
/// happened"; the engine then sets what it has:
///
/// ```
/// use kgw_engine::telemetry::access_log::{HeaderLookup, Record, Request};
///
/// # fn line(headers: &dyn HeaderLookup) {
/// let mut record = Record::new();
/// record.request.method = Some(b"GET");
/// record.request.headers = Some(headers);
/// record.response.code = 429;
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What the line is about.
    pub subject: Subject,
    /// When the first byte of the request arrived. Nanoseconds since 1970 UTC.
    pub start_unix_ns: i64,
    /// When the line is made. Nanoseconds since 1970 UTC.
    pub emit_unix_ns: i64,
    /// When the parts of the request happened.
    pub timings: Timings,
    /// Time from the choice of the endpoint to a usable connection. Nanoseconds.
    pub pool_ready_ns: Option<u64>,

    /// The request as it was routed and sent upstream.
    pub request: Request<'a>,
    /// The response as it was sent downstream.
    pub response: Response<'a>,
    /// How the request ended.
    pub flags: ResponseFlags,
    /// Why the connection was closed in the middle, e.g. a refused upgrade.
    pub connection_termination_details: Option<&'a str>,

    /// Name of the listener.
    pub listener_name: Option<&'a str>,
    /// Name of the filter chain: the service's port on a waypoint.
    pub filter_chain_name: Option<&'a str>,
    /// Name of the route that matched.
    pub route_name: Option<&'a str>,
    /// Name of the cluster; set as soon as a route was chosen, local replies included.
    pub cluster: Option<&'a str>,

    /// The client's connection.
    pub downstream: Downstream<'a>,
    /// The upstream's connection and the attempts to use one.
    pub upstream: Upstream<'a>,

    /// `peer_principal` of the PROXY header (TLV 0xD0): the mesh identity ztunnel vouches for.
    /// Missing without the TLV, empty with an empty one.
    pub peer_principal: Option<&'a [u8]>,
    /// Dynamic metadata that filters left: namespace to object.
    pub metadata: Option<&'a Map<String, Value>>,
    /// The request is traced because it asks for it (`x-envoy-force-trace`); never without tracing.
    pub is_trace_forced: bool,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// A request and its answer.
    Request,
    /// A connection that carries no requests.
    Connection,
    /// A session of datagrams.
    Datagrams,
}

/// The request's part of a [`Record`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`; known even when the head was malformed.
    pub protocol: Option<&'a str>,
    /// `:method`.
    pub method: Option<&'a [u8]>,
    /// `:path`, query included, after rewrites; the original is the `x-envoy-original-path` field.
    pub path: Option<&'a [u8]>,
    /// `:authority`, which is also `host`.
    pub authority: Option<&'a [u8]>,
    /// `:scheme`.
    pub scheme: Option<&'a [u8]>,
    /// The header fields, those the proxy added included; missing when no head arrived.
    pub headers: Option<&'a dyn HeaderLookup>,
    /// The request id (`%STREAM_ID%`).
    pub id: Option<&'a [u8]>,
    /// Body bytes received from the client.
    pub body_bytes: u64,
}

/// The response's part of a [`Record`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Response<'a> {
    /// Status; 0 when no response was started.
    pub code: u16,
    /// What decided the status, e.g. `via_upstream`; see Envoy's response code details.
    pub details: Option<&'a str>,
    /// The header fields; missing when no response was started.
    pub headers: Option<&'a dyn HeaderLookup>,
    /// The trailer fields.
    pub trailers: Option<&'a dyn HeaderLookup>,
    /// Body bytes sent to the client; 0 for HEAD.
    pub body_bytes: u64,
    /// Body of the reply that the proxy made itself.
    pub local_reply_body: &'a [u8],
}

/// The client's connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Downstream<'a> {
    /// Number of the connection, unique in this process.
    pub connection_id: Option<u64>,
    /// The client: the source of the PROXY header, or what `x-forwarded-for` says, or the peer.
    pub remote: Option<SocketAddr>,
    /// The address the client spoke to: the destination of the PROXY header, or the socket's.
    pub local: Option<SocketAddr>,
    /// The peer of the socket.
    pub direct_remote: Option<SocketAddr>,
    /// The socket's own address.
    pub direct_local: Option<SocketAddr>,
    /// Server name the client asked for in TLS.
    pub server_name: Option<&'a [u8]>,
    /// The TLS session.
    pub tls: Option<&'a TlsInfo>,
    /// Bytes on the wire of this request and its response.
    pub wire: WireBytes,
    /// What went wrong in the transport, TLS or codec.
    pub transport_failure_reason: Option<&'a str>,
    /// Why the proxy closed the connection.
    pub local_close_reason: Option<&'a str>,
    /// How the peer closed it: `Normal`, `LocalReset` or `RemoteReset`.
    pub detected_close_type: Option<&'a str>,
}

/// The upstream's connection and the attempts to use one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upstream<'a> {
    /// The endpoint of the last attempt.
    pub host: Option<SocketAddr>,
    /// Its name, port included, if it has one.
    pub host_name: Option<&'a str>,
    /// The endpoints of all attempts, in order.
    pub hosts_attempted: &'a [SocketAddr],
    /// Number of attempts; 0 when the request never got that far.
    pub attempts: u32,
    /// Number of the connection; 0 when there was none.
    pub connection_id: u64,
    /// Numbers of the connections of all attempts, in order.
    pub connection_ids_attempted: &'a [u64],
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: Option<&'a str>,
    /// The proxy's own address on the connection.
    pub local: Option<SocketAddr>,
    /// The TLS session.
    pub tls: Option<&'a TlsInfo>,
    /// Bytes on the wire of this request and its response.
    pub wire: WireBytes,
    /// Why the connection failed, e.g. `delayed_connect_error: Connection refused`.
    pub transport_failure_reason: Option<&'a str>,
    /// Why the proxy closed the connection.
    pub local_close_reason: Option<&'a str>,
    /// How the peer closed it: `Normal`, `LocalReset` or `RemoteReset`.
    pub detected_close_type: Option<&'a str>,
}

/// Bytes on the wire of one request on one connection, framing included.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WireBytes {
    /// All bytes sent.
    pub sent: u64,
    /// All bytes received.
    pub received: u64,
    /// Bytes of heads and trailers sent.
    pub header_sent: u64,
    /// Bytes of heads and trailers received.
    pub header_received: u64,
}

/// Header fields by name.
pub trait HeaderLookup {
    /// Returns the value of the first field of the name.
    ///
    /// `name` is lower case and never a pseudo header: the record has those.
    fn first(&self, name: &[u8]) -> Option<&[u8]>;

    /// Calls `found` with the value of each field of the name, in order; `name` as for
    /// [`first`](Self::first).
    fn each(&self, name: &[u8], found: &mut dyn FnMut(&[u8]));

    /// Returns the sum of the lengths of all names and values. Bytes.
    fn total_bytes(&self) -> u64;

    /// Returns how many fields there are.
    fn count(&self) -> usize;

    /// Returns name and value of a field by its place.
    fn at(&self, place: usize) -> Option<(&[u8], &[u8])>;
}

/// Name and value pairs, for tests and examples; names are compared without regard to case.
impl HeaderLookup for &[(&str, &[u8])] {
    fn first(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find(|(field, _)| field.as_bytes().eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    fn each(&self, name: &[u8], found: &mut dyn FnMut(&[u8])) {
        self.iter()
            .filter(|(field, _)| field.as_bytes().eq_ignore_ascii_case(name))
            .for_each(|(_, value)| found(value));
    }

    fn total_bytes(&self) -> u64 {
        self.iter()
            .map(|(name, value)| (name.len() + value.len()) as u64)
            .sum()
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, place: usize) -> Option<(&[u8], &[u8])> {
        self.get(place)
            .map(|(name, value)| (name.as_bytes(), *value))
    }
}

impl std::fmt::Debug for dyn HeaderLookup + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeaderLookup({} bytes)", self.total_bytes())
    }
}

impl Record<'_> {
    /// Returns a record of a request to which nothing happened yet.
    pub fn new() -> Self {
        Self {
            subject: Subject::Request,
            start_unix_ns: 0,
            emit_unix_ns: 0,
            timings: Timings::new(),
            pool_ready_ns: None,
            request: Request::default(),
            response: Response::default(),
            flags: ResponseFlags::NONE,
            connection_termination_details: None,
            listener_name: None,
            filter_chain_name: None,
            route_name: None,
            cluster: None,
            downstream: Downstream {
                detected_close_type: Some("Normal"),
                ..Downstream::default()
            },
            upstream: Upstream::default(),
            peer_principal: None,
            metadata: None,
            is_trace_forced: false,
        }
    }

    /// From the first byte of the request to its end, or to now. Nanoseconds.
    pub(crate) fn duration_ns(&self) -> u64 {
        let ended = self
            .timings
            .between(Point::DownstreamRxBegin, Point::StreamEnd);
        ended.unwrap_or_else(|| {
            let past = self.emit_unix_ns.saturating_sub(self.start_unix_ns);
            past.max(0).unsigned_abs()
        })
    }

    /// Whether the request is a health check that the proxy answered itself, which its details tell.
    pub(super) fn is_health_check(&self) -> bool {
        let details = self.response.details;
        details.is_some_and(|details| details.starts_with("health_check"))
    }
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Request<'a> {
    /// Returns the value of a header field or pseudo header; `name` is lower case.
    pub(crate) fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        match name {
            b":method" => self.method,
            b":path" => self.path,
            b":authority" | b"host" => self.authority,
            b":scheme" => self.scheme,
            [b':', ..] => None,
            _ => self.headers?.first(name),
        }
    }

    /// The trace and the span that the request is a part of when it leaves (W3C Trace Context:
    /// `traceparent`), if it says so.
    pub(super) fn trace_ids(&self) -> Option<([u8; 16], [u8; 8])> {
        let parent = TraceParent::parse(self.field(b"traceparent")?)?;
        Some((parent.trace, parent.span))
    }

    /// Calls `found` with each value of a header field or pseudo header; `name` is lower case.
    pub(crate) fn each_field(&self, name: &[u8], found: &mut dyn FnMut(&[u8])) {
        match name {
            [b':', ..] | b"host" => self.field(name).into_iter().for_each(found),
            _ => {
                if let Some(headers) = self.headers {
                    headers.each(name, found);
                }
            }
        }
    }
}

impl<'a> Response<'a> {
    /// Returns the value of a header field; `name` is lower case and not `:status`.
    pub(super) fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.headers?.first(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_if_it_is_one() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        const SPAN: &str = "b7ad6b7169203331";
        let is_read = |parent: &str| {
            let fields: &[(&str, &[u8])] = &[("traceparent", parent.as_bytes())];
            let request = Request {
                headers: Some(&fields as &dyn HeaderLookup),
                ..Request::default()
            };
            request.trace_ids().map(|(trace, span)| (trace[0], span[7]))
        };
        assert_eq!(
            is_read(&format!("00-{TRACE}-{SPAN}-01")),
            Some((0x0a, 0x31))
        );
        assert_eq!(is_read(&format!("00-{SPAN}-{TRACE}-01")), None);
    }
}
