//! The extensions of version 2: type, length (16 bits, big-endian), value.

use crate::identity::IdentityUri;
use crate::{Error, MeshIdentity, Ssl};

/// The types that have a meaning (§2.2, and ztunnel's own).
pub mod kind {
    /// The application protocol negotiated by ALPN: opaque bytes.
    pub const ALPN: u8 = 0x01;
    /// The host name that the client asked for (SNI): text.
    pub const AUTHORITY: u8 = 0x02;
    /// The CRC32C of the header, taken with this value as zero.
    pub const CRC32C: u8 = 0x03;
    /// Padding, to be ignored.
    pub const NOOP: u8 = 0x04;
    /// An id of the connection: opaque, at most 128 bytes.
    pub const UNIQUE_ID: u8 = 0x05;
    /// What the client's TLS connection was like; has TLVs of its own.
    pub const SSL: u8 = 0x20;
    /// In [`SSL`]: the TLS version, as in `TLSv1.3`.
    pub const SSL_VERSION: u8 = 0x21;
    /// In [`SSL`]: the common name of the client's certificate.
    pub const SSL_CN: u8 = 0x22;
    /// In [`SSL`]: the cipher.
    pub const SSL_CIPHER: u8 = 0x23;
    /// In [`SSL`]: the algorithm that signed the certificate that the client was shown.
    pub const SSL_SIG_ALG: u8 = 0x24;
    /// In [`SSL`]: the algorithm of that certificate's key.
    pub const SSL_KEY_ALG: u8 = 0x25;
    /// The sender's network namespace: text.
    pub const NETNS: u8 = 0x30;
    /// ztunnel: the client's [mesh identity](crate::MeshIdentity).
    pub const MESH_IDENTITY: u8 = 0xD0;
    /// ztunnel: the host name of the service that the client meant. Reserved; not sent so far.
    pub const SERVICE_HOST: u8 = 0xD1;
}

/// The TLVs of a header, in order. They were validated when it was parsed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Tlvs<'a> {
    raw: &'a [u8],
}

/// One TLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// Its type: one of [`kind`] or another.
    pub kind: u8,
    /// Its value.
    pub value: &'a [u8],
}

/// The iterator over [`Tlvs`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

/// The bytes of a TLV in front of its value.
pub(crate) const TLV_PREFIX: usize = 3;

// === impl Tlvs ===

impl<'a> Tlvs<'a> {
    /// For bytes that [`validate`] or [`Ssl`] accepted.
    pub(crate) fn validated(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Iterates over the TLVs, in order.
    pub fn iter(&self) -> Iter<'a> {
        Iter { rest: self.raw }
    }

    /// The value of the first TLV of this type.
    pub fn get(&self, kind: u8) -> Option<&'a [u8]> {
        self.iter()
            .find(|tlv| tlv.kind == kind)
            .map(|tlv| tlv.value)
    }

    /// The application protocol negotiated by ALPN.
    pub fn alpn(&self) -> Option<&'a [u8]> {
        self.get(kind::ALPN)
    }

    /// The host name that the client asked for.
    pub fn authority(&self) -> Option<&'a str> {
        self.text(kind::AUTHORITY)
    }

    /// The id of the connection.
    pub fn unique_id(&self) -> Option<&'a [u8]> {
        self.get(kind::UNIQUE_ID)
    }

    /// What the client's TLS connection was like.
    pub fn ssl(&self) -> Option<Ssl<'a>> {
        self.get(kind::SSL).and_then(|value| Ssl::parse(value).ok())
    }

    /// The sender's network namespace.
    pub fn netns(&self) -> Option<&'a str> {
        self.text(kind::NETNS)
    }

    /// The client's mesh identity; absent when its value is empty.
    pub fn identity(&self) -> Option<MeshIdentity<'a>> {
        self.get(kind::MESH_IDENTITY)
            .and_then(|value| MeshIdentity::parse(value).ok())
    }

    /// The host name of the service that the client meant (0xD1).
    pub fn service_host(&self) -> Option<&'a str> {
        self.text(kind::SERVICE_HOST)
    }

    /// The value of a TLV that was validated as text.
    pub(crate) fn text(&self, kind: u8) -> Option<&'a str> {
        self.get(kind)
            .and_then(|value| std::str::from_utf8(value).ok())
    }
}

impl std::fmt::Debug for Tlvs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Tlvs<'a> {
    type Item = Tlv<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Tlvs<'a> {
    type Item = Tlv<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

