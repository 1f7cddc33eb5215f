//! The identity of a mesh workload: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::fmt;

use crate::{Error, IdentityPart};

/// Who a mesh workload is, as its mTLS certificate says.
///
/// Each part is non-empty and made of ASCII letters, digits, `-`, `.` and `_` only (the SPIFFE-ID
/// specification §2; its ban on upper case in trust domains is not enforced, as Istio does not), so
/// a part can be put in a header, a log line or a policy pattern as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct MeshIdentity<'a> {
    /// The trust domain, as in `cluster.local`; at most 255 bytes.
    pub trust_domain: &'a str,
    /// The Kubernetes namespace.
    pub namespace: &'a str,
    /// The Kubernetes service account.
    pub service_account: &'a str,
}

/// An identity within its URI. Half the size of [`MeshIdentity`]: a header is moved a few times, and
/// above 128 bytes each move is a call of `memmove` (8 of 56 ns, benches/parse.rs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdentityUri<'a> {
    /// The URI without `spiffe://`.
    segments: &'a str,
    /// The length of the trust domain, with which it begins.
    trust_domain: u16,
    /// The length of the namespace.
    namespace: u16,
}

// === impl MeshIdentity ===

impl<'a> MeshIdentity<'a> {
    /// The identity of these parts.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] for a part that is empty, too long or has other characters.
    pub fn new(
        trust_domain: &'a str,
        namespace: &'a str,
        service_account: &'a str,
    ) -> Result<Self, Error> {
        let identity = Self {
            trust_domain,
            namespace,
            service_account,
        };
        for (text, part) in [
            (trust_domain, IdentityPart::TrustDomain),
            (namespace, IdentityPart::Namespace),
            (service_account, IdentityPart::ServiceAccount),
        ] {
            if !is_segment(text.as_bytes()) {
                return Err(invalid(part));
            }
        }
        if trust_domain.len() > TRUST_DOMAIN_MAX {
            return Err(invalid(IdentityPart::TrustDomain));
        }
        if identity.uri_len() > URI_MAX {
            return Err(invalid(IdentityPart::Length));
        }
        Ok(identity)
    }

    /// Parses the URI, `spiffe://` included.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] unless it has exactly the five segments that Istio writes.
    pub fn parse(uri: &'a [u8]) -> Result<Self, Error> {
        IdentityUri::parse(uri).map(IdentityUri::identity)
    }

    /// The URI, as [`Display`](fmt::Display) writes it.
    pub fn uri(&self) -> String {
        self.to_string()
    }

    /// The length of the URI, in bytes.
    pub(crate) fn uri_len(&self) -> usize {
        "spiffe:///ns//sa/".len()
            + self.trust_domain.len()
            + self.namespace.len()
            + self.service_account.len()
    }
}

// === impl IdentityUri ===

impl<'a> IdentityUri<'a> {
    /// See [`MeshIdentity::parse`].
    #[inline]
    pub(crate) fn parse(uri: &'a [u8]) -> Result<Self, Error> {
        Self::well_formed(uri).ok_or_else(|| fault(uri))
    }

    /// One pass over all segments, by table, then their ends: half the time of checking each segment
    /// on its own with the reason at hand (benches/parse.rs).
    #[inline]
    fn well_formed(uri: &'a [u8]) -> Option<Self> {
        let segments = uri.strip_prefix(b"spiffe://")?;
        let legal = segments
            .iter()
            .fold(true, |legal, &b| legal & LEGAL.contains(b));
        let (trust_domain, rest) = before_slash(segments)?;
        let (namespace, rest) = before_slash(rest.strip_prefix(b"ns/")?)?;
        let service_account = rest.strip_prefix(b"sa/")?;
        let well_formed = legal
            & !service_account.contains(&b'/')
            & is_name(trust_domain)
            & is_name(namespace)
            & is_name(service_account)
            & (uri.len() <= URI_MAX)
            & (trust_domain.len() <= TRUST_DOMAIN_MAX);
        if !well_formed {
            return None;
        }
        Some(Self {
            segments: std::str::from_utf8(segments).ok()?,
            trust_domain: u16::try_from(trust_domain.len()).ok()?,
            namespace: u16::try_from(namespace.len()).ok()?,
        })
    }

    /// The parts.
    pub(crate) fn identity(self) -> MeshIdentity<'a> {
        let namespace_at = usize::from(self.trust_domain) + "/ns/".len();
        let namespace_end = namespace_at + usize::from(self.namespace);
        let part = |range| self.segments.get(range).unwrap_or_default();
        MeshIdentity {
            trust_domain: part(0..usize::from(self.trust_domain)),
            namespace: part(namespace_at..namespace_end),
            service_account: part(namespace_end + "/sa/".len()..self.segments.len()),
        }
    }
}

impl fmt::Display for MeshIdentity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

