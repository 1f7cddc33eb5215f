//! The values of attributes.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;

use kgw_cel::{Attributes, Cel, Data};
use serde_json::{Map, Value};

use super::attribute::Attribute;
use crate::conn::filtering::Filtered;
use crate::telemetry::access_log::{HeaderLookup, Point, Record, Request};
use crate::telemetry::flags::ResponseFlag;
use crate::tls::TlsInfo;

/// A request as expressions see it.
#[derive(Debug)]
pub(crate) struct View<'a> {
    record: &'a Record<'a>,
    request_headers: Fields<'a>,
    response_headers: Fields<'a>,
    response_trailers: Fields<'a>,
    metadata: FilterMetadata<'a>,
    state: FilterState<'a>,
}

/// Where dynamic metadata is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Noted<'a> {
    /// In the record, since the request is over.
    Logged(Option<&'a Map<String, Value>>),
    /// Where filters note it.
    Live(Option<&'a Filtered>),
}

impl<'a> View<'a> {
    pub(crate) fn new(record: &'a Record<'a>, noted: Noted<'a>) -> Self {
        let response = &record.response;
        Self {
            record,
            request_headers: Fields {
                request: Some(&record.request),
                fields: record.request.headers,
            },
            response_headers: Fields {
                request: None,
                fields: response.headers,
            },
            response_trailers: Fields {
                request: None,
                fields: response.trailers,
            },
            metadata: FilterMetadata {
                noted,
                proxy_protocol: ProxyProtocol(record.peer_principal),
            },
            state: FilterState(record.peer_principal),
        }
    }
}

impl Attributes for View<'_> {
    fn attribute(&self, number: u16) -> Option<Cel<'_>> {
        use Attribute as A;
        let Record {
            request,
            response,
            downstream,
            upstream,
            timings,
            ..
        } = self.record;
        let header = |name: &[u8]| request.field(name).map(text);
        let source = downstream.remote.as_ref();
        Some(match A::of(number)? {
            A::RequestPath => text(request.path?),
            A::RequestUrlPath => text(split_path(request.path?).0),
            A::RequestQuery => text(split_path(request.path?).1),
            A::RequestHost => text(request.authority?),
            A::RequestScheme => text(request.scheme?),
            A::RequestMethod => text(request.method?),
            A::RequestHeaders => Cel::Data(&self.request_headers),
            A::RequestHeadersBytes => size(request_bytes(request)),
            A::RequestReferer => header(b"referer")?,
            A::RequestUserAgent => header(b"user-agent")?,
            A::RequestTime => Cel::Timestamp(Rc::new(i128::from(self.record.start_unix_ns))),
            A::RequestId => text(request.id?),
            A::RequestProtocol => Cel::borrowed(request.protocol?),
            A::RequestSize => size(match request.field(b"content-length") {
                Some(length) => std::str::from_utf8(length).ok()?.parse().ok()?,
                None => request.body_bytes,
            }),
            A::RequestTotalSize => size(request.body_bytes + request_bytes(request)),
            A::RequestDuration => {
                duration(timings.between(Point::DownstreamRxBegin, Point::StreamEnd)?)
            }
            A::ResponseCode if response.code == 0 => return None,
            A::ResponseCode => Cel::Int(response.code.into()),
            A::ResponseCodeDetails => Cel::borrowed(response.details?),
            A::ResponseHeaders => Cel::Data(&self.response_headers),
            A::ResponseHeadersBytes => size(bytes(response.headers)),
            A::ResponseTrailers => Cel::Data(&self.response_trailers),
            A::ResponseFlags => Cel::Int(self.record.flags.iter().map(bit).sum()),
            A::ResponseGrpcStatus => Cel::Int(grpc_status(self.record)?),
            A::ResponseSize => size(response.body_bytes),
            A::ResponseTotalSize => {
                size(response.body_bytes + bytes(response.headers) + bytes(response.trailers))
            }
            A::ResponseBackendLatency => {
                duration(timings.between(Point::UpstreamTxBegin, Point::UpstreamRxEnd)?)
            }
            A::SourceAddress => address(source?),
            A::SourcePort => port(source?),
            A::SourcePrincipal => text(self.record.peer_principal?),
            A::DestinationAddress => address(downstream.local.as_ref()?),
            A::DestinationPort => port(downstream.local.as_ref()?),
            A::ConnectionId => Cel::Uint(downstream.connection_id?),
            A::ConnectionMtls => {
                let peer = downstream.tls.and_then(TlsInfo::peer_fingerprint_256);
                Cel::Bool(peer.is_some())
            }
            // A connection that asked for no name asked for the empty one, as in Envoy.
            A::ConnectionServerName => text(downstream.server_name.unwrap_or_default()),
            A::ConnectionTlsVersion => Cel::borrowed(downstream.tls?.version()),
            // Of a certificate without a subject, and of none, it is empty, as in Envoy.
            A::ConnectionSubject => {
                Cel::borrowed(downstream.tls?.peer_subject().unwrap_or_default())
            }
            A::ConnectionUri => Cel::borrowed(downstream.tls?.peer_first_uri()?),
            A::ConnectionDns => Cel::borrowed(downstream.tls?.peer_first_dns_name()?),
            A::ConnectionDigest => Cel::borrowed(downstream.tls?.peer_fingerprint_256()?),
            A::ConnectionTermination => Cel::borrowed(self.record.connection_termination_details?),
            A::ConnectionFailure => Cel::borrowed(downstream.transport_failure_reason?),
            A::UpstreamAddress => address(upstream.host.as_ref()?),
            A::UpstreamPort => port(upstream.host.as_ref()?),
            A::UpstreamLocalAddress => address(upstream.local.as_ref()?),
            A::UpstreamFailure => {
                Cel::borrowed(upstream.transport_failure_reason.unwrap_or_default())
            }
            A::UpstreamAttempts => Cel::Uint(upstream.attempts.into()),
            A::UpstreamPoolReady => duration(self.record.pool_ready_ns?),
            A::UpstreamTlsVersion => Cel::borrowed(upstream.tls?.version()),
            A::UpstreamSubject => Cel::borrowed(upstream.tls?.peer_subject().unwrap_or_default()),
            A::UpstreamUri => Cel::borrowed(upstream.tls?.peer_first_uri()?),
            A::UpstreamDns => Cel::borrowed(upstream.tls?.peer_first_dns_name()?),
            A::UpstreamDigest => Cel::borrowed(upstream.tls?.peer_fingerprint_256()?),
            A::FilterMetadata => Cel::Data(&self.metadata),
            A::FilterState => Cel::Data(&self.state),
            A::ClusterName => Cel::borrowed(self.record.cluster?),
            A::RouteName => Cel::borrowed(self.record.route_name?),
            A::FilterChainName => Cel::borrowed(self.record.filter_chain_name?),
        })
    }
}

