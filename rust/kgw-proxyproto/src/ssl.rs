//! The SSL TLV: what the connection between the client and the sender was like.

use crate::tlv::{self, Seen, kind};
use crate::{Error, Tlvs};

/// The value of the SSL TLV (§2.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ssl<'a> {
    /// Bits of [`Ssl::TLS`], [`Ssl::CERT_CONN`] and [`Ssl::CERT_SESS`].
    pub client: u8,
    /// 0 when the client presented a certificate that was verified; otherwise the sender's reason,
    /// or that there was none.
    pub verify: u32,
    /// The TLVs inside.
    pub sub_tlvs: Tlvs<'a>,
}

impl<'a> Ssl<'a> {
    /// In [`Ssl::client`]: the client connected over TLS.
    pub const TLS: u8 = 0x01;
    /// In [`Ssl::client`]: it presented a certificate on this connection.
    pub const CERT_CONN: u8 = 0x02;
    /// In [`Ssl::client`]: it presented a certificate in the TLS session that this connection is of.
    pub const CERT_SESS: u8 = 0x04;

    /// One with no TLVs inside.
    pub fn new(client: u8, verify: u32) -> Self {
        Self {
            client,
            verify,
            sub_tlvs: Tlvs::default(),
        }
    }

    /// Parses the value of the TLV, and all TLVs inside.
    pub(crate) fn parse(value: &'a [u8]) -> Result<Self, Error> {
        let Some((&[client, a, b, c, d], sub_tlvs)) = value.split_first_chunk::<SSL_PREFIX>()
        else {
            return Err(Error::TlvLength {
                kind: kind::SSL,
                len: value.len(),
            });
        };
        let mut seen = Seen::default();
        let mut rest = sub_tlvs;
        while let (Some(tlv), tail) = tlv::split(rest)? {
            if (kind::SSL_VERSION..=kind::SSL_KEY_ALG).contains(&tlv.kind) {
                seen.once(tlv.kind)?;
                tlv::check_text(tlv)?;
            }
            rest = tail;
        }
        Ok(Self {
            client,
            verify: u32::from_be_bytes([a, b, c, d]),
            sub_tlvs: Tlvs::validated(sub_tlvs),
        })
    }

    /// Whether the client connected over TLS.
    pub fn is_tls(&self) -> bool {
        self.client & Self::TLS != 0
    }

    /// Whether the client presented a certificate, on this connection or earlier in its TLS session,
    /// that was verified. (§2.2.6: `verify` alone means nothing without a certificate.)
    pub fn is_verified(&self) -> bool {
        self.client & (Self::CERT_CONN | Self::CERT_SESS) != 0 && self.verify == 0
    }

    /// The TLS version, as in `TLSv1.3`.
    pub fn version(&self) -> Option<&'a str> {
        self.sub_tlvs.text(kind::SSL_VERSION)
    }

    /// The common name of the client's certificate.
    pub fn cn(&self) -> Option<&'a str> {
        self.sub_tlvs.text(kind::SSL_CN)
    }

    /// The cipher, as in `ECDHE-RSA-AES128-GCM-SHA256`.
    pub fn cipher(&self) -> Option<&'a str> {
        self.sub_tlvs.text(kind::SSL_CIPHER)
    }

    /// The algorithm that signed the certificate that the client was shown, as in `SHA256`.
    pub fn sig_alg(&self) -> Option<&'a str> {
        self.sub_tlvs.text(kind::SSL_SIG_ALG)
    }

    /// The algorithm of that certificate's key, as in `RSA2048`.
    pub fn key_alg(&self) -> Option<&'a str> {
        self.sub_tlvs.text(kind::SSL_KEY_ALG)
    }
}

/// `client` and `verify`.
const SSL_PREFIX: usize = 5;
