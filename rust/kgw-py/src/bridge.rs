//! `kgw._native.bridge`: filters in Python, and what they see. The reference is
//! `python/kgw/_native/bridge.pyi`.
//!
//! Workers never come here: an event loop calls [`Bridge::drain`] when the bridge's descriptor is
//! readable, which calls the filters. Strings are made when a filter asks for them. What is locked is
//! never locked while Python code can run.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process;
use std::sync::Arc;

use kgw_engine::bridge::{
    self, Answer, BadEdit, Declaration, Failure, FieldEdit, Message, RequestHead, ResponseHead,
    Verdict,
};
use parking_lot::Mutex;
use pyo3::exceptions::{PyException, PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyMapping, PyString, PyTuple};

use crate::error::{config_error, filter_error, not_running};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Bridge>()?;
    module.add_class::<Headers>()?;
    module.add_class::<Job>()?;
    module.add_class::<Request>()?;
    module.add_class::<Response>()
}

/// Jobs that are run before the event loop gets its turn.
const BATCH: usize = 256;

/// The way to filters; see the stub for its documentation, as for the other classes.
#[pyclass(frozen, module = "kgw._native.bridge")]
pub(crate) struct Bridge {
    pub(crate) bridge: Arc<bridge::Bridge>,
    /// The descriptor is shared with children of a fork, who must not take its wakes.
    owner: u32,
}

/// Ends a look at the queue, however it ends.
struct Look<'a>(&'a bridge::Bridge);

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[pymethods]
impl Bridge {
    #[new]
    fn new(py: Python<'_>, declarations: &[u8], capacity: usize) -> PyResult<Self> {
        if capacity == 0 {
            return Err(PyValueError::new_err("capacity must be at least 1"));
        }
        let list = Declaration::list(declarations).map_err(|error| config_error(py, &error))?;
        Ok(Self {
            bridge: Arc::new(bridge::Bridge::new(list, capacity)?),
            owner: process::id(),
        })
    }

    fn fileno(&self) -> RawFd {
        self.bridge.as_fd().as_raw_fd()
    }

    #[getter]
    fn active(&self) -> usize {
        self.bridge.active()
    }

    fn drain(
        &self,
        py: Python<'_>,
        handlers: &Bound<'_, PyList>,
        runner: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if process::id() != self.owner {
            return Err(not_running(py, "the filters belong to the parent process"));
        }
        let mut cancelled = Vec::new();
        let is_open = self.bridge.begin(|id| cancelled.push(id));
        let _look = Look(&self.bridge);
        for id in cancelled {
            runner.call_method1("cancel", (id,))?;
        }
        if !is_open {
            runner.call_method0("stop")?;
            return Ok(());
        }
        for _ in 0..BATCH {
            let Some(job) = self.bridge.pop() else {
                break;
            };
            run(py, job, handlers, runner)?;
        }
        Ok(())
    }