/// A text of a message. Bytes that are no text are replaced, so that no text of an expression equals it.
fn text(bytes: &[u8]) -> Cel<'_> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => Cel::borrowed(text),
        Cow::Owned(text) => Cel::made(text),
    }
}

fn size<'v>(bytes: u64) -> Cel<'v> {
    Cel::Int(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn duration<'v>(nanoseconds: u64) -> Cel<'v> {
    Cel::Duration(i64::try_from(nanoseconds).unwrap_or(i64::MAX))
}

fn address<'v>(address: &SocketAddr) -> Cel<'v> {
    Cel::made(address.to_string())
}

fn port<'v>(address: &SocketAddr) -> Cel<'v> {
    Cel::Int(address.port().into())
}

/// The path without the query, and the query without a fragment.
fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    let Some(at) = memchr::memchr(b'?', path) else {
        return (path, b"");
    };
    let query = &path[at + 1..];
    let end = memchr::memchr(b'#', query).unwrap_or(query.len());
    (&path[..at], &query[..end])
}

fn bytes(fields: Option<&dyn HeaderLookup>) -> u64 {
    fields.map_or(0, HeaderLookup::total_bytes)
}

/// The length of a request's names and values, those of pseudo headers included.
fn request_bytes(request: &Request<'_>) -> u64 {
    let pseudo = PSEUDO.iter().filter_map(|name| {
        let value = request.field(name)?;
        Some((name.len() + value.len()) as u64)
    });
    pseudo.sum::<u64>() + bytes(request.headers)
}

/// The bit of a flag in Envoy's number of all of them; 0 of one that Envoy has not.
fn bit(flag: ResponseFlag) -> i64 {
    match flag {
        ResponseFlag::PythonFilterError => 0,
        flag => 1 << flag as u8,
    }
}

/// The status of a gRPC call: as its trailers or header fields say, or as its HTTP status means. Envoy does
/// not look whether the request was a call; what is no number is an invalid code.
fn grpc_status(record: &Record<'_>) -> Option<i64> {
    let status = crate::telemetry::access_log::grpc_status(record)?;
    Some(status.map_or(-1, |status| i64::try_from(status).unwrap_or(-1)))
}

const PSEUDO: [&[u8]; 4] = [b":authority", b":method", b":path", b":scheme"];

/// Header fields: names are in lower case, and values of one name are separated by commas.
#[derive(Debug)]
struct Fields<'a> {
    /// Whose pseudo headers are among them.
    request: Option<&'a Request<'a>>,
    fields: Option<&'a dyn HeaderLookup>,
}

