//! `kgw._native.route`: the route table over Python values. Public as `kgw.routing`.
//!
//! What has a Python name is documented for Python, in its notation and as in the stub.

#![allow(clippy::doc_markdown)] // the docs are in Python notation, as said above

use std::collections::HashMap;
use std::sync::OnceLock;

use kgw_route::{
    BuildError, Builder, Field, NamedGroups, PathMatch, Rank, Request, RouteTable as Table, Rule,
    StringMatch, ValueMatch,
};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyDict, PyMapping, PyString, PyTuple, PyType};

use crate::error::config_error;
use crate::explanation::{Considered, Explanation};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RouteTable>()?;
    module.add_class::<RouteMatch>()?;
    module.add_class::<Considered>()?;
    module.add_class::<Explanation>()?;
    module.add_function(wrap_pyfunction!(canonical_path, module)?)?;
    module.add_function(wrap_pyfunction!(check_substitution, module)?)?;
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

/// What is wrong with the replacement of what a regular expression matches, or ``None``.
///
/// In the replacement a backslash and a digit stand for a group, 0 for the whole match, and two
/// backslashes for one, as in RE2.
#[pyfunction]
fn check_substitution(pattern: &str, substitution: &str) -> Option<String> {
    kgw_route::Substitution::new(pattern, substitution)
        .err()
        .map(|error| error.to_string())
}

