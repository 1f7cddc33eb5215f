//! The stream with a service that processes an exchange's messages, and how far it is.
//!
//! One stream is for both messages of an exchange, which may be under way at the same time: what the
//! service says is sorted by the message that it is about, and waits there for whoever asked.
//!
//! Rules:
//! 1. The stream is opened with the first question.
//! 2. One question about each message is open at a time, and answered in time; save for a body that is
//!    full duplex, where questions and answers go their own ways. There, the service has to go on saying
//!    something.
//! 3. An answer to what was not asked is a failure, as is one that cannot be read.
//! 4. After a failure, an answer for the client, or the end of the stream, the service is asked nothing
//!    more.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde_json::{Map, Value};

use super::Conn;
use super::filtering::Way;
use crate::clock::{Nanos, Timer};
use crate::config::ir::{BodyMode, ProcessingMode, SendMode};
use crate::filter::ext_proc::{
    Answer, Common, ExtProc, Immediate, InvalidMutation, Part, ProcessingResponse, Subject, Told,
};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::runtime::Worker;
use crate::upstream::stream::{self, GrpcStream, Received};

/// What of a body that is full duplex may wait here. Bytes. What comes then waits in the connection.
const MAX_WAITING: usize = 64 * 1024;

/// How long a service may say nothing about a body that is full duplex. Milliseconds.
const DUPLEX_IDLE_MS: u64 = 300_000;

/// The processing of an exchange by one service.
#[derive(Debug)]
pub(crate) struct Processing {
    pub(super) filter: Arc<ExtProc>,
    stream: Option<GrpcStream>,
    is_begun: bool,
    pub(super) mode: ProcessingMode,
    /// The service is asked nothing more.
    is_done: bool,
    request: Side,
    response: Side,
    /// What ended it, until whoever asks next is told.
    trouble: Option<Trouble>,
    /// What the service has noted, until the exchange has it.
    noted: Vec<(String, Map<String, Value>)>,
    timer: Timer,
}

/// How far one of the messages is.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Side {
    /// What an answer is due to.
    asked: Option<Part>,
    deadline: Nanos,
    /// The service has asked for more time already.
    is_extended: bool,
    /// The body is full duplex.
    is_duplex: bool,
    /// Answers that nobody took yet, and the bytes of their bodies.
    answers: VecDeque<(Part, Common)>,
    waiting: usize,
    /// Of a body that is full duplex: something of it was told, and its trailer fields, and the service has said its
    /// end.
    told: bool,
    told_trailers: bool,
    is_over: bool,
}

/// Why a message does not go on as the service wants it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The client gets this.
    Immediate(Immediate),
    /// The service has ended the stream.
    Ended,
    Failed(stream::Failure),
    TimedOut,
    Spurious(&'static str),
    Invalid(InvalidMutation),
}

impl Processing {
    pub(super) fn new(filter: &Arc<ExtProc>, worker: &Worker) -> Self {
        let side = || Side {
            deadline: Nanos::NEVER,
            ..Side::default()
        };
        Self {
            filter: Arc::clone(filter),
            stream: None,
            is_begun: false,
            mode: filter.mode,
            is_done: false,
            request: side(),
            response: side(),
            trouble: None,
            noted: Vec::new(),
            timer: Timer::new(worker.clock().clone()),
        }
    }

    /// Whether the service is asked nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Ends it as if nobody had asked: the service is told that nobody waits for an answer.
    pub(super) fn cancel(&mut self) {
        self.is_done = true;
        self.stream = None;
    }

    /// Ends it in peace.
    pub(super) fn finish(&mut self) {
        self.is_done = true;
        if let Some(stream) = self.stream.take() {
            stream.finish();
        }
    }

    /// Forgets what is under way about an answer that there will not be.
    pub(super) fn drop_response(&mut self) {
        if self.response.asked.is_some() || self.response.told {
            self.cancel();
        }
    }

