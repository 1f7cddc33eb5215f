//! The PROXY protocol header that starts a connection to an upstream which wants one.

use std::net::SocketAddr;

use kgw_proxyproto::{Builder, Error, kind};

use crate::config::ir;
use crate::conn::Peers;

/// How to write headers for a cluster.
#[derive(Clone, Debug)]
pub(crate) struct ProxyProtocol {
    version: Version,
    /// Types of the TLVs that are passed on from the client's own header.
    pass: Box<[u8]>,
    /// TLVs added. One of these takes the place of one that would be passed on.
    tlvs: Box<[OwnedTlv]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    V1,
    V2,
}

/// A TLV of a client's header, kept to be passed on.
pub(crate) type OwnedTlv = (u8, Box<[u8]>);

/// The bytes of a header. A connection that starts with them is their client's alone: two clients may
/// share a pooled connection only if these are equal.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Preamble(Box<[u8]>);

impl Preamble {
    /// What the connection starts with, before TLS.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl ProxyProtocol {
    /// Compiles options, or says what is wrong with them.
    pub(crate) fn compile(options: &ir::UpstreamProxyProtocol) -> Result<Self, String> {
        let version = match options.version {
            1 => Version::V1,
            2 => Version::V2,
            other => return Err(format!("the PROXY protocol has no version {other}")),
        };
        if version == Version::V1 && !(options.tlvs.is_empty() && options.pass_tlvs.is_empty()) {
            return Err("version 1 of the PROXY protocol has no TLVs".to_owned());
        }
        let compiled = Self {
            version,
            pass: options.pass_tlvs.clone().into_boxed_slice(),
            tlvs: options
                .tlvs
                .iter()
                .map(|(kind, value)| (*kind, value.clone().into_boxed_slice()))
                .collect(),
        };
        let nobody = SocketAddr::from(([0; 16], 0));
        compiled
            .header(nobody, nobody, &[], None)
            .map_err(|error| error.to_string())?;
        Ok(compiled)
    }

    /// The header for a client: source and destination are those of its own header, if it sent one.
    ///
    /// # Errors
    ///
    /// If the header would be longer than the protocol allows.
    pub(crate) fn preamble(&self, peers: &Peers) -> Result<Preamble, Error> {
        let identity = peers.principal.as_deref();
        let header = self.header(peers.remote, peers.local, &peers.tlvs, identity)?;
        Ok(Preamble(header.into_boxed_slice()))
    }

    /// The header for what the proxy has to say itself, from one of its addresses.
    ///
    /// # Errors
    ///
    /// If the header would be longer than the protocol allows.
    pub(crate) fn own_preamble(
        &self,
        own: SocketAddr,
        endpoint: SocketAddr,
    ) -> Result<Preamble, Error> {
        let header = self.header(own, endpoint, &[], None)?;
        Ok(Preamble(header.into_boxed_slice()))
    }

    /// The bytes of a header. Addresses of different families cannot be stated: version 2 is sent
    /// without any (`AF_UNSPEC`), version 1 as `UNKNOWN`. The identity is one that can be trusted, so
    /// it is not among `tlvs`, and is passed on as they are.
    fn header(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        tlvs: &[OwnedTlv],
        identity: Option<&str>,
    ) -> Result<Vec<u8>, Error> {
        let mut builder = Builder::proxy(canonical(source), canonical(destination));
        let identity = identity.map(|uri| (kind::MESH_IDENTITY, uri.as_bytes()));
        let received = tlvs.iter().map(|(kind, value)| (*kind, &**value));
        for (kind, value) in received.chain(identity) {
            if self.pass.contains(&kind) && !self.tlvs.iter().any(|(own, _)| *own == kind) {
                builder = builder.tlv(kind, value)?;
            }
        }
        for (kind, value) in &self.tlvs {
            builder = builder.tlv(*kind, value)?;
        }
        let mut header = Vec::new();
        match self.version {
            Version::V1 => builder.encode_v1(&mut header)?,
            Version::V2 => builder.encode(&mut header)?,
        }
        Ok(header)
    }
}

