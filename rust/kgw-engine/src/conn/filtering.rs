//! Asking the filters that are waited for, those in Python, on the way of an exchange.
//!
//! The connection's task waits; its worker goes on with others. It stops waiting when the filter's time
//! is over or the client is gone, and the filter is then cancelled. What happens without a decision is
//! the filter's `on_error`, with flag `PFE` either way.
//!
//! Response filters see every answer of their route, the upstream's and the proxy's own, the way back:
//! the last filter of the chain first. An answer that one of them makes is not shown to the others.
//!
//! A filter that wants a body as a whole is asked once it is there, and what it is asked about waits
//! until then; [`FilteredBody`] has what came in so far. The other bodies go on while filters see them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use kgw_h1::{Headers, Method, has_no_body};
use serde_json::{Map, Value};

use super::filtered_body::FilteredBody;
use super::message::{Downstream, Lost};
use super::processing::{self, ResponseStep};
use super::processor::Processing;
use super::whole_body::{Uncollected, has_request_body, whole_body};
use super::{Conn, shadowing};
use crate::bridge::{
    About, Body, Edits, Failure, Message, OpenSession, RequestHead, ResponseHead, Verdict, Waiting,
};
use crate::clock::Nanos;
use crate::config::ir::{HttpOptions, OnError};
use crate::filter::ext_authz::Edit;
use crate::filter::fault::ActiveFault;
use crate::filter::python::PythonFilter;
use crate::filter::{BodyFilter, Respond, ResponseFilter, ResponseView, Slot, Step};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::runtime::Phase;
use crate::telemetry::flags::ResponseFlag;
use crate::upstream::acquire::poll_client_gone;

/// The namespace of what filters note: `%DYNAMIC_METADATA(kgw.python:KEY)%`.
const NAMESPACE: &str = "kgw.python";

/// What came of asking.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The message goes on.
    Passed,
    /// The client gets this instead.
    Answered(Reply),
    /// Nobody waits for an answer.
    ClientGone(Lost),
}

/// Which of both messages of an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Request,
    Response,
}

/// What was noted, by namespace.
pub(crate) type Noted = BTreeMap<Cow<'static, str>, Map<String, Value>>;

/// How far the response filters of an exchange are.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct ResponseFilters {
    /// The place of the next one.
    next: usize,
    /// The one that is being asked, and until when.
    asked: Option<(Waiting, Nanos)>,
    /// The next one has decided about the head, and waits for the body.
    waits_for_body: bool,
    /// A body follows.
    has_body: bool,
    /// The body, if there is one and a filter of the route is for bodies.
    body: Option<FilteredBody>,
    /// Of an answer of the proxy's own: all of it.
    own_body: Option<Bytes>,
    /// A filter is for bodies, whether there is one or not.
    pub(super) sees_bodies: bool,
    /// The body is not empty.
    pub(super) has_content: bool,
    /// How far the processing by a service is that is the next one.
    pub(super) processing: ResponseStep,
    /// The length that the head states, as this service has left it.
    pub(super) stated_length: Option<u64>,
}

/// What filters leave with an exchange. Boxed, since most exchanges have none.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    pub(crate) metadata: Vec<(String, String)>,
    /// The name of the backend that was chosen.
    pub(crate) upstream: Option<Box<str>>,
    /// What the request's rate is counted by.
    pub(crate) rate_limit_key: Option<Box<str>>,
    /// The fault that was made, and how fast the answer may be sent because of it. Bytes a second.
    fault: Option<(ActiveFault, Option<u64>)>,
    /// What filters that let the request pass do to its answer.
    response_edits: Vec<Edit>,
    /// What they noted, by namespace.
    noted: Noted,
    /// The request's body, once a filter has to do with it.
    pub(super) request_body: Option<FilteredBody>,
    /// The client has been asked for the body.
    pub(super) is_continued: bool,
    /// Services that process the messages.
    pub(super) processings: Vec<Option<Box<Processing>>>,
    responses: ResponseFilters,
    /// The answer has been shown to the filters that it is for.
    is_answer_seen: bool,
    /// By the places of the filters among the bridge's. They end after what is asked in them.
    sessions: Vec<(u16, OpenSession)>,
}

