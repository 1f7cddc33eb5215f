//! Having a service process the messages of an exchange.
//!
//! What of a message the service is to answer before it goes on is waited for here: of a request by the
//! connection's task, as for filters in Python, of an answer where its head is shown to filters. What
//! goes on meanwhile is a stage of the body: see [`stage`](super::processor_stage).

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::Conn;
use super::filtering::{Asked, ResponseFilters, Way, while_client_waits};
use super::message::Downstream;
use super::processor::{About, Processing, Trouble};
use super::processor_stage::ProcessorStage;
use super::whole_body::{
    Collected, Uncollected, Wanted, collect, has_request_body, while_receiving,
};
use crate::bridge::Failure;
use crate::config::ir::{BodyMode, HttpOptions, RouteCacheAction};
use crate::filter::ext_proc::{
    self, BodyMutation, Common, ExtProc, StatedLength, Told, sends_headers, sends_trailers,
};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;

/// How far the processing of an answer is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum ResponseStep {
    #[default]
    Head,
    /// The service was asked about the head, and gets a body that is full duplex meanwhile.
    HeadAsked { is_duplex: bool },
    /// The body is being collected.
    Collecting,
    /// The service was asked about so many bytes of it, which may be all.
    BodyAsked(usize),
}

/// What a head states about the length of its body, for a service that changes both.
const MISMATCH: &str = "mismatch_between_content_length_and_the_length_of_the_mutated_body";

/// Has a service process a request, or begin to. With `is_enforced` it may change it.
pub(crate) async fn on_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &Arc<ExtProc>,
    http: &HttpOptions,
    is_enforced: bool,
) -> Asked {
    if filter.cluster.is_none() {
        return Asked::Answered(Reply::unprocessed(500, "ext_proc_unresolved"));
    }
    let place = exchange.processing_of(filter, &conn.worker);
    let asked = process_request(conn, exchange, place, http, is_enforced).await;
    if !is_enforced && let Some(mut processing) = exchange.take_processing(place) {
        // It is asked about nothing else.
        processing.finish();
        exchange.put_processing(place, processing);
    }
    asked
}

async fn process_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    place: usize,
    http: &HttpOptions,
    is_enforced: bool,
) -> Asked {
    let has_body = has_request_body(conn, exchange);
    let mut length = conn.request.framing().length().filter(|_| has_body);
    let Some(processing) = exchange.take_processing(place) else {
        return Asked::Passed;
    };
    let mode = processing.mode;
    exchange.put_processing(place, processing);
    let is_duplex = is_enforced && has_body && ext_proc::is_duplex(mode.request_body);
    if is_duplex {
        begin_duplex_request(conn, exchange, place);
    }
    if sends_headers(mode.request_header) {
        tell(
            conn,
            exchange,
            place,
            Way::Request,
            &Told::Request {
                request: &conn.request,
                end: !has_body,
            },
        );
        let common = match answer(conn, exchange, place, http, is_duplex).await {
            Ok(Some(common)) => common,
            Ok(None) => return Asked::Passed,
            Err(asked) => return asked,
        };
        match ext_proc::of_request(&common.headers, &mut conn.request) {
            Ok(stated) => length = stated.of(length),
            Err(invalid) => return end(conn, exchange, place, Trouble::Invalid(invalid)),
        }
        clear_route(exchange, place, &common);
        if common.replace && is_enforced {
            let body = match common.body {
                Some(BodyMutation::Body(body)) => Bytes::from(body),
                _ => Bytes::new(),
            };
            if has_body || !body.is_empty() {
                let filtered = exchange.filtered.get_or_insert_default();
                let held = filtered.request_body.get_or_insert_default();
                if has_body {
                    held.replace_all(&body);
                } else {
                    held.replace(&body);
                }
            }
            return Asked::Passed;
        }
    }
    if !has_body {
        return Asked::Passed;
    }
    let asked = process_request_body(conn, exchange, place, http, length, is_enforced).await;
    if matches!(asked, Asked::Passed) && is_enforced {
        add_request_stage(exchange, place, is_duplex);
    }
    asked
}

