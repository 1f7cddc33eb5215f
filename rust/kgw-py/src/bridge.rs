//! `kgw._native.bridge`: filters in Python, and what they see. The reference is
//! `python/kgw/_native/bridge.pyi`.
//!
//! Workers never come here: an event loop calls [`Bridge::drain`] when the bridge's descriptor is
//! readable, which calls the filters. Strings are made when a filter asks for them. What is locked is
//! never locked while Python code can run.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process;
use std::sync::Arc;

use bytes::Bytes;
use kgw_engine::bridge::{
    self, BadEdit, Chunk, Declaration, Edits, Failure, FieldEdit, Message, RequestHead,
    ResponseHead, Verdict,
};
use parking_lot::Mutex;
use pyo3::exceptions::{PyException, PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyMapping, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

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

/// What a filter may be called for, each by a handler of its own: requests, responses, chunks of
/// requests, chunks of responses.
const PHASES: usize = 4;

/// The way to filters; see the stub for its documentation, as for the other classes.
#[pyclass(frozen, module = "kgw._native.bridge")]
pub(crate) struct Bridge {
    pub(crate) queue: Arc<bridge::Bridge>,
    /// The descriptor is shared with children of a fork, who must not take its wakes.
    owner: u32,
    /// What filters see more than once, by the numbers of their sessions.
    sessions: Mutex<HashMap<u64, Seen>>,
}

/// The messages of an exchange, as a filter sees them.
struct Seen {
    request: Py<Request>,
    response: Option<Py<Response>>,
}

impl Seen {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            request: self.request.clone_ref(py),
            response: self.response.as_ref().map(|one| one.clone_ref(py)),
        }
    }
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
    fn new(
        py: Python<'_>,
        declarations: &[u8],
        capacity: usize,
        max_bytes: usize,
    ) -> PyResult<Self> {
        if capacity == 0 {
            return Err(PyValueError::new_err("capacity must be at least 1"));
        }
        let list = Declaration::list(declarations).map_err(|error| config_error(py, &error))?;
        Ok(Self {
            queue: Arc::new(bridge::Bridge::new(list, capacity, max_bytes)?),
            owner: process::id(),
            sessions: Mutex::default(),
        })
    }

    fn fileno(&self) -> RawFd {
        self.queue.as_fd().as_raw_fd()
    }

    #[getter]
    fn active(&self) -> usize {
        self.queue.active()
    }

    #[getter]
    fn held(&self) -> usize {
        self.queue.held()
    }

    #[getter]
    fn sessions(&self) -> usize {
        self.sessions.lock().len()
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
        let is_open = self.queue.begin(|id| cancelled.push(id));
        let _look = Look(&self.queue);
        self.forget_ended();
        for id in cancelled {
            runner.call_method1("cancel", (id,))?;
        }
        if !is_open {
            let left = std::mem::take(&mut *self.sessions.lock());
            drop(left);
            runner.call_method0("stop")?;
            return Ok(());
        }
        for _ in 0..BATCH {
            let Some(job) = self.queue.pop() else {
                break;
            };
            self.run(py, job, handlers, runner)?;
        }
        Ok(())
    }

    fn close(&self) {
        if process::id() == self.owner {
            self.queue.close();
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.close();
    }
}

impl Bridge {
    /// Lets go of what belongs to exchanges that are over.
    fn forget_ended(&self) {
        for id in self.queue.ended() {
            // What is dropped may run Python code.
            let seen = self.sessions.lock().remove(&id);
            drop(seen);
        }
    }

    /// Calls the filter that a job is for.
    fn run(
        &self,
        py: Python<'_>,
        mut job: bridge::Job,
        handlers: &Bound<'_, PyList>,
        runner: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let Some(message) = job.take_message() else {
            return Ok(());
        };
        let Some(asked) = self.asked(py, &job, message)? else {
            return Ok(());
        };
        let result = match asked.call(py, handlers, job.filter()) {
            Ok(result) => result,
            Err(error) => {
                let filter = job.filter();
                asked.shut(py);
                job.answer(Verdict::Failed(Failure::Exception));
                if !error.is_instance_of::<PyException>(py) {
                    return Err(error);
                }
                runner.call_method1("failed", (filter, error))?;
                return Ok(());
            }
        };
        if let Some(verdict) = asked.decision(&result) {
            job.answer(verdict);
            return Ok(());
        }
        let job = Job {
            id: job.id(),
            filter: job.filter(),
            question: Mutex::new(Some(job)),
            asked,
        };
        runner.call_method1("start", (job, result))?;
        Ok(())
    }

