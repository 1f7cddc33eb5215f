//! A body on its way through filters.
//!
//! What comes in is cut into chunks. One chunk at a time goes through all filters that see the body piece
//! by piece, and what they make of it goes out. A filter that wants the body as a whole gets what came
//! out of the filters before it, once that is everything.
//!
//! Bounds: no more is taken in while [`CHUNK`] bytes wait in front of the filters or behind them. Only
//! where a body is [collected](FilteredBody::collect) more waits behind them, up to the limit that the filter
//! declared, and all such bodies together up to the bridge's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use kgw_h1::{Framing, Headers};

use super::Conn;
use super::filtering::{self, Way};
use super::processor_stage::{Fate, ProcessorStage};
use crate::bridge::{Chunk, Failure, Message, ResponseHead, Verdict, Waiting};
use crate::clock::Nanos;
use crate::filter::fault::Pace;
use crate::filter::python::PythonFilter;
use crate::filter::{BodyFilter, Taken};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::room::Held;

/// What a filter gets at a time, and what may wait on either side of the filters. Bytes.
const CHUNK: usize = 16 * 1024;

/// Most that may wait of what a service gives for an answer of the proxy's own, of which nothing goes out
/// before it is whole. Bytes.
const MAX_GIVEN: usize = 16 * 1024 * 1024;

/// A body, in one direction of one exchange.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct FilteredBody {
    /// What came in, and the place of the filter that is to see it next.
    input: VecDeque<(BytesMut, usize)>,
    /// All of it came in.
    input_end: bool,
    trailers: Option<Headers>,
    stages: Vec<Stage>,
    /// The chunk that filters are looking at.
    under_way: Option<UnderWay>,
    /// What is left of chunks that filters took a part of, and the places of these filters: the last
    /// one comes first.
    rest: Vec<(Chunk, usize)>,
    /// The place of the first filter that has yet to see the end.
    end_at: usize,
    /// The end was given to a filter.
    end_begun: bool,
    /// What comes in is of no use any more.
    is_discarded: bool,
    /// All of that came in.
    rest_ended: bool,
    /// More is wanted though nothing comes out yet.
    is_pumped: bool,
    /// What came out.
    output: BytesMut,
    /// How much of that was passed on.
    sent: usize,
    /// All of it came out.
    output_end: bool,
    /// Some of what was passed on is gone.
    is_forgotten: bool,
    /// Its end was passed on.
    is_over: bool,
    /// It goes on no faster than this.
    pace: Option<Pace>,
    /// Without the next share of the pace.
    paced: usize,
    /// It is collected up to this length. Bytes.
    limit: Option<usize>,
    held: Option<Held>,
    /// It is not what the sender said any longer, or may not be.
    changed: bool,
    /// The status of the response that it belongs to.
    pub(super) status: u16,
}

/// A filter that sees the body piece by piece.
#[derive(Debug)]
enum Stage {
    Native(Box<dyn BodyFilter>),
    /// Of a service that processes messages.
    Processor(ProcessorStage),
    Python(PythonStage),
}

#[derive(Debug)]
struct PythonStage {
    filter: Arc<PythonFilter>,
    /// It has seen the head.
    is_introduced: bool,
    /// It failed, and lets the rest pass.
    is_skipped: bool,
}

/// A chunk on its way.
#[derive(Debug)]
struct UnderWay {
    chunk: Chunk,
    /// The place of the filter that it is at.
    at: usize,
    asked: Option<(Waiting, Nanos)>,
}

impl FilteredBody {
    /// Whether more may be put in.
    pub(crate) fn has_room(&self) -> bool {
        if self.is_discarded {
            return !self.rest_ended;
        }
        let waiting: usize = self.input.iter().map(|(data, _)| data.len()).sum();
        let most = self.limit.map_or(CHUNK, |limit| limit.saturating_add(1));
        !self.input_end && waiting < CHUNK && self.output.len() - self.sent < most
    }

    /// Puts in some of the data.
    pub(crate) fn push(&mut self, data: &[u8]) {
        if data.is_empty() || self.is_discarded {
            return;
        }
        match self.input.back_mut() {
            Some((waiting, 0)) => waiting.extend_from_slice(data),
            _ => self.input.push_back((BytesMut::from(data), 0)),
        }
    }

