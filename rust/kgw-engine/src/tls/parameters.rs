//! Versions and cipher suites.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{
    NamedGroup, ProtocolVersion, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
    version,
};

use super::{ConfigError, provider};
use crate::config::ir::{TlsParameters, TlsVersion};

/// Versions and cipher suites in rustls' terms.
#[derive(Debug)]
pub(super) struct Parameters {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
}

impl Parameters {
    pub(super) fn compile(parameters: &TlsParameters) -> Result<Self, ConfigError> {
        let min = parameters.min_version.unwrap_or(TlsVersion::V12);
        let max = parameters.max_version.unwrap_or(TlsVersion::V13);
        if min > max {
            return Err(ConfigError::new(
                "the lowest TLS version is higher than the highest",
            ));
        }
        let versions: Vec<_> = [
            (TlsVersion::V13, &version::TLS13),
            (TlsVersion::V12, &version::TLS12),
        ]
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version))
        .map(|(_, version)| version)
        .collect();
        let mut provider = CryptoProvider::clone(provider());
        if !parameters.cipher_suites.is_empty() {
            provider.cipher_suites = suites(&parameters.cipher_suites)?;
        }
        if !parameters.curves.is_empty() {
            provider.kx_groups = curves(&parameters.curves)?;
        }
        // Suites of other versions would not be used, and yet let keys seem to suit that do not.
        provider.cipher_suites.retain(|suite| {
            let mut versions = versions.iter();
            versions.any(|version| version.version == suite.version().version)
        });
        if provider.cipher_suites.is_empty() {
            return Err(ConfigError::new(
                "none of the cipher suites is of an enabled TLS version",
            ));
        }
        Ok(Self {
            provider: Arc::new(provider),
            versions,
        })
    }
}