    /// What the filter is called with. None if what was said before is not known, or the message is none
    /// of this version's.
    fn asked(
        &self,
        py: Python<'_>,
        job: &bridge::Job,
        message: Message,
    ) -> PyResult<Option<Asked>> {
        let known = job.session().and_then(|session| {
            let mut sessions = self.sessions.lock();
            if job.is_last() {
                sessions.remove(&session)
            } else {
                sessions.get(&session).map(|seen| seen.clone_ref(py))
            }
        });
        let (known_request, known_response) = match known {
            Some(seen) => (Some(seen.request), seen.response),
            None => (None, None),
        };
        let (request, response, chunk) = match message {
            Message::RequestHead(head) => {
                let request = Request::seen_as(py, known_request, Some(head), Open::All)?;
                (request, None, None)
            }
            Message::ResponseHead(head, response) => {
                let request = Request::seen_as(py, known_request, Some(head), Open::Notes)?;
                let response = Py::new(py, Response::of(response))?;
                (request, Some(Some(response)), None)
            }
            Message::RequestChunk(head, chunk) => {
                let request = Request::seen_as(py, known_request, head, Open::Notes)?;
                (request, None, Some(chunk))
            }
            Message::ResponseChunk(heads, chunk) => {
                let (head, response) = match heads {
                    Some((head, response)) => {
                        (Some(head), Some(Py::new(py, Response::shut(response))?))
                    }
                    None => (None, known_response),
                };
                let request = Request::seen_as(py, known_request, head, Open::Notes)?;
                (request, Some(response), Some(chunk))
            }
            _ => return Ok(None),
        };
        let (Some(request), Some(response)) =
            (request, response.map_or(Some(None), |one| one.map(Some)))
        else {
            return Ok(None);
        };
        let seen = Seen { request, response };
        if let Some(session) = job.session()
            && !job.is_last()
        {
            let replaced = self.sessions.lock().insert(session, seen.clone_ref(py));
            drop(replaced);
        }
        Ok(Some(Asked { seen, chunk }))
    }
}

/// What a filter is called with.
struct Asked {
    seen: Seen,
    chunk: Option<Chunk>,
}

impl Asked {
    fn call<'py>(
        &self,
        py: Python<'py>,
        handlers: &Bound<'py, PyList>,
        filter: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let handler = |phase| handlers.get_item(PHASES * filter + phase);
        let request = self.seen.request.bind(py);
        let response = self.seen.response.as_ref().map(|one| one.bind(py));
        let chunk = self.chunk.as_ref();
        let chunk = chunk.map(|chunk| (PyBytes::new(py, &chunk.data), chunk.end));
        match (response, chunk) {
            (None, None) => handler(0)?.call1((request,)),
            (Some(response), None) => handler(1)?.call1((request, response)),
            (None, Some((data, end))) => handler(2)?.call1((request, data, end)),
            (Some(response), Some((data, end))) => {
                handler(3)?.call1((request, response, data, end))
            }
        }
    }

    /// What a filter's result decides; none if it is no decision. Of a decided message nothing can be
    /// changed any longer.
    fn decision(&self, result: &Bound<'_, PyAny>) -> Option<Verdict> {
        let py = result.py();
        let response = self.seen.response.as_ref().map(|one| one.bind(py));
        if self.chunk.is_some() {
            let data = if result.is_none() {
                None
            } else if let Ok(data) = result.cast::<PyBytes>() {
                Some(Bytes::copy_from_slice(data.as_bytes()))
            } else if response.is_some() {
                // The client has the head already.
                return None;
            } else {
                return self.answer(result);
            };
            let notes = self.seen.request.get().take_edits();
            let edits = match (data.map(Edits::of_chunk), notes) {
                (Some(mut edits), Some(mut notes)) => {
                    edits.take_notes(&mut notes);
                    Some(Box::new(edits))
                }
                (edits, notes) => edits.map(Box::new).or(notes),
            };
            return Some(Verdict::Continue(edits));
        }
        let is_view = response.is_some_and(|response| result.is(response));
        if !result.is_none() && !is_view {
            return self.answer(result);
        }
        let of_request = self.seen.request.get().take_edits();
        let of_response = response.and_then(|response| response.get().take_edits());
        Some(Verdict::Continue(match (of_response, of_request) {
            (Some(mut edits), Some(mut notes)) => {
                edits.take_notes(&mut notes);
                Some(edits)
            }
            (of_response, of_request) => of_response.or(of_request),
        }))
    }

    /// The filter's own response that the result is.
    fn answer(&self, result: &Bound<'_, PyAny>) -> Option<Verdict> {
        let answer = result.cast::<Response>().ok()?.get().answer()?;
        self.shut(result.py());
        Some(Verdict::Respond(Box::new(answer)))
    }

    fn shut(&self, py: Python<'_>) {
        self.seen.request.get().take_edits();
        if let Some(response) = &self.seen.response {
            response.bind(py).get().take_edits();
        }
    }
}