    fn close(&self) {
        if process::id() == self.owner {
            self.bridge.close();
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.close();
    }
}

/// Calls the filter that a job is for.
fn run(
    py: Python<'_>,
    mut job: bridge::Job,
    handlers: &Bound<'_, PyList>,
    runner: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let at = 2 * job.filter();
    let (request, response, result) = match job.take_message() {
        Some(Message::RequestHead(head)) => {
            let request = Bound::new(py, Request::of(head))?;
            let result = handlers.get_item(at)?.call1((&request,));
            (request, None, result)
        }
        Some(Message::ResponseHead(head, response)) => {
            let request = Bound::new(py, Request::seen(head))?;
            let response = Bound::new(py, Response::of(response))?;
            let result = handlers.get_item(at + 1)?.call1((&request, &response));
            (request, Some(response), result)
        }
        // Not asked by this version of the engine.
        _ => return Ok(()),
    };
    let result = match result {
        Ok(result) => result,
        Err(error) => {
            let filter = job.filter();
            shut(&request, response.as_ref());
            job.answer(Verdict::Failed(Failure::Exception));
            if !error.is_instance_of::<PyException>(py) {
                return Err(error);
            }
            runner.call_method1("failed", (filter, error))?;
            return Ok(());
        }
    };
    if let Some(verdict) = decision(&result, &request, response.as_ref()) {
        job.answer(verdict);
        return Ok(());
    }
    let job = Job {
        id: job.id(),
        filter: job.filter(),
        asked: Mutex::new(Some(job)),
        request: request.unbind(),
        response: response.map(Bound::unbind),
    };
    runner.call_method1("start", (job, result))?;
    Ok(())
}

/// What a filter's result decides; none if it is no decision. Heads of a decided message are shut.
fn decision(
    result: &Bound<'_, PyAny>,
    request: &Bound<'_, Request>,
    response: Option<&Bound<'_, Response>>,
) -> Option<Verdict> {
    let is_view = response.is_some_and(|response| result.is(response));
    if result.is_none() || is_view {
        let edits = match response {
            None => request.get().take_edits(),
            Some(response) => {
                request.get().shut();
                response.get().take_edits()
            }
        };
        return Some(Verdict::Continue(edits));
    }
    let answer = result.cast::<Response>().ok()?.get().answer(result.py())?;
    shut(request, response);
    Some(Verdict::Respond(Box::new(answer)))
}

fn shut(request: &Bound<'_, Request>, response: Option<&Bound<'_, Response>>) {
    request.get().shut();
    if let Some(response) = response {
        response.get().take_edits();
    }
}

/// A job whose filter takes its time.
#[pyclass(frozen, module = "kgw._native.bridge")]
struct Job {
    #[pyo3(get)]
    id: u64,
    #[pyo3(get)]
    filter: usize,
    asked: Mutex<Option<bridge::Job>>,
    request: Py<Request>,
    response: Option<Py<Response>>,
}

#[pymethods]
impl Job {
    fn finish(&self, py: Python<'_>, result: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(job) = self.asked.lock().take() else {
            return Ok(());
        };
        let request = self.request.bind(py);
        let response = self.response.as_ref().map(|response| response.bind(py));
        if let Some(verdict) = decision(result, request, response) {
            job.answer(verdict);
            return Ok(());
        }
        shut(request, response);
        job.answer(Verdict::Failed(Failure::Invalid));
        let kind = result.get_type().name()?;
        let message = format!("a filter returns None or a Response of its own, not {kind}");
        Err(PyTypeError::new_err(message))
    }

    fn abandon(&self) {
        drop(self.asked.lock().take());
    }

    fn fail(&self, py: Python<'_>) {
        if let Some(job) = self.asked.lock().take() {
            let response = self.response.as_ref().map(|response| response.bind(py));
            shut(self.request.bind(py), response);
            job.answer(Verdict::Failed(Failure::Exception));
        }
    }
}

// === Heads ===

/// A head, and whether it can still be changed.
struct Head<H> {
    head: Box<H>,
    is_open: bool,
}

/// A request, as filters see it.
#[pyclass(frozen, module = "kgw._native.bridge")]
struct Request {
    state: Mutex<Head<RequestHead>>,
}

impl Request {
    /// A request that is decided about.
    fn of(head: Box<RequestHead>) -> Self {
        let is_open = true;
        Self {
            state: Mutex::new(Head { head, is_open }),
        }
    }

    /// A request that has been decided about.
    fn seen(head: Box<RequestHead>) -> Self {
        let is_open = false;
        Self {
            state: Mutex::new(Head { head, is_open }),
        }
    }

    fn shut(&self) {
        self.state.lock().is_open = false;
    }

    fn take_edits(&self) -> Option<Box<bridge::Edits>> {
        let mut state = self.state.lock();
        state.is_open = false;
        state.head.take_edits()
    }

    fn text<'py>(
        &self,
        py: Python<'py>,
        of: impl FnOnce(&RequestHead) -> &[u8],
    ) -> PyResult<Bound<'py, PyString>> {
        let text = Text::new(py, of(&self.state.lock().head));
        text.into_str(py)
    }

    fn edit<T>(
        &self,
        py: Python<'_>,
        edit: impl FnOnce(&mut RequestHead) -> Result<T, BadEdit>,
    ) -> PyResult<T> {
        let mut state = self.state.lock();
        let edited = state.is_open.then(|| edit(&mut state.head));
        drop(state);
        edited.map_or_else(
            || Err(too_late(py)),
            |edited| edited.map_err(|e| bad_edit(&e)),
        )
    }
}

