//! The attributes that expressions may name: Envoy's, as far as the data plane has them, and
//! `source.principal`.

use kgw_cel::{Fields, Root};

/// An attribute of a request.
macro_rules! attributes {
    ($($attribute:ident $name:literal,)*) => {
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum Attribute {
            $($attribute,)*
        }

        const ALL: &[(Attribute, &str)] = &[$((Attribute::$attribute, $name),)*];
    };
}

attributes! {
    RequestPath "request.path",
    RequestUrlPath "request.url_path",
    RequestHost "request.host",
    RequestScheme "request.scheme",
    RequestMethod "request.method",
    RequestHeaders "request.headers",
    RequestHeadersBytes "request.headers_bytes",
    RequestReferer "request.referer",
    RequestUserAgent "request.useragent",
    RequestTime "request.time",
    RequestId "request.id",
    RequestProtocol "request.protocol",
    RequestQuery "request.query",
    RequestSize "request.size",
    RequestTotalSize "request.total_size",
    RequestDuration "request.duration",
    ResponseCode "response.code",
    ResponseCodeDetails "response.code_details",
    ResponseHeaders "response.headers",
    ResponseHeadersBytes "response.headers_bytes",
    ResponseTrailers "response.trailers",
    ResponseFlags "response.flags",
    ResponseGrpcStatus "response.grpc_status",
    ResponseSize "response.size",
    ResponseTotalSize "response.total_size",
    ResponseBackendLatency "response.backend_latency",
    SourceAddress "source.address",
    SourcePort "source.port",
    SourcePrincipal "source.principal",
    DestinationAddress "destination.address",
    DestinationPort "destination.port",
    ConnectionId "connection.id",
    ConnectionMtls "connection.mtls",
    ConnectionServerName "connection.requested_server_name",
    ConnectionTlsVersion "connection.tls_version",
    ConnectionSubject "connection.subject_peer_certificate",
    ConnectionUri "connection.uri_san_peer_certificate",
    ConnectionDns "connection.dns_san_peer_certificate",
    ConnectionDigest "connection.sha256_peer_certificate_digest",
    ConnectionTermination "connection.termination_details",
    ConnectionFailure "connection.transport_failure_reason",
    UpstreamAddress "upstream.address",
    UpstreamPort "upstream.port",
    UpstreamLocalAddress "upstream.local_address",
    UpstreamFailure "upstream.transport_failure_reason",
    UpstreamAttempts "upstream.request_attempt_count",
    UpstreamPoolReady "upstream.cx_pool_ready_duration",
    UpstreamTlsVersion "upstream.tls_version",
    UpstreamSubject "upstream.subject_peer_certificate",
    UpstreamUri "upstream.uri_san_peer_certificate",
    UpstreamDns "upstream.dns_san_peer_certificate",
    UpstreamDigest "upstream.sha256_peer_certificate_digest",
    FilterMetadata "metadata.filter_metadata",
    FilterState "filter_state",
    ClusterName "xds.cluster_name",
    RouteName "xds.route_name",
    FilterChainName "xds.filter_chain_name",
}

impl Attribute {
    /// The attribute of a number.
    pub(super) fn of(number: u16) -> Option<Self> {
        ALL.get(usize::from(number))
            .map(|(attribute, _)| *attribute)
    }

    /// As expressions have it.
    pub(super) fn name(self) -> &'static str {
        ALL[self as usize].1
    }

    /// Whether it is known only when the request is over.
    pub(super) fn is_late(self) -> bool {
        let name = self.name();
        name.starts_with("response.")
            || name.starts_with("upstream.")
            || matches!(
                self,
                Self::RequestDuration
                    | Self::ConnectionTermination
                    | Self::ConnectionFailure
                    | Self::FilterChainName
            )
    }
}

/// The numbers of the attributes of a root, which are their places among all.
macro_rules! fields {
    ($from:ident, $to:ident, $root:literal) => {{
        const FROM: usize = Attribute::$from as usize;
        const COUNT: usize = Attribute::$to as usize + 1 - FROM;
        const FOUND: [(&str, u16); COUNT] = {
            let mut found = [("", 0); COUNT];
            let mut place = 0;
            while place < COUNT {
                let (_, field) = ALL[FROM + place].1.split_at($root.len() + 1);
                found[place] = (field, (FROM + place) as u16);
                place += 1;
            }
            found
        };
        Root {
            name: $root,
            fields: Fields::Named(&FOUND),
        }
    }};
}

/// What an expression may begin with.
pub(super) const ROOTS: [Root; 9] = [
    fields!(RequestPath, RequestDuration, "request"),
    fields!(ResponseCode, ResponseBackendLatency, "response"),
    fields!(SourceAddress, SourcePrincipal, "source"),
    fields!(DestinationAddress, DestinationPort, "destination"),
    fields!(ConnectionId, ConnectionFailure, "connection"),
    fields!(UpstreamAddress, UpstreamDigest, "upstream"),
    fields!(FilterMetadata, FilterMetadata, "metadata"),
    Root {
        name: "filter_state",
        fields: Fields::Whole(Attribute::FilterState as u16),
    },
    fields!(ClusterName, FilterChainName, "xds"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_is_under_its_root() {
        let mut numbers = Vec::new();
        for root in ROOTS {
            match root.fields {
                Fields::Whole(number) => {
                    assert_eq!(Attribute::of(number).map(Attribute::name), Some(root.name));
                    numbers.push(number);
                }
                Fields::Named(fields) => {
                    for (field, number) in fields {
                        let name = format!("{}.{field}", root.name);
                        assert_eq!(Attribute::of(*number).map(Attribute::name), Some(&*name));
                        numbers.push(*number);
                    }
                }
            }
        }
        numbers.sort_unstable();
        let every: Vec<u16> = (0..).take(ALL.len()).collect();
        assert_eq!(numbers, every);
    }
}
