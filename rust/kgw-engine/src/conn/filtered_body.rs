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
use crate::bridge::{Chunk, Failure, Message, ResponseHead, Verdict, Waiting};
use crate::clock::Nanos;
use crate::filter::python::PythonFilter;
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::room::Held;

/// What a filter gets at a time, and what may wait on either side of the filters. Bytes.
const CHUNK: usize = 16 * 1024;

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
struct Stage {
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
        let waiting: usize = self.input.iter().map(|(data, _)| data.len()).sum();
        let most = self.limit.map_or(CHUNK, |limit| limit.saturating_add(1));
        !self.input_end && waiting < CHUNK && self.output.len() - self.sent < most
    }

    /// Puts in some of the data.
    pub(crate) fn push(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        match self.input.back_mut() {
            Some((waiting, 0)) => waiting.extend_from_slice(data),
            _ => self.input.push_back((BytesMut::from(data), 0)),
        }
    }

    /// Puts in the end.
    pub(crate) fn push_end(&mut self, trailers: Option<Headers>) {
        self.input_end = true;
        self.trailers = trailers;
    }

    /// Lets a filter see the rest of the body, and what waits behind the filters so far.
    pub(super) fn add_stage(&mut self, filter: &Arc<PythonFilter>, is_introduced: bool) {
        if self.output_end && self.output.is_empty() {
            return;
        }
        let at = self.stages.len();
        self.stages.push(Stage {
            filter: Arc::clone(filter),
            is_introduced,
            is_skipped: false,
        });
        if !self.output.is_empty() {
            let output = std::mem::take(&mut self.output);
            self.input.push_front((output, at));
        }
        self.output_end = false;
        self.changed = true;
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

    /// Takes another body's place, which is all there is.
    pub(super) fn replace(&mut self, body: &Bytes) {
        self.input.clear();
        self.input_end = true;
        self.under_way = None;
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
                if !self.begin_chunk() {
                    return Ok(moved);
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

    /// Cuts the next chunk off what came in. Returns whether there is one.
    fn begin_chunk(&mut self) -> bool {
        if self.output_end || self.limit.is_none() && self.output.len() - self.sent >= CHUNK {
            return false;
        }
        let (data, at) = match self.input.front_mut() {
            Some((waiting, at)) => (waiting.split_to(waiting.len().min(CHUNK)), *at),
            None => (BytesMut::new(), 0),
        };
        while self.input.front().is_some_and(|(rest, _)| rest.is_empty()) {
            self.input.pop_front();
        }
        let end = self.input_end && self.input.is_empty();
        if data.is_empty() && !end {
            return false;
        }
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
        &rest[..rest.len().min(CHUNK)]
    }

    /// Notes that some of that was passed on. What came out is kept if it is the whole; else it is let
    /// go at once, since a slow receiver may always leave some of it.
    pub(crate) fn sent(&mut self, count: usize) {
        self.sent += count;
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
    /// Asks a filter about the chunk. Ready with its verdict.
    fn poll<D>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<D>,
        exchange: &mut Exchange<'_>,
        stage: &mut Stage,
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
