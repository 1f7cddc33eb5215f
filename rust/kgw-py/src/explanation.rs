//! Why a request is served by the route it is served by, for Python.
//!
//! What has a Python name is documented for Python, in its notation and as in the stub.

#![allow(clippy::doc_markdown)] // the docs are in Python notation, as said above

use std::fmt::Write as _;

use kgw_route::Outcome;
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple};

/// A route whose hostname matches a request, and its fate. ``str()`` gives one line.
#[pyclass(frozen, generic, module = "kgw.routing")]
pub(crate) struct Considered {
    /// The route: a :class:`kgw.routing.Route`, or the tuple that was given.
    #[pyo3(get)]
    route: Py<PyAny>,
    /// The value given with the route.
    #[pyo3(get)]
    value: Py<PyAny>,
    /// The route's position among the routes given.
    #[pyo3(get)]
    index: usize,
    /// The hostname of the route that matched, in lower case.
    #[pyo3(get)]
    hostname: String,
    /// The fate: the first reason why it lost, in the order in which a lookup looks.
    ///
    /// ``selected``; ``hostname`` (the routes of a more specific one decide); ``path``, ``method``,
    /// ``header`` or ``query`` (it does not match); ``outranked`` (it matches, but the selected
    /// route goes before it).
    #[pyo3(get)]
    outcome: &'static str,
    /// The name of the header or query parameter, or what outranked it; else ``None``.
    ///
    /// The latter is ``path_kind``, ``prefix_length``, ``method``, ``headers``, ``query``, ``age``,
    /// ``name`` or ``order``.
    #[pyo3(get)]
    detail: Option<String>,
    /// The fate in words.
    #[pyo3(get)]
    reason: String,
    line: String,
}

/// Every route whose hostname matches a request, with its fate, in order of precedence.
///
/// A sequence of :class:`kgw.routing.Considered`. ``str()`` gives one line for the request and one
/// for each route.
#[pyclass(frozen, generic, sequence, module = "kgw.routing")]
pub(crate) struct Explanation {
    request: String,
    considered: Py<PyTuple>,
    selected: Option<usize>,
}

// === impl Considered ===

impl Considered {
    pub(crate) fn new(
        one: &kgw_route::Considered<'_, usize>,
        route: Py<PyAny>,
        value: Py<PyAny>,
    ) -> Self {
        let (outcome, detail) = match one.outcome {
            Outcome::Selected => ("selected", None),
            Outcome::LessSpecificHostname => ("hostname", None),
            Outcome::Path => ("path", None),
            Outcome::Method => ("method", None),
            Outcome::Header(name) => ("header", Some(name)),
            Outcome::Query(name) => ("query", Some(name)),
            Outcome::Outranked(criterion) => ("outranked", Some(criterion.id())),
            _ => ("other", None),
        };
        let name = match one.rule.rank.name.as_str() {
            "" => String::new(),
            name => format!(" {name}"),
        };
        Self {
            route,
            value,
            index: *one.value,
            hostname: one.hostname.to_owned(),
            outcome,
            detail: detail.map(str::to_owned),
            reason: one.outcome.to_string(),
            line: format!("routes[{}]{name}: {one}", one.value),
        }
    }
}

#[pymethods]
impl Considered {
    fn __str__(&self) -> &str {
        &self.line
    }

    fn __repr__(&self) -> String {
        format!("<Considered {}>", self.line)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.route)?;
        visit.call(&self.value)
    }
}

// === impl Explanation ===

impl Explanation {
    pub(crate) fn new(
        py: Python<'_>,
        request: String,
        considered: impl Iterator<Item = Considered>,
    ) -> PyResult<Self> {
        let mut selected = None;
        let mut all = Vec::new();
        for one in considered {
            if one.outcome == "selected" {
                selected = Some(all.len());
            }
            all.push(Py::new(py, one)?);
        }
        Ok(Self {
            request,
            considered: PyTuple::new(py, all)?.unbind(),
            selected,
        })
    }
}

#[pymethods]
impl Explanation {
    /// The route that serves the request, if any does.
    #[getter]
    fn selected<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let considered = self.considered.bind(py);
        self.selected.map(|at| considered.get_item(at)).transpose()
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.considered.bind(py).len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, at: isize) -> PyResult<Bound<'py, PyAny>> {
        self.considered.bind(py).as_any().get_item(at)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.considered.bind(py).try_iter()
    }

    fn __str__(&self, py: Python<'_>) -> PyResult<String> {
        let fate = match (self.selected, self.considered.bind(py).len()) {
            (Some(_), _) => "",
            (None, 0) => ": no route has a hostname that matches",
            (None, _) => ": no route matches",
        };
        let mut text = format!("{}{fate}", self.request);
        for one in self.considered.bind(py) {
            let _infallible = write!(text, "\n  {}", one.cast::<Considered>()?.get().line);
        }
        Ok(text)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let count = self.considered.bind(py).len();
        format!("<Explanation of {count} routes for {}>", self.request)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.considered)
    }
}