    /// Puts in the end.
    pub(crate) fn push_end(&mut self, trailers: Option<Headers>) {
        if self.is_discarded {
            self.rest_ended = true;
            if !self.output_end {
                // The filters behind the other body have yet to see its end.
                self.trailers = trailers;
                self.end_begun = false;
            }
            return;
        }
        self.input_end = true;
        self.trailers = trailers;
    }

    /// Lets a filter see the rest of the body, and what waits behind the filters so far.
    pub(super) fn add_python(&mut self, filter: &Arc<PythonFilter>, is_introduced: bool) {
        if self.output_end && self.output.is_empty() {
            return;
        }
        self.add_stage(Stage::Python(PythonStage {
            filter: Arc::clone(filter),
            is_introduced,
            is_skipped: false,
        }));
    }

    /// The same with a filter that takes what it is given at once. It sees the end of an empty body, too.
    pub(super) fn add_native(&mut self, filter: Box<dyn BodyFilter>) {
        self.add_stage(Stage::Native(filter));
    }

    /// The same with a service that processes messages.
    pub(super) fn add_processor(&mut self, stage: ProcessorStage) {
        let changed = self.changed || stage.changes_body();
        self.add_stage(Stage::Processor(stage));
        self.changed = changed;
    }

    fn add_stage(&mut self, stage: Stage) {
        let at = self.stages.len();
        self.stages.push(stage);
        if self.output_end {
            self.end_at = at;
            self.end_begun = false;
        }
        if !self.output.is_empty() {
            let output = std::mem::take(&mut self.output);
            self.input.push_front((output, at));
        }
        self.output_end = false;
        self.changed = true;
    }

