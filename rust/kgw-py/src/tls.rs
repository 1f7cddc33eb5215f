//! `kgw._native.tls`: what the engine thinks of certificates and parameters. The reference is
//! `python/kgw/_native/tls.pyi`.

use kgw_engine::config::ir::{Certificate, TlsParameters, TlsVersion};
use kgw_engine::tls::check;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(certificate_names, module)?)?;
    module.add_function(wrap_pyfunction!(check_certificate, module)?)?;
    module.add_function(wrap_pyfunction!(check_authorities, module)?)?;
    module.add_function(wrap_pyfunction!(check_parameters, module)?)
}

/// Returns the DNS names that a certificate is for.
#[pyfunction]
fn certificate_names(pem: &str) -> Vec<String> {
    check::certificate_names(pem)
}

/// Returns what is wrong with a certificate and its key, or None.
#[pyfunction]
fn check_certificate(chain: String, key: String) -> Option<String> {
    check::certificate(&Certificate { chain, key }).err()
}

/// Returns what is wrong with a bundle of certificate authorities, or None.
#[pyfunction]
fn check_authorities(pem: &str) -> Option<String> {
    check::authorities(pem).err()
}

/// Returns what is wrong with versions and cipher suites, or None.
#[pyfunction]
fn check_parameters(
    min_version: Option<&str>,
    max_version: Option<&str>,
    cipher_suites: Vec<String>,
) -> PyResult<Option<String>> {
    let parameters = TlsParameters {
        min_version: version(min_version)?,
        max_version: version(max_version)?,
        cipher_suites,
        ..TlsParameters::default()
    };
    Ok(check::parameters(&parameters).err())
}

fn version(text: Option<&str>) -> PyResult<Option<TlsVersion>> {
    match text {
        None => Ok(None),
        Some("1.2") => Ok(Some(TlsVersion::V12)),
        Some("1.3") => Ok(Some(TlsVersion::V13)),
        Some(other) => {
            let message = format!("version is {other:?}, not \"1.2\" or \"1.3\"");
            Err(PyValueError::new_err(message))
        }
    }
}