/// Which part of a URI that is not well-formed is at fault.
#[cold]
fn fault(uri: &[u8]) -> Error {
    let part = || {
        let rest = uri.strip_prefix(b"spiffe://").ok_or(IdentityPart::Scheme)?;
        let (trust_domain, rest) = before_slash(rest).ok_or(IdentityPart::TrustDomain)?;
        if !is_segment(trust_domain) || trust_domain.len() > TRUST_DOMAIN_MAX {
            return Err(IdentityPart::TrustDomain);
        }
        let (namespace, rest) = rest
            .strip_prefix(b"ns/")
            .and_then(before_slash)
            .ok_or(IdentityPart::Namespace)?;
        if !is_segment(namespace) {
            return Err(IdentityPart::Namespace);
        }
        match rest.strip_prefix(b"sa/") {
            Some(service_account) if is_segment(service_account) => Ok(()),
            _ => Err(IdentityPart::ServiceAccount),
        }
    };
    invalid(part().err().unwrap_or(IdentityPart::Length))
}

/// Splits at the first slash.
#[inline]
fn before_slash(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = text.iter().position(|&b| b == b'/')?;
    Some((text.get(..slash)?, text.get(slash + 1..)?))
}

fn is_segment(text: &[u8]) -> bool {
    is_name(text) && text.iter().all(|&b| b != b'/' && LEGAL.contains(b))
}

/// Whether a segment is neither empty nor relative.
#[inline]
fn is_name(segment: &[u8]) -> bool {
    !matches!(segment, b"" | b"." | b"..")
}

fn invalid(part: IdentityPart) -> Error {
    Error::Identity { part }
}

/// The most bytes of an identity and of a trust domain (SPIFFE-ID §2.3).
const URI_MAX: usize = 2048;
const TRUST_DOMAIN_MAX: usize = 255;

/// A set of bytes.
struct Bytes([bool; 256]);

impl Bytes {
    #[inline]
    #[allow(clippy::indexing_slicing)] // every byte is in the table
    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }
}

/// What a segment is made of, and the slash between segments.
static LEGAL: Bytes = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        #[allow(clippy::indexing_slicing, clippy::as_conversions)] // evaluated by the compiler
        {
            table[byte as usize] =
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/');
        }
        byte += 1;
    }
    Bytes(table)
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_text() {
        let uri = "spiffe://cluster.local/ns/default/sa/curl";
        let identity = MeshIdentity::parse(uri.as_bytes()).unwrap();
        assert_eq!(identity.trust_domain, "cluster.local");
        assert_eq!(identity.namespace, "default");
        assert_eq!(identity.service_account, "curl");
        assert_eq!(identity.uri(), uri);
        assert_eq!(identity.uri_len(), uri.len());
        assert_eq!(
            Ok(identity),
            MeshIdentity::new("cluster.local", "default", "curl")
        );
    }

    #[test]
    fn everything_else_is_malformed() {
        use IdentityPart::{Length, Namespace, Scheme, ServiceAccount, TrustDomain};
        let long = format!("spiffe://td/ns/{}/sa/x", "n".repeat(2048));
        let long_domain = format!("spiffe://{}/ns/n/sa/x", "t".repeat(256));
        for (uri, part) in [
            ("", Scheme),
            ("cluster.local/ns/a/sa/b", Scheme),
            ("SPIFFE://td/ns/a/sa/b", Scheme),
            ("https://td/ns/a/sa/b", Scheme),
            ("spiffe://", TrustDomain),
            ("spiffe:///ns/a/sa/b", TrustDomain),
            ("spiffe://td", TrustDomain),
            ("spiffe://t:1/ns/a/sa/b", TrustDomain),
            ("spiffe://t\u{e9}/ns/a/sa/b", TrustDomain),
            (&long_domain, TrustDomain),
            ("spiffe://td/", Namespace),
            ("spiffe://td/ns/a", Namespace),
            ("spiffe://td/ns//sa/b", Namespace),
            ("spiffe://td/ns/../sa/b", Namespace),
            ("spiffe://td/sa/b/ns/a", Namespace),
            ("spiffe://td/ns/a%2f/sa/b", Namespace),
            ("spiffe://td/ns/a/sa/", ServiceAccount),
            ("spiffe://td/ns/a/sb/b", ServiceAccount),
            ("spiffe://td/ns/a/sa/b/", ServiceAccount),
            ("spiffe://td/ns/a/sa/b/c", ServiceAccount),
            ("spiffe://td/ns/a/sa/b\r\nx-admin: 1", ServiceAccount),
            ("spiffe://td/ns/a/sa/b*", ServiceAccount),
            ("spiffe://td/ns/a/sa/b\0", ServiceAccount),
            (&long, Length),
        ] {
            let result = MeshIdentity::parse(uri.as_bytes());
            assert_eq!(result, Err(Error::Identity { part }), "{uri:?}");
        }
        assert!(MeshIdentity::parse(b"spiffe://td/ns/\xff/sa/b").is_err());
        assert!(MeshIdentity::new("td", "a/b", "c").is_err());
    }
}
