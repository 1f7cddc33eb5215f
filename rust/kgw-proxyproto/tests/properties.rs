//! Laws that hold for all headers and all bytes.
#![allow(clippy::unwrap_used)] // in helpers of tests too

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use kgw_proxyproto::{Builder, Command, Error, MeshIdentity, Options, Ssl, kind, parse};
use proptest::collection::vec;
use proptest::prelude::*;

const ALL: Options = Options {
    max_header: 16 + 65_535,
    v1: true,
    v2: true,
};

proptest! {
    // No file of failures: what was found becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What was written reads back the same, in version 2.
    #[test]
    fn round_trip_v2(header in builders(), payload in vec(any::<u8>(), 0..20)) {
        let mut wire = Vec::new();
        header.encode(&mut wire).unwrap();
        let len = wire.len();
        wire.extend_from_slice(&payload);
        let parsed = parse(&wire, &ALL).unwrap();
        prop_assert_eq!(parsed.len(), len);
        prop_assert_eq!(Builder::from(&parsed), header);
        prop_assert_eq!(parsed.identity(), parsed.tlvs.identity());
    }

    /// And in version 1, where that can express it.
    #[test]
    fn round_trip_v1(header in builders()) {
        let mut wire = b"before".to_vec();
        match header.encode_v1(&mut wire) {
            Ok(()) => {
                let parsed = parse(&wire[6..], &ALL).unwrap();
                prop_assert_eq!(parsed.len(), wire.len() - 6);
                prop_assert!(parsed.len() <= 107);
                if parsed.command == Command::Proxy {
                    prop_assert_eq!(Builder::from(&parsed), header);
                } else {
                    prop_assert!(header.addresses().source().is_none());
                }
            }
            Err(error) => {
                prop_assert_eq!(error, Error::NotInV1);
                prop_assert_eq!(wire, b"before".to_vec());
            }
        }
    }

    /// A header is asked for to its last byte and never beyond, however it is cut.
    #[test]
    fn incomplete_never_asks_too_much(wire in wires()) {
        for cut in 0..wire.len() {
            match parse(&wire[..cut], &ALL) {
                Err(Error::Incomplete { need }) => {
                    prop_assert!(cut < need && need <= wire.len(), "{} {} {}", cut, need, wire.len());
                }
                other => prop_assert!(false, "{} of {}: {:?}", cut, wire.len(), other),
            }
        }
    }

    /// Bytes that arrive one by one get the verdict that they get as a whole.
    #[test]
    fn one_verdict(bytes in prop_oneof![vec(any::<u8>(), 0..64), mutated(), near_lines()], max in limits()) {
        let options = Options { max_header: max, ..ALL };
        let whole = parse(&bytes, &options);
        let first = (0..=bytes.len())
            .map(|cut| parse(&bytes[..cut], &options))
            .find(|result| !matches!(result, Err(Error::Incomplete { .. })));
        if let Some(first) = first {
            prop_assert_eq!(first, whole);
        } else {
            let waits = matches!(whole, Err(Error::Incomplete { need }) if need > bytes.len());
            prop_assert!(waits, "{:?}", whole);
        }
    }

    /// A TLV that the builder takes, the parser takes; one that it refuses, the parser refuses, for
    /// the same reason.
    #[test]
    fn builder_and_parser_agree(tlvs in vec((kinds(), vec(any::<u8>(), 0..140)), 0..4)) {
        let mut body = Vec::new();
        let mut built = Ok(Builder::unspec());
        for (kind, value) in &tlvs {
            body.push(*kind);
            body.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
            body.extend_from_slice(value);
            built = built.and_then(|header| header.tlv(*kind, value));
        }
        let mut wire = b"\r\n\r\n\0\r\nQUIT\n\x21\x00".to_vec();
        wire.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        wire.extend_from_slice(&body);
        match built {
            Ok(header) => {
                let parsed = parse(&wire, &ALL);
                prop_assert_eq!(parsed.map(|parsed| Builder::from(&parsed)), Ok(header));
            }
            Err(error) => prop_assert_eq!(parse(&wire, &ALL).map(|_| ()), Err(error)),
        }
    }
}

#[test]
fn a_second_mesh_authority_is_refused_on_both_sides() {
    let refused = Builder::unspec()
        .tlv(0xD0, b"")
        .and_then(|header| header.tlv(0xD0, b"\0"));
    let wire = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x07\xD0\x00\x00\xD0\x00\x01\x00";
    let parsed = parse(wire, &ALL).map(|_| ());
    assert_eq!(parsed, refused.map(|_| ()));
    assert!(parsed.is_err());
}

#[test]
fn the_length_field_is_the_length() {
    let value = vec![0; 65_000];
    let header = Builder::unspec().tlv(0xEE, &value).unwrap();
    let too_long = header.clone().tlv(0xEE, &value[..530]).unwrap_err();
    assert_eq!(
        too_long,
        Error::TooLong {
            len: 16 + 65_536,
            max: 16 + 65_535
        }
    );
    let full = header.tlv(0xEE, &value[..529]).unwrap();
    let mut wire = Vec::new();
    full.encode(&mut wire).unwrap();
    assert_eq!(wire.len(), 16 + 65_535);
    assert_eq!(parse(&wire, &ALL).unwrap().len(), wire.len());
    wire.clear();
    assert!(matches!(
        full.crc32c(true).encode(&mut wire),
        Err(Error::TooLong { .. })
    ));
    assert!(wire.is_empty());
    assert!(matches!(
        Builder::unspec().alpn(&vec![0; 70_000]),
        Err(Error::TooLong { .. })
    ));
}