impl Filtered {
    /// Whether a filter is being asked still.
    pub(crate) fn is_being_asked(&self) -> bool {
        let bodies = [&self.request_body, &self.responses.body];
        let of_bodies = bodies.into_iter().flatten();
        self.responses.asked.is_some() || of_bodies.into_iter().any(FilteredBody::is_being_asked)
    }

    /// The session of a filter, which begins if it has not yet.
    fn session(&mut self, filter: &PythonFilter) -> &OpenSession {
        let sessions = &mut self.sessions;
        let known = sessions
            .iter()
            .position(|(index, _)| *index == filter.index);
        let at = known.unwrap_or_else(|| {
            sessions.push((filter.index, filter.bridge.session()));
            sessions.len() - 1
        });
        &sessions[at].1
    }

    /// The namespaces in which something is noted.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &str> {
        let python = (!self.metadata.is_empty()).then_some(NAMESPACE);
        self.noted.keys().map(AsRef::as_ref).chain(python)
    }

    /// What is noted in a namespace, for conditions.
    pub(crate) fn namespace(&self, name: &str) -> Option<&dyn kgw_cel::Data> {
        if name == NAMESPACE {
            return (!self.metadata.is_empty()).then_some(&self.metadata as _);
        }
        self.noted.get(name).map(|noted| noted as _)
    }

    /// What filters noted, in the form of access logs: by namespace.
    fn log_metadata(&self) -> Option<Map<String, Value>> {
        let noted = self.noted.iter();
        let mut all: Map<String, Value> = noted
            .map(|(name, noted)| (name.clone().into_owned(), Value::Object(noted.clone())))
            .collect();
        if !self.metadata.is_empty() {
            let noted = self.metadata.iter();
            let noted = noted.map(|(key, value)| (key.clone(), Value::from(value.as_str())));
            all.insert(NAMESPACE.to_owned(), Value::Object(noted.collect()));
        }
        (!all.is_empty()).then_some(all)
    }
}

/// Asks a filter about the request, or lets it see the body as it goes on.
pub(crate) async fn on_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &Arc<PythonFilter>,
    http: &HttpOptions,
) -> Asked {
    if !filter.is_for(&conn.request) {
        conn.worker.stats().python_filter_skipped.increment();
        return Asked::Passed;
    }
    let mut failed = false;
    if filter.on_request {
        let asked = match whole_body(conn, exchange, filter, http).await {
            Ok(body) => ask_about_request(conn, exchange, filter, body).await,
            Err(Uncollected::Failed(failure)) => Ok(Verdict::Failed(failure)),
            Err(Uncollected::Answered(reply)) => return Asked::Answered(reply),
            Err(Uncollected::ClientGone(lost)) => return Asked::ClientGone(lost),
        };
        let verdict = match asked {
            Ok(verdict) => verdict,
            Err(lost) => {
                conn.worker.stats().python_filter_abandoned.increment();
                return Asked::ClientGone(lost);
            }
        };
        failed = matches!(verdict, Verdict::Failed(_));
        match settle(conn, exchange, filter, verdict, Way::Request) {
            Ok(Some(edits)) => {
                edits.apply_to_request(&mut conn.request);
                if let Some(body) = &edits.body {
                    let filtered = exchange.filtered.get_or_insert_default();
                    filtered.request_body.get_or_insert_default().replace(body);
                }
                note_metadata(exchange, *edits);
            }
            Ok(None) => {}
            Err(reply) => return Asked::Answered(reply),
        }
    }
    if filter.on_request_chunk && !failed && has_request_body(conn, exchange) {
        let filtered = exchange.filtered.get_or_insert_default();
        let body = filtered.request_body.get_or_insert_default();
        body.add_python(filter, filter.on_request);
    }
    Asked::Passed
}

