//! What is known about a TLS session, for logs.

use std::cell::OnceCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use rustls::pki_types::CertificateDer;
use rustls::{CommonState, HandshakeKind, NamedGroup};
use x509_parser::extensions::GeneralName;

use super::names::is_clean;
use super::parameters::{spellings, version_name};
use super::x509;

/// A TLS session as logs see it. What the peer's certificate says is read when it is asked for.
#[derive(Debug)]
pub struct TlsInfo {
    pub(super) server_name: Option<Box<str>>,
    pub(super) alpn: Option<Box<[u8]>>,
    pub(super) version: &'static str,
    pub(super) cipher: &'static str,
    pub(super) cipher_id: Option<u16>,
    pub(super) group: Option<&'static str>,
    pub(super) is_resumed: bool,
    pub(super) peer: Option<Peer>,
}

/// Whom the session is with.
#[derive(Debug)]
pub(super) struct Peer {
    /// Leaf first; not empty.
    chain: Box<[CertificateDer<'static>]>,
    is_verified: bool,
    details: OnceCell<Box<Details>>,
}

/// What a certificate says, as texts; an empty one is nothing. Names in lists are separated by
/// commas.
#[derive(Debug, Default)]
struct Details {
    subject: String,
    issuer: String,
    serial: String,
    fingerprint_1: String,
    fingerprint_256: String,
    chain_serials: String,
    chain_fingerprints_1: String,
    chain_fingerprints_256: String,
    dns_names: String,
    uris: String,
    first_dns_name: String,
    first_uri: String,
    addresses: String,
    emails: String,
    pem: String,
    /// First and last second of its validity. Seconds since 1970 UTC.
    validity: Option<(i64, i64)>,
}

impl TlsInfo {
    /// Looks at a session after its handshake.
    pub(super) fn new(session: &CommonState, server_name: Option<&str>, is_verified: bool) -> Self {
        let peer = session
            .peer_certificates()
            .filter(|chain| !chain.is_empty())
            .map(|chain| Peer {
                chain: chain.into(),
                is_verified,
                details: OnceCell::new(),
            });
        Self {
            server_name: server_name.map(Box::from),
            alpn: session.alpn_protocol().map(Box::from),
            version: session.protocol_version().map_or("unknown", version_name),
            cipher: session
                .negotiated_cipher_suite()
                .map_or("unknown", |suite| spellings(&suite).1),
            cipher_id: session
                .negotiated_cipher_suite()
                .map(|suite| suite.suite().into()),
            group: session
                .negotiated_key_exchange_group()
                .and_then(|group| group_name(group.name())),
            is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            peer,
        }
    }

    /// The server name asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The application protocol agreed on, e.g. `h2`.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The cipher suite, as OpenSSL spells it.
    pub fn cipher(&self) -> &'static str {
        self.cipher
    }

    /// The number of the cipher suite (IANA's TLS Cipher Suites).
    pub fn cipher_id(&self) -> Option<u16> {
        self.cipher_id
    }

    /// The key exchange group, as `BoringSSL` spells it, e.g. `X25519` or `P-256`.
    pub fn group(&self) -> Option<&'static str> {
        self.group
    }

    /// Whether the session continues an earlier one.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Whether the peer proved to be who its certificate says: it has one, and that is trusted and
    /// has an expected name. What else is said about the peer is only what it claims.
    pub fn is_peer_verified(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.is_verified)
    }

    /// The certificate's subject, in the form of RFC 2253.
    pub fn peer_subject(&self) -> Option<&str> {
        self.detail(|details| &details.subject)
    }

    /// The certificate's issuer, in the form of RFC 2253.
    pub fn peer_issuer(&self) -> Option<&str> {
        self.detail(|details| &details.issuer)
    }

    /// The certificate's serial number, in hexadecimal digits.
    pub fn peer_serial(&self) -> Option<&str> {
        self.detail(|details| &details.serial)
    }

    /// SHA-1 of the certificate, in hexadecimal digits.
    pub fn peer_fingerprint_1(&self) -> Option<&str> {
        self.detail(|details| &details.fingerprint_1)
    }

    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fn peer_fingerprint_256(&self) -> Option<&str> {
        self.detail(|details| &details.fingerprint_256)
    }

    /// The serial numbers of the chain, leaf first, separated by commas.
    pub fn peer_chain_serials(&self) -> Option<&str> {
        self.detail(|details| &details.chain_serials)
    }

    /// SHA-1 of each certificate of the chain, leaf first, separated by commas.
    pub fn peer_chain_fingerprints_1(&self) -> Option<&str> {
        self.detail(|details| &details.chain_fingerprints_1)
    }

    /// SHA-256 of each certificate of the chain, leaf first, separated by commas.
    pub fn peer_chain_fingerprints_256(&self) -> Option<&str> {
        self.detail(|details| &details.chain_fingerprints_256)
    }

    /// The certificate's DNS names, separated by commas.
    pub fn peer_dns_names(&self) -> Option<&str> {
        self.detail(|details| &details.dns_names)
    }

    /// The certificate's URIs, separated by commas.
    pub fn peer_uris(&self) -> Option<&str> {
        self.detail(|details| &details.uris)
    }

    /// The first of the certificate's DNS names.
    pub fn peer_first_dns_name(&self) -> Option<&str> {
        self.detail(|details| &details.first_dns_name)
    }

    /// The first of the certificate's URIs, in which there may be commas.
    pub fn peer_first_uri(&self) -> Option<&str> {
        self.detail(|details| &details.first_uri)
    }

    /// The certificate's IP addresses, separated by commas.
    pub fn peer_addresses(&self) -> Option<&str> {
        self.detail(|details| &details.addresses)
    }

    /// The certificate's mail addresses, separated by commas.
    pub fn peer_emails(&self) -> Option<&str> {
        self.detail(|details| &details.emails)
    }

    /// The certificate in PEM, percent-encoded.
    pub fn peer_certificate(&self) -> Option<&str> {
        self.detail(|details| &details.pem)
    }

    /// Whether the peer has shown a certificate, trusted or not.
    pub fn has_peer_certificate(&self) -> bool {
        self.peer.is_some()
    }

    /// The chain in PEM, leaf first, percent-encoded; made anew each time.
    pub fn peer_chain_certificates(&self) -> String {
        let chain = self.peer.iter().flat_map(|peer| &peer.chain);
        chain.map(percent_encoded_pem).collect()
    }

    /// First and last second of the certificate's validity. Seconds since 1970 UTC.
    pub fn peer_validity(&self) -> Option<(i64, i64)> {
        self.peer.as_ref()?.details().validity
    }

    fn detail(&self, of: impl Fn(&Details) -> &String) -> Option<&str> {
        let text = of(self.peer.as_ref()?.details());
        (!text.is_empty()).then_some(text)
    }
}

