//! `kgw._native.access_log`: formats, checked and shown, and what is logged as Python reads it. The
//! reference is `python/kgw/_native/access_log.pyi`.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process;

use kgw_engine::config::check as config_check;
use kgw_engine::telemetry::access_log::{self, FormatOptions, LogProgram, operator_names, sample};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::Value;

use crate::error::{config_error, not_running};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Tap>()?;
    module.add_function(wrap_pyfunction!(check, module)?)?;
    module.add_function(wrap_pyfunction!(check_filter, module)?)?;
    module.add_function(wrap_pyfunction!(check_local_replies, module)?)?;
    module.add_function(wrap_pyfunction!(render_example, module)?)?;
    module.add_function(wrap_pyfunction!(operators, module)?)
}

/// Returns what is wrong with a format, or None.
#[pyfunction]
fn check(kind: &str, value: &str) -> PyResult<Option<String>> {
    Ok(compile(kind, value)?.err())
}

/// Returns what is wrong with a filter, or None.
#[pyfunction]
fn check_filter(filter: &str) -> Option<String> {
    config_check::access_log_filter(filter).err()
}

/// Returns what is wrong with changes to local replies, or None.
#[pyfunction]
fn check_local_replies(replies: &str) -> Option<String> {
    config_check::local_replies(replies).err()
}

/// Returns the line that a format prints for a sample request.
#[pyfunction]
fn render_example(py: Python<'_>, kind: &str, value: &str) -> PyResult<String> {
    let program = compile(kind, value)?.map_err(|message| config_error(py, &message))?;
    let mut line = Vec::new();
    sample(|record| program.render(record, &mut line));
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Returns the names of all operators.
#[pyfunction]
fn operators() -> Vec<&'static str> {
    operator_names().collect()
}

/// Lines of an engine's access log; see the stub for its documentation.
#[pyclass(frozen, module = "kgw._native.access_log")]
pub(crate) struct Tap {
    tap: access_log::Tap,
    /// The descriptor is shared with children of a fork, who must not take its wakes.
    owner: u32,
}

impl From<access_log::Tap> for Tap {
    fn from(tap: access_log::Tap) -> Self {
        Self {
            tap,
            owner: process::id(),
        }
    }
}

#[pymethods]
impl Tap {
    fn fileno(&self) -> RawFd {
        self.tap.as_fd().as_raw_fd()
    }

    #[getter]
    fn closed(&self) -> bool {
        self.tap.is_closed()
    }

    #[getter]
    fn dropped(&self) -> u64 {
        self.tap.dropped()
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        if process::id() != self.owner {
            return Err(not_running(
                py,
                "the access log belongs to the parent process",
            ));
        }
        let lines = py.detach(|| self.tap.take());
        Ok(PyBytes::new(py, &lines))
    }

    fn close(&self) {
        if process::id() == self.owner {
            self.tap.close();
        }
    }
}

/// Compiles a JSON format whose lines Python reads; fails as `kgw.errors.ConfigError`.
pub(crate) fn json_program(py: Python<'_>, format: &str) -> PyResult<LogProgram> {
    compile("json", format)?.map_err(|message| config_error(py, &message))
}

fn compile(kind: &str, value: &str) -> PyResult<Result<LogProgram, String>> {
    let options = FormatOptions::default();
    let program = match kind {
        "text" => LogProgram::text(value, options),
        "json" => match serde_json::from_str::<Value>(value) {
            Ok(value) => LogProgram::json(&value, options),
            Err(error) => return Ok(Err(format!("the format is not JSON: {error}"))),
        },
        _ => {
            let message = format!("kind is {kind:?}, not \"json\" or \"text\"");
            return Err(PyValueError::new_err(message));
        }
    };
    Ok(program.map_err(|error| error.to_string()))
}