/// Asks a filter about the request's head, and the body if that is given.
async fn ask_about_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &PythonFilter,
    body: Option<Bytes>,
) -> Result<Verdict, Lost> {
    let chunks_follow = filter.on_request_chunk && has_request_body(conn, exchange);
    let is_last = !chunks_follow && ends_session(filter, Way::Request, exchange);
    let message = Message::RequestHead(request_head(conn, exchange, filter, body));
    let deadline = conn.worker.now().after_ms(filter.timeout_ms);
    let mut waiting = match ask(conn, exchange, filter, message, is_last) {
        Ok(waiting) => waiting,
        Err(failure) => return Ok(Verdict::Failed(failure)),
    };
    let verdict = while_client_waits(conn, exchange, deadline, |cx| waiting.poll(cx)).await?;
    Ok(verdict.unwrap_or(Verdict::Failed(Failure::Timeout)))
}

/// Waits for a decision about a request, as long as its client does. None if there is none by the
/// `deadline`.
///
/// # Errors
/// Nobody waits for it any longer.
pub(super) async fn while_client_waits<D: Downstream, T>(
    conn: &mut Conn<D>,
    exchange: &Exchange<'_>,
    deadline: Nanos,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<Option<T>, Lost> {
    let worker = Rc::clone(&conn.worker);
    poll_fn(|cx| {
        conn.registration.update(cx);
        if let Poll::Ready(decided) = poll(cx) {
            return Poll::Ready(Ok(Some(decided)));
        }
        let complete = exchange.request_complete;
        if let Some(lost) = poll_client_gone(&mut conn.down, complete, cx) {
            return Poll::Ready(Err(lost));
        }
        if worker.phase() == Phase::Closing {
            return Poll::Ready(Err(Lost::Closed));
        }
        conn.timer.poll(cx, deadline).map(|()| Ok(None))
    })
    .await
}

/// Whether a filter is not asked any more about an exchange once it has been asked about the end of this
/// message.
pub(super) fn ends_session(filter: &PythonFilter, way: Way, exchange: &Exchange<'_>) -> bool {
    match way {
        Way::Request => !filter.sees_responses(),
        Way::Response => !filter.on_request_chunk || exchange.is_request_filtered(),
    }
}

/// Shows the proxy's own answer, whose fields are in `conn.response`, to the response filters.
pub(crate) async fn on_reply<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
) -> Asked {
    let worker = Rc::clone(&conn.worker);
    let is_bodyless = conn.request.method_kind() == Method::Head
        || has_no_body(reply.status)
        || exchange.is_grpc
        || exchange.grpc_web.is_some();
    let body = (!is_bodyless).then(|| Bytes::copy_from_slice(reply.body_bytes()));
    let has_content = body.as_ref().is_some_and(|body| !body.is_empty());
    exchange.begin_response_filters(!is_bodyless, has_content, body);
    let asked = poll_fn(|cx| {
        conn.registration.update(cx);
        match poll_response(cx, conn, exchange, &mut reply.status) {
            Poll::Ready(Some(replaced)) => return Poll::Ready(Asked::Answered(replaced)),
            Poll::Ready(None) => match poll_reply_body(cx, conn, exchange) {
                Ok(true) => return Poll::Ready(Asked::Passed),
                Ok(false) => {}
                Err(replaced) => return Poll::Ready(Asked::Answered(replaced)),
            },
            Poll::Pending => {}
        }
        let complete = exchange.request_complete;
        if let Some(lost) = poll_client_gone(&mut conn.down, complete, cx) {
            return Poll::Ready(Asked::ClientGone(lost));
        }
        if worker.phase() == Phase::Closing {
            return Poll::Ready(Asked::ClientGone(Lost::Closed));
        }
        Poll::Pending
    })
    .await;
    if let Some(body) = exchange.response_body_mut()
        && matches!(asked, Asked::Passed)
        && body.is_changed()
    {
        reply.set_body(body.take_output().freeze());
    }
    asked
}

