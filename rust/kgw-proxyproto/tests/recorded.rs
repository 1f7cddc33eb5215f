//! Recorded headers: what ztunnel sends and never sends, and the forms that broke other proxies.
#![allow(clippy::unwrap_used)] // in helpers of tests too

use std::collections::BTreeSet;
use std::net::SocketAddr;

use kgw_proxyproto::{
    Addresses, Command, Error, Family, Header, IdentityPart, Options, Transport, V1Field, kind,
    parse,
};
use serde::Deserialize;

const CURL: &str = "spiffe://cluster.local/ns/default/sa/curl";

/// The verdict of a waypoint on each row of `proxy_protocol.json`.
#[test]
fn waypoint_vectors() {
    #[derive(Deserialize)]
    struct Row {
        name: String,
        hex: String,
        suggested_kgw: String,
    }
    let rows: Vec<Row> = load("proxy_protocol.json");
    let mut seen = BTreeSet::new();
    for row in &rows {
        let wire = unhex(&row.hex);
        let result = parse(&wire, &Options::WAYPOINT);
        let suggested = row.suggested_kgw.as_str();
        match row.name.as_str() {
            "v4+identity" => {
                assert_eq!(suggested, "accept");
                let header = proxied(&result, "10.244.0.24:46238", "10.96.0.1:80");
                assert_eq!(header.family(), Family::Inet);
                assert_eq!(header.identity().unwrap().uri(), CURL);
                assert_eq!(header.identity().unwrap().namespace, "default");
            }
            "v6+identity" => {
                assert_eq!(suggested, "accept");
                let header = proxied(&result, "[fd00::24]:46238", "[fd00::1]:80");
                assert_eq!(header.family(), Family::Inet6);
                assert_eq!(header.identity().unwrap().uri(), CURL);
            }
            "mixed families -> AF_UNSPEC/STREAM + identity" => {
                assert!(suggested.starts_with("accept identity, no VIP"));
                let header = result.unwrap();
                assert_eq!(header.command, Command::Proxy);
                assert_eq!(header.transport, Transport::Stream);
                assert_eq!(header.addresses, Addresses::Unspec);
                assert_eq!(header.tcp(), Ok(None));
                assert_eq!(header.identity().unwrap().uri(), CURL);
            }
            "v4, no identity TLV" => {
                assert!(suggested.starts_with("accept, identity absent"));
                let header = proxied(&result, "10.244.0.24:46238", "10.96.0.1:80");
                assert_eq!(header.identity(), None);
                assert!(header.tlvs.is_empty());
            }
            "v4 empty identity TLV" => {
                assert_eq!(suggested, "identity absent");
                let header = proxied(&result, "10.244.0.24:46238", "10.96.0.1:80");
                assert_eq!(header.identity(), None);
                assert_eq!(header.tlvs.identity(), None);
                assert_eq!(header.tlvs.get(kind::MESH_IDENTITY), Some(&[][..]));
            }
            // Whether the destination is known is the listener's affair.
            "unknown VIP" => {
                assert_eq!(suggested, "close + metric");
                proxied(&result, "10.244.0.24:46238", "10.96.0.99:80");
            }
            "known VIP unknown port" => {
                assert_eq!(suggested, "close + metric");
                proxied(&result, "10.244.0.24:46238", "10.96.0.1:81");
            }
            "LOCAL v4" | "LOCAL unspec no body" => {
                assert!(suggested.starts_with("close"));
                let header = result.unwrap();
                assert_eq!(header.command, Command::Local);
                assert_eq!(header.addresses, Addresses::Unspec);
                assert_eq!(header.identity(), None);
                assert!(header.tlvs.is_empty());
                assert_eq!(header.len(), wire.len());
            }
            "v1 TCP4" => {
                assert!(suggested.starts_with("reject on waypoint listener"));
                assert_eq!(result, Err(Error::NoHeader { at: 0, byte: b'P' }));
                let result = parse(&wire, &Options::default());
                proxied(&result, "10.244.0.24:46238", "10.96.0.1:80");
            }
            "duplicate TLV first curl" | "duplicate TLV first notcurl" => {
                assert_eq!(suggested, "reject (ambiguous)");
                assert_eq!(result, Err(Error::TlvDuplicate { kind: 0xD0 }));
            }
            "unknown TLVs before identity" => {
                assert!(suggested.starts_with("skip unknown; 0xD1 = reserved service FQDN"));
                let header = proxied(&result, "10.244.0.24:46238", "10.96.0.1:80");
                assert_eq!(header.identity().unwrap().uri(), CURL);
                assert!(header.tlvs.iter().count() > 1);
            }
            "65 kB header" => {
                assert!(suggested.starts_with("cap"));
                let (len, max) = (wire.len(), 4096);
                assert_eq!(result, Err(Error::TooLong { len, max }));
                let options = Options {
                    max_header: len,
                    ..Options::WAYPOINT
                };
                assert_eq!(parse(&wire, &options).unwrap().len(), len);
            }
            "truncated TLV" => {
                assert_eq!(suggested, "close");
                assert_eq!(result, Err(Error::TlvTruncated { excess: 253 }));
            }
            "version 3" => {
                assert_eq!(suggested, "close");
                assert_eq!(result, Err(Error::UnknownVersion { version: 3 }));
            }
            "UDP/DGRAM 0x12" => {
                assert_eq!(suggested, "reject");
                let header = result.unwrap();
                assert_eq!(header.transport, Transport::Dgram);
                assert_eq!(header.tcp(), Err(Error::NotTcp));
            }
            "AF_UNIX 0x31" => {
                assert_eq!(suggested, "close");
                let header = result.unwrap();
                assert_eq!(header.tcp(), Err(Error::NotTcp));
                let Addresses::Unix {
                    source,
                    destination,
                } = header.addresses
                else {
                    panic!("{header:?}")
                };
                assert_eq!(source.name(), b"/a");
                assert_eq!(destination.name(), b"/b");
            }
            "v4-mapped v6" => {
                assert_eq!(suggested, "canonicalise to v4");
                let header = proxied(&result, "10.244.0.24:46238", "10.96.0.1:80");
                assert_eq!(header.family(), Family::Inet6);
            }
            name => panic!("no expectation for {name}"),
        }
        seen.insert(row.name.as_str());
    }
    assert_eq!(seen.len(), 19);
}

