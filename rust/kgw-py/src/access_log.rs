//! `kgw._native.access_log`: formats, checked and shown. The reference is
//! `python/kgw/_native/access_log.pyi`.

use kgw_engine::telemetry::access_log::{FormatOptions, LogProgram, operator_names, sample};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::Value;

use crate::error::config_error;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(check, module)?)?;
    module.add_function(wrap_pyfunction!(render_example, module)?)?;
    module.add_function(wrap_pyfunction!(operators, module)?)
}

/// Returns what is wrong with a format, or None.
#[pyfunction]
fn check(kind: &str, value: &str) -> PyResult<Option<String>> {
    Ok(compile(kind, value)?.err())
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