#[pymethods]
impl Request {
    #[getter]
    fn method<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.text(py, RequestHead::method)
    }

    #[setter]
    fn set_method(&self, value: &Bound<'_, PyString>) -> PyResult<()> {
        let bytes = bytes_of(value)?;
        self.edit(value.py(), |head| head.set_method(&bytes))
    }

    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.text(py, RequestHead::target)
    }

    #[setter]
    fn set_target(&self, value: &Bound<'_, PyString>) -> PyResult<()> {
        let bytes = bytes_of(value)?;
        self.edit(value.py(), |head| head.set_target(&bytes))
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.text(py, RequestHead::path)
    }

    #[setter]
    fn set_path(&self, value: &Bound<'_, PyString>) -> PyResult<()> {
        let bytes = bytes_of(value)?;
        self.edit(value.py(), |head| head.set_path(&bytes))
    }

    #[getter]
    fn query<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyString>>> {
        let state = self.state.lock();
        let text = state.head.query().map(|query| Text::new(py, query));
        drop(state);
        text.map(|text| text.into_str(py)).transpose()
    }

    #[getter]
    fn host<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.text(py, RequestHead::host)
    }

    #[setter]
    fn set_host(&self, value: &Bound<'_, PyString>) -> PyResult<()> {
        let bytes = bytes_of(value)?;
        self.edit(value.py(), |head| head.set_host(&bytes))
    }

    #[getter]
    fn scheme(&self) -> &'static str {
        self.state.lock().head.scheme()
    }

    #[getter]
    fn version(&self) -> &'static str {
        self.state.lock().head.version().as_str()
    }

    #[getter]
    fn client(&self) -> String {
        self.state.lock().head.client().to_string()
    }

    #[getter]
    fn peer(&self) -> (String, u16) {
        let peer: SocketAddr = self.state.lock().head.peer();
        (peer.ip().to_string(), peer.port())
    }

    #[getter]
    fn principal(&self) -> Option<String> {
        self.state.lock().head.principal().map(str::to_owned)
    }

    #[getter]
    fn route(&self) -> String {
        self.state.lock().head.route().to_owned()
    }

    #[getter]
    fn headers(slf: &Bound<'_, Self>) -> Headers {
        Headers(Owner::Request(slf.clone().unbind()))
    }

    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let metadata = self.state.lock().head.metadata().to_vec();
        let found = PyDict::new(py);
        for (key, value) in metadata {
            found.set_item(key, value)?;
        }
        Ok(found)
    }

    fn note(&self, py: Python<'_>, key: String, value: String) -> PyResult<()> {
        self.edit(py, |head| {
            head.set_metadata(key, value);
            Ok(())
        })
    }

    fn __repr__(&self) -> String {
        let state = self.state.lock();
        let method = String::from_utf8_lossy(state.head.method()).into_owned();
        let target = String::from_utf8_lossy(state.head.target()).into_owned();
        format!("<kgw.Request {method} {target}>")
    }
}

/// A response, the upstream's or a filter's own.
#[pyclass(frozen, module = "kgw._native.bridge")]
struct Response {
    state: Mutex<Head<ResponseHead>>,
    /// None of a response whose body passes by.
    body: Option<Py<PyBytes>>,
}

impl Response {
    fn of(head: Box<ResponseHead>) -> Self {
        let is_open = true;
        Self {
            state: Mutex::new(Head { head, is_open }),
            body: None,
        }
    }

    fn take_edits(&self) -> Option<Box<bridge::Edits>> {
        let mut state = self.state.lock();
        state.is_open = false;
        state.head.take_edits()
    }

    /// The answer that a filter's own response is. It can be sent again.
    fn answer(&self, py: Python<'_>) -> Option<Answer> {
        let body = self.body.as_ref()?.as_bytes(py).to_vec();
        let state = self.state.lock();
        Some(Answer {
            status: state.head.status(),
            headers: state.head.headers().clone(),
            body,
        })
    }

