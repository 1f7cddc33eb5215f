//! `kgw._native.route`: the route table over Python values. Public as `kgw.routing`.
//!
//! What has a Python name is documented for Python, in its notation and as in the stub.

#![allow(clippy::doc_markdown)] // the docs are in Python notation, as said above

use kgw_route::{
    BuildError, Builder, Field, Match, PathMatch, Rank, Request, RouteTable as Table, Rule,
    StringMatch, ValueMatch,
};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyMapping, PyString, PyTuple};

use crate::error::config_error;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RouteTable>()?;
    module.add_class::<RouteMatch>()?;
    module.add_function(wrap_pyfunction!(check_regex, module)?)
}

/// What is wrong with a regular expression, or ``None`` if a route can use it.
///
/// The dialect is RE2's, as in Envoy's ``safe_regex``: matching takes linear time and covers the
/// whole value, classes are ASCII, there are no back-references and no look-around. The answer
/// names the byte at which a syntax error starts.
#[pyfunction]
fn check_regex(pattern: &str) -> Option<String> {
    kgw_route::check_regex(pattern)
        .err()
        .map(|error| error.to_string())
}

/// An immutable table that finds the route of a request, by Gateway API precedence.
///
/// The hostname decides first: an exact one, then the longest ``*.suffix`` (one or more labels,
/// never the bare domain), then ``*``. Only the routes of the most specific matching hostname are
/// tried. Among those that match, precedence goes to an exact path, then a regex, then the longest
/// prefix; then to a method, more headers, more query parameters, the older route, the
/// alphabetically first name, and the one given first.
///
/// The cost of a lookup hardly depends on the number of routes. Threads can share a table.
///
/// Args:
///     routes: :class:`kgw.routing.Route` objects, or tuples of a path prefix and a value.
///     fall_through: try less specific hostnames too if no route of the most specific one matches.
///
/// Raises:
///     kgw.errors.ConfigError: a route cannot be used; ``path`` names the part at fault, as in
///         ``routes[3].headers[0]``, and the message the byte at which a bad regex goes wrong.
#[pyclass(frozen, generic, module = "kgw.routing")]
struct RouteTable {
    table: Table<usize>,
    /// Beside the table: the engine's structure holds positions only.
    values: Vec<Py<PyAny>>,
}

/// The route that serves a request.
#[pyclass(frozen, generic, get_all, module = "kgw.routing")]
struct RouteMatch {
    /// The value given with the route.
    value: Py<PyAny>,
    /// The route's position among the routes given.
    index: usize,
    /// The part of the path that a prefix route matched, without trailing slash.
    ///
    /// It is empty for the prefix ``/``, so that ``path.removeprefix(matched_prefix)`` is what an
    /// application mounted there sees. ``None`` for exact and regex routes.
    matched_prefix: Option<String>,
}

/// A `kgw.routing.Route`, read by attribute.
#[derive(FromPyObject)]
struct Route<'py> {
    path: String,
    value: Bound<'py, PyAny>,
    kind: String,
    hosts: Bound<'py, PyAny>,
    method: Option<String>,
    headers: Bound<'py, PyAny>,
    query: Bound<'py, PyAny>,
    created: Option<i64>,
    name: String,
}

/// A `kgw.routing.HeaderMatch` or `QueryMatch`, read by attribute.
#[derive(FromPyObject)]
struct Named {
    name: String,
    value: String,
    kind: String,
}

// === impl RouteTable ===

#[pymethods]
impl RouteTable {
    #[new]
    #[pyo3(signature = (routes, *, fall_through=false))]
    fn new(py: Python<'_>, routes: &Bound<'_, PyAny>, fall_through: bool) -> PyResult<Self> {
        let mut values = Vec::new();
        let mut rules = Vec::new();
        for (index, route) in routes.try_iter()?.enumerate() {
            let (hosts, rule, value) = compile(&route?, index)?;
            values.push(value);
            rules.push((hosts, rule));
        }
        let table = py
            .detach(|| build(rules, fall_through))
            .map_err(|fault| fault.raise(py))?;
        Ok(Self { table, values })
    }