/// Has the service process the request's body, if it is to have it as a whole.
async fn process_request_body<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    place: usize,
    http: &HttpOptions,
    length: Option<u64>,
    is_enforced: bool,
) -> Asked {
    let Some(processing) = exchange.take_processing(place) else {
        return Asked::Passed;
    };
    let (mode, is_done) = (processing.mode.request_body, processing.is_done());
    let most = processing.filter.max_body;
    exchange.put_processing(place, processing);
    if is_done || !matches!(mode, BodyMode::Buffered | BodyMode::BufferedPartial) {
        return Asked::Passed;
    }
    let wanted = Wanted {
        most,
        held: conn.worker.body_room().hold(),
        beginning_will_do: mode == BodyMode::BufferedPartial,
    };
    let collected = match collect(conn, exchange, wanted, http).await {
        Ok(collected) => collected.unwrap_or_default(),
        Err(Uncollected::Failed(Failure::TooLarge)) => {
            return Asked::Answered(Reply::payload_too_large());
        }
        // There is no room for the body.
        Err(Uncollected::Failed(_)) => return Asked::Answered(Reply::overloaded()),
        Err(Uncollected::Answered(reply)) => return Asked::Answered(reply),
        Err(Uncollected::ClientGone(lost)) => return Asked::ClientGone(lost),
    };
    let Collected {
        bytes,
        is_beginning,
    } = collected;
    let has_trailers = exchange
        .request_body_mut()
        .is_some_and(|body| body.has_trailers());
    if bytes.is_empty() && has_trailers {
        return Asked::Passed;
    }
    tell(
        conn,
        exchange,
        place,
        Way::Request,
        &Told::Body {
            data: &bytes,
            end: !is_beginning && !has_trailers,
        },
    );
    let common = match answer(conn, exchange, place, http, false).await {
        Ok(Some(common)) => common,
        Ok(None) => return Asked::Passed,
        Err(asked) => return asked,
    };
    match ext_proc::of_request(&common.headers, &mut conn.request) {
        Ok(stated) => {
            let changed = body_of(&common);
            if mode == BodyMode::Buffered && is_mismatch(stated.of(length), changed.as_ref()) {
                return Asked::Answered(mismatch(conn, exchange, place));
            }
            clear_route(exchange, place, &common);
            if let Some(changed) = changed.filter(|_| is_enforced)
                && let Some(body) = exchange.request_body_mut()
            {
                body.replace_beginning(bytes.len(), &changed);
            }
            Asked::Passed
        }
        Err(invalid) => end(conn, exchange, place, Trouble::Invalid(invalid)),
    }
}

fn begin_duplex_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    place: usize,
) {
    if let Some(mut processing) = exchange.take_processing(place) {
        processing.begin_duplex(Way::Request);
        exchange.put_processing(place, processing);
    }
    let asks = conn.request.expects_continue() && !exchange.request_complete;
    let filtered = exchange.filtered.get_or_insert_default();
    if asks && !filtered.is_continued {
        filtered.is_continued = true;
        conn.down.send_continue();
    }
    let body = filtered.request_body.get_or_insert_default();
    body.add_processor(ProcessorStage::duplex(place));
}

/// Lets the service see what it is to see of the body while that goes on.
fn add_request_stage(exchange: &mut Exchange<'_>, place: usize, is_duplex: bool) {
    let Some(mut processing) = exchange.take_processing(place) else {
        return;
    };
    let stage = stage_of(&mut processing, Way::Request, place).filter(|_| !is_duplex);
    exchange.put_processing(place, processing);
    if let Some(stage) = stage {
        let filtered = exchange.filtered.get_or_insert_default();
        let body = filtered.request_body.get_or_insert_default();
        body.add_processor(stage);
    }
}

/// The stage that sees what the service is to see of a body that goes on.
fn stage_of(processing: &mut Processing, way: Way, place: usize) -> Option<ProcessorStage> {
    if processing.is_done() {
        return None;
    }
    match processing.body_mode(way) {
        BodyMode::Streamed => Some(ProcessorStage::streamed(place)),
        BodyMode::FullDuplexStreamed => {
            processing.begin_duplex(way);
            Some(ProcessorStage::duplex(place))
        }
        BodyMode::None | BodyMode::Buffered | BodyMode::BufferedPartial => {
            let sends = sends_trailers(processing.trailer_mode(way));
            sends.then(|| ProcessorStage::trailers(place))
        }
    }
}

/// Asks the service about a part of a message.
fn tell<D>(conn: &Conn<D>, exchange: &mut Exchange<'_>, place: usize, way: Way, told: &Told<'_>) {
    if let Some(mut processing) = exchange.take_processing(place) {
        processing.tell(&About::new(conn, exchange), way, told);
        exchange.put_processing(place, processing);
    }
}