/// `proxy_protocol_cases.json`: accepted or refused as `expect` says, the source as stated.
#[test]
fn hostile_and_odd_headers() {
    #[derive(Deserialize)]
    struct Case {
        id: String,
        data: String,
        expect: String,
        src: Option<String>,
        level: String,
    }
    let cases: Vec<Case> = load("proxy_protocol_cases.json");
    assert_eq!(cases.len(), 63);
    for case in cases {
        let wire: Vec<u8> = case.data.chars().map(latin1).collect();
        let result = parse(&wire, &Options::default());
        let context = format!("{}: {result:?}", case.id);
        match (case.id.as_str(), case.expect.as_str()) {
            // Eight bytes follow an unspecified family that are no TLVs. Refusing them is allowed
            // (level "may"), and what lets an identity be read from such headers with confidence.
            ("pp2-unspec-len", "accept") => {
                assert_eq!(case.level, "may");
                assert!(
                    matches!(result, Err(Error::TlvTruncated { .. })),
                    "{context}"
                );
            }
            (_, "accept") => {
                let header = result.expect(&context);
                assert_eq!(header.len(), wire.len(), "{context}");
                let source = header.source().map(|source| source.ip().to_string());
                match case.src.as_deref() {
                    Some(not) if not.starts_with('!') => assert_eq!(source, None, "{context}"),
                    expected => assert_eq!(source.as_deref(), expected, "{context}"),
                }
            }
            // The header is valid; what follows it is not HTTP, which is not this parser's affair.
            ("pp1-double" | "pp21-double" | "pp22-double" | "pp2-len-lies-short", "reject") => {
                let header = result.expect(&context);
                assert!(header.len() < wire.len(), "{context}");
                assert_eq!(header.source().unwrap().ip().to_string(), "10.1.2.3");
                assert_eq!(header.identity(), None);
            }
            ("pp2-udp4", "reject") => {
                assert_eq!(result.expect(&context).tcp(), Err(Error::NotTcp));
            }
            (_, "reject") => {
                let error = result.expect_err(&context);
                assert!(!matches!(error, Error::Incomplete { .. }), "{context}");
            }
            (_, "timeout") => {
                assert!(matches!(result, Err(Error::Incomplete { .. })), "{context}");
            }
            _ => panic!("{context}"),
        }
    }
}