    /// The route that serves a request, or ``None``.
    ///
    /// Args:
    ///     path: path and, after the first ``?``, query. Neither is decoded or normalised.
    ///     host: value of ``Host``; a port, upper case and a trailing dot do not matter.
    ///     method: compared as it is.
    ///     headers: fields; of a repeated one, any value may match.
    #[pyo3(name = "match", signature = (path, *, host=None, method="GET", headers=None))]
    fn find(
        &self,
        py: Python<'_>,
        path: Text,
        host: Option<Text>,
        method: &str,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<RouteMatch>> {
        let request = Incoming::new(&self.table, path, host, method, headers)?;
        Ok(self
            .table
            .find(&request)
            .map(|found| self.found(py, &request, &found)))
    }

    /// One line for every route whose hostname matches: selected, or why not.
    ///
    /// In order of precedence. Looks at each of these routes: for people, not for the data path.
    #[pyo3(signature = (path, *, host=None, method="GET", headers=None))]
    fn explain(
        &self,
        path: Text,
        host: Option<Text>,
        method: &str,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<String>> {
        let request = Incoming::new(&self.table, path, host, method, headers)?;
        let line =
            |rule: &kgw_route::Considered<'_, usize>| format!("routes[{}]: {rule}", rule.value);
        Ok(self
            .table
            .explain(&request)
            .considered
            .iter()
            .map(line)
            .collect())
    }

    fn __len__(&self) -> usize {
        self.values.len()
    }

    fn __repr__(&self) -> String {
        format!("<RouteTable of {} routes>", self.values.len())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.values.iter().try_for_each(|value| visit.call(value))
    }
}

impl RouteTable {
    fn found(
        &self,
        py: Python<'_>,
        request: &Incoming<'_>,
        found: &Match<'_, usize>,
    ) -> RouteMatch {
        let prefix = |len: usize| String::from_utf8_lossy(&request.path()[..len]).into_owned();
        RouteMatch {
            value: self.values[*found.value].clone_ref(py),
            index: *found.value,
            // The matched bytes are the rule's own, without its trailing slash.
            matched_prefix: found.prefix_len.map(prefix),
        }
    }
}

#[pymethods]
impl RouteMatch {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "RouteMatch(index={}, value={})",
            self.index,
            self.value.bind(py).repr()?
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.value)
    }
}

// === Rules ===