/// The curves of `names`, in their order.
fn curves(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, ConfigError> {
    let all = &provider().kx_groups;
    let curve = |name: &String| {
        let group = match name.as_str() {
            "X25519" => NamedGroup::X25519,
            "P-256" => NamedGroup::secp256r1,
            "P-384" => NamedGroup::secp384r1,
            _ => return Err(ConfigError::new(format!("no curve {name:?}"))),
        };
        let found = all.iter().find(|one| one.name() == group).copied();
        found.ok_or_else(|| ConfigError::new(format!("no curve {name:?}")))
    };
    names.iter().map(curve).collect()
}

/// The algorithms of signatures of `names`, in their order.
pub(super) fn signature_schemes(names: &[String]) -> Result<Vec<SignatureScheme>, ConfigError> {
    let scheme = |name: &String| {
        Ok(match name.as_str() {
            "ecdsa_secp256r1_sha256" => SignatureScheme::ECDSA_NISTP256_SHA256,
            "ecdsa_secp384r1_sha384" => SignatureScheme::ECDSA_NISTP384_SHA384,
            "ed25519" => SignatureScheme::ED25519,
            "rsa_pkcs1_sha256" => SignatureScheme::RSA_PKCS1_SHA256,
            "rsa_pkcs1_sha384" => SignatureScheme::RSA_PKCS1_SHA384,
            "rsa_pkcs1_sha512" => SignatureScheme::RSA_PKCS1_SHA512,
            "rsa_pss_rsae_sha256" => SignatureScheme::RSA_PSS_SHA256,
            "rsa_pss_rsae_sha384" => SignatureScheme::RSA_PSS_SHA384,
            "rsa_pss_rsae_sha512" => SignatureScheme::RSA_PSS_SHA512,
            _ => return Err(ConfigError::new(format!("no signature algorithm {name:?}"))),
        })
    };
    names.iter().map(scheme).collect()
}

/// The suites of `names` in their order, and all of TLS 1.3: no configuration of Envoy's can take
/// those away.
fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, ConfigError> {
    let all = &provider().cipher_suites;
    let mut suites: Vec<SupportedCipherSuite> = Vec::new();
    let mut add = |suite: SupportedCipherSuite| {
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    };
    for entry in names {
        // BoringSSL: suites in brackets are equally good; the client's order decides. Here the order
        // of the list does.
        let group = entry
            .strip_prefix('[')
            .and_then(|entry| entry.strip_suffix(']'))
            .unwrap_or(entry);
        for name in group.split(['|', ':']) {
            let name = name.trim();
            let suite = all.iter().find(|suite| {
                let (iana, openssl) = spellings(suite);
                name.eq_ignore_ascii_case(iana) || name.eq_ignore_ascii_case(openssl)
            });
            add(*suite.ok_or_else(|| unknown(name, all))?);
        }
    }
    for suite in all {
        if suite.tls13().is_some() {
            add(*suite);
        }
    }
    Ok(suites)
}

fn unknown(name: &str, all: &[SupportedCipherSuite]) -> ConfigError {
    let mut text = format!("no cipher suite {name:?}; there are");
    for (index, suite) in all.iter().enumerate() {
        let (iana, openssl) = spellings(suite);
        text.push_str(if index > 0 { ", " } else { " " });
        text.push_str(iana);
        if openssl != iana {
            text.push_str(" (");
            text.push_str(openssl);
            text.push(')');
        }
    }
    ConfigError(text.into())
}

/// The IANA's and OpenSSL's name of a suite; Envoy uses the latter.
pub(super) fn spellings(suite: &SupportedCipherSuite) -> (&'static str, &'static str) {
    use rustls::CipherSuite as Suite;
    match suite.suite() {
        Suite::TLS13_AES_128_GCM_SHA256 => ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        Suite::TLS13_AES_256_GCM_SHA384 => ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        Suite::TLS13_CHACHA20_POLY1305_SHA256 => (
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_CHACHA20_POLY1305_SHA256",
        ),
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => (
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => (
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
        ),
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => (
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
        ),
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => (
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
        ),
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => (
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
        ),
        Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => (
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            "ECDHE-RSA-CHACHA20-POLY1305",
        ),
        other => {
            let name = other.as_str().unwrap_or("unknown");
            (name, name)
        }
    }
}

/// A version as Envoy spells it.
pub(super) fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(names: &[&str], min: Option<TlsVersion>) -> Result<Vec<&'static str>, ConfigError> {
        let parameters = TlsParameters {
            min_version: min,
            max_version: None,
            cipher_suites: names.iter().map(|&name| name.to_owned()).collect(),
            ..TlsParameters::default()
        };
        let compiled = Parameters::compile(&parameters)?;
        let suites = &compiled.provider.cipher_suites;
        Ok(suites.iter().map(|suite| spellings(suite).1).collect())
    }

    #[test]
    fn every_spelling_names_its_suite() {
        for suite in &provider().cipher_suites {
            let (iana, openssl) = spellings(suite);
            assert_ne!(iana, "unknown");
            assert_eq!(suites(&[iana.to_owned()]).unwrap()[0], *suite);
            assert_eq!(suites(&[openssl.to_owned()]).unwrap()[0], *suite);
        }
    }

    #[test]
    fn a_group_is_a_list_and_all_of_version_1_3_stays() {
        let names = ["[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]"];
        let suites = compile(&names, None).unwrap();
        assert_eq!(
            suites,
            [
                "ECDHE-RSA-AES128-GCM-SHA256",
                "ECDHE-RSA-CHACHA20-POLY1305",
                "TLS_AES_256_GCM_SHA384",
                "TLS_AES_128_GCM_SHA256",
                "TLS_CHACHA20_POLY1305_SHA256"
            ]
        );
    }

    #[test]
    fn an_unknown_suite_is_refused_with_the_known_ones() {
        let error = compile(&["AES128-SHA"], None).unwrap_err().to_string();
        assert!(error.contains("\"AES128-SHA\""), "{error}");
        assert!(error.contains("ECDHE-RSA-AES128-GCM-SHA256"), "{error}");
    }

    #[test]
    fn versions_are_a_range() {
        let mut parameters = TlsParameters {
            min_version: Some(TlsVersion::V13),
            ..TlsParameters::default()
        };
        let compiled = Parameters::compile(&parameters).unwrap();
        assert_eq!(compiled.versions, [&version::TLS13]);
        parameters.max_version = Some(TlsVersion::V12);
        assert!(Parameters::compile(&parameters).is_err());
        parameters.min_version = None;
        parameters.cipher_suites = vec!["TLS_AES_128_GCM_SHA256".to_owned()];
        let error = Parameters::compile(&parameters).unwrap_err().to_string();
        assert!(error.contains("none of the cipher suites"), "{error}");
    }
}
