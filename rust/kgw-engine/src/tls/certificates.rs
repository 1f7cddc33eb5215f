//! The proxy's own certificates, and certificate authorities.

use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::names::{is_clean, normalized, stands_for};
use super::{ConfigError, provider, x509};
use crate::config::ir::Certificate;

/// Reads a certificate with its chain and key.
pub(super) fn certified_key(certificate: &Certificate) -> Result<Arc<CertifiedKey>, ConfigError> {
    let chain = chain(&certificate.chain)?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())
        .map_err(|_| ConfigError::new("the key is not in PEM, or of no known form"))?;
    // rustls' own words about keys are left out: nothing of a key gets into a text.
    let certified =
        CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                ConfigError::new("the key is not that of the certificate")
            }
            _ => ConfigError::new("the key or the certificate cannot be used"),
        })?;
    Ok(Arc::new(certified))
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ConfigError::new(format!("the certificate is not in PEM: {error}")))?;
    if chain.is_empty() {
        return Err(ConfigError::new("there is no certificate in the PEM"));
    }
    Ok(chain)
}

/// Certificate authorities, and certificates that are trusted as they are.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) roots: Arc<RootCertStore>,
    /// The same in DER, for those that are shown as leaves themselves. Empty for the system's.
    pub(super) certificates: Box<[CertificateDer<'static>]>,
}

impl Trusted {
    /// Reads a bundle, each certificate of which must be one.
    pub(super) fn bundle(pem: &str) -> Result<Self, ConfigError> {
        let certificates = chain(pem)?;
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            roots.add(certificate.clone()).map_err(|error| {
                let at = index + 1;
                ConfigError::new(format!("certificate {at} of the bundle: {error}"))
            })?;
        }
        Ok(Self {
            roots: Arc::new(roots),
            certificates: certificates.into_boxed_slice(),
        })
    }

    /// The operating system's certificate authorities; read once, and not by a worker.
    pub(super) fn system() -> Result<Self, ConfigError> {
        static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
        let roots = SYSTEM.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        });
        if roots.is_empty() {
            return Err(ConfigError::new(
                "the system has no certificate authorities",
            ));
        }
        Ok(Self {
            roots: Arc::clone(roots),
            certificates: Box::default(),
        })
    }
}

/// Chooses among several certificates.
#[derive(Debug)]
pub(super) struct Certificates(Box<[Named]>);

#[derive(Debug)]
struct Named {
    key: Arc<CertifiedKey>,
    /// DNS names, normalized.
    names: Box<[String]>,
}

impl Certificates {
    pub(super) fn compile(certificates: &[Certificate]) -> Result<Self, ConfigError> {
        if certificates.is_empty() {
            return Err(ConfigError::new("there is no certificate"));
        }
        certificates
            .iter()
            .map(|certificate| {
                let key = certified_key(certificate)?;
                let names = key.cert.first().map(|leaf| dns_names(leaf));
                Ok(Named {
                    key,
                    names: names.unwrap_or_default(),
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl ResolvesServerCert for Certificates {
    /// The first whose names include the server name and whose key suits the client, one with the
    /// name itself before one with a wildcard; else the first whose key suits.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let suits = |named: &&Named| {
            let key = &named.key.key;
            key.choose_scheme(hello.signature_schemes()).is_some()
        };
        let usable = || self.0.iter().filter(suits);
        let name = hello.server_name().map(normalized);
        let by_name = name.as_ref().and_then(|name| {
            let exact = usable().find(|named| named.names.contains(name));
            exact.or_else(|| {
                usable().find(|named| {
                    let mut patterns = named.names.iter();
                    patterns.any(|pattern| stands_for(pattern, name))
                })
            })
        });
        by_name
            .or_else(|| usable().next())
            .map(|named| Arc::clone(&named.key))
    }
}

/// The DNS names of the first certificate in PEM.
pub(super) fn names(pem: &str) -> Vec<String> {
    let leaf = CertificateDer::pem_slice_iter(pem.as_bytes()).next();
    leaf.and_then(Result::ok)
        .map_or_else(Vec::new, |leaf| dns_names(&leaf).into_vec())
}

/// The DNS names of a certificate.
fn dns_names(leaf: &CertificateDer<'_>) -> Box<[String]> {
    let Some(parsed) = x509::parse(leaf) else {
        return Box::default();
    };
    x509::alternative_names(&parsed)
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) if is_clean(name) => Some(normalized(name)),
            _ => None,
        })
        .collect()
}