/// An IPv4 address in the form that a socket of both families gives it is an IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use kgw_proxyproto::{Command, Options, parse};
    use proptest::prelude::*;

    use super::*;

    fn options(version: u8) -> ir::UpstreamProxyProtocol {
        ir::UpstreamProxyProtocol {
            version,
            pass_tlvs: Vec::new(),
            tlvs: Vec::new(),
        }
    }

    #[test]
    fn options_that_cannot_be_written_are_refused() {
        let refused = [
            options(3),
            ir::UpstreamProxyProtocol {
                tlvs: vec![(0xE0, vec![1])],
                ..options(1)
            },
            ir::UpstreamProxyProtocol {
                pass_tlvs: vec![0xEA],
                ..options(1)
            },
            ir::UpstreamProxyProtocol {
                tlvs: vec![(kind::CRC32C, vec![0; 4])],
                ..options(2)
            },
            ir::UpstreamProxyProtocol {
                tlvs: vec![(0xE0, vec![0; 0x1_0000])],
                ..options(2)
            },
            ir::UpstreamProxyProtocol {
                tlvs: vec![(kind::ALPN, vec![1]), (kind::ALPN, vec![2])],
                ..options(2)
            },
        ];
        for options in refused {
            assert!(ProxyProtocol::compile(&options).is_err(), "{options:?}");
        }
    }

    #[test]
    fn headers_are_written_as_the_specification_shows_them() {
        let source = "192.168.0.1:56324".parse().unwrap();
        let destination = "192.168.0.11:443".parse().unwrap();
        let v1 = ProxyProtocol::compile(&options(1)).unwrap();
        assert_eq!(
            v1.header(source, destination, &[], None).unwrap(),
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
        let mapped = "[::ffff:192.168.0.1]:56324".parse().unwrap();
        assert_eq!(
            v1.header(mapped, destination, &[], None).unwrap(),
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
        let v6 = "[2001:db8::1]:1".parse().unwrap();
        assert_eq!(
            v1.header(v6, destination, &[], None).unwrap(),
            b"PROXY UNKNOWN\r\n"
        );
        let v2 = ProxyProtocol::compile(&options(2)).unwrap();
        assert_eq!(
            v2.header(source, destination, &[], None).unwrap(),
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\xa8\x00\x01\xc0\xa8\x00\x0b\xdc\x04\x01\xbb"
        );
        assert_eq!(
            v2.header(v6, destination, &[], None).unwrap(),
            b"\r\n\r\n\0\r\nQUIT\n\x21\x01\x00\x00"
        );
    }

    #[test]
    fn only_named_tlvs_are_passed_on_and_added_ones_win() {
        let proxy = ProxyProtocol::compile(&ir::UpstreamProxyProtocol {
            version: 2,
            pass_tlvs: vec![0xEA, 0xEB, kind::MESH_IDENTITY],
            tlvs: vec![(0xEB, b"own".to_vec())],
        })
        .unwrap();
        let source = "10.0.0.1:1".parse().unwrap();
        let received: Vec<OwnedTlv> = vec![
            (0xEA, Box::from(*b"one")),
            (0xEB, Box::from(*b"theirs")),
            (0xEC, Box::from(*b"hidden")),
            (0xEA, Box::from(*b"two")),
        ];
        let identity = "spiffe://cluster.local/ns/default/sa/curl";
        let header = proxy
            .header(source, source, &received, Some(identity))
            .unwrap();
        let parsed = parse(&header, &Options::default()).unwrap();
        let tlvs: Vec<(u8, &[u8])> = parsed
            .tlvs
            .iter()
            .map(|tlv| (tlv.kind, tlv.value))
            .collect();
        assert_eq!(
            tlvs,
            [
                (0xEA, &b"one"[..]),
                (0xEA, b"two"),
                (kind::MESH_IDENTITY, identity.as_bytes()),
                (0xEB, b"own"),
            ]
        );
    }

    #[test]
    fn more_than_fits_is_an_error_and_not_a_shorter_header() {
        let proxy = ProxyProtocol::compile(&ir::UpstreamProxyProtocol {
            pass_tlvs: vec![0xEA],
            ..options(2)
        })
        .unwrap();
        let source = "10.0.0.1:1".parse().unwrap();
        let long: OwnedTlv = (0xEA, vec![0; 40_000].into_boxed_slice());
        assert!(
            proxy
                .header(source, source, std::slice::from_ref(&long), None)
                .is_ok()
        );
        assert!(
            proxy
                .header(source, source, &[long.clone(), long], None)
                .is_err()
        );
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ];
        (ip, any::<u16>()).prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn a_header_parses_back(
            version in 1..=2_u8,
            source in address(),
            destination in address(),
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..4),
        ) {
            let pass_tlvs = if version == 2 { vec![0xEA] } else { Vec::new() };
            let proxy = ProxyProtocol::compile(&ir::UpstreamProxyProtocol {
                pass_tlvs,
                ..options(version)
            })
            .unwrap();
            let received: Vec<OwnedTlv> = values
                .into_iter()
                .map(|value| (0xEA, value.into_boxed_slice()))
                .collect();
            let header = proxy.header(source, destination, &received, None).unwrap();
            let parsed = parse(&header, &Options::default()).unwrap();
            prop_assert_eq!(parsed.len(), header.len());
            let (source, destination) = (canonical(source), canonical(destination));
            if source.is_ipv4() == destination.is_ipv4() {
                prop_assert_eq!(parsed.command, Command::Proxy);
                prop_assert_eq!(parsed.tcp(), Ok(Some((source, destination))));
            } else {
                prop_assert_eq!(parsed.tcp(), Ok(None));
            }
            let expected = if version == 2 { received.len() } else { 0 };
            prop_assert_eq!(parsed.tlvs.iter().count(), expected);
        }
    }
}
