//! A body, or its trailer fields, on the way through a service that processes them.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use kgw_h1::Headers;

use super::Conn;
use super::filtering::Way;
use super::processing::{body_of, ended};
use super::processor::{About, Processing, Trouble};
use crate::bridge::Chunk;
use crate::filter::ext_proc::{self, BodyMutation, Common, Part, Told, sends_trailers};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;

/// What a service sees of a body while that goes on.
#[derive(Debug)]
pub(super) struct ProcessorStage {
    /// Of the processing in its exchange.
    place: usize,
    kind: Kind,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Piece by piece, each of which it answers.
    Streamed,
    /// Piece by piece; what it says is the body.
    Duplex,
    /// The trailer fields only.
    Trailers,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Nothing is asked.
    Idle,
    /// It was asked about the piece at hand.
    Body,
    /// It was asked about the trailer fields.
    Trailers,
    /// Its answers are all there.
    Over,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It goes on.
    Passed,
    /// It was taken.
    Taken,
}

impl ProcessorStage {
    fn new(place: usize, kind: Kind) -> Self {
        Self {
            place,
            kind,
            phase: Phase::Idle,
        }
    }

    pub(super) fn streamed(place: usize) -> Self {
        Self::new(place, Kind::Streamed)
    }

    pub(super) fn duplex(place: usize) -> Self {
        Self::new(place, Kind::Duplex)
    }

    pub(super) fn trailers(place: usize) -> Self {
        Self::new(place, Kind::Trailers)
    }

    /// Whether the body may become another one.
    pub(super) fn changes_body(&self) -> bool {
        self.kind != Kind::Trailers
    }

    /// Whether it takes no piece now, since the service does not.
    pub(super) fn is_full(&self, exchange: &Exchange<'_>) -> bool {
        self.kind == Kind::Duplex
            && exchange
                .processing(self.place)
                .is_some_and(|processing| !processing.has_room())
    }