/// Moves the body of the proxy's own answer through the filters that see it in chunks. Returns whether
/// all of it has come out.
fn poll_reply_body<D>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
) -> Result<bool, Reply> {
    let Some(mut body) = exchange.take_response_body() else {
        return Ok(true);
    };
    // All of it is there: there is nothing to wait for on the way out.
    body.unbound();
    let moved = body.poll(cx, conn, exchange, Way::Response);
    let is_whole = body.is_whole();
    exchange.put_response_body(body);
    moved.map(|_| is_whole)
}

/// Shows the answer in `conn.response` to the response filters of the route, one after the other. Ready
/// once all have seen its head, with the answer that one of them made instead. Pending as well while more of
/// the body [is wanted](Exchange::wants_response_body).
pub(crate) fn poll_response<D>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    status: &mut u16,
) -> Poll<Option<Reply>> {
    let Some(route) = exchange.route else {
        return Poll::Ready(None);
    };
    let filtered = exchange.filtered.get_or_insert_default();
    if filtered.is_answer_seen {
        return Poll::Ready(None);
    }
    let mut responses = std::mem::take(&mut filtered.responses);
    let outcome = loop {
        let Some(slot) = route.response_filters.get(responses.next) else {
            break Poll::Ready(None);
        };
        let filter = match &slot.filter {
            ResponseFilter::Python(filter) => filter,
            ResponseFilter::ExtProc(filter) => {
                let polled =
                    processing::poll_response(cx, conn, exchange, &mut responses, status, filter);
                match polled {
                    Poll::Ready(Ok(())) => {
                        responses.next += 1;
                        continue;
                    }
                    Poll::Ready(Err(reply)) => {
                        responses.next += 1;
                        break Poll::Ready(Some(reply));
                    }
                    Poll::Pending => break Poll::Pending,
                }
            }
            ResponseFilter::Native(filter) => {
                let shadow = slot.shadow.as_deref().map(|policy| (policy, slot.kind));
                match poll_native(
                    cx,
                    conn,
                    exchange,
                    &mut responses,
                    status,
                    (&**filter, shadow),
                ) {
                    Poll::Ready(Ok(())) => {
                        responses.next += 1;
                        continue;
                    }
                    Poll::Ready(Err(reply)) => {
                        responses.next += 1;
                        break Poll::Ready(Some(reply));
                    }
                    Poll::Pending => break Poll::Pending,
                }
            }
        };
        let verdict = if let Some((waiting, deadline)) = &mut responses.asked {
            match waiting.poll(cx) {
                Poll::Ready(verdict) => verdict,
                Poll::Pending => match conn.timer.poll(cx, *deadline) {
                    Poll::Ready(()) => Verdict::Failed(Failure::Timeout),
                    Poll::Pending => break Poll::Pending,
                },
            }
        } else if filter.is_for(&conn.request) {
            responses.sees_bodies |= filter.sees_response_bodies();
            if !filter.on_response {
                // It sees nothing but the body.
                if let Some(body) = &mut responses.body {
                    body.add_python(filter, false);
                }
                responses.next += 1;
                continue;
            }
            let whole = match poll_whole_response(cx, conn, exchange, filter, &mut responses) {
                Poll::Ready(Ok(whole)) => Ok(whole),
                Poll::Ready(Err(Uncollected::Failed(failure))) => Err(failure),
                Poll::Ready(Err(Uncollected::Answered(reply))) => break Poll::Ready(Some(reply)),
                Poll::Ready(Err(Uncollected::ClientGone(_))) | Poll::Pending => {
                    break Poll::Pending;
                }
            };
            let asked = whole.and_then(|whole| {
                let chunks_follow = filter.on_response_chunk && responses.body.is_some();
                let is_last = !chunks_follow && ends_session(filter, Way::Response, exchange);
                let head = ResponseHead::new(*status, conn.response.headers(), whole);
                let request = request_head(conn, exchange, filter, None);
                let message = Message::ResponseHead(request, Box::new(head));
                ask(conn, exchange, filter, message, is_last)
            });
            match asked {
                Ok(waiting) => {
                    let deadline = conn.worker.now().after_ms(filter.timeout_ms);
                    responses.asked = Some((waiting, deadline));
                    continue;
                }
                Err(failure) => Verdict::Failed(failure),
            }
        } else {
            conn.worker.stats().python_filter_skipped.increment();
            responses.next += 1;
            continue;
        };
        responses.asked = None;
        responses.next += 1;
        let failed = matches!(verdict, Verdict::Failed(_));
        match settle(conn, exchange, filter, verdict, Way::Response) {
            Ok(Some(edits)) => {
                edits.apply_to_response(status, conn.response.headers_mut());
                if let (Some(body), Some(held)) = (&edits.body, &mut responses.body) {
                    held.replace(body);
                }
                note_metadata(exchange, *edits);
            }
            Ok(None) => {}
            Err(reply) => break Poll::Ready(Some(reply)),
        }
        if let Some(body) = &mut responses.body
            && filter.on_response_chunk
            && !failed
        {
            body.add_python(filter, true);
        }
    };
    if let Some(body) = &mut responses.body {
        body.status = *status;
    }
    let filtered = exchange.filtered.get_or_insert_default();
    filtered.responses = responses;
    filtered.is_answer_seen |= outcome.is_ready();
    outcome
}