    /// Lets it go on no faster than this.
    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.pace = Some(pace);
    }

    /// Finds out how much of what came out may go on by now, and waits for more. Returns whether that
    /// is more than before.
    fn poll_pace<D>(&mut self, cx: &mut Context<'_>, conn: &mut Conn<D>) -> bool {
        let Some(pace) = &mut self.pace else {
            return false;
        };
        let before = self.paced;
        loop {
            let waiting = self.output.len() - self.sent;
            let wanted = waiting.saturating_sub(self.paced);
            if wanted == 0 {
                break;
            }
            match pace.take(wanted, conn.worker.now()) {
                Ok(count) => self.paced += count,
                Err(at) => {
                    if conn.timer.poll(cx, at).is_pending() {
                        break;
                    }
                }
            }
        }
        self.paced > before
    }

    /// Begins to collect the body, up to `limit` bytes.
    pub(super) fn collect(&mut self, limit: usize, held: Held) {
        self.limit = Some(limit);
        self.held = Some(held);
    }

    /// Lets all of it come out at once: all of it is there, and what it goes to takes it whole.
    pub(super) fn unbound(&mut self) {
        self.limit = Some(usize::MAX);
    }

    /// Counts what was collected. Ready with all of it, or with why there is not all.
    pub(super) fn poll_collected(&mut self) -> Poll<Result<Bytes, Failure>> {
        let length = self.output.len();
        if self.limit.is_some_and(|limit| length > limit) {
            self.limit = None;
            return Poll::Ready(Err(Failure::TooLarge));
        }
        if let Some(held) = &mut self.held
            && !held.grow_to(length)
        {
            self.limit = None;
            return Poll::Ready(Err(Failure::Overflow));
        }
        if !self.output_end {
            return Poll::Pending;
        }
        self.limit = None;
        Poll::Ready(Ok(Bytes::copy_from_slice(&self.output)))
    }

    /// The first bytes of what came out, at most so many.
    pub(super) fn beginning(&self, most: usize) -> Bytes {
        Bytes::copy_from_slice(&self.output[..self.output.len().min(most)])
    }

    /// Whether it is being collected.
    pub(super) fn is_collected(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether more of it is wanted before the head of its message goes on.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_collected() || self.is_pumped
    }

    /// Says whether more of it is wanted though it is not collected.
    pub(super) fn pump(&mut self, is_pumped: bool) {
        self.is_pumped = is_pumped;
    }

    /// Whether trailer fields follow, as far as is known.
    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Puts other bytes in the place of the first ones that came out.
    pub(super) fn replace_beginning(&mut self, count: usize, by: &Bytes) {
        let rest = self.output.split_off(count.min(self.output.len()));
        self.output = BytesMut::from(&by[..]);
        self.output.unsplit(rest);
        self.changed = true;
    }

    /// Takes another body's place, while what the sender has yet to send of its own is dropped: trailer
    /// fields may follow it.
    pub(super) fn replace_all(&mut self, body: &Bytes) {
        let is_here = self.input_end;
        self.replace(body);
        if !is_here {
            self.is_discarded = true;
            self.output_end = false;
            self.end_at = self.stages.len();
            self.end_begun = true;
        }
    }

    /// Takes another body's place, which is all there is.
    pub(super) fn replace(&mut self, body: &Bytes) {
        self.input.clear();
        self.input_end = true;
        self.under_way = None;
        self.rest.clear();
        self.output = BytesMut::from(&body[..]);
        self.output_end = true;
        self.changed = true;
    }

    /// Whether it may be another body than the sender's.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether a filter is looking at a chunk.
    pub(super) fn is_being_asked(&self) -> bool {
        let under_way = self.under_way.as_ref();
        under_way.is_some_and(|under_way| under_way.asked.is_some())
    }

    /// Whether all of it has come out.
    pub(super) fn is_whole(&self) -> bool {
        self.output_end
    }

    /// Takes all that came out.
    pub(super) fn take_output(&mut self) -> BytesMut {
        std::mem::take(&mut self.output)
    }

    /// Moves what came in through the filters. Returns whether anything moved, or what the client gets
    /// instead.
    pub(crate) fn poll<D>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<D>,
        exchange: &mut Exchange<'_>,
        way: Way,
    ) -> Result<bool, Reply> {
        let mut moved = false;
        loop {
            let Some(under_way) = &mut self.under_way else {
                if !self.take_given(cx, conn, exchange, way)? && !self.begin_chunk(exchange) {
                    return Ok(self.poll_pace(cx, conn) || moved);
                }
                moved = true;
                continue;
            };
            let Some(stage) = self.stages.get_mut(under_way.at) else {
                self.output.extend_from_slice(&under_way.chunk.data);
                self.output_end = under_way.chunk.end;
                self.under_way = None;
                moved = true;
                continue;
            };
            let stage = match stage {
                Stage::Python(stage) => stage,
                Stage::Processor(stage) => {
                    let chunk = &mut under_way.chunk;
                    let trailers = self.trailers.as_mut();
                    let polled = stage.poll(cx, conn, exchange, way, chunk, trailers);
                    let Poll::Ready(fate) = polled else {
                        return Ok(moved);
                    };
                    under_way.at += 1;
                    let is_gone = under_way.chunk.data.is_empty() && !under_way.chunk.end;
                    if fate? == Fate::Taken || is_gone {
                        self.under_way = None;
                    }
                    moved = true;
                    continue;
                }
                Stage::Native(filter) => {
                    self.rest.extend(under_way.push(&mut **filter)?);
                    under_way.at += 1;
                    if under_way.chunk.data.is_empty() && !under_way.chunk.end {
                        self.under_way = None;
                    }
                    moved = true;
                    continue;
                }
            };
            if !stage.is_skipped {
                let polled = under_way.poll(cx, conn, exchange, stage, (way, self.status));
                let Poll::Ready(verdict) = polled else {
                    return Ok(moved);
                };
                stage.is_skipped = matches!(verdict, Verdict::Failed(_));
                let filter = Arc::clone(&stage.filter);
                if let Some(edits) = filtering::settle(conn, exchange, &filter, verdict, way)? {
                    if let Some(data) = &edits.body {
                        under_way.chunk.data = data.clone();
                    }
                    filtering::note_metadata(exchange, *edits);
                }
            }
            under_way.at += 1;
            if under_way.chunk.data.is_empty() && !under_way.chunk.end {
                self.under_way = None;
            }
            moved = true;
        }
    }

    /// Takes what a service says that the body is, if there is room for it. Returns whether there is any.
    fn take_given<D>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<D>,
        exchange: &mut Exchange<'_>,
        way: Way,
    ) -> Result<bool, Reply> {
        if self.stages.is_empty() || !self.rest.is_empty() || !self.has_output_room() {
            return Ok(false);
        }
        let stages = self.stages.iter_mut().enumerate().rev();
        for (at, stage) in stages {
            let Stage::Processor(stage) = stage else {
                continue;
            };
            let trailers = self.trailers.as_mut();
            if let Poll::Ready(given) = stage.poll_given(cx, conn, exchange, way, trailers) {
                let given = given?;
                if given.end && !self.is_discarded {
                    // Whatever the sender has yet to send, the body is what the service said.
                    self.is_discarded = true;
                    self.rest_ended = self.input_end;
                    self.input.clear();
                }
                self.rest.push((given, at + 1));
                return Ok(self.begin_chunk(exchange));
            }
        }
        Ok(false)
    }

    fn has_output_room(&self) -> bool {
        let waiting = self.output.len() - self.sent;
        !self.output_end
            && match self.limit {
                None => waiting < CHUNK,
                // What is collected is limited elsewhere.
                Some(limit) => waiting <= limit.min(MAX_GIVEN),
            }
    }

    /// Cuts the next chunk off what came in. Returns whether there is one.
    fn begin_chunk(&mut self, exchange: &Exchange<'_>) -> bool {
        if self.output_end || self.limit.is_none() && self.output.len() - self.sent >= CHUNK {
            return false;
        }
        if let Some((chunk, at)) = self.rest.pop() {
            self.under_way = Some(UnderWay {
                chunk,
                at,
                asked: None,
            });
            return true;
        }
        let next = self.input.front().map_or(self.end_at, |(_, at)| *at);
        let mut stages = self.stages.iter().skip(next);
        if stages.any(|stage| matches!(stage, Stage::Processor(stage) if stage.is_full(exchange))) {
            return false;
        }
        let (data, at) = match self.input.front_mut() {
            Some((waiting, at)) => (waiting.split_to(waiting.len().min(CHUNK)), *at),
            None => (BytesMut::new(), self.end_at),
        };
        while self.input.front().is_some_and(|(rest, _)| rest.is_empty()) {
            self.input.pop_front();
        }
        let is_last = self.input_end && self.input.is_empty() && at == self.end_at;
        let end = is_last && !self.end_begun;
        if data.is_empty() && !end {
            return false;
        }
        self.end_begun |= end;
        self.under_way = Some(UnderWay {
            chunk: Chunk {
                data: data.freeze(),
                end,
            },
            at,
            asked: None,
        });
        true
    }

    // === The way out ===

    /// How the message is framed that had this framing and this stated length.
    pub(crate) fn framing(
        &self,
        framing: Framing,
        advertised: Option<u64>,
    ) -> (Framing, Option<u64>) {
        if !self.changed {
            return (framing, advertised);
        }
        if self.output_end && self.trailers.is_none() {
            let length = self.output.len() as u64;
            return (Framing::Length(length), Some(length));
        }
        (Framing::Chunked, None)
    }

    /// The next piece of what came out and was not passed on.
    pub(crate) fn unsent(&self) -> &[u8] {
        let rest = &self.output[self.sent..];
        let most = match self.pace {
            Some(_) => self.paced.min(CHUNK),
            None => CHUNK,
        };
        &rest[..rest.len().min(most)]
    }

    /// Notes that some of that was passed on. What came out is kept if it is the whole; else it is let
    /// go at once, since a slow receiver may always leave some of it.
    pub(crate) fn sent(&mut self, count: usize) {
        self.sent += count;
        self.paced = self.paced.saturating_sub(count);
        if self.is_forgotten || !self.output_end {
            self.output.advance(self.sent);
            self.sent = 0;
            self.is_forgotten = true;
            if self.output.is_empty() {
                self.held = None;
            }
        }
    }

    /// Whether nothing but the end is left to be passed on.
    pub(crate) fn is_end_due(&self) -> bool {
        self.output_end && !self.is_over && self.sent == self.output.len()
    }

    /// Notes that the end was passed on, and returns the trailer fields.
    pub(crate) fn end(&mut self) -> Option<&Headers> {
        self.is_over = true;
        self.trailers.as_ref()
    }

    /// Whether all of it was passed on.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Begins again with what is passed on, if that is still there. Returns whether it is.
    pub(crate) fn rewind(&mut self) -> bool {
        if !self.is_forgotten {
            self.sent = 0;
            self.is_over = false;
        }
        !self.is_forgotten
    }
}

