//! `kgw._native.cel`: conditions on requests.

use kgw_engine::cel::{self, Moment};
use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(check, module)?)
}

#[pyfunction]
#[pyo3(signature = (text, *, log=false))]
fn check(text: &str, log: bool) -> Option<String> {
    let moment = if log { Moment::Log } else { Moment::Request };
    cel::check(text, moment)
        .err()
        .map(|error| error.to_string())
}