    fn edit(
        &self,
        py: Python<'_>,
        edit: impl FnOnce(&mut ResponseHead) -> Result<(), BadEdit>,
    ) -> PyResult<()> {
        let mut state = self.state.lock();
        let edited = state.is_open.then(|| edit(&mut state.head));
        drop(state);
        edited.map_or_else(
            || Err(too_late(py)),
            |edited| edited.map_err(|e| bad_edit(&e)),
        )
    }
}

#[pymethods]
impl Response {
    #[new]
    #[pyo3(signature = (status=200, body=None, headers=None))]
    fn new(
        py: Python<'_>,
        status: u16,
        body: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut head =
            ResponseHead::of_answer(status).ok_or_else(|| bad_edit(&BadEdit::Status(status)))?;
        let body = match body {
            None => PyBytes::new(py, b""),
            Some(body) => match body.cast::<PyString>() {
                Ok(text) => PyBytes::new(py, text.to_str()?.as_bytes()),
                Err(_) => body.cast::<PyBytes>()?.clone(),
            },
        };
        if matches!(status, 204 | 304) && !body.as_bytes().is_empty() {
            let message = format!("a response with status {status} has no body");
            return Err(PyValueError::new_err(message));
        }
        for (name, value) in headers.map_or(Ok(Vec::new()), pairs)? {
            head.edit(FieldEdit::Append(name, value))
                .map_err(|error| bad_edit(&error))?;
        }
        Ok(Self {
            state: Mutex::new(Head {
                head: Box::new(head),
                is_open: true,
            }),
            body: Some(body.unbind()),
        })
    }

    #[getter]
    fn status(&self) -> u16 {
        self.state.lock().head.status()
    }

    #[setter]
    fn set_status(&self, py: Python<'_>, value: u16) -> PyResult<()> {
        self.edit(py, |head| head.set_status(value))
    }

    #[getter]
    fn headers(slf: &Bound<'_, Self>) -> Headers {
        Headers(Owner::Response(slf.clone().unbind()))
    }

    #[getter]
    fn body(&self, py: Python<'_>) -> Option<Py<PyBytes>> {
        self.body.as_ref().map(|body| body.clone_ref(py))
    }

    fn __repr__(&self) -> String {
        format!("<kgw.Response {}>", self.state.lock().head.status())
    }
}

// === Header fields ===

/// The header fields of a request or response.
#[pyclass(frozen, module = "kgw._native.bridge")]
struct Headers(Owner);

enum Owner {
    Request(Py<Request>),
    Response(Py<Response>),
}

impl Headers {
    fn with<R>(&self, of: impl FnOnce(&kgw_engine::bridge::Fields) -> R) -> R {
        match &self.0 {
            Owner::Request(request) => of(request.get().state.lock().head.headers()),
            Owner::Response(response) => of(response.get().state.lock().head.headers()),
        }
    }

    fn edit(&self, py: Python<'_>, edit: FieldEdit) -> PyResult<()> {
        match &self.0 {
            Owner::Request(request) => request.get().edit(py, |head| head.edit(edit)),
            Owner::Response(response) => response.get().edit(py, |head| head.edit(edit)),
        }
    }

    /// The value of a field; of several, all in one, as RFC 9110 5.3 joins them.
    fn value<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyString>>> {
        let py = name.py();
        let name = bytes_of(name)?;
        let text = self.with(|headers| {
            let mut values = headers.get_all(&name);
            let first = values.next()?;
            let Some(second) = values.next() else {
                return Some(Text::new(py, first));
            };
            let mut joined = first.to_vec();
            for value in std::iter::once(second).chain(values) {
                joined.extend_from_slice(b", ");
                joined.extend_from_slice(value);
            }
            Some(Text::new(py, &joined))
        });
        text.map(|text| text.into_str(py)).transpose()
    }

    fn owned(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.with(|headers| {
            let pairs = headers.iter();
            pairs
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
                .collect()
        })
    }
}

