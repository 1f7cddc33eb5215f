//! `kgw._native.template`: templates, before the engine is to render them. The reference is
//! `python/kgw/_native/template.pyi`.

use kgw_template::Template;
use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(check, module)?)?;
    module.add_function(wrap_pyfunction!(variables, module)?)
}

/// Returns what is wrong with a template, or None.
#[pyfunction]
fn check(text: &str) -> Option<String> {
    Template::compile(text).err().map(|error| error.to_string())
}

/// Returns the variables of a JSON body that a template uses.
#[pyfunction]
fn variables(text: &str) -> Vec<String> {
    Template::compile(text).map_or_else(|_| Vec::new(), |template| template.variables().to_vec())
}