/// A job whose filter takes its time.
#[pyclass(frozen, module = "kgw._native.bridge")]
struct Job {
    #[pyo3(get)]
    id: u64,
    #[pyo3(get)]
    filter: usize,
    question: Mutex<Option<bridge::Job>>,
    asked: Asked,
}

#[pymethods]
impl Job {
    fn finish(&self, py: Python<'_>, result: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(job) = self.question.lock().take() else {
            return Ok(());
        };
        if let Some(verdict) = self.asked.decision(result) {
            job.answer(verdict);
            return Ok(());
        }
        self.asked.shut(py);
        job.answer(Verdict::Failed(Failure::Invalid));
        let kind = result.get_type().name()?;
        let wanted = match (&self.asked.chunk, &self.asked.seen.response) {
            (None, _) => "None or a Response of its own",
            (Some(_), None) => "None, bytes or a Response of its own",
            (Some(_), Some(_)) => "None or bytes",
        };
        let message = format!("a filter returns {wanted}, not {kind}");
        Err(PyTypeError::new_err(message))
    }

    fn abandon(&self) {
        drop(self.question.lock().take());
    }

    fn fail(&self, py: Python<'_>) {
        if let Some(job) = self.question.lock().take() {
            self.asked.shut(py);
            job.answer(Verdict::Failed(Failure::Exception));
        }
    }
}

// === Heads ===

/// A head, and what of it can still be changed.
struct Head<H> {
    head: Box<H>,
    open: Open,
}

/// What can be changed.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Open {
    All,
    /// What filters note about the exchange.
    Notes,
    Nothing,
}

/// A request, as filters see it.
#[pyclass(frozen, module = "kgw._native.bridge")]
struct Request {
    state: Mutex<Head<RequestHead>>,
    /// What the filter keeps with the exchange: a dictionary.
    own: Mutex<Option<Py<PyDict>>>,
}

impl Request {
    /// The request with a newer head, if there is one: the same object if the filter knows it. None if
    /// there is neither.
    fn seen_as(
        py: Python<'_>,
        known: Option<Py<Self>>,
        head: Option<Box<RequestHead>>,
        open: Open,
    ) -> PyResult<Option<Py<Self>>> {
        let Some(known) = known else {
            let new = head.map(|head| Self {
                state: Mutex::new(Head { head, open }),
                own: Mutex::new(None),
            });
            return new.map(|new| Py::new(py, new)).transpose();
        };
        let mut state = known.get().state.lock();
        state.open = open;
        if let Some(head) = head {
            state.head = head;
        }
        drop(state);
        Ok(Some(known))
    }

    fn take_edits(&self) -> Option<Box<Edits>> {
        let mut state = self.state.lock();
        state.open = Open::Nothing;
        state.head.take_edits()
    }

    /// Replaces a part of the head that is text.
    fn set(
        &self,
        value: &Bound<'_, PyString>,
        set: fn(&mut RequestHead, &[u8]) -> Result<(), BadEdit>,
    ) -> PyResult<()> {
        let bytes = bytes_of(value)?;
        self.edit(value.py(), |head| set(head, &bytes))
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
        self.edit_if(py, |open| open == Open::All, edit)
    }

