//! `kgw._native.manifest`: manifests as plain Python data that knows its places.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use kgw_manifest::{Limits, Member, Node, Place, Reread, Source, Step, Value};
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::schema::is_sound;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(parse, module)?)?;
    module.add_class::<Document>()?;
    module.add_class::<Text>()?;
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
    let documents = PyList::empty(py);
    for inner in parsed.documents {
        documents.append(Document::whole(&parsed.source, inner))?;
    }
    let problems = Problem::list(py, &parsed.source, parsed.problems)?;
    Ok((documents, problems))
}

/// What a piece of a text keeps.
struct Kept {
    /// Its document as a Python object, so that it stays the same one.
    document: PyOnceLock<Py<Document>>,
    /// Whether nothing is wrong with it, which is found out once.
    sound: OnceLock<bool>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            document: PyOnceLock::new(),
            sound: OnceLock::new(),
        }
    }
}

/// A text as it was read; see the stub for its documentation.
#[pyclass(frozen, module = "kgw._native.manifest")]
struct Text {
    inner: kgw_manifest::Text<Kept>,
    documents: Py<PyList>,
    problems: Py<PyList>,
    /// Of each document, its index and the number of lines before its own.
    stands: Vec<(usize, u32)>,
}

#[pymethods]
impl Text {
    #[new]
    #[pyo3(signature = (data, before=None))]
    fn new(py: Python<'_>, data: &[u8], before: Option<&Bound<'_, Self>>) -> PyResult<Self> {
        let known = before.map(|before| &before.get().inner);
        let mut inner = py.detach(|| {
            let inner = kgw_manifest::Text::<Kept>::read(data, known, &Limits::default());
            // Here other threads can run Python. What is only parsed as a part of a whole text with
            // mistakes is left to who takes its value.
            for member in inner.members(None) {
                if let Member::Piece {
                    piece, document, ..
                } = member
                {
                    let sound = || is_sound(&document.document());
                    piece.kept.sound.get_or_init(sound);
                }
            }
            inner
        });
        let whole = inner.take_whole();
        let documents = PyList::empty(py);
        let mut stands = Vec::new();
        for member in inner.members(whole.as_ref()) {
            let (document, stand) = match member {
                Member::Piece {
                    piece,
                    document,
                    stand,
                } => {
                    let stand = (stand.index, stand.line);
                    // Each time the same object.
                    let make = || {
                        let sound = piece.kept.sound.get() == Some(&true);
                        Py::new(py, Document::new(Arc::clone(document), sound))
                    };
                    let document = piece.kept.document.get_or_try_init(py, make)?;
                    (document.clone_ref(py), stand)
                }
                Member::Whole { source, document } => {
                    let stand = (document.index(), 0);
                    let document = Document::whole(source, Arc::clone(document));
                    (Py::new(py, document)?, stand)
                }
            };
            documents.append(document)?;
            stands.push(stand);
        }
        let problems = match whole {
            Some(whole) => Problem::list(py, &whole.source, whole.problems)?,
            None => PyList::empty(py),
        };
        Ok(Self {
            inner,
            documents: documents.unbind(),
            problems: problems.unbind(),
            stands,
        })
    }

    #[getter]
    fn documents<'py>(&self, py: Python<'py>) -> &Bound<'py, PyList> {
        self.documents.bind(py)
    }

    #[getter]
    fn problems<'py>(&self, py: Python<'py>) -> &Bound<'py, PyList> {
        self.problems.bind(py)
    }

    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let [high, low] = self.inner.digest();
        PyBytes::new(py, &[high.to_be_bytes(), low.to_be_bytes()].concat())
    }

    fn stand(&self, number: usize) -> PyResult<(usize, u32)> {
        let stand = self.stands.get(number).copied();
        stand.ok_or_else(|| PyIndexError::new_err("there is no such document"))
    }
}

#[pyclass(frozen, module = "kgw._native.manifest")]
struct Document {
    inner: Arc<Reread>,
    index: usize,
    sound: bool,
}

impl Document {
    fn new(inner: Arc<Reread>, sound: bool) -> Self {
        let index = inner.document().index();
        Self {
            inner,
            index,
            sound,
        }
    }

    fn whole(source: &Arc<Source>, document: Arc<kgw_manifest::Document>) -> Self {
        Self::new(Arc::new(Reread::kept(Arc::clone(source), document)), false)
    }
}

#[pymethods]
impl Document {
    #[getter]
    fn index(&self) -> usize {
        self.index
    }

    #[getter]
    fn sound(&self) -> bool {
        self.sound
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let document = self.inner.document();
        self.inner.forget();
        plain(py, document.root(), &mut HashMap::new())
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
        let document = self.inner.document();
        let place = document.locate(self.inner.source(), &steps, key);
        Ok(place.map(columns))
    }

    fn line(&self, number: usize) -> Option<&str> {
        self.inner.source().line(number)
    }
}

#[pyclass(frozen, module = "kgw._native.manifest")]
struct Problem {
    source: Arc<Source>,
    inner: kgw_manifest::Problem,
}

impl Problem {
    fn list<'py>(
        py: Python<'py>,
        source: &Arc<Source>,
        problems: Vec<kgw_manifest::Problem>,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for inner in problems {
            let source = Arc::clone(source);
            list.append(Self { source, inner })?;
        }
        Ok(list)
    }
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
/// Keys are interned, and equal strings are one object: most of what routes say is said by all.
///
/// Recursion is bounded by `Limits::depth`, which the parser has enforced with aliases followed.
fn plain<'py, 'd>(
    py: Python<'py>,
    node: Node<'d>,
    strings: &mut HashMap<&'d str, Bound<'py, PyString>>,
) -> PyResult<Bound<'py, PyAny>> {
    Ok(match node.value() {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => pyo3::types::PyBool::new(py, value).to_owned().into_any(),
        Value::Int(value) => value.into_pyobject(py)?.into_any(),
        Value::UInt(value) => value.into_pyobject(py)?.into_any(),
        Value::Float(value) => PyFloat::new(py, value).into_any(),
        Value::String(value) => {
            let make = || PyString::new(py, value);
            strings.entry(value).or_insert_with(make).clone().into_any()
        }
        Value::Sequence(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(plain(py, item, strings)?)?;
            }
            list.into_any()
        }
        Value::Mapping(entries) => {
            let dict = PyDict::new(py);
            for (key, value) in entries {
                dict.set_item(PyString::intern(py, key), plain(py, value, strings)?)?;
            }
            dict.into_any()
        }
    })
}