impl Fields<'_> {
    /// The pseudo headers that there are, in order.
    fn pseudo(&self) -> impl Iterator<Item = (&'static [u8], &[u8])> {
        let of = |name: &'static [u8]| Some((name, self.request?.field(name)?));
        PSEUDO.into_iter().filter_map(of)
    }

    fn at(&self, place: usize) -> Option<(&[u8], &[u8])> {
        let before = self.pseudo().count();
        match place.checked_sub(before) {
            None => self.pseudo().nth(place),
            Some(place) => self.fields?.at(place),
        }
    }
}

impl Data for Fields<'_> {
    fn is_list(&self) -> bool {
        false
    }

    fn len(&self) -> usize {
        self.pseudo().count() + self.fields.map_or(0, HeaderLookup::count)
    }

    fn entry(&self, key: &str) -> Option<Cel<'_>> {
        let key = key.to_ascii_lowercase();
        let name = key.as_bytes();
        if (name.starts_with(b":") || name == b"host")
            && let Some(request) = self.request
        {
            return request.field(name).map(text);
        }
        let fields = self.fields?;
        let first = fields.first(name)?;
        let mut values = (0..fields.count()).filter_map(|place| fields.at(place));
        let is_other = |value: &[u8]| !std::ptr::eq(value.as_ptr(), first.as_ptr());
        if !values.any(|(one, value)| one.eq_ignore_ascii_case(name) && is_other(value)) {
            return Some(text(first));
        }
        let values = (0..fields.count()).filter_map(|place| fields.at(place));
        let values = values.filter(|(one, _)| one.eq_ignore_ascii_case(name));
        let values: Vec<&[u8]> = values.map(|(_, value)| value).collect();
        Some(Cel::made(String::from_utf8_lossy(&values.join(&b","[..]))))
    }

    fn key(&self, place: usize) -> Option<Cel<'_>> {
        let (name, _) = self.at(place)?;
        if name.iter().any(u8::is_ascii_uppercase) {
            let name = name.to_ascii_lowercase();
            return Some(Cel::made(String::from_utf8_lossy(&name)));
        }
        Some(text(name))
    }

    fn item(&self, place: usize) -> Option<Cel<'_>> {
        self.at(place).map(|(_, value)| text(value))
    }
}