#[test]
fn malformed_lines_name_the_field() {
    for (line, field, at) in [
        ("PROXY TCP5", V1Field::Protocol, 9),
        ("PROXY UDP4", V1Field::Protocol, 7),
        ("PROXY TCP4\r", V1Field::Protocol, 10),
        ("PROXY UNKNOWNS", V1Field::Protocol, 13),
        ("PROXY UNKNOWN \n", V1Field::Unknown, 14),
        ("PROXY UNKNOWN\rX", V1Field::LineEnd, 14),
        ("PROXY TCP4 010.1.2.3 ", V1Field::Source, 11),
        ("PROXY TCP4 10.1.2.3.4.5.6.7", V1Field::Source, 11 + 15),
        ("PROXY TCP4 1:", V1Field::Source, 12),
        ("PROXY TCP6 fe80::1%", V1Field::Source, 18),
        ("PROXY TCP4 10.1.2.3  ", V1Field::Destination, 20),
        ("PROXY TCP4 10.1.2.3 10.4.5.6 +", V1Field::SourcePort, 29),
        ("PROXY TCP4 10.1.2.3 10.4.5.6 00 ", V1Field::SourcePort, 29),
        (
            "PROXY TCP4 10.1.2.3 10.4.5.6 1 65536\r",
            V1Field::DestinationPort,
            31,
        ),
        (
            "PROXY TCP4 10.1.2.3 10.4.5.6 1 80\n",
            V1Field::DestinationPort,
            33,
        ),
        ("PROXY TCP4 10.1.2.3 10.4.5.6 1 80\rG", V1Field::LineEnd, 34),
    ] {
        let result = parse(line.as_bytes(), &Options::default());
        assert_eq!(result, Err(Error::V1 { field, at }), "{line:?}");
    }
}

#[test]
fn refused_at_the_first_impossible_byte() {
    let all = Options::default();
    for (bytes, at) in [
        (&b"G"[..], 0),
        (b"\x16\x03\x01", 0),
        (b"\r\r", 1),
        (b"\r\n\r\n\0\r\nQUIX", 10),
        (b"PO", 1),
        (b"PROXY\t", 5),
    ] {
        let byte = bytes[at];
        assert_eq!(parse(bytes, &all), Err(Error::NoHeader { at, byte }));
    }
    let v1 = Options { v2: false, ..all };
    assert_eq!(
        parse(b"\r", &v1),
        Err(Error::NoHeader { at: 0, byte: b'\r' })
    );
    let none = Options { v1: false, ..v1 };
    assert_eq!(
        parse(b"P", &none),
        Err(Error::NoHeader { at: 0, byte: b'P' })
    );
    assert_eq!(parse(b"", &all), Err(Error::Incomplete { need: 15 }));
    assert_eq!(
        parse(b"", &Options::WAYPOINT),
        Err(Error::Incomplete { need: 16 })
    );
}

