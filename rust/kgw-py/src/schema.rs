//! `kgw._native.schema`: objects against the definitions of their kinds.

use std::borrow::Cow;

use kgw_schema::{Channel, Fault, NameForm, Step, Value, Violation as Found, Write, crd, crds};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(kinds, module)?)?;
    module.add_function(wrap_pyfunction!(versions, module)?)?;
    module.add_function(wrap_pyfunction!(namespaced, module)?)?;
    module.add_function(wrap_pyfunction!(rules, module)?)?;
    module.add_function(wrap_pyfunction!(validate, module)?)?;
    module.add_function(wrap_pyfunction!(metadata, module)?)?;
    module.add_function(wrap_pyfunction!(is_plain, module)?)?;
    module.add_class::<Violation>()
}

/// How deeply values are read. What is below is nothing; schemas refuse it before.
const DEPTH: usize = 140;

#[pyfunction]
fn kinds() -> Vec<(&'static str, &'static str)> {
    crds().iter().map(|crd| (crd.group, crd.kind)).collect()
}

#[pyfunction]
#[pyo3(signature = (group, kind, standard=false))]
fn versions(group: &str, kind: &str, standard: bool) -> Option<Vec<&'static str>> {
    crd(group, kind).map(|crd| crd.versions(channel(standard)))
}

#[pyfunction]
fn namespaced(group: &str, kind: &str) -> Option<bool> {
    crd(group, kind).map(kgw_schema::Crd::namespaced)
}

/// A rule: the path of what it is about, its text and its message.
type Rule = (String, &'static str, Option<&'static str>);

#[pyfunction]
#[pyo3(signature = (group, kind, version, standard=false))]
fn rules(group: &str, kind: &str, version: &str, standard: bool) -> Option<Vec<Rule>> {
    let schema = crd(group, kind)?.schema(version, channel(standard))?;
    Some(schema.rules())
}

#[pyfunction]
#[pyo3(signature = (group, kind, version, value, before=None, *, standard=false, status=false))]
#[allow(clippy::too_many_arguments)] // they are by name in Python
fn validate(
    group: &str,
    kind: &str,
    version: &str,
    value: &Bound<'_, PyAny>,
    before: Option<&Bound<'_, PyAny>>,
    standard: bool,
    status: bool,
) -> PyResult<Option<Vec<Violation>>> {
    let schema = crd(group, kind).and_then(|crd| crd.schema(version, channel(standard)));
    let Some(schema) = schema else {
        return Ok(None);
    };
    let value = read(value, 0)?;
    let before = before.map(|before| read(before, 0)).transpose()?;
    let write = if status { Write::Status } else { Write::Object };
    let found = schema.validate(value, before, write);
    Ok(Some(
        found.into_iter().map(|inner| Violation { inner }).collect(),
    ))
}

#[pyfunction]
#[pyo3(signature = (value, *, label=false))]
fn metadata(value: &Bound<'_, PyAny>, label: bool) -> PyResult<Vec<Violation>> {
    let metadata = read(value, 0)?;
    let object = Value::Map(vec![(Cow::Borrowed("metadata"), metadata)]);
    let form = if label {
        NameForm::Label
    } else {
        NameForm::Subdomain
    };
    let found = kgw_schema::metadata(&object, form);
    Ok(found.into_iter().map(|inner| Violation { inner }).collect())
}

#[pyfunction]
fn is_plain(fields: &Bound<'_, PyDict>, value: &Bound<'_, PyDict>) -> PyResult<bool> {
    plain(fields, value, 0)
}