/// The one form of a request's path that the proxy matches, logs and forwards.
///
/// Escapes of unreserved characters are decoded, other escapes get upper-case digits, a backslash
/// becomes a slash, dot segments are removed and runs of slashes become one. Escaped slashes stay.
/// The query, after the first ``?``, is left as it is. Doing it again changes nothing.
///
/// Raises:
///     ValueError: the proxy answers 400, as backends might read two things into the path.
#[pyfunction]
fn canonical_path(path: &str) -> PyResult<String> {
    let refused = || PyValueError::new_err(format!("{path:?} has no canonical form"));
    let canonical = kgw_h1::normalize(path.as_bytes(), true).map_err(|_| refused())?;
    String::from_utf8(canonical).map_err(|_| refused())
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
pub(crate) struct RouteTable {
    table: Table<usize>,
    /// Beside the table: the engine's structure holds positions only.
    routes: Vec<Given>,
    groups: HashMap<usize, Groups>,
}

/// A route as it was given, and its value.
struct Given {
    route: Py<PyAny>,
    value: Py<PyAny>,
}

/// A regular expression with named groups, compiled when somebody first asks for them.
struct Groups {
    pattern: String,
    compiled: OnceLock<Option<NamedGroups>>,
}

/// The route that serves a request.
///
/// What it tells is worked out when it is asked for.
#[pyclass(frozen, generic, module = "kgw.routing")]
struct RouteMatch {
    table: Py<RouteTable>,
    request: Incoming,
    /// The route's position among the routes given.
    #[pyo3(get)]
    index: usize,
    prefix_len: Option<usize>,
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
        let mut given = Vec::new();
        let mut rules = Vec::new();
        let mut groups = HashMap::new();
        for (index, route) in routes.try_iter()?.enumerate() {
            let route = route?;
            let (hosts, rule, value) = compile(&route, index)?;
            if let PathMatch::Regex(pattern) = &rule.path {
                groups.extend(Groups::of(pattern).map(|groups| (index, groups)));
            }
            let route = route.unbind();
            given.push(Given { route, value });
            rules.push((hosts, rule));
        }
        let table = py
            .detach(|| build(rules, fall_through))
            .map_err(|fault| fault.raise(py))?;
        Ok(Self {
            table,
            routes: given,
            groups,
        })
    }

    /// A table of HTTPRoutes that decides as the proxy does; see `kgw.routing.routes_of`.
    ///
    /// Args:
    ///     objects: :class:`kgw.api.HTTPRoute` models, or mappings as in a manifest.
    ///     value: what the table hands back for a rule; by default the
    ///         :class:`kgw.routing.RouteRule` itself.
    ///     hostname: the hostname of the listener that the routes are attached to, or ``None`` for
    ///         routes of a Service, whose hostnames do not count.
    ///     fall_through: as for the constructor. The proxy does not.
    ///
    /// Raises:
    ///     kgw.errors.ConfigError: an object cannot be used; ``resource`` and ``path`` name the
    ///         field.
    #[classmethod]
    #[pyo3(
        signature = (objects, *, value=None, hostname=Some("*"), fall_through=false),
        text_signature = "($cls, objects, *, value=None, hostname='*', fall_through=False)"
    )]
    fn from_objects(
        class: &Bound<'_, PyType>,
        objects: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        hostname: Option<&str>,
        fall_through: bool,
    ) -> PyResult<Self> {
        let py = class.py();
        let arguments = PyDict::new(py);
        arguments.set_item("value", value)?;
        arguments.set_item("hostname", hostname)?;
        let routes_of = py.import("kgw.routing")?.getattr("routes_of")?;
        let routes = routes_of.call((objects,), Some(&arguments))?;
        Self::new(py, &routes, fall_through)
    }

    /// The route that serves a request, or ``None``.
    ///
    /// Args:
    ///     path: path and, after the first ``?``, query. Neither is decoded or normalised; see
    ///         `kgw.routing.canonical_path`. An empty one, of a ``CONNECT``, is ``/``.
    ///     host: value of ``Host``; a port, upper case and a trailing dot do not matter.
    ///     method: compared as it is.
    ///     headers: fields; of a repeated one, any value may match.
    #[pyo3(
        name = "match", signature = (path, *, host=None, method=None, headers=None),
        text_signature = "($self, path, *, host=None, method='GET', headers=None)"
    )]
    fn find(
        slf: &Bound<'_, Self>,
        path: Text,
        host: Option<Text>,
        method: Option<PyBackedStr>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<RouteMatch>> {
        let table = &slf.get().table;
        let request = Incoming::new(table, path, host, method, headers)?;
        let Some(found) = table.find(&request) else {
            return Ok(None);
        };
        Ok(Some(RouteMatch {
            table: slf.clone().unbind(),
            index: *found.value,
            prefix_len: found.prefix_len,
            request,
        }))
    }

    /// Every route whose hostname matches a request, with its fate: selected, or why not.
    ///
    /// In order of precedence. Looks at each of these routes: for people, not for the data path.
    /// ``str()`` gives one line for each. The arguments are those of ``match``.
    #[pyo3(
        signature = (path, *, host=None, method=None, headers=None),
        text_signature = "($self, path, *, host=None, method='GET', headers=None)"
    )]
    fn explain(
        &self,
        py: Python<'_>,
        path: Text,
        host: Option<Text>,
        method: Option<PyBackedStr>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Explanation> {
        self.why(
            py,
            &Incoming::new(&self.table, path, host, method, headers)?,
        )
    }

    fn __len__(&self) -> usize {
        self.routes.len()
    }

    fn __repr__(&self) -> String {
        format!("<RouteTable of {} routes>", self.routes.len())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.routes.iter().try_for_each(|given| {
            visit.call(&given.route)?;
            visit.call(&given.value)
        })
    }
}

impl RouteTable {
    fn why(&self, py: Python<'_>, request: &Incoming) -> PyResult<Explanation> {
        let explained = py.detach(|| self.table.explain(request));
        let considered = explained.considered.iter().map(|one| {
            let Given { route, value } = &self.routes[*one.value];
            Considered::new(one, route.clone_ref(py), value.clone_ref(py))
        });
        Explanation::new(py, request.line(), considered)
    }
}

// === impl RouteMatch ===

#[pymethods]
impl RouteMatch {
    /// The route: a :class:`kgw.routing.Route`, or the tuple that was given.
    #[getter]
    fn route(&self, py: Python<'_>) -> Py<PyAny> {
        self.given().route.clone_ref(py)
    }

    /// The value given with the route.
    #[getter]
    fn value(&self, py: Python<'_>) -> Py<PyAny> {
        self.given().value.clone_ref(py)
    }

    /// The hostname of the route that matched, in lower case, as in ``*.example``.
    #[getter]
    fn hostname(&self) -> String {
        let found = self.table.get().table.find(&self.request);
        found.map_or_else(String::new, |found| found.hostname.to_owned())
    }

