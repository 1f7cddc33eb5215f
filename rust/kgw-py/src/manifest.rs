//! `kgw._native.manifest`: manifests as plain Python data that knows its places.

use std::sync::Arc;

use kgw_manifest::{Limits, Node, Place, Source, Step, Value};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(parse, module)?)?;
    module.add_class::<Document>()?;
    module.add_class::<Problem>()
}

#[pyfunction]
fn parse<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let bytes: Vec<u8> = if let Ok(text) = data.cast::<PyString>() {
        text.to_cow()?.into_owned().into_bytes()
    } else if let Ok(bytes) = data.cast::<PyBytes>() {
        bytes.as_bytes().to_vec()
    } else {
        return Err(PyTypeError::new_err("a manifest is bytes or str"));
    };
    let parsed = py.detach(move || kgw_manifest::parse(&bytes, &Limits::default()));
    let source = Arc::new(parsed.source);
    let documents = PyList::empty(py);
    for inner in parsed.documents {
        let source = Arc::clone(&source);
        documents.append(Document {
            source,
            inner,
            value: PyOnceLock::new(),
        })?;
    }
    let problems = PyList::empty(py);
    for inner in parsed.problems {
        problems.append(Problem {
            source: Arc::clone(&source),
            inner,
        })?;
    }
    Ok((documents, problems))
}

#[pyclass(frozen, module = "kgw._native.manifest")]
struct Document {
    source: Arc<Source>,
    inner: kgw_manifest::Document,
    value: PyOnceLock<Py<PyAny>>,
}

#[pymethods]
impl Document {
    #[getter]
    fn index(&self) -> usize {
        self.inner.index()
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let build = || plain(py, self.inner.root()).map(Bound::unbind);
        Ok(self.value.get_or_try_init(py, build)?.bind(py))
    }

    #[pyo3(signature = (path, key=false))]
    fn locate(&self, path: &Bound<'_, PyTuple>, key: bool) -> PyResult<Option<(u32, u32, u32)>> {
        let steps = path
            .iter()
            .map(|step| match step.cast::<PyInt>() {
                // No sequence has a negative index, or one beyond 64 bits.
                Ok(index) => Ok(OwnedStep::Index(index.extract().unwrap_or(usize::MAX))),
                Err(_) => Ok(OwnedStep::Key(
                    step.cast::<PyString>()?.to_string_lossy().into(),
                )),
            })
            .collect::<PyResult<Vec<_>>>()?;
        let steps: Vec<_> = steps.iter().map(OwnedStep::borrow).collect();
        Ok(self.inner.locate(&self.source, &steps, key).map(columns))
    }

    fn line(&self, number: usize) -> Option<&str> {
        self.source.line(number)
    }
}

#[pyclass(frozen, module = "kgw._native.manifest")]
struct Problem {
    source: Arc<Source>,
    inner: kgw_manifest::Problem,
}

#[pymethods]
impl Problem {
    #[getter]
    fn code(&self) -> &'static str {
        self.inner.kind.code()
    }

    #[getter]
    fn warning(&self) -> bool {
        self.inner.kind.is_warning()
    }

    #[getter]
    fn message(&self) -> String {
        self.inner.kind.to_string()
    }

    #[getter]
    fn hint(&self) -> Option<&'static str> {
        self.inner.hint
    }

    #[getter]
    fn document(&self) -> usize {
        self.inner.document
    }

    #[pyo3(signature = (path, key=false))]
    fn locate(&self, path: &Bound<'_, PyTuple>, key: bool) -> Option<(u32, u32, u32)> {
        let _ = key;
        path.is_empty().then_some(columns(self.inner.place))
    }

    fn line(&self, number: usize) -> Option<&str> {
        self.source.line(number)
    }
}

enum OwnedStep {
    Key(String),
    Index(usize),
}

impl OwnedStep {
    fn borrow(&self) -> Step<'_> {
        match self {
            Self::Key(key) => Step::Key(key),
            Self::Index(index) => Step::Index(*index),
        }
    }
}

fn columns(place: Place) -> (u32, u32, u32) {
    (place.line, place.column, place.end_column)
}

/// Builds Python data; every alias becomes a copy of its own, so that changing one is safe.
///
/// Recursion is bounded by `Limits::depth`, which the parser has enforced with aliases followed.
fn plain<'py>(py: Python<'py>, node: Node<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match node.value() {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => pyo3::types::PyBool::new(py, value).to_owned().into_any(),
        Value::Int(value) => value.into_pyobject(py)?.into_any(),
        Value::UInt(value) => value.into_pyobject(py)?.into_any(),
        Value::Float(value) => PyFloat::new(py, value).into_any(),
        Value::String(value) => PyString::new(py, value).into_any(),
        Value::Sequence(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(plain(py, item)?)?;
            }
            list.into_any()
        }
        Value::Mapping(entries) => {
            let dict = PyDict::new(py);
            for (key, value) in entries {
                dict.set_item(key, plain(py, value)?)?;
            }
            dict.into_any()
        }
    })
}
