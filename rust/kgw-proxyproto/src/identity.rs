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
        check(trust_domain, IdentityPart::TrustDomain)?;
        check(namespace, IdentityPart::Namespace)?;
        check(service_account, IdentityPart::ServiceAccount)?;
        identity.check_lengths()
    }

    /// Parses the URI, `spiffe://` included.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] unless it has exactly the five segments that Istio writes.
    pub fn parse(uri: &'a [u8]) -> Result<Self, Error> {
        let uri = std::str::from_utf8(uri).map_err(|_| invalid(IdentityPart::Scheme))?;
        let rest = uri
            .strip_prefix("spiffe://")
            .ok_or(invalid(IdentityPart::Scheme))?;
        let (trust_domain, rest) = segment(rest).ok_or(invalid(IdentityPart::TrustDomain))?;
        check(trust_domain, IdentityPart::TrustDomain)?;
        let (namespace, rest) = rest
            .strip_prefix("ns/")
            .and_then(segment)
            .ok_or(invalid(IdentityPart::Namespace))?;
        check(namespace, IdentityPart::Namespace)?;
        let service_account = rest
            .strip_prefix("sa/")
            .ok_or(invalid(IdentityPart::ServiceAccount))?;
        check(service_account, IdentityPart::ServiceAccount)?;
        Self {
            trust_domain,
            namespace,
            service_account,
        }
        .check_lengths()
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

    /// SPIFFE-ID §2.3: 2,048 bytes in all, 255 for the trust domain.
    fn check_lengths(self) -> Result<Self, Error> {
        if self.trust_domain.len() > 255 {
            return Err(invalid(IdentityPart::TrustDomain));
        }
        if self.uri_len() > 2048 {
            return Err(invalid(IdentityPart::Length));
        }
        Ok(self)
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

/// Splits off what precedes the first slash.
fn segment(text: &str) -> Option<(&str, &str)> {
    let slash = text.bytes().position(|b| b == b'/')?;
    Some((text.get(..slash)?, text.get(slash + 1..)?))
}

fn check(part: &str, which: IdentityPart) -> Result<(), Error> {
    // Folded rather than short-circuited: the loop becomes vector instructions.
    let legal = part.bytes().fold(true, |legal, b| {
        legal & (b.is_ascii_alphanumeric() | matches!(b, b'-' | b'.' | b'_'))
    });
    if !legal || matches!(part, "" | "." | "..") {
        return Err(invalid(which));
    }
    Ok(())
}

fn invalid(part: IdentityPart) -> Error {
    Error::Identity { part }
}

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