/// Shows an answer to a filter that decides at once. Pending while more of the body that it wants has to
/// come in.
fn poll_native<D>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    responses: &mut ResponseFilters,
    status: &mut u16,
    (filter, shadow): (&dyn Respond, Option<(&str, &'static str)>),
) -> Poll<Result<(), Reply>> {
    if !responses.waits_for_body {
        let mut view = response_view(conn, exchange, status, responses.has_body);
        if let Some(shadow) = shadow {
            shadowing::on_response(&mut view, filter, shadow);
            return Poll::Ready(Ok(()));
        }
        match filter.on_response(&mut view)? {
            Step::Pass => return Poll::Ready(Ok(())),
            Step::Stage(stage) => {
                responses.sees_bodies = true;
                if let Some(body) = responses.body() {
                    body.add_native(stage);
                }
                return Poll::Ready(Ok(()));
            }
            Step::Pace(pace) => {
                if let Some(body) = responses.body() {
                    body.set_pace(pace);
                }
                return Poll::Ready(Ok(()));
            }
            Step::Whole(most) => {
                responses.sees_bodies = true;
                responses.waits_for_body = true;
                let held = conn.worker.body_room().hold();
                if let Some(body) = responses.body() {
                    body.collect(most, held);
                }
            }
        }
    }
    let mut whole = Bytes::new();
    if let Some(body) = responses.body() {
        body.poll(cx, conn, exchange, Way::Response)?;
        whole = match body.poll_collected() {
            Poll::Ready(Ok(whole)) => whole,
            Poll::Ready(Err(Failure::TooLarge)) => {
                return Poll::Ready(Err(Reply::response_too_large()));
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Reply::overloaded())),
            Poll::Pending => return Poll::Pending,
        };
    }
    responses.waits_for_body = false;
    let mut view = response_view(conn, exchange, status, responses.has_body);
    if let Some(replaced) = filter.on_body(&mut view, whole)?
        && let Some(body) = responses.body()
    {
        body.replace(&replaced);
    }
    Poll::Ready(Ok(()))
}

fn response_view<'v, 'x, D>(
    conn: &'v mut Conn<D>,
    exchange: &'v mut Exchange<'x>,
    status: &'v mut u16,
    has_body: bool,
) -> ResponseView<'v, 'x> {
    ResponseView {
        request: &conn.request,
        exchange,
        peers: &conn.peers,
        worker: &conn.worker,
        now: conn.worker.now(),
        status,
        headers: conn.response.headers_mut(),
        has_body,
    }
}