/// Dynamic metadata by namespace.
#[derive(Debug)]
struct FilterMetadata<'a> {
    noted: Noted<'a>,
    proxy_protocol: ProxyProtocol<'a>,
}

/// The namespace of what a PROXY header says.
const PROXY_PROTOCOL: &str = "envoy.filters.listener.proxy_protocol";

impl FilterMetadata<'_> {
    fn has_proxy_protocol(&self) -> bool {
        self.proxy_protocol.0.is_some()
    }
}

impl Data for FilterMetadata<'_> {
    fn is_list(&self) -> bool {
        false
    }

    fn len(&self) -> usize {
        let noted = match self.noted {
            Noted::Logged(noted) => noted.map_or(0, Map::len),
            Noted::Live(filtered) => filtered.map_or(0, |one| one.namespaces().count()),
        };
        noted + usize::from(self.has_proxy_protocol())
    }

    fn entry(&self, key: &str) -> Option<Cel<'_>> {
        if key == PROXY_PROTOCOL && self.has_proxy_protocol() {
            return Some(Cel::Data(&self.proxy_protocol));
        }
        match self.noted {
            Noted::Logged(noted) => noted?.get(key).map(Cel::of_json),
            Noted::Live(filtered) => Some(Cel::Data(filtered?.namespace(key)?)),
        }
    }

    fn key(&self, place: usize) -> Option<Cel<'_>> {
        let Some(place) = place.checked_sub(usize::from(self.has_proxy_protocol())) else {
            return Some(Cel::borrowed(PROXY_PROTOCOL));
        };
        match self.noted {
            Noted::Logged(noted) => noted?.keys().nth(place).map(|key| Cel::borrowed(key)),
            Noted::Live(filtered) => filtered?.namespaces().nth(place).map(Cel::borrowed),
        }
    }

    fn item(&self, place: usize) -> Option<Cel<'_>> {
        match self.key(place)? {
            Cel::Str(key) => self.entry(&key),
            _ => None,
        }
    }
}

/// What a PROXY header says of the peer.
#[derive(Debug)]
struct ProxyProtocol<'a>(Option<&'a [u8]>);

impl Data for ProxyProtocol<'_> {
    fn is_list(&self) -> bool {
        false
    }

    fn len(&self) -> usize {
        usize::from(self.0.is_some())
    }

    fn entry(&self, key: &str) -> Option<Cel<'_>> {
        self.0.filter(|_| key == "peer_principal").map(text)
    }

    fn key(&self, place: usize) -> Option<Cel<'_>> {
        (place < self.len()).then(|| Cel::borrowed("peer_principal"))
    }

    fn item(&self, place: usize) -> Option<Cel<'_>> {
        self.0.filter(|_| place == 0).map(text)
    }
}

/// State of the connection: who the mesh says that the peer is.
#[derive(Debug)]
struct FilterState<'a>(Option<&'a [u8]>);

/// As Istio's waypoints name it.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

impl Data for FilterState<'_> {
    fn is_list(&self) -> bool {
        false
    }

    fn len(&self) -> usize {
        usize::from(self.0.is_some())
    }

    fn entry(&self, key: &str) -> Option<Cel<'_>> {
        // As in Envoy, which has state in its serialised form: `string(...)` makes it a text.
        let principal = self.0.filter(|_| key == PEER_PRINCIPAL)?;
        Some(Cel::Bytes(principal.into()))
    }

    fn key(&self, place: usize) -> Option<Cel<'_>> {
        (place < self.len()).then(|| Cel::borrowed(PEER_PRINCIPAL))
    }

    fn item(&self, place: usize) -> Option<Cel<'_>> {
        self.0
            .filter(|_| place == 0)
            .map(|principal| Cel::Bytes(principal.into()))
    }
}