    /// Shows the service a piece, and the trailer fields behind the last one.
    pub(super) fn poll<D>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<D>,
        exchange: &mut Exchange<'_>,
        way: Way,
        chunk: &mut Chunk,
        trailers: Option<&mut Headers>,
    ) -> Poll<Result<Fate, Reply>> {
        if self.kind == Kind::Duplex {
            return Poll::Ready(Ok(self.take(
                conn,
                exchange,
                way,
                chunk,
                trailers.as_deref(),
            )));
        }
        if self.phase == Phase::Idle {
            let end = chunk.end && trailers.is_none();
            let is_told = self.kind == Kind::Streamed && (end || !chunk.data.is_empty());
            if is_told {
                let data = chunk.data.clone();
                self.tell(conn, exchange, way, &Told::Body { data: &data, end });
                self.phase = Phase::Body;
            } else if !self.tell_trailers(conn, exchange, way, chunk, trailers.as_deref()) {
                return Poll::Ready(Ok(Fate::Passed));
            }
        }
        loop {
            let Some((_, common)) = ready!(self.poll_answer(cx, conn, exchange, way))? else {
                self.phase = Phase::Idle;
                return Poll::Ready(Ok(Fate::Passed));
            };
            if self.phase == Phase::Body {
                if let Some(data) = body_of(&common) {
                    chunk.data = data;
                }
                if self.tell_trailers(conn, exchange, way, chunk, trailers.as_deref()) {
                    continue;
                }
            } else if let Some(trailers) = trailers {
                self.change_trailers(conn, exchange, way, &common, trailers)?;
            }
            self.phase = Phase::Idle;
            return Poll::Ready(Ok(Fate::Passed));
        }
    }

    /// Takes a piece of a body that is full duplex.
    fn take<D>(
        &mut self,
        conn: &Conn<D>,
        exchange: &mut Exchange<'_>,
        way: Way,
        chunk: &Chunk,
        trailers: Option<&Headers>,
    ) -> Fate {
        let processing = exchange.processing(self.place);
        if self.phase == Phase::Over || processing.is_none_or(Processing::is_done) {
            return Fate::Passed;
        }
        let end = chunk.end && trailers.is_none();
        if end || !chunk.data.is_empty() {
            let data = &chunk.data;
            self.tell(conn, exchange, way, &Told::Body { data, end });
        }
        self.tell_trailers(conn, exchange, way, chunk, trailers);
        Fate::Taken
    }

    /// The next piece of a body that is full duplex.
    pub(super) fn poll_given<D>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<D>,
        exchange: &mut Exchange<'_>,
        way: Way,
        trailers: Option<&mut Headers>,
    ) -> Poll<Result<Chunk, Reply>> {
        let is_given = self.kind == Kind::Duplex && self.phase != Phase::Over;
        let processing = exchange.processing(self.place).filter(|_| is_given);
        if processing.is_none_or(|one| !one.is_answered(way) || !one.has_body(way)) {
            return Poll::Pending;
        }
        let answer = ready!(self.poll_answer(cx, conn, exchange, way))?;
        let Some((part, common)) = answer else {
            // It has ended without a word about what it was told.
            let reply = ended(conn, exchange, self.place, way, Trouble::Ended);
            return reply.map_or(Poll::Pending, |reply| Poll::Ready(Err(reply)));
        };
        let (data, end) = match &common.body {
            Some(BodyMutation::Streamed(data, end)) => (Bytes::copy_from_slice(data), *end),
            _ => (Bytes::new(), false),
        };
        if let (Part::Trailers, Some(trailers)) = (part, trailers) {
            self.change_trailers(conn, exchange, way, &common, trailers)?;
        }
        let mut is_end = false;
        if let Some(mut processing) = exchange.take_processing(self.place) {
            is_end = processing.note_end(way, part, end);
            exchange.put_processing(self.place, processing);
        }
        if is_end {
            self.phase = Phase::Over;
        }
        Poll::Ready(Ok(Chunk { data, end: is_end }))
    }

    fn tell<D>(&self, conn: &Conn<D>, exchange: &mut Exchange<'_>, way: Way, told: &Told<'_>) {
        if let Some(mut processing) = exchange.take_processing(self.place) {
            processing.tell(&About::new(conn, exchange), way, told);
            exchange.put_processing(self.place, processing);
        }
    }

    /// Tells the service the trailer fields behind the last piece, if it is to know them. Returns whether
    /// it is.
    fn tell_trailers<D>(
        &mut self,
        conn: &Conn<D>,
        exchange: &mut Exchange<'_>,
        way: Way,
        chunk: &Chunk,
        trailers: Option<&Headers>,
    ) -> bool {
        let processing = exchange.processing(self.place);
        let is_told = processing.is_some_and(|processing| {
            let is_duplex = ext_proc::is_duplex(processing.body_mode(way));
            let sends = is_duplex || sends_trailers(processing.trailer_mode(way));
            sends && !processing.is_done()
        });
        match trailers.filter(|_| chunk.end && is_told) {
            Some(trailers) => {
                self.tell(conn, exchange, way, &Told::Trailers(trailers));
                self.phase = Phase::Trailers;
                true
            }
            None => false,
        }
    }

    fn change_trailers<D>(
        &self,
        conn: &Conn<D>,
        exchange: &mut Exchange<'_>,
        way: Way,
        common: &Common,
        trailers: &mut Headers,
    ) -> Result<(), Reply> {
        let Err(invalid) = ext_proc::of_trailers(&common.headers, trailers) else {
            return Ok(());
        };
        let trouble = Trouble::Invalid(invalid);
        ended(conn, exchange, self.place, way, trouble).map_or(Ok(()), Err)
    }

    /// Waits for what the service says. None if the body goes on without it.
    fn poll_answer<D>(
        &self,
        cx: &mut Context<'_>,
        conn: &Conn<D>,
        exchange: &mut Exchange<'_>,
        way: Way,
    ) -> Poll<Result<Option<(Part, Common)>, Reply>> {
        let Some(mut processing) = exchange.take_processing(self.place) else {
            return Poll::Ready(Ok(None));
        };
        let polled = processing.poll(cx, &conn.worker, way);
        exchange.put_processing(self.place, processing);
        match ready!(polled) {
            Ok(answer) => Poll::Ready(Ok(answer)),
            Err(trouble) => {
                let reply = ended(conn, exchange, self.place, way, trouble);
                Poll::Ready(reply.map_or(Ok(None), Err))
            }
        }
    }
}