impl ResponseFilters {
    /// The body, for a filter that has to do with it; none if there is none.
    pub(super) fn body(&mut self) -> Option<&mut FilteredBody> {
        if self.has_body && self.body.is_none() {
            let mut body = FilteredBody::default();
            if let Some(own) = self.own_body.take() {
                body.push(&own);
                body.push_end(None);
            }
            self.body = Some(body);
        }
        self.body.as_mut()
    }
}

/// Collects the response's body, if the filter wants it as a whole. Pending while more of it has to come
/// in.
fn poll_whole_response<D>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &PythonFilter,
    responses: &mut ResponseFilters,
) -> Poll<Result<Body, Uncollected>> {
    if !filter.response_body {
        return Poll::Ready(Ok(Body::Unseen));
    }
    let Some(body) = &mut responses.body else {
        return Poll::Ready(Ok(Body::Never));
    };
    if !body.is_collected() {
        body.collect(filter.max_body, filter.bridge.hold());
    }
    if let Err(reply) = body.poll(cx, conn, exchange, Way::Response) {
        return Poll::Ready(Err(Uncollected::Answered(reply)));
    }
    let collected = body.poll_collected();
    collected.map(|collected| collected.map(Body::Whole).map_err(Uncollected::Failed))
}

impl Exchange<'_> {
    /// Whether there are filters that have to see the answer before the client does.
    pub(crate) fn awaits_response_filters(&self) -> bool {
        self.route
            .is_some_and(|route| !route.response_filters.is_empty())
            && !self
                .filtered
                .as_ref()
                .is_some_and(|filtered| filtered.is_answer_seen)
    }

    /// Changes the fields of an answer as services want it that have let the request pass.
    pub(crate) fn edit_response(&self, headers: &mut Headers) {
        for edit in self.filtered.iter().flat_map(|one| &one.response_edits) {
            edit.apply(headers);
        }
    }

    /// Notes a fault, which is over when the exchange is.
    pub(super) fn begin_fault(&mut self, active: ActiveFault, pace: Option<u64>) {
        self.filtered.get_or_insert_default().fault = Some((active, pace));
    }

    /// How fast the answer may be sent, if a fault limits that. Bytes a second.
    pub(crate) fn pace(&self) -> Option<u64> {
        self.filtered.as_ref()?.fault.as_ref()?.1
    }

    /// What filters that let the request pass do to its answer, in their order.
    pub(crate) fn response_edits(&self) -> &[Edit] {
        let filtered = self.filtered.as_ref();
        filtered.map_or(&[], |filtered| &filtered.response_edits)
    }

    /// Adds a change of the answer's fields, the upstream's or the proxy's own.
    pub(crate) fn add_response_edit(&mut self, edit: Edit) {
        let filtered = self.filtered.get_or_insert_default();
        filtered.response_edits.push(edit);
    }

    /// Forgets all changes of the answer but the first ones.
    pub(crate) fn truncate_response_edits(&mut self, count: usize) {
        if let Some(filtered) = &mut self.filtered {
            filtered.response_edits.truncate(count);
        }
    }

    /// Notes something about the request: dynamic metadata, in Envoy's words.
    pub(crate) fn note(
        &mut self,
        namespace: impl Into<Cow<'static, str>>,
        key: impl Into<String>,
        value: Value,
    ) {
        let filtered = self.filtered.get_or_insert_default();
        let noted = filtered.noted.entry(namespace.into()).or_default();
        noted.insert(key.into(), value);
    }

    /// All that was noted, by namespace. What filters in Python note is text, and elsewhere.
    pub(crate) fn noted_by_all(&self) -> Option<&Noted> {
        Some(&self.filtered.as_ref()?.noted)
    }

    /// What was noted in a namespace. What filters in Python note is text, and elsewhere.
    pub(crate) fn noted(&self, namespace: &str) -> Option<&Map<String, Value>> {
        self.filtered.as_ref()?.noted.get(namespace)
    }

    /// All that was noted, in the form of access logs: by namespace.
    pub(crate) fn metadata(&self) -> Option<Map<String, Value>> {
        self.filtered.as_ref()?.log_metadata()
    }

    /// Lets a filter see the request's body piece by piece.
    pub(crate) fn add_request_stage(&mut self, stage: Box<dyn BodyFilter>) {
        let filtered = self.filtered.get_or_insert_default();
        let body = filtered.request_body.get_or_insert_default();
        body.add_native(stage);
    }

    /// Gives the request another body, which is all there is.
    pub(crate) fn replace_request_body(&mut self, body: &Bytes) {
        let filtered = self.filtered.get_or_insert_default();
        filtered.request_body.get_or_insert_default().replace(body);
    }

    /// Prepares for an answer to be shown to response filters, to those that have not decided about one
    /// before. Its body is to follow, if it has one and it is not all there; `has_content` says that it is not
    /// empty.
    pub(crate) fn begin_response_filters(
        &mut self,
        has_body: bool,
        has_content: bool,
        own_body: Option<Bytes>,
    ) {
        let route = self.route;
        let filtered = self.filtered.get_or_insert_default();
        // What was said about another answer is not about this one.
        for processing in filtered.processings.iter_mut().flatten() {
            processing.drop_response();
        }
        let responses = &mut filtered.responses;
        responses.asked = None;
        responses.waits_for_body = false;
        responses.has_body = has_body;
        responses.body = None;
        responses.has_content = has_content;
        responses.processing = ResponseStep::Head;
        responses.own_body = own_body;
        let mut filters = route.iter().flat_map(|route| &*route.response_filters);
        // The others say so when they have seen the head.
        let sees_bodies = |slot: &Slot<ResponseFilter>| matches!(&slot.filter, ResponseFilter::Python(filter) if filter.sees_response_bodies());
        if filters.any(sees_bodies) {
            responses.body();
        }
    }

    /// Whether filters have to do with the request's body.
    pub(crate) fn has_filtered_request(&self) -> bool {
        let filtered = self.filtered.as_ref();
        filtered.is_some_and(|filtered| filtered.request_body.is_some())
    }

    /// Whether no filter sees more of the request's body.
    pub(crate) fn is_request_filtered(&self) -> bool {
        let filtered = self.filtered.as_ref();
        let body = filtered.and_then(|filtered| filtered.request_body.as_ref());
        body.is_none_or(FilteredBody::is_whole)
    }

    /// Whether the client has been asked for the request's body, since a filter wants it.
    pub(crate) fn is_continued(&self) -> bool {
        let filtered = self.filtered.as_ref();
        filtered.is_some_and(|filtered| filtered.is_continued)
    }

    /// The request's body, if filters have to do with it.
    pub(crate) fn request_body_mut(&mut self) -> Option<&mut FilteredBody> {
        self.filtered.as_mut()?.request_body.as_mut()
    }

    /// The same, taken out: it is to be put back.
    pub(crate) fn take_request_body(&mut self) -> Option<FilteredBody> {
        self.filtered.as_mut()?.request_body.take()
    }

    /// Puts it back.
    pub(crate) fn put_request_body(&mut self, body: FilteredBody) {
        self.filtered.get_or_insert_default().request_body = Some(body);
    }

    /// The answer's body, if filters have to do with it.
    pub(crate) fn response_body_mut(&mut self) -> Option<&mut FilteredBody> {
        self.filtered.as_mut()?.responses.body.as_mut()
    }

    /// The same, taken out: it is to be put back.
    pub(crate) fn take_response_body(&mut self) -> Option<FilteredBody> {
        self.filtered.as_mut()?.responses.body.take()
    }

    /// Puts it back.
    pub(crate) fn put_response_body(&mut self, body: FilteredBody) {
        self.filtered.get_or_insert_default().responses.body = Some(body);
    }

    /// Whether a filter waits for more of the answer's body before its head can go on.
    pub(crate) fn wants_response_body(&mut self) -> bool {
        let body = self.response_body_mut();
        body.is_some_and(|body| body.is_wanted() && body.has_room())
    }

    /// Whether a filter may change the bodies of such answers, whether this one has any or not.
    pub(crate) fn may_change_bodies(&self) -> bool {
        let filtered = self.filtered.as_ref();
        filtered.is_some_and(|filtered| filtered.responses.sees_bodies)
    }

    /// What the request's rate is counted by, if a filter said so.
    pub(crate) fn rate_limit_key(&self) -> Option<&str> {
        self.filtered.as_ref()?.rate_limit_key.as_deref()
    }

    /// The name of the backend that a filter chose.
    pub(crate) fn chosen_backend(&self) -> Option<&str> {
        self.filtered.as_ref()?.upstream.as_deref()
    }
}