    fn side(&mut self, way: Way) -> &mut Side {
        match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        }
    }

    /// How a body is sent.
    pub(super) fn body_mode(&self, way: Way) -> BodyMode {
        match way {
            Way::Request => self.mode.request_body,
            Way::Response => self.mode.response_body,
        }
    }

    /// Whether trailer fields are sent.
    pub(super) fn trailer_mode(&self, way: Way) -> SendMode {
        match way {
            Way::Request => self.mode.request_trailer,
            Way::Response => self.mode.response_trailer,
        }
    }

    /// Says that the body of a message is full duplex.
    pub(super) fn begin_duplex(&mut self, way: Way) {
        self.side(way).is_duplex = true;
    }

    /// Whether more of a body that is full duplex can be told.
    pub(super) fn has_room(&self) -> bool {
        self.stream.as_ref().is_none_or(GrpcStream::has_room)
    }

    /// Whether the service has answered what it was asked.
    pub(super) fn is_answered(&self, way: Way) -> bool {
        let side = match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        };
        side.asked.is_none()
    }

    /// Whether something of a body that is full duplex was told, so that it would be lost without the
    /// service.
    pub(super) fn has_body(&self, way: Way) -> bool {
        let side = match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        };
        side.told && !side.is_over
    }

    /// Sends a part of a message. The answer is to be polled for.
    pub(super) fn tell(&mut self, about: &About<'_, '_>, way: Way, told: &Told<'_>) {
        if self.is_done {
            return;
        }
        let Some(cluster) = &self.filter.cluster else {
            return;
        };
        let worker = about.worker;
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        if is_first {
            worker.stats().ext_proc_streams_started.increment();
            self.stream = Some(GrpcStream::open(
                worker,
                cluster,
                about.peers,
                self.filter.head.clone(),
                self.filter.options,
            ));
        }
        let metadata = if self.filter.forwards_metadata() {
            self.filter.forwarded(about.exchange.metadata())
        } else {
            Map::new()
        };
        let subject = about.subject();
        let first = is_first.then_some((&self.mode, &subject));
        let of_response = way == Way::Response;
        let message = self.filter.message(told, of_response, metadata, first);
        let Some(stream) = &mut self.stream else {
            return;
        };
        stream.send(&message);
        worker.stats().ext_proc_stream_msgs_sent.increment();
        let part = told.part();
        let now = worker.now();
        let timeout_ms = self.filter.message_timeout_ms;
        let side = self.side(way);
        if side.is_duplex {
            side.told |= part != Part::Headers;
            side.told_trailers |= part == Part::Trailers;
            side.deadline = now.after_ms(DUPLEX_IDLE_MS);
            if part != Part::Headers {
                return;
            }
        } else {
            side.deadline = now.after_ms(timeout_ms);
        }
        side.asked = Some(part);
        side.is_extended = false;
    }

    /// Waits for what the service says about a message. Ready with nothing if it says nothing any more.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        way: Way,
    ) -> Poll<Result<Option<(Part, Common)>, Trouble>> {
        loop {
            if let Some(answer) = self.take_answer(way) {
                return Poll::Ready(Ok(Some(answer)));
            }
            if let Some(trouble) = self.trouble.take() {
                return Poll::Ready(Err(trouble));
            }
            let Some(stream) = self.stream.as_mut().filter(|_| !self.is_done) else {
                return Poll::Ready(Ok(None));
            };
            let is_full = |side: &Side| side.waiting >= MAX_WAITING;
            if is_full(&self.request) || is_full(&self.response) {
                // The other message's is to be taken first.
                return Poll::Pending;
            }
            match stream.poll(cx) {
                Poll::Ready(Received::Message(message)) => {
                    worker.stats().ext_proc_stream_msgs_received.increment();
                    if let Err(trouble) = self.receive(cx, worker.now(), way, &message) {
                        self.trouble = Some(trouble);
                    }
                }
                Poll::Ready(Received::End) => self.trouble = Some(Trouble::Ended),
                Poll::Ready(Received::Failed(failure)) => {
                    worker.stats().ext_proc_streams_failed.increment();
                    self.trouble = Some(Trouble::Failed(failure));
                }
                Poll::Pending => {
                    let deadline = self.side(way).deadline;
                    if self.timer.poll(cx, deadline).is_pending() {
                        return Poll::Pending;
                    }
                    self.trouble = Some(Trouble::TimedOut);
                }
            }
        }
    }

    fn take_answer(&mut self, way: Way) -> Option<(Part, Common)> {
        let side = self.side(way);
        let answer = side.answers.pop_front()?;
        side.waiting -= weight(&answer.1);
        Some(answer)
    }

    /// Sorts what the service says.
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        now: Nanos,
        way: Way,
        message: &[u8],
    ) -> Result<(), Trouble> {
        let response = ProcessingResponse::decode(message).map_err(|_| {
            // As gRPC libraries have it.
            Trouble::Failed(stream::Failure {
                code: 13,
                message: String::new(),
            })
        })?;
        if let Some(milliseconds) = response.timeout_ms {
            self.extend(now, milliseconds);
            return Ok(());
        }
        let (of_response, part, common) = match response.answer {
            None => return Err(Trouble::Spurious("unhandled_message")),
            Some(Answer::Immediate(immediate)) => {
                self.noted.extend(self.filter.accepted(response.metadata));
                return Err(Trouble::Immediate(immediate));
            }
            Some(Answer::Common {
                of_response,
                part,
                common,
            }) => (of_response, part, common),
        };
        let of = if of_response {
            Way::Response
        } else {
            Way::Request
        };
        self.side(of).admit(part, &common)?;
        self.noted.extend(self.filter.accepted(response.metadata));
        if let Some(mode) = response.mode
            && part == Part::Headers
            && self.filter.allows(mode)
        {
            self.mode = mode;
        }
        let side = self.side(of);
        side.waiting += weight(&common);
        side.answers.push_back((part, common));
        if side.is_duplex {
            side.deadline = now.after_ms(DUPLEX_IDLE_MS);
        } else {
            side.deadline = Nanos::NEVER;
        }
        if of != way {
            // The same task waits for the other message.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Gives the service as much time as it asks for, if it may: once for each question.
    fn extend(&mut self, now: Nanos, milliseconds: u64) {
        if !(1..=self.filter.max_message_timeout_ms).contains(&milliseconds) {
            return;
        }
        let side = if self.request.asked.is_some() {
            &mut self.request
        } else {
            &mut self.response
        };
        if side.asked.is_some() && !side.is_duplex && !side.is_extended {
            side.is_extended = true;
            side.deadline = now.after_ms(milliseconds);
        }
    }

    /// Ends it for some reason. What the client gets in the stead of the message, if it does not go on.
    pub(super) fn end(&mut self, worker: &Worker, way: Way, trouble: Trouble) -> Option<Reply> {
        let is_lost = self.has_body(way);
        let stats = worker.stats();
        let (status, details) = match trouble {
            Trouble::Immediate(immediate) => {
                self.finish();
                stats.ext_proc_immediate_responses.increment();
                return Some(Reply::processed(&immediate));
            }
            Trouble::Invalid(InvalidMutation(details)) => {
                stats.ext_proc_rejected_mutations.increment();
                self.cancel();
                return Some(Reply::unprocessed(500, details));
            }
            Trouble::Ended if !is_lost => {
                self.finish();
                return None;
            }
            Trouble::Ended => (500, "ext_proc_error_stream_ended".to_owned()),
            Trouble::Failed(failure) => {
                let from = if failure.message.is_empty() {
                    "via_upstream".to_owned()
                } else {
                    format!("{}{{via_upstream}}", failure.message)
                };
                let code = failure.code;
                (500, format!("ext_proc_error_gRPC_error_{code}{{{from}}}"))
            }
            Trouble::TimedOut => {
                stats.ext_proc_message_timeouts.increment();
                let details = "ext_proc_error_per-message_timeout_exceeded";
                (504, details.to_owned())
            }
            Trouble::Spurious(details) => {
                stats.ext_proc_spurious_msgs_received.increment();
                (500, details.to_owned())
            }
        };
        self.cancel();
        if self.filter.failure_mode_allow && !is_lost {
            stats.ext_proc_failure_mode_allowed.increment();
            return None;
        }
        Some(Reply::unprocessed(status, &details))
    }
}

/// A stream that nobody has cancelled ends in peace.
impl Drop for Processing {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Side {
    /// Checks that an answer is to what was asked, and takes note of it.
    fn admit(&mut self, part: Part, common: &Common) -> Result<(), Trouble> {
        const SPURIOUS: Trouble = Trouble::Spurious("spurious_message");
        let is_streamed = matches!(
            common.body,
            Some(crate::filter::ext_proc::BodyMutation::Streamed(..))
        );
        if self.asked == Some(part) {
            self.asked = None;
            // Only a body that is full duplex has such pieces.
            return if is_streamed { Err(SPURIOUS) } else { Ok(()) };
        }
        let is_going = self.is_duplex && self.asked.is_none() && !self.is_over;
        match part {
            Part::Body if is_going && self.told && is_streamed => Ok(()),
            Part::Trailers if is_going && self.told_trailers => Ok(()),
            _ => Err(SPURIOUS),
        }
    }
}

impl Exchange<'_> {
    /// The place of the processing by a service, which begins if it has not yet.
    pub(super) fn processing_of(&mut self, filter: &Arc<ExtProc>, worker: &Worker) -> usize {
        let filtered = self.filtered.get_or_insert_default();
        let all = &mut filtered.processings;
        let is_its =
            |one: &Option<Box<Processing>>| one.as_ref().is_some_and(|one| one.filter.is(filter));
        all.iter().position(is_its).unwrap_or_else(|| {
            all.push(Some(Box::new(Processing::new(filter, worker))));
            all.len() - 1
        })
    }

    /// Tells the services that process the messages that nobody waits for them any longer.
    pub(crate) fn cancel_processings(&mut self) {
        let filtered = self.filtered.iter_mut();
        for processing in filtered.flat_map(|one| one.processings.iter_mut().flatten()) {
            processing.cancel();
        }
    }

    /// A processing.
    pub(super) fn processing(&self, place: usize) -> Option<&Processing> {
        self.filtered.as_ref()?.processings.get(place)?.as_deref()
    }

    /// A processing, taken out: it is to be put back.
    pub(super) fn take_processing(&mut self, place: usize) -> Option<Box<Processing>> {
        self.filtered.as_mut()?.processings.get_mut(place)?.take()
    }

    /// Puts it back.
    pub(super) fn put_processing(&mut self, place: usize, mut processing: Box<Processing>) {
        for (namespace, noted) in std::mem::take(&mut processing.noted) {
            for (key, value) in noted {
                self.note(namespace.clone(), key, value);
            }
        }
        let filtered = self.filtered.get_or_insert_default();
        if let Some(kept) = filtered.processings.get_mut(place) {
            *kept = Some(processing);
        }
    }
}

impl Processing {
    /// Notes that the service has said a part of a body that is full duplex. Returns whether that was the
    /// end, which with trailer fields is theirs.
    pub(super) fn note_end(&mut self, way: Way, part: Part, end: bool) -> bool {
        let side = self.side(way);
        side.is_over = match part {
            Part::Trailers => true,
            _ => end && !side.told_trailers,
        };
        side.is_over
    }
}

/// The bytes that an answer takes while it waits.
fn weight(common: &Common) -> usize {
    use crate::filter::ext_proc::BodyMutation;
    match &common.body {
        Some(BodyMutation::Body(data) | BodyMutation::Streamed(data, _)) => data.len(),
        Some(BodyMutation::Clear) | None => 0,
    }
}

/// What questions are about.
#[derive(Debug)]
pub(super) struct About<'a, 'x> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) peers: &'a Rc<super::Peers>,
    pub(super) exchange: &'a Exchange<'x>,
    pub(super) request: &'a kgw_h1::Request,
    pub(super) source: std::net::SocketAddr,
}

impl<'a, 'x> About<'a, 'x> {
    pub(super) fn new<D>(conn: &'a Conn<D>, exchange: &'a Exchange<'x>) -> Self {
        Self {
            worker: &conn.worker,
            peers: &conn.peers,
            exchange,
            request: &conn.request,
            source: exchange.remote(conn),
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            request: self.request,
            peers: self.peers,
            source: self.source,
            began: self.worker.clock().wall_nanos(self.exchange.began),
            route: self.exchange.route.map_or("", |route| route.name()),
            cluster: self.exchange.cluster.map_or("", |cluster| &cluster.name),
        }
    }
}