    /// The part of the path that a prefix route matched, without trailing slash.
    ///
    /// It is empty for the prefix ``/``, so that ``path.removeprefix(matched_prefix)`` is what an
    /// application mounted there sees. ``None`` for exact and regex routes.
    #[getter]
    fn matched_prefix<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyString>>> {
        self.prefix_len
            .map(|len| text(py, &self.request.path()[..len]))
            .transpose()
    }

    /// The part of the path after ``matched_prefix``: empty, or from a slash on.
    ///
    /// Bytes that are not UTF-8 are surrogates in it, as ``os.fsdecode`` has them. ``None`` for
    /// exact and regex routes.
    #[getter]
    fn suffix<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyString>>> {
        self.prefix_len
            .map(|len| text(py, &self.request.path()[len..]))
            .transpose()
    }

    /// What the named groups of a regex path stand for, as in ``/users/(?P<user>[0-9]+)``.
    ///
    /// Not decoded; bytes that are not UTF-8 are surrogates. A group that has no part in the match
    /// is left out. Empty for other routes.
    #[getter]
    fn params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let params = PyDict::new(py);
        if let Some(groups) = self.table.get().groups.get(&self.index) {
            for (name, part) in groups.find(py, self.request.path()) {
                params.set_item(name, text(py, part)?)?;
            }
        }
        Ok(params)
    }

    /// Why this route, and why none of the others; see ``RouteTable.explain``.
    #[getter]
    fn why(&self, py: Python<'_>) -> PyResult<Explanation> {
        self.table.get().why(py, &self.request)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "RouteMatch(index={}, value={})",
            self.index,
            self.given().value.bind(py).repr()?
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.table)
    }
}

impl RouteMatch {
    fn given(&self) -> &Given {
        &self.table.get().routes[self.index]
    }
}

/// Bytes of a path as `str`; those that are not UTF-8 can be had back.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(PyString::new(py, text)),
        Err(_) => PyString::from_encoded_object(
            PyBytes::new(py, bytes).as_any(),
            Some(c"utf-8"),
            Some(c"surrogateescape"),
        ),
    }
}

// === impl Groups ===

impl Groups {
    /// Those of a pattern that may have some.
    fn of(pattern: &str) -> Option<Self> {
        let named = pattern.contains("(?P<") || pattern.contains("(?<");
        named.then(|| Self {
            pattern: pattern.to_owned(),
            compiled: OnceLock::new(),
        })
    }

    fn find<'a, 'p>(&'a self, py: Python<'_>, path: &'p [u8]) -> Vec<(&'a str, &'p [u8])> {
        // Whoever waits for another thread to compile it must not hold what that thread may need.
        py.detach(|| {
            // The table has taken the pattern, so it compiles.
            let compiled = self
                .compiled
                .get_or_init(|| NamedGroups::new(&self.pattern).ok());
            compiled
                .as_ref()
                .map_or_else(Vec::new, |groups| groups.find(path))
        })
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

struct Incoming {
    host: Option<Text>,
    target: Text,
    /// `GET` if none is given.
    method: Option<PyBackedStr>,
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

impl Incoming {
    /// Header fields are only read if some route has a predicate on them.
    fn new(
        table: &Table<usize>,
        target: Text,
        host: Option<Text>,
        method: Option<PyBackedStr>,
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
        match self.target.as_bytes() {
            // The target of a CONNECT has no path. Rules for all paths are for it too.
            b"" => (b"/", None),
            target => kgw_h1::split_path_and_query(target),
        }
    }

    /// Method, host and target, to begin an explanation with.
    fn line(&self) -> String {
        let lossy = |text: &Text| String::from_utf8_lossy(text.as_bytes()).into_owned();
        let method = String::from_utf8_lossy(self.method());
        let host = self.host.as_ref().map(lossy).unwrap_or_default();
        format!("{method} {host}{}", lossy(&self.target))
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

impl Request for Incoming {
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
        self.method.as_deref().unwrap_or("GET").as_bytes()
    }

    fn any_header(&self, name: &[u8], mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        self.headers.iter().any(|(field, value)| {
            field.as_bytes().eq_ignore_ascii_case(name) && matches(value.as_bytes().trim_ascii())
        })
    }
}
