//! The exceptions of `python/kgw/errors.py`, raised from Rust.
//!
//! The classes are defined in Python so that their documentation, hierarchy and attributes are
//! readable there; Rust imports them by name once.

use std::fmt::Display;
use std::net::SocketAddr;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

static INCOMPLETE_PROXY_HEADER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static PROXY_PROTOCOL_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static BIND_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static CONFIG_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static FILTER_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static NOT_RUNNING: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static RATE_LIMITED: PyOnceLock<Py<PyType>> = PyOnceLock::new();

fn class<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyType>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyType>> {
    cell.import(py, "kgw.errors", name)
}

fn raise(
    py: Python<'_>,
    cell: &'static PyOnceLock<Py<PyType>>,
    name: &str,
    message: String,
) -> PyErr {
    match class(py, cell, name) {
        Ok(class) => PyErr::from_type(class.clone(), message),
        Err(_) => PyException::new_err(message),
    }
}

/// `kgw.errors.BindError`: an address that cannot be listened on.
pub(crate) fn bind_error(
    py: Python<'_>,
    number: Option<i32>,
    message: String,
    listener: &str,
    address: SocketAddr,
) -> PyErr {
    match class(py, &BIND_ERROR, "BindError") {
        Ok(class) => {
            let arguments = (number, message, listener.to_owned(), address.to_string());
            PyErr::from_type(class.clone(), arguments)
        }
        Err(error) => error,
    }
}

/// `kgw.errors.ConfigError`: a configuration that cannot be compiled.
pub(crate) fn config_error(py: Python<'_>, message: &(impl Display + ?Sized)) -> PyErr {
    raise(py, &CONFIG_ERROR, "ConfigError", message.to_string())
}

/// `kgw.errors.FilterError`: a filter that does what it may not.
pub(crate) fn filter_error(py: Python<'_>, message: &(impl Display + ?Sized)) -> PyErr {
    raise(py, &FILTER_ERROR, "FilterError", message.to_string())
}

/// `kgw.errors.NotRunning`: an engine that was not started, or was stopped or forked.
pub(crate) fn not_running(py: Python<'_>, message: &(impl Display + ?Sized)) -> PyErr {
    raise(py, &NOT_RUNNING, "NotRunning", message.to_string())
}

/// `kgw.errors.ProxyProtocolError`: bytes that are not an acceptable PROXY protocol header.
pub(crate) fn proxy_protocol_error(py: Python<'_>, message: &(impl Display + ?Sized)) -> PyErr {
    raise(
        py,
        &PROXY_PROTOCOL_ERROR,
        "ProxyProtocolError",
        message.to_string(),
    )
}

/// `kgw.errors.IncompleteProxyHeader`: a PROXY protocol header of which `need` bytes are needed.
pub(crate) fn incomplete_proxy_header(py: Python<'_>, need: usize) -> PyErr {
    match class(py, &INCOMPLETE_PROXY_HEADER, "IncompleteProxyHeader") {
        Ok(class) => PyErr::from_type(class.clone(), need),
        Err(error) => error,
    }
}

/// `kgw.errors.RateLimited`: tokens that are there after so many seconds only.
pub(crate) fn rate_limited(py: Python<'_>, retry_after: f64) -> PyErr {
    match class(py, &RATE_LIMITED, "RateLimited") {
        Ok(class) => PyErr::from_type(class.clone(), retry_after),
        Err(error) => error,
    }
}