#[test]
fn ssl_is_read_as_written() {
    let header = Builder::unspec()
        .ssl(
            Ssl::TLS | Ssl::CERT_CONN,
            0,
            [
                (kind::SSL_VERSION, &b"TLSv1.3"[..]),
                (kind::SSL_CN, "Zoë".as_bytes()),
                (kind::SSL_CIPHER, b"TLS_AES_128_GCM_SHA256"),
                (kind::SSL_SIG_ALG, b"SHA256"),
                (kind::SSL_KEY_ALG, b"RSA2048"),
                (0x2F, b"\xff"),
            ],
        )
        .unwrap();
    let mut wire = Vec::new();
    header.encode(&mut wire).unwrap();
    let ssl = parse(&wire, &ALL).unwrap().tlvs.ssl().unwrap();
    assert!(ssl.is_tls() && ssl.is_verified());
    assert_eq!(ssl.version(), Some("TLSv1.3"));
    assert_eq!(ssl.cn(), Some("Zoë"));
    assert_eq!(ssl.cipher(), Some("TLS_AES_128_GCM_SHA256"));
    assert_eq!(ssl.sig_alg(), Some("SHA256"));
    assert_eq!(ssl.key_alg(), Some("RSA2048"));
    assert_eq!(ssl.sub_tlvs.get(0x2F), Some(&[0xff][..]));
    let anonymous = Builder::unspec().ssl(Ssl::TLS, 0, []).unwrap();
    assert!(!anonymous.tlvs().ssl().unwrap().is_verified());
}

#[test]
fn unix_names() {
    let abstract_name = b"\0kgw\0x";
    let header = Builder::unix(abstract_name, &[b'p'; 108]).unwrap();
    let mut wire = Vec::new();
    header.encode(&mut wire).unwrap();
    let parsed = parse(&wire, &ALL).unwrap();
    let kgw_proxyproto::Addresses::Unix {
        source,
        destination,
    } = parsed.addresses
    else {
        panic!("{parsed:?}")
    };
    assert_eq!(source.name(), abstract_name);
    assert_eq!(destination.name(), [b'p'; 108]);
    assert_eq!(
        Builder::unix(&[1; 109], b""),
        Err(Error::UnixNameTooLong { len: 109 })
    );
}

#[test]
fn local_carries_nothing() {
    assert_eq!(Builder::local().netns("a"), Err(Error::TlvOnLocal));
    assert_eq!(
        Builder::unspec().tlv(kind::CRC32C, &[0; 4]),
        Err(Error::ChecksumGiven)
    );
    let mut wire = Vec::new();
    Builder::local()
        .crc32c(true)
        .dgram()
        .encode(&mut wire)
        .unwrap();
    assert_eq!(wire, b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0");
}

fn builders() -> impl Strategy<Value = Builder> {
    let endpoints = prop_oneof![
        Just(Builder::local()),
        Just(Builder::unspec()),
        Just(Builder::unspec().stream()),
        any::<(u32, u16, u32, u16)>().prop_map(|(a, b, c, d)| Builder::proxy(v4(a, b), v4(c, d))),
        any::<(u128, u16, u128, u16)>().prop_map(|(a, b, c, d)| Builder::proxy(v6(a, b), v6(c, d))),
        any::<(u32, u16, u128, u16)>().prop_map(|(a, b, c, d)| Builder::proxy(v4(a, b), v6(c, d))),
        (vec(any::<u8>(), 0..=108), vec(any::<u8>(), 0..=108))
            .prop_map(|(a, b)| Builder::unix(&a, &b).unwrap()),
    ];
    (endpoints, any::<[bool; 4]>(), tlvs()).prop_map(
        |(mut header, [dgram, crc, some, id], tlvs)| {
            if dgram {
                header = header.dgram();
            }
            if header.command() == Command::Proxy && some {
                for (kind, value) in tlvs {
                    // A duplicate is refused; go on without it.
                    header = header.clone().tlv(kind, &value).unwrap_or(header);
                }
                if id {
                    let identity = MeshIdentity::new("cluster.local", "default", "curl").unwrap();
                    header = header.clone().identity(&identity).unwrap_or(header);
                }
            }
            header.crc32c(crc)
        },
    )
}

fn tlvs() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    vec((kinds(), vec(b'a'..=b'z', 0..20)), 0..6)
}

fn kinds() -> impl Strategy<Value = u8> {
    prop_oneof![
        (0u8..=0xff).prop_filter("computed", |&kind| kind != kind::CRC32C),
        Just(kind::AUTHORITY),
        Just(kind::SSL),
        Just(kind::UNIQUE_ID),
        Just(kind::MESH_IDENTITY),
    ]
}

/// Complete headers in either version.
fn wires() -> impl Strategy<Value = Vec<u8>> {
    (builders(), any::<bool>()).prop_map(|(header, v1)| {
        let mut wire = Vec::new();
        if !v1 || header.encode_v1(&mut wire).is_err() {
            header.encode(&mut wire).unwrap();
        }
        wire
    })
}

/// Headers with one byte changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (wires(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut wire, at, byte)| {
        let at = at.index(wire.len());
        wire[at] = byte;
        wire
    })
}

/// Text that gets far in version 1.
fn near_lines() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::sample::select(&["PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN"][..]),
        vec(prop::sample::select(&b"0123456789af.: \r\n"[..]), 0..120),
    )
        .prop_map(|(start, rest)| [start.as_bytes(), &rest].concat())
}

fn limits() -> impl Strategy<Value = usize> {
    prop_oneof![Just(ALL.max_header), 0usize..200]
}

fn v4(ip: u32, port: u16) -> SocketAddr {
    SocketAddrV4::new(ip.into(), port).into()
}

fn v6(ip: u128, port: u16) -> SocketAddr {
    SocketAddrV6::new(ip.into(), port, 0, 0).into()
}