#[test]
fn malformed_tlvs() {
    let ssl = |sub: &[u8]| [&[1, 0, 0, 0, 0], sub].concat();
    for (tlvs, error) in [
        (
            vec![tlv(kind::CRC32C, &[0; 3])],
            Error::TlvLength { kind: 3, len: 3 },
        ),
        (
            vec![tlv(kind::UNIQUE_ID, &[0; 129])],
            Error::TlvLength { kind: 5, len: 129 },
        ),
        (
            vec![tlv(kind::SSL, &[0; 4])],
            Error::TlvLength { kind: 0x20, len: 4 },
        ),
        (
            vec![tlv(kind::SSL, &ssl(&[0x21, 0]))],
            Error::TlvTruncated { excess: 1 },
        ),
        (
            vec![tlv(kind::SSL, &ssl(&[0x21, 0, 2, 0]))],
            Error::TlvTruncated { excess: 1 },
        ),
        (
            vec![tlv(kind::SSL, &ssl(b"\x22\0\x01a\x22\0\x01b"))],
            Error::TlvDuplicate { kind: 0x22 },
        ),
        (
            vec![tlv(kind::SSL, &ssl(b"\x22\0\x01\n"))],
            Error::TlvText { kind: 0x22 },
        ),
        (
            vec![tlv(kind::AUTHORITY, b"a\r\nb")],
            Error::TlvText { kind: 2 },
        ),
        (
            vec![tlv(kind::AUTHORITY, b"\xff")],
            Error::TlvText { kind: 2 },
        ),
        (vec![tlv(kind::NETNS, b"\0")], Error::TlvText { kind: 0x30 }),
        (
            vec![tlv(kind::SERVICE_HOST, b"\x7f")],
            Error::TlvText { kind: 0xD1 },
        ),
        (
            vec![
                tlv(kind::AUTHORITY, b"a"),
                tlv(kind::NOOP, b""),
                tlv(kind::AUTHORITY, b"a"),
            ],
            Error::TlvDuplicate { kind: 2 },
        ),
        (
            vec![
                tlv(kind::MESH_IDENTITY, b""),
                tlv(kind::MESH_IDENTITY, CURL.as_bytes()),
            ],
            Error::TlvDuplicate { kind: 0xD0 },
        ),
        (
            vec![tlv(kind::MESH_IDENTITY, b"spiffe://td/ns/a")],
            Error::Identity {
                part: IdentityPart::Namespace,
            },
        ),
        (vec![vec![0xEE]], Error::TlvTruncated { excess: 2 }),
        (vec![vec![0xEE, 0]], Error::TlvTruncated { excess: 1 }),
    ] {
        let wire = unspec(&tlvs.concat());
        assert_eq!(parse(&wire, &Options::default()), Err(error), "{tlvs:?}");
    }
    // Two of a kind that nothing depends on are fine, and so is any type.
    let wire = unspec(&[tlv(0xEE, b"a"), tlv(0xEE, b"b"), tlv(4, b""), tlv(4, b"")].concat());
    assert_eq!(
        parse(&wire, &Options::default())
            .unwrap()
            .tlvs
            .iter()
            .count(),
        4
    );
}

/// The checksum of a header, as an independent bitwise CRC32C has it.
#[test]
fn checksum_is_verified() {
    let mut wire = unspec(&[tlv(kind::CRC32C, &[0; 4]), tlv(kind::NOOP, b"xyz")].concat());
    let crc = bitwise_crc32c(&wire);
    wire[19..23].copy_from_slice(&crc.to_be_bytes());
    let header = parse(&wire, &Options::default()).unwrap();
    assert_eq!(header.tlvs.get(kind::CRC32C), Some(&crc.to_be_bytes()[..]));
    // Damage to the TLV's own type hides the checksum; everything after it is covered.
    for at in 17..wire.len() {
        let mut damaged = wire.clone();
        damaged[at] ^= 0x10;
        assert!(parse(&damaged, &Options::default()).is_err(), "{at}");
    }
    let last = wire.len() - 1;
    wire[last] ^= 1;
    assert!(matches!(
        parse(&wire, &Options::default()),
        Err(Error::Checksum { carried, computed }) if carried == crc && computed != crc
    ));
}

fn bitwise_crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 }
        })
    })
}

fn proxied<'a>(result: &Result<Header<'a>, Error>, source: &str, destination: &str) -> Header<'a> {
    let header = result.expect("a header");
    let source: SocketAddr = source.parse().unwrap();
    let destination: SocketAddr = destination.parse().unwrap();
    assert_eq!(header.command, Command::Proxy);
    assert_eq!(header.transport, Transport::Stream);
    assert_eq!(header.source(), Some(source));
    assert_eq!(header.destination(), Some(destination));
    assert_eq!(header.tcp(), Ok(Some((source, destination))));
    header
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap();
    [&[kind], &len.to_be_bytes()[..], value].concat()
}

/// A header with these TLVs and no addresses.
fn unspec(tlvs: &[u8]) -> Vec<u8> {
    let len = u16::try_from(tlvs.len()).unwrap();
    [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x00",
        &len.to_be_bytes()[..],
        tlvs,
    ]
    .concat()
}

fn load<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/../../tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn latin1(c: char) -> u8 {
    u8::try_from(u32::from(c)).unwrap()
}