/// Asks a filter. `is_last` says that it is not asked again about the exchange.
pub(super) fn ask<D>(
    conn: &Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &PythonFilter,
    message: Message,
    is_last: bool,
) -> Result<Waiting, Failure> {
    conn.worker.stats().python_filter_total.increment();
    let session = filter.has_sessions().then(|| {
        let filtered = exchange.filtered.get_or_insert_default();
        (filtered.session(filter), is_last)
    });
    let waiting = filter.bridge.ask(filter.index, message, session)?;
    conn.worker.wake_soon(&filter.bridge);
    Ok(waiting)
}

pub(super) fn request_head<D>(
    conn: &Conn<D>,
    exchange: &Exchange<'_>,
    filter: &PythonFilter,
    body: Option<Bytes>,
) -> Box<RequestHead> {
    let filtered = exchange.filtered.as_ref();
    let about = About {
        client: exchange.client,
        peer: conn.peers.remote,
        secure: conn.peers.is_secure,
        principal: conn.peers.principal.clone(),
        route: Arc::clone(&filter.route),
        metadata: filtered.map_or_else(Vec::new, |filtered| filtered.metadata.clone()),
        policy: exchange.route.map(|route| Arc::clone(route.policy())),
    };
    Box::new(RequestHead::new(&conn.request, about, body))
}