    fn edit_if<T>(
        &self,
        py: Python<'_>,
        is_allowed: fn(Open) -> bool,
        edit: impl FnOnce(&mut RequestHead) -> Result<T, BadEdit>,
    ) -> PyResult<T> {
        let mut state = self.state.lock();
        let edited = is_allowed(state.open).then(|| edit(&mut state.head));
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
        self.set(value, RequestHead::set_method)
    }

    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.text(py, RequestHead::target)
    }

    #[setter]
    fn set_target(&self, value: &Bound<'_, PyString>) -> PyResult<()> {
        self.set(value, RequestHead::set_target)
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.text(py, RequestHead::path)
    }

    #[setter]
    fn set_path(&self, value: &Bound<'_, PyString>) -> PyResult<()> {
        self.set(value, RequestHead::set_path)
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
        self.set(value, RequestHead::set_host)
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
        let is_allowed = |open| open != Open::Nothing;
        self.edit_if(py, is_allowed, |head| {
            head.set_metadata(key, value);
            Ok(())
        })
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let body = self.state.lock().head.body().cloned();
        body.map(|body| PyBytes::new(py, &body))
    }

    #[setter]
    fn set_body(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let body = body_of(value)?;
        self.edit(value.py(), |head| head.set_body(body))
    }

    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        let known = self.own.lock().as_ref().map(|own| own.clone_ref(py));
        let own = known.unwrap_or_else(|| {
            let new = PyDict::new(py).unbind();
            let mut own = self.own.lock();
            own.get_or_insert(new).clone_ref(py)
        });
        own.into_bound(py)
    }

    #[getter]
    fn upstreams<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let names = self.state.lock().head.backends();
        PyTuple::new(py, names)
    }

    #[getter]
    fn upstream(&self) -> Option<String> {
        self.state.lock().head.backend().map(str::to_owned)
    }

    #[setter]
    fn set_upstream(&self, py: Python<'_>, value: &str) -> PyResult<()> {
        self.edit(py, |head| head.set_backend(value))
    }

    #[getter]
    fn rate_limit_key(&self) -> Option<String> {
        self.state.lock().head.rate_limit_key().map(str::to_owned)
    }

    #[setter]
    fn set_rate_limit_key(&self, py: Python<'_>, value: &str) -> PyResult<()> {
        self.edit(py, |head| head.set_rate_limit_key(value))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Who holds it is in the middle of a call, and so alive.
        match self.own.try_lock() {
            Some(own) => visit.call(&*own),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        let own = self.own.lock().take();
        drop(own);
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
    is_own: bool,
}

impl Response {
    /// A response that is decided about.
    fn of(head: Box<ResponseHead>) -> Self {
        let (open, is_own) = (Open::All, false);
        Self {
            state: Mutex::new(Head { head, open }),
            is_own,
        }
    }

    /// A response that has been decided about.
    fn shut(head: Box<ResponseHead>) -> Self {
        let (open, is_own) = (Open::Nothing, false);
        Self {
            state: Mutex::new(Head { head, open }),
            is_own,
        }
    }

    fn take_edits(&self) -> Option<Box<Edits>> {
        let mut state = self.state.lock();
        state.open = Open::Nothing;
        state.head.take_edits()
    }

    /// The answer that a filter's own response is. It can be sent again.
    fn answer(&self) -> Option<bridge::Answer> {
        self.is_own.then(|| self.state.lock().head.answer())
    }

    fn edit(
        &self,
        py: Python<'_>,
        edit: impl FnOnce(&mut ResponseHead) -> Result<(), BadEdit>,
    ) -> PyResult<()> {
        let mut state = self.state.lock();
        let edited = (state.open == Open::All).then(|| edit(&mut state.head));
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
        status: u16,
        body: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let body = body.map_or(Ok(Bytes::new()), body_of)?;
        if matches!(status, 204 | 304) && !body.is_empty() {
            let message = format!("a response with status {status} has no body");
            return Err(PyValueError::new_err(message));
        }
        let mut head = ResponseHead::of_answer(status, body)
            .ok_or_else(|| bad_edit(&BadEdit::Status(status)))?;
        for (name, value) in headers.map_or(Ok(Vec::new()), pairs)? {
            head.edit(FieldEdit::Append(name, value))
                .map_err(|error| bad_edit(&error))?;
        }
        Ok(Self {
            state: Mutex::new(Head {
                head: Box::new(head),
                open: Open::All,
            }),
            is_own: true,
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
    fn body<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let state = self.state.lock();
        state.head.body().map(|body| PyBytes::new(py, body))
    }

    #[setter]
    fn set_body(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let body = body_of(value)?;
        self.edit(value.py(), |head| head.set_body(body))
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

/// The bytes of a body: as they are, or of text.
fn body_of(body: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    Ok(match body.cast::<PyString>() {
        Ok(text) => Bytes::copy_from_slice(text.to_str()?.as_bytes()),
        Err(_) => Bytes::copy_from_slice(body.cast::<PyBytes>()?.as_bytes()),
    })
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
