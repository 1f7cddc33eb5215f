//! Checks of what a configuration says about TLS, for those who write one: what a listener or a
//! cluster would refuse is refused before, with its place. No message says anything about a key.

use super::certificates::{Trusted, certified_key, names};
use super::parameters::Parameters;
use crate::config::ir::{Certificate, TlsParameters};

/// Checks that a certificate can be used, and that the key is its own.
///
/// # Errors
///
/// What is wrong with it.
pub fn certificate(certificate: &Certificate) -> Result<(), String> {
    certified_key(certificate)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Returns the DNS names that the first certificate in PEM is for, in lower case; none if there is no
/// certificate.
#[must_use]
pub fn certificate_names(pem: &str) -> Vec<String> {
    names(pem)
}

/// Checks that PEM holds certificate authorities, and nothing that is none.
///
/// # Errors
///
/// What is wrong with it.
pub fn authorities(pem: &str) -> Result<(), String> {
    Trusted::bundle(pem)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Checks versions and cipher suites.
///
/// # Errors
///
/// What is wrong with them.
pub fn parameters(parameters: &TlsParameters) -> Result<(), String> {
    Parameters::compile(parameters)
        .map(|_| ())
        .map_err(|error| error.to_string())
}