fn plain(fields: &Bound<'_, PyDict>, value: &Bound<'_, PyDict>, depth: usize) -> PyResult<bool> {
    if depth > DEPTH {
        return Ok(false);
    }
    for (key, item) in value.iter() {
        let Some(nested) = fields.get_item(key)? else {
            return Ok(false);
        };
        if item.is_none() {
            return Ok(false);
        }
        let Ok(nested) = nested.cast::<PyDict>() else {
            continue;
        };
        if let Ok(item) = item.cast::<PyDict>() {
            if !plain(nested, item, depth + 1)? {
                return Ok(false);
            }
        } else if let Ok(items) = item.cast::<PyList>() {
            for item in items.iter() {
                if let Ok(item) = item.cast::<PyDict>()
                    && !plain(nested, item, depth + 1)?
                {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Whether [`validate`] and [`metadata`] find nothing in a document: it is an object, and as its
/// definition wants it if there is one.
pub(crate) fn is_sound(document: &kgw_manifest::Document) -> bool {
    let object = json(document.root(), 0);
    let text = |name| object.field(name).and_then(Value::text);
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return false;
    };
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let form = match (group, kind) {
        ("", "Namespace" | "Service") => NameForm::Label,
        _ => NameForm::Subdomain,
    };
    if !kgw_schema::metadata(&object, form).is_empty() {
        return false;
    }
    let schema = crd(group, kind).and_then(|crd| crd.schema(version, Channel::Experimental));
    schema.is_none_or(|schema| schema.validate(object, None, Write::Object).is_empty())
}

/// The value of a document's node, as [`read`] gives it for what Python has of it.
fn json(node: kgw_manifest::Node<'_>, depth: usize) -> Value<'_> {
    use kgw_manifest::Value as Read;
    if depth > DEPTH {
        return Value::Null;
    }
    match node.value() {
        Read::Null => Value::Null,
        Read::Bool(value) => Value::Bool(value),
        Read::Int(value) => Value::Int(value),
        #[allow(clippy::cast_precision_loss)] // as Python makes a floating point number of it
        Read::UInt(value) => Value::Float(value as f64),
        Read::Float(value) => Value::Float(value),
        Read::String(text) => Value::Str(Cow::Borrowed(text)),
        Read::Sequence(items) => Value::List(
            items
                .into_iter()
                .map(|item| json(item, depth + 1))
                .collect(),
        ),
        Read::Mapping(entries) => Value::Map(
            entries
                .map(|(key, value)| (Cow::Borrowed(key), json(value, depth + 1)))
                .collect(),
        ),
    }
}

fn channel(standard: bool) -> Channel {
    if standard {
        Channel::Standard
    } else {
        Channel::Experimental
    }
}

/// Something that is wrong with an object; see the stub for its documentation.
#[pyclass(frozen, module = "kgw._native.schema")]
struct Violation {
    inner: Found,
}

#[pymethods]
impl Violation {
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let steps = self.inner.path.iter().map(|step| match step {
            Step::Key(key) => PyString::new(py, key).into_any(),
            // An index of a list that was read fits.
            Step::Index(index) => PyInt::new(py, *index).into_any(),
        });
        PyTuple::new(py, steps.collect::<Vec<_>>())
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match &self.inner.fault {
            Fault::Unknown {
                experimental: false,
                ..
            } => "unknown",
            Fault::Unknown {
                experimental: true, ..
            } => "channel",
            Fault::Required { .. } => "required",
            Fault::Type { .. } => "type",
            Fault::Enum { .. } => "enum",
            Fault::Pattern { .. } => "pattern",
            Fault::Format { .. } => "format",
            Fault::Bound { .. } => "bound",
            Fault::Duplicate { .. } => "duplicate",
            Fault::Alternatives { .. } => "alternatives",
            Fault::Rule { .. } => "rule",
            Fault::Evaluation { .. } => "evaluation",
            Fault::Budget => "budget",
            Fault::Depth => "depth",
            Fault::Metadata { .. } => "metadata",
            _ => "other",
        }
    }

    /// What is wrong: the message of a rule, or the text without the path.
    #[getter]
    fn message(&self) -> String {
        match &self.inner.fault {
            Fault::Rule { message, .. }
            | Fault::Metadata { message, .. }
            | Fault::Evaluation {
                message: Some(message),
                ..
            } => message.clone(),
            Fault::Evaluation { error, .. } => error.clone(),
            _ => {
                let text = self.inner.api_server_text();
                let path = kgw_schema::path_text(&self.inner.path);
                let rest = text.strip_prefix(&path).unwrap_or(&text);
                rest.trim_start_matches(": ").to_owned()
            }
        }
    }

    #[getter]
    fn value(&self) -> Option<&str> {
        match &self.inner.fault {
            Fault::Type { value, .. }
            | Fault::Enum { value, .. }
            | Fault::Pattern { value, .. }
            | Fault::Format { value, .. }
            | Fault::Duplicate { value } => Some(value),
            Fault::Bound { found, .. } => Some(found),
            Fault::Required { field, .. } => Some(field),
            Fault::Metadata { value, .. } => value.as_deref(),
            Fault::Evaluation { error, .. } => Some(error),
            _ => None,
        }
    }

    #[getter]
    fn legal(&self) -> Vec<String> {
        match &self.inner.fault {
            Fault::Unknown { known, .. } => known.clone(),
            Fault::Required { every, .. } => every.clone(),
            Fault::Type { expected, .. } => vec![(*expected).to_owned()],
            Fault::Enum { legal, .. } => legal.clone(),
            Fault::Pattern { pattern, .. } => vec![pattern.clone()],
            Fault::Format { format, .. } => vec![format.clone()],
            _ => Vec::new(),
        }
    }

    #[getter]
    fn rule(&self) -> Option<&str> {
        match &self.inner.fault {
            Fault::Rule { rule, .. } | Fault::Evaluation { rule, .. } => Some(rule),
            _ => None,
        }
    }

    fn __str__(&self) -> String {
        self.inner.api_server_text()
    }

    fn __repr__(&self) -> String {
        format!("<Violation {}>", self.inner.api_server_text())
    }
}

/// Reads plain Python data.
fn read(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value<'static>> {
    if depth > DEPTH || value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(text) = value.cast::<PyString>() {
        // A lone surrogate is in no manifest.
        return Ok(Value::Str(Cow::Owned(text.to_string_lossy().into_owned())));
    }
    if let Ok(entries) = value.cast::<PyDict>() {
        let mut read_entries = Vec::with_capacity(entries.len());
        for (key, value) in entries.iter() {
            let key = key
                .cast::<PyString>()
                .map_err(|_| PyTypeError::new_err("the keys of an object are strings"))?;
            let key = Cow::Owned(key.to_string_lossy().into_owned());
            read_entries.push((key, read(&value, depth + 1)?));
        }
        return Ok(Value::Map(read_entries));
    }
    if let Ok(items) = value.cast::<PyList>() {
        let items = items.iter().map(|item| read(&item, depth + 1));
        return Ok(Value::List(items.collect::<PyResult<_>>()?));
    }
    if let Ok(value) = value.cast::<PyBool>() {
        return Ok(Value::Bool(value.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(match value.extract::<i64>() {
            Ok(number) => Value::Int(number),
            Err(_) => Value::Float(value.extract().unwrap_or(f64::INFINITY)),
        });
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(Value::Float(value.extract()?));
    }
    if let Ok(items) = value.cast::<PyTuple>() {
        let items = items.iter().map(|item| read(&item, depth + 1));
        return Ok(Value::List(items.collect::<PyResult<_>>()?));
    }
    Err(PyValueError::new_err("an object is JSON data"))
}