#[pymethods]
impl Headers {
    fn __getitem__<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
        self.value(name)?
            .ok_or_else(|| PyKeyError::new_err(name.clone().unbind()))
    }

    #[pyo3(signature = (name, default=None))]
    fn get<'py>(
        &self,
        name: &Bound<'py, PyString>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.value(name)?.map(Bound::into_any).or(default))
    }

    fn all<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Vec<Bound<'py, PyString>>> {
        let py = name.py();
        let name = bytes_of(name)?;
        let values: Vec<Vec<u8>> =
            self.with(|headers| headers.get_all(&name).map(<[u8]>::to_vec).collect());
        let values = values.iter();
        values
            .map(|value| Text::new(py, value).into_str(py))
            .collect()
    }

    fn items<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Vec<(Bound<'py, PyString>, Bound<'py, PyString>)>> {
        self.owned()
            .iter()
            .map(|(name, value)| {
                let name = Text::new(py, name).into_str(py)?;
                Ok((name, Text::new(py, value).into_str(py)?))
            })
            .collect()
    }

    fn append(&self, name: &Bound<'_, PyString>, value: &Bound<'_, PyString>) -> PyResult<()> {
        let edit = FieldEdit::Append(bytes_of(name)?, bytes_of(value)?);
        self.edit(name.py(), edit)
    }

    fn __setitem__(&self, name: &Bound<'_, PyString>, value: &Bound<'_, PyString>) -> PyResult<()> {
        let edit = FieldEdit::Set(bytes_of(name)?, bytes_of(value)?);
        self.edit(name.py(), edit)
    }

    fn __delitem__(&self, name: &Bound<'_, PyString>) -> PyResult<()> {
        if !self.__contains__(name)? {
            return Err(PyKeyError::new_err(name.clone().unbind()));
        }
        let edit = FieldEdit::Remove(bytes_of(name)?);
        self.edit(name.py(), edit)
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(name) = name.cast::<PyString>() else {
            return Ok(false);
        };
        let name = bytes_of(name)?;
        Ok(self.with(|headers| headers.contains(&name)))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for (name, _) in self.owned() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let names = names.iter().map(|name| Text::new(py, name).into_str(py));
        PyList::new(py, names.collect::<PyResult<Vec<_>>>()?)?.try_iter()
    }

    fn __len__(&self) -> usize {
        let mut names: Vec<Vec<u8>> = self.owned().into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let items = self.items(py)?;
        let items = PyList::new(py, items)?.repr()?;
        Ok(format!("<kgw.Headers {}>", items.to_str()?))
    }
}

// === Text ===

/// Bytes of a message on their way to a string: UTF-8, and what is none as `surrogateescape` has it.
enum Text<'py> {
    Ready(Bound<'py, PyString>),
    /// Decoding it runs Python's machinery, so it waits until nothing is locked.
    Raw(Vec<u8>),
}

impl<'py> Text<'py> {
    fn new(py: Python<'py>, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Ready(PyString::new(py, text)),
            Err(_) => Self::Raw(bytes.to_vec()),
        }
    }

    fn into_str(self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        match self {
            Self::Ready(text) => Ok(text),
            Self::Raw(bytes) => PyString::from_encoded_object(
                &PyBytes::new(py, &bytes),
                Some(c"utf-8"),
                Some(c"surrogateescape"),
            ),
        }
    }
}

/// The bytes that a string stands for; the other way round.
fn bytes_of(text: &Bound<'_, PyString>) -> PyResult<Box<[u8]>> {
    if let Ok(text) = text.to_str() {
        return Ok(text.as_bytes().into());
    }
    let bytes = text.call_method1("encode", ("utf-8", "surrogateescape"))?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().into())
}

type Pair = (Box<[u8]>, Box<[u8]>);

/// Names and values of a mapping, or of pairs.
fn pairs(headers: &Bound<'_, PyAny>) -> PyResult<Vec<Pair>> {
    let items = match headers.cast::<PyMapping>() {
        Ok(mapping) => mapping.items()?.into_any(),
        Err(_) => headers.clone(),
    };
    items
        .try_iter()?
        .map(|item| {
            let item = item?;
            let item = item.cast::<PyTuple>()?;
            let (name, value) = (item.get_item(0)?, item.get_item(1)?);
            Ok((
                bytes_of(name.cast::<PyString>()?)?,
                bytes_of(value.cast::<PyString>()?)?,
            ))
        })
        .collect()
}

fn bad_edit(error: &BadEdit) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn too_late(py: Python<'_>) -> PyErr {
    filter_error(
        py,
        "the filter has decided: nothing can be changed any longer",
    )
}