/// Hosts, rule and value of a `Route`, or of a tuple of path prefix and value.
fn compile(route: &Bound<'_, PyAny>, index: usize) -> PyResult<(Vec<String>, Rule, Py<PyAny>)> {
    if route.is_instance_of::<PyTuple>() {
        let (path, value): (String, Bound<'_, PyAny>) = route.extract()?;
        let rule = Rule::new(PathMatch::Prefix(path));
        return Ok((vec!["*".to_owned()], rule, value.unbind()));
    }
    let route: Route<'_> = route.extract()?;
    let path = match route.kind.as_str() {
        "prefix" => PathMatch::Prefix(route.path),
        "exact" => PathMatch::Exact(route.path),
        "regex" => PathMatch::Regex(route.path),
        kind => {
            let message = format!("routes[{index}].kind: {kind:?} is not prefix, exact or regex");
            return Err(PyValueError::new_err(message));
        }
    };
    let hosts = if route.hosts.is_instance_of::<PyString>() {
        vec![route.hosts.extract()?]
    } else {
        route.hosts.extract()?
    };
    let rule = Rule {
        path,
        method: route.method,
        headers: predicates(&route.headers)?,
        query: predicates(&route.query)?,
        rank: Rank {
            created: route.created,
            name: route.name,
            ..Rank::default()
        },
    };
    Ok((hosts, rule, route.value.unbind()))
}

/// Predicates from a mapping of names to exact values, or from a sequence of match objects.
fn predicates(given: &Bound<'_, PyAny>) -> PyResult<Vec<ValueMatch>> {
    if let Ok(mapping) = given.cast::<PyMapping>() {
        let items: Vec<(String, String)> = mapping.items()?.extract()?;
        return Ok(items
            .into_iter()
            .map(|(name, value)| ValueMatch {
                name,
                value: StringMatch::Exact(value),
            })
            .collect());
    }
    given
        .try_iter()?
        .map(|predicate| named(predicate?.extract()?))
        .collect()
}

fn named(predicate: Named) -> PyResult<ValueMatch> {
    let Named { name, value, kind } = predicate;
    let value = match kind.as_str() {
        "exact" => StringMatch::Exact(value),
        "present" => StringMatch::Present,
        "regex" => StringMatch::Regex(value),
        _ => {
            let message = format!("{name}: kind {kind:?} is not exact, present or regex");
            return Err(PyValueError::new_err(message));
        }
    };
    Ok(ValueMatch { name, value })
}

/// The part of the routes that cannot be used, and why.
struct Fault {
    path: String,
    message: String,
}

fn build(rules: Vec<(Vec<String>, Rule)>, fall_through: bool) -> Result<Table<usize>, Fault> {
    let mut builder = Builder::new().fall_through(fall_through);
    for (index, (hosts, rule)) in rules.into_iter().enumerate() {
        for host in hosts {
            builder
                .add(&host, rule.clone(), index)
                .map_err(|error| fault(format!("routes[{index}]"), &error))?;
        }
    }
    builder
        .build()
        .map_err(|error| fault("routes".to_owned(), &error))
}

fn fault(route: String, error: &BuildError) -> Fault {
    let path = match error.field {
        Field::Hostname => route + ".hosts",
        Field::Rule => route,
        field => format!("{route}.{field}"),
    };
    let what = match error.field {
        Field::Hostname => format!("{:?} is ", error.hostname),
        _ => String::new(),
    };
    Fault {
        message: format!("{path}: {what}{}", error.problem),
        path,
    }
}

impl Fault {
    fn raise(self, py: Python<'_>) -> PyErr {
        let raised = config_error(py, &self.message);
        match raised.value(py).setattr("path", self.path) {
            Ok(()) => raised,
            Err(failed) => failed,
        }
    }
}

// === Requests ===

/// `str` (as UTF-8) or `bytes`.
#[derive(FromPyObject)]
enum Text {
    #[pyo3(transparent, annotation = "str")]
    Str(PyBackedStr),
    #[pyo3(transparent, annotation = "bytes")]
    Bytes(PyBackedBytes),
}

struct Incoming<'a> {
    host: Option<Text>,
    target: Text,
    method: &'a str,
    headers: Vec<(Text, Text)>,
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Str(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl<'a> Incoming<'a> {
    /// Header fields are only read if some route has a predicate on them.
    fn new(
        table: &Table<usize>,
        target: Text,
        host: Option<Text>,
        method: &'a str,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let headers = match headers {
            Some(given) if table.reads_headers() => fields(given)?,
            _ => Vec::new(),
        };
        Ok(Self {
            host,
            target,
            method,
            headers,
        })
    }

    fn split(&self) -> (&[u8], Option<&[u8]>) {
        let target = self.target.as_bytes();
        match target.iter().position(|&b| b == b'?') {
            Some(at) => (&target[..at], Some(&target[at + 1..])),
            None => (target, None),
        }
    }
}

/// Header fields from a mapping, or from a sequence of pairs.
fn fields(given: &Bound<'_, PyAny>) -> PyResult<Vec<(Text, Text)>> {
    if given.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(
            "headers must be a mapping or pairs, not str",
        ));
    }
    let pairs = match given.cast::<PyMapping>() {
        Ok(mapping) => mapping.items()?.into_any(),
        Err(_) => given.clone(),
    };
    pairs.try_iter()?.map(|pair| pair?.extract()).collect()
}

impl Request for Incoming<'_> {
    fn host(&self) -> &[u8] {
        self.host.as_ref().map_or(b"", Text::as_bytes)
    }

    fn path(&self) -> &[u8] {
        self.split().0
    }

    fn query(&self) -> Option<&[u8]> {
        self.split().1
    }

    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn any_header(&self, name: &[u8], mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        self.headers.iter().any(|(field, value)| {
            field.as_bytes().eq_ignore_ascii_case(name) && matches(value.as_bytes().trim_ascii())
        })
    }
}
