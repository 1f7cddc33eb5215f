//! `kgw._native`: the only crate that knows Python.
//!
//! One Rust module per native submodule, each with a `.pyi` of the same name in `python/kgw/_native/`.
//! Users never import `kgw._native`; the modules of `python/kgw/` re-export what is public.

mod access_log;
mod bridge;
mod cel;
mod engine;
mod error;
mod explanation;
mod jwt;
mod limit;
mod manifest;
mod proxyproto;
mod route;
mod schema;
mod template;
mod tls;
#[cfg(target_os = "linux")]
mod watch;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    submodule(module, "access_log", access_log::register)?;
    submodule(module, "bridge", bridge::register)?;
    submodule(module, "cel", cel::register)?;
    submodule(module, "engine", engine::register)?;
    submodule(module, "jwt", jwt::register)?;
    submodule(module, "limit", limit::register)?;
    submodule(module, "manifest", manifest::register)?;
    submodule(module, "proxyproto", proxyproto::register)?;
    submodule(module, "route", route::register)?;
    submodule(module, "schema", schema::register)?;
    submodule(module, "template", template::register)?;
    submodule(module, "tls", tls::register)?;
    #[cfg(target_os = "linux")]
    submodule(module, "watch", watch::register)?;
    Ok(())
}

/// Adds `kgw._native.<name>`, importable by its full name.
fn submodule(
    parent: &Bound<'_, PyModule>,
    name: &str,
    register: fn(&Bound<'_, PyModule>) -> PyResult<()>,
) -> PyResult<()> {
    let py = parent.py();
    let full_name = format!("kgw._native.{name}");
    let module = PyModule::new(py, &full_name)?;
    register(&module)?;
    parent.add(name, &module)?;
    py.import("sys")?
        .getattr("modules")?
        .set_item(full_name, module)
}