/// Waits for what the service says about a part of a request. None if the request goes on without it. A
/// body that is full duplex goes to the service meanwhile.
async fn answer<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    place: usize,
    http: &HttpOptions,
    is_duplex: bool,
) -> Result<Option<Common>, Asked> {
    let worker = Rc::clone(&conn.worker);
    let Some(mut processing) = exchange.take_processing(place) else {
        return Ok(None);
    };
    let answered = if is_duplex {
        exchange.put_processing(place, processing);
        let mut body = exchange.take_request_body().unwrap_or_default();
        let answered = while_receiving(conn, exchange, &mut body, http, |cx, exchange| {
            let Some(mut processing) = exchange.take_processing(place) else {
                return Poll::Ready(Ok(None));
            };
            let polled = processing.poll(cx, &worker, Way::Request);
            exchange.put_processing(place, processing);
            polled
        })
        .await;
        exchange.put_request_body(body);
        match answered {
            Ok(answered) => answered,
            Err(Uncollected::Answered(reply)) => return Err(Asked::Answered(reply)),
            Err(Uncollected::ClientGone(lost)) => return Err(Asked::ClientGone(lost)),
            Err(Uncollected::Failed(_)) => return Err(Asked::Answered(Reply::overloaded())),
        }
    } else {
        // The service's time is the processing's own.
        let answered = while_client_waits(conn, exchange, exchange.call_deadline, |cx| {
            processing.poll(cx, &worker, Way::Request)
        })
        .await;
        exchange.put_processing(place, processing);
        match answered {
            Ok(Some(answered)) => answered,
            Ok(None) => return Err(Asked::Answered(Reply::duration_timed_out())),
            Err(lost) => return Err(Asked::ClientGone(lost)),
        }
    };
    match answered {
        Ok(answered) => Ok(answered.map(|(_, common)| common)),
        Err(trouble) => match end(conn, exchange, place, trouble) {
            Asked::Passed => Ok(None),
            asked => Err(asked),
        },
    }
}

/// Ends the processing of a request for some reason.
fn end<D>(conn: &Conn<D>, exchange: &mut Exchange<'_>, place: usize, trouble: Trouble) -> Asked {
    match ended(conn, exchange, place, Way::Request, trouble) {
        Some(reply) => Asked::Answered(reply),
        None => Asked::Passed,
    }
}

/// Ends the processing of a message for some reason. What the client gets in its stead, if it does not
/// go on.
pub(super) fn ended<D>(
    conn: &Conn<D>,
    exchange: &mut Exchange<'_>,
    place: usize,
    way: Way,
    trouble: Trouble,
) -> Option<Reply> {
    let mut processing = exchange.take_processing(place)?;
    let reply = processing.end(&conn.worker, way, trouble);
    exchange.put_processing(place, processing);
    reply
}

/// A service gave a message a body of another length than it states.
fn mismatch<D>(conn: &Conn<D>, exchange: &mut Exchange<'_>, place: usize) -> Reply {
    conn.worker.stats().ext_proc_rejected_mutations.increment();
    if let Some(mut processing) = exchange.take_processing(place) {
        processing.cancel();
        exchange.put_processing(place, processing);
    }
    Reply::unprocessed(500, MISMATCH)
}

/// The body that an answer of the service gives, if it gives one.
pub(super) fn body_of(common: &Common) -> Option<Bytes> {
    match common.body.as_ref()? {
        BodyMutation::Body(body) => Some(Bytes::copy_from_slice(body)),
        BodyMutation::Clear => Some(Bytes::new()),
        BodyMutation::Streamed(..) => None,
    }
}

/// Whether a message states another length than its new body has (Envoy: such a change is refused).
fn is_mismatch(length: Option<u64>, body: Option<&Bytes>) -> bool {
    match (length, body) {
        (Some(length), Some(body)) => length != body.len() as u64,
        _ => false,
    }
}

/// Has the request's route found anew, if that is wanted.
fn clear_route(exchange: &mut Exchange<'_>, place: usize, common: &Common) {
    let Some(processing) = exchange.take_processing(place) else {
        return;
    };
    exchange.is_route_cleared |= match processing.filter.route_cache_action {
        RouteCacheAction::FromResponse => common.clear_route,
        RouteCacheAction::Clear => !common.headers.is_empty(),
        RouteCacheAction::Retain => false,
    };
    exchange.put_processing(place, processing);
}

impl StatedLength {
    /// The length that a head states now, which stated this one.
    fn of(self, before: Option<u64>) -> Option<u64> {
        match self {
            Self::AsBefore => before,
            Self::Removed => None,
            Self::Bytes(length) => Some(length),
        }
    }
}