/// Counts a verdict. The edits if the message goes on, else what the client gets instead.
pub(super) fn settle<D>(
    conn: &Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &PythonFilter,
    verdict: Verdict,
    way: Way,
) -> Result<Option<Box<Edits>>, Reply> {
    let stats = conn.worker.stats();
    let failure = match verdict {
        Verdict::Continue(edits) => return Ok(edits),
        Verdict::Respond(answer) => {
            stats.python_filter_responded.increment();
            return Err(Reply::by_filter(&filter.name, *answer));
        }
        Verdict::Failed(failure) => failure,
    };
    match failure {
        Failure::Exception | Failure::Invalid => stats.python_filter_error.increment(),
        Failure::Timeout => stats.python_filter_timeout.increment(),
        Failure::Overflow => stats.python_filter_overflow.increment(),
        Failure::Closed => stats.python_filter_closed.increment(),
        Failure::TooLarge => stats.python_filter_too_large.increment(),
    }
    exchange.flags.set(ResponseFlag::PythonFilterError);
    match filter.on_error {
        OnError::Allow => {
            stats.python_filter_failure_allowed.increment();
            Ok(None)
        }
        OnError::Deny => {
            let is_of_request = way == Way::Request;
            Err(Reply::filter_failed(&filter.name, failure, is_of_request))
        }
    }
}

/// Takes over what a filter said about the request beside its message.
pub(super) fn note_metadata(exchange: &mut Exchange<'_>, edits: Edits) {
    if edits.metadata.is_empty() && edits.upstream.is_none() && edits.rate_limit_key.is_none() {
        return;
    }
    let filtered = exchange.filtered.get_or_insert_default();
    for (key, value) in edits.metadata {
        crate::bridge::note(&mut filtered.metadata, key, value);
    }
    if edits.upstream.is_some() {
        filtered.upstream = edits.upstream;
    }
    if edits.rate_limit_key.is_some() {
        filtered.rate_limit_key = edits.rate_limit_key;
    }
}