impl Peer {
    fn details(&self) -> &Details {
        self.details
            .get_or_init(|| Box::new(Details::of(&self.chain)))
    }
}

impl Details {
    fn of(chain: &[CertificateDer<'_>]) -> Self {
        let Some(leaf) = chain.first() else {
            return Self::default();
        };
        let list = |of: &dyn Fn(&CertificateDer<'_>) -> String| {
            chain.iter().map(of).collect::<Vec<_>>().join(",")
        };
        let details = Self {
            fingerprint_1: fingerprint_1(leaf),
            fingerprint_256: fingerprint_256(leaf),
            chain_serials: list(&|der| {
                x509::parse(der)
                    .as_ref()
                    .map(x509::serial)
                    .unwrap_or_default()
            }),
            chain_fingerprints_1: list(&fingerprint_1),
            chain_fingerprints_256: list(&fingerprint_256),
            pem: percent_encoded_pem(leaf),
            ..Self::default()
        };
        let Some(parsed) = x509::parse(leaf) else {
            return details;
        };
        let names = x509::alternative_names(&parsed);
        let join = |of: &dyn Fn(&GeneralName<'_>) -> Option<String>| {
            names.iter().filter_map(of).collect::<Vec<_>>().join(",")
        };
        let clean = |name: &str| is_clean(name).then(|| name.to_owned());
        let first = |of: &dyn Fn(&GeneralName<'_>) -> Option<String>| {
            names.iter().find_map(of).unwrap_or_default()
        };
        let dns_name: &dyn Fn(&GeneralName<'_>) -> Option<String> = &|name| match name {
            GeneralName::DNSName(name) => clean(name),
            _ => None,
        };
        let uri: &dyn Fn(&GeneralName<'_>) -> Option<String> = &|name| match name {
            GeneralName::URI(uri) => clean(uri),
            _ => None,
        };
        let validity = parsed.validity();
        Self {
            subject: x509::distinguished_name(parsed.subject()),
            issuer: x509::distinguished_name(parsed.issuer()),
            serial: x509::serial(&parsed),
            dns_names: join(dns_name),
            uris: join(uri),
            first_dns_name: first(dns_name),
            first_uri: first(uri),
            addresses: join(&|name| match name {
                GeneralName::IPAddress(bytes) => Some(x509::address(bytes)?.to_string()),
                _ => None,
            }),
            emails: join(&|name| match name {
                GeneralName::RFC822Name(name) => clean(name),
                _ => None,
            }),
            validity: Some((
                validity.not_before.timestamp(),
                validity.not_after.timestamp(),
            )),
            ..details
        }
    }
}

fn fingerprint_1(der: &CertificateDer<'_>) -> String {
    x509::hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref())
}

fn fingerprint_256(der: &CertificateDer<'_>) -> String {
    x509::hex(digest::digest(&digest::SHA256, der).as_ref())
}

/// PEM as Envoy writes it into one line: what a URL gives a meaning is escaped.
fn percent_encoded_pem(der: &CertificateDer<'_>) -> String {
    let mut text = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    for (index, character) in STANDARD.encode(der).chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push_str("%0A");
        }
        match character {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            plain => text.push(plain),
        }
    }
    text.push_str("%0A-----END%20CERTIFICATE-----%0A");
    text
}

fn group_name(group: NamedGroup) -> Option<&'static str> {
    match group {
        NamedGroup::secp256r1 => Some("P-256"),
        NamedGroup::secp384r1 => Some("P-384"),
        NamedGroup::secp521r1 => Some("P-521"),
        other => other.as_str(),
    }
}