// === impl Iter ===

impl<'a> Iterator for Iter<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        let (tlv, rest) = split(self.rest).ok()?;
        self.rest = rest;
        tlv
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

// === validation ===

/// What [`validate`] found out on the way.
#[derive(Debug, Default)]
pub(crate) struct Found<'a> {
    pub(crate) identity: Option<IdentityUri<'a>>,
    /// The checksum, and how many bytes from the start of the TLVs its value is.
    pub(crate) crc32c: Option<(u32, usize)>,
}

/// Checks each TLV of `raw`.
#[inline]
pub(crate) fn validate(raw: &[u8]) -> Result<Found<'_>, Error> {
    let mut found = Found::default();
    let mut seen = Seen::default();
    let mut rest = raw;
    while let (Some(tlv), tail) = split(rest)? {
        check(tlv, &mut seen)?;
        match tlv.kind {
            // An empty value is no identity: ztunnel omits the TLV, others may send it empty.
            kind::MESH_IDENTITY if !tlv.value.is_empty() => {
                found.identity = Some(IdentityUri::parse(tlv.value)?);
            }
            kind::CRC32C => {
                let value = tlv.value.first_chunk().copied().unwrap_or_default();
                let at = raw.len() - rest.len() + TLV_PREFIX;
                found.crc32c = Some((u32::from_be_bytes(value), at));
            }
            _ => {}
        }
        rest = tail;
    }
    Ok(found)
}

/// Checks one TLV, except for the identity's syntax and the checksum's value.
pub(crate) fn check(tlv: Tlv<'_>, seen: &mut Seen) -> Result<(), Error> {
    let Tlv { kind, value } = tlv;
    let legal_length = match kind {
        kind::CRC32C => value.len() == 4,
        kind::UNIQUE_ID => value.len() <= UNIQUE_ID_MAX,
        kind::AUTHORITY | kind::NETNS | kind::SERVICE_HOST => {
            check_text(tlv)?;
            true
        }
        kind::SSL => {
            Ssl::parse(value)?;
            true
        }
        kind::ALPN | kind::MESH_IDENTITY => true,
        _ => return Ok(()), // §2.2.7: unknown types are skipped, as is padding
    };
    if !legal_length {
        let len = value.len();
        return Err(Error::TlvLength { kind, len });
    }
    seen.once(kind)
}

/// Fails unless the value is UTF-8 without control characters, which could forge log lines and
/// header fields where the text is copied to.
pub(crate) fn check_text(tlv: Tlv<'_>) -> Result<(), Error> {
    let printable = |text: &str| !text.bytes().any(|b| b.is_ascii_control());
    match std::str::from_utf8(tlv.value) {
        Ok(text) if printable(text) => Ok(()),
        _ => Err(Error::TlvText { kind: tlv.kind }),
    }
}

/// The types seen so far of those that may be there only once: two identities, or two names, are a
/// disagreement between parsers waiting to happen (Envoy takes the first).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    low: u64,
    mesh: u8,
}

impl Seen {
    /// Fails the second time it sees `kind`. Types are below 0x40 or one of 0xD0–0xD7.
    pub(crate) fn once(&mut self, kind: u8) -> Result<(), Error> {
        let twice = if kind < 0x40 {
            let bit = 1 << kind;
            let twice = self.low & bit != 0;
            self.low |= bit;
            twice
        } else {
            let bit = 1 << (kind & 7);
            let twice = self.mesh & bit != 0;
            self.mesh |= bit;
            twice
        };
        if twice {
            return Err(Error::TlvDuplicate { kind });
        }
        Ok(())
    }
}

/// Splits off the first TLV; none when `raw` is empty.
#[inline]
pub(crate) fn split(raw: &[u8]) -> Result<(Option<Tlv<'_>>, &[u8]), Error> {
    let Some((&[kind, high, low], rest)) = raw.split_first_chunk::<TLV_PREFIX>() else {
        return match TLV_PREFIX - raw.len() {
            TLV_PREFIX => Ok((None, raw)),
            excess => Err(Error::TlvTruncated { excess }),
        };
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    match rest.split_at_checked(len) {
        Some((value, rest)) => Ok((Some(Tlv { kind, value }), rest)),
        None => Err(Error::TlvTruncated {
            excess: len - rest.len(),
        }),
    }
}

/// §2.2.5: "up to 128 bytes".
const UNIQUE_ID_MAX: usize = 128;