impl UnderWay {
    /// Has a filter take the chunk, in whose place is what it makes of it. Returns what it left of it,
    /// which is for the same filter.
    fn push(&mut self, filter: &mut dyn BodyFilter) -> Result<Option<(Chunk, usize)>, Reply> {
        let mut out = BytesMut::new();
        let Chunk { data, end } = self.chunk.clone();
        let taken = filter.push(&data, end, &mut out)?;
        self.chunk.data = out.freeze();
        let Taken::Part(count) = taken else {
            return Ok(None);
        };
        self.chunk.end = false;
        let rest = Chunk {
            data: data.slice(count.min(data.len())..),
            end,
        };
        Ok(Some((rest, self.at)))
    }

    /// Asks a filter about the chunk. Ready with its verdict.
    fn poll<D>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<D>,
        exchange: &mut Exchange<'_>,
        stage: &mut PythonStage,
        (way, status): (Way, u16),
    ) -> Poll<Verdict> {
        let filter = &stage.filter;
        if self.asked.is_none() {
            let head = (!stage.is_introduced)
                .then(|| filtering::request_head(conn, exchange, filter, None));
            let chunk = self.chunk.clone();
            let is_last = chunk.end && filtering::ends_session(filter, way, exchange);
            let message = match way {
                Way::Request => Message::RequestChunk(head, chunk),
                Way::Response => {
                    let seen = head.map(|head| {
                        let headers = conn.response.headers();
                        let body = crate::bridge::Body::Unseen;
                        (head, Box::new(ResponseHead::new(status, headers, body)))
                    });
                    Message::ResponseChunk(seen, chunk)
                }
            };
            stage.is_introduced = true;
            match filtering::ask(conn, exchange, filter, message, is_last) {
                Ok(waiting) => {
                    let deadline = conn.worker.now().after_ms(filter.timeout_ms);
                    self.asked = Some((waiting, deadline));
                }
                Err(failure) => return Poll::Ready(Verdict::Failed(failure)),
            }
        }
        let Some((waiting, deadline)) = &mut self.asked else {
            return Poll::Pending;
        };
        let verdict = match waiting.poll(cx) {
            // The client has the response's head already.
            Poll::Ready(Verdict::Respond(_)) if way == Way::Response => {
                Verdict::Failed(Failure::Invalid)
            }
            Poll::Ready(verdict) => verdict,
            Poll::Pending => match conn.timer.poll(cx, *deadline) {
                Poll::Ready(()) => Verdict::Failed(Failure::Timeout),
                Poll::Pending => return Poll::Pending,
            },
        };
        self.asked = None;
        Poll::Ready(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_on_is_let_go_though_some_is_always_left() {
        let mut body = FilteredBody::default();
        for round in 1..1_000 {
            // A filter makes each chunk a byte longer, and the receiver takes one piece at a time.
            body.output.resize(body.output.len() + CHUNK + 1, 0);
            body.sent(body.unsent().len());
            assert_eq!(body.unsent().len(), round);
            assert!(body.output.capacity() <= 8 * CHUNK);
        }
        assert!(!body.rewind());
    }

    #[test]
    fn what_is_the_whole_is_kept() {
        let mut body = FilteredBody::default();
        body.replace(&Bytes::from_static(b"abc"));
        body.sent(2);
        assert_eq!(body.unsent(), b"c");
        assert!(body.rewind());
        assert_eq!(body.unsent(), b"abc");
    }
}