/// Has a service process the answer in `conn.response`, or begin to. Pending while more of the body that it is
/// to have as a whole has to come in, too.
pub(super) fn poll_response<D>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    responses: &mut ResponseFilters,
    status: &mut u16,
    filter: &Arc<ExtProc>,
) -> Poll<Result<(), Reply>> {
    if filter.cluster.is_none() {
        // The request was refused for that.
        return Poll::Ready(Ok(()));
    }
    let place = exchange.processing_of(filter, &conn.worker);
    loop {
        let polled = match responses.processing {
            ResponseStep::Head => begin_response(conn, exchange, responses, *status, place),
            ResponseStep::HeadAsked { is_duplex } => {
                if is_duplex && let Some(body) = responses.body() {
                    body.poll(cx, conn, exchange, Way::Response)?;
                }
                poll_response_head(cx, conn, exchange, responses, status, (place, is_duplex))
            }
            ResponseStep::Collecting => poll_collect(cx, conn, exchange, responses, place),
            ResponseStep::BodyAsked(count) => {
                poll_response_body(cx, conn, exchange, responses, status, (place, count))
            }
        };
        match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(Some(next))) => responses.processing = next,
            Poll::Ready(done) => {
                responses.processing = ResponseStep::Head;
                return Poll::Ready(done.map(drop));
            }
        }
    }
}

type NextStep = Poll<Result<Option<ResponseStep>, Reply>>;

/// Sends the head of an answer, if the service is to have it.
fn begin_response<D>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    responses: &mut ResponseFilters,
    status: u16,
    place: usize,
) -> NextStep {
    let Some(mut processing) = exchange.take_processing(place) else {
        return Poll::Ready(Ok(None));
    };
    let mode = processing.mode;
    let is_done = processing.is_done();
    let sends = sends_headers(mode.response_header);
    let has_body = responses.has_content;
    let is_duplex = sends && has_body && ext_proc::is_duplex(mode.response_body);
    if is_duplex {
        processing.begin_duplex(Way::Response);
    }
    exchange.put_processing(place, processing);
    if is_done {
        return Poll::Ready(Ok(None));
    }
    responses.sees_bodies |= mode.response_body != BodyMode::None;
    if !sends {
        return Poll::Ready(Ok(go_on(exchange, responses, has_body, place)));
    }
    if is_duplex && let Some(body) = responses.body() {
        body.add_processor(ProcessorStage::duplex(place));
        body.pump(true);
    }
    tell(
        conn,
        exchange,
        place,
        Way::Response,
        &Told::Response {
            status,
            headers: conn.response.headers(),
            end: !has_body,
        },
    );
    Poll::Ready(Ok(Some(ResponseStep::HeadAsked { is_duplex })))
}

/// What comes behind the head of an answer.
fn go_on(
    exchange: &mut Exchange<'_>,
    responses: &mut ResponseFilters,
    has_body: bool,
    place: usize,
) -> Option<ResponseStep> {
    let processing = exchange.processing(place)?;
    let mode = processing.body_mode(Way::Response);
    if processing.is_done() || !has_body {
        return None;
    }
    if matches!(mode, BodyMode::Buffered | BodyMode::BufferedPartial) {
        return Some(ResponseStep::Collecting);
    }
    add_response_stage(exchange, responses, place);
    None
}

/// Lets the service see what it is to see of an answer's body while that goes on.
fn add_response_stage(exchange: &mut Exchange<'_>, responses: &mut ResponseFilters, place: usize) {
    let Some(mut processing) = exchange.take_processing(place) else {
        return;
    };
    let stage = stage_of(&mut processing, Way::Response, place);
    exchange.put_processing(place, processing);
    if let (Some(stage), Some(body)) = (stage, responses.body()) {
        body.add_processor(stage);
    }
}

/// Waits for what the service says about the head of an answer.
fn poll_response_head<D>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    responses: &mut ResponseFilters,
    status: &mut u16,
    (place, is_duplex): (usize, bool),
) -> NextStep {
    let answer = ready!(poll_answer(cx, conn, exchange, place))?;
    if let Some(body) = responses.body().filter(|_| is_duplex) {
        body.pump(false);
    }
    let Some(common) = answer else {
        return Poll::Ready(Ok(None));
    };
    let headers = conn.response.headers_mut();
    let length = headers.get(b"content-length").and_then(number);
    match ext_proc::of_response(&common.headers, status, headers) {
        Ok(stated) => responses.stated_length = stated.of(length),
        Err(invalid) => {
            return Poll::Ready(ended_response(
                conn,
                exchange,
                place,
                Trouble::Invalid(invalid),
            ));
        }
    }
    let has_body = responses.has_content;
    if common.replace {
        if let Some(body) = responses.body() {
            body.replace_all(&body_of(&common).unwrap_or_default());
        }
        return Poll::Ready(Ok(None));
    }
    if is_duplex {
        return Poll::Ready(Ok(None));
    }
    Poll::Ready(Ok(go_on(exchange, responses, has_body, place)))
}

