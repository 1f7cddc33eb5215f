//! `kgw._native.jwt`: the keys that tokens are signed with.

use kgw_jwt::KeySet;
use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(check_keys, module)?)
}

#[pyfunction]
fn check_keys(text: &str) -> Option<String> {
    KeySet::parse(text).err().map(|error| error.to_string())
}