/// Waits for what the service says about a part of an answer. None if the answer goes on without it.
fn poll_answer<D>(
    cx: &mut Context<'_>,
    conn: &Conn<D>,
    exchange: &mut Exchange<'_>,
    place: usize,
) -> Poll<Result<Option<Common>, Reply>> {
    let Some(mut processing) = exchange.take_processing(place) else {
        return Poll::Ready(Ok(None));
    };
    let polled = processing.poll(cx, &conn.worker, Way::Response);
    exchange.put_processing(place, processing);
    match ready!(polled) {
        Ok(answered) => Poll::Ready(Ok(answered.map(|(_, common)| common))),
        Err(trouble) => {
            let reply = ended(conn, exchange, place, Way::Response, trouble);
            Poll::Ready(reply.map_or(Ok(None), Err))
        }
    }
}

/// Ends the processing of an answer for some reason.
fn ended_response<D>(
    conn: &Conn<D>,
    exchange: &mut Exchange<'_>,
    place: usize,
    trouble: Trouble,
) -> Result<Option<ResponseStep>, Reply> {
    let reply = ended(conn, exchange, place, Way::Response, trouble);
    reply.map_or(Ok(None), Err)
}

/// Collects an answer's body, and sends it once it is there.
fn poll_collect<D>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    responses: &mut ResponseFilters,
    place: usize,
) -> NextStep {
    let Some(processing) = exchange.take_processing(place) else {
        return Poll::Ready(Ok(None));
    };
    let most = processing.filter.max_body;
    let is_partial = processing.body_mode(Way::Response) == BodyMode::BufferedPartial;
    exchange.put_processing(place, processing);
    let held = conn.worker.body_room().hold();
    let Some(body) = responses.body() else {
        return Poll::Ready(Ok(None));
    };
    if !body.is_collected() {
        body.collect(most, held);
    }
    body.poll(cx, conn, exchange, Way::Response)?;
    let (data, is_beginning) = match ready!(body.poll_collected()) {
        Ok(data) => (data, false),
        Err(Failure::TooLarge) if is_partial => (body.beginning(most), true),
        Err(Failure::TooLarge) => return Poll::Ready(Err(Reply::response_too_large())),
        Err(_) => return Poll::Ready(Err(Reply::overloaded())),
    };
    let has_trailers = body.has_trailers();
    if data.is_empty() && has_trailers {
        add_response_stage(exchange, responses, place);
        return Poll::Ready(Ok(None));
    }
    tell(
        conn,
        exchange,
        place,
        Way::Response,
        &Told::Body {
            data: &data,
            end: !is_beginning && !has_trailers,
        },
    );
    Poll::Ready(Ok(Some(ResponseStep::BodyAsked(data.len()))))
}

/// Waits for what the service says about an answer's body, of which it was sent so many bytes.
fn poll_response_body<D>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    responses: &mut ResponseFilters,
    status: &mut u16,
    (place, count): (usize, usize),
) -> NextStep {
    let Some(common) = ready!(poll_answer(cx, conn, exchange, place))? else {
        return Poll::Ready(Ok(None));
    };
    let headers = conn.response.headers_mut();
    let stated = match ext_proc::of_response(&common.headers, status, headers) {
        Ok(stated) => stated.of(responses.stated_length),
        Err(invalid) => {
            return Poll::Ready(ended_response(
                conn,
                exchange,
                place,
                Trouble::Invalid(invalid),
            ));
        }
    };
    let changed = body_of(&common);
    let is_whole = responses.body().is_some_and(|body| body.is_whole());
    if is_whole && is_mismatch(stated, changed.as_ref()) {
        return Poll::Ready(Err(mismatch(conn, exchange, place)));
    }
    if let (Some(changed), Some(body)) = (changed, responses.body()) {
        body.replace_beginning(count, &changed);
    }
    add_response_stage(exchange, responses, place);
    Poll::Ready(Ok(None))
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
