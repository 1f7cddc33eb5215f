//! Moving bytes both ways between a client and an endpoint, for one exchange.
//!
//! One state machine, polled by the connection's task. In each direction it takes input only while
//! there is room in the other socket's output, so a slow reader slows its writer down and nothing
//! grows. It ends exactly once, with an [`End`].
//!
//! Rules:
//! 1. An answer that begins before the request has ended is passed on while the request goes on.
//! 2. The client's FIN after a whole request is no reason to stop: it may wait for the answer.
//! 3. A failure before the answer's head was passed on becomes an answer of the proxy's own; one
//!    after it cuts the answer short, visibly.
//! 4. The route's time-out runs from the end of the request to the end of the answer's arrival.
//! 5. The upstream connection can be used again only if both messages ended and nothing follows.

use std::future::poll_fn;
use std::task::{Context, Poll};

use kgw_h1::{
    BodyDecoder, BodyEncoder, Framing, Limits, Method, RequestContext, Status,
    strip_hop_by_hop_response, write_response_head,
};

use super::Conn;
use super::io::{BODY_BUFFER, Stream};
use crate::clock::Nanos;
use crate::config::ir::HttpOptions;
use crate::pipeline::edge;
use crate::pipeline::exchange_log::{Dispatch, Exchange};
use crate::pipeline::reply::Reply;
use crate::runtime::Phase;
use crate::telemetry::access_log::Point;
use crate::telemetry::flags::ResponseFlag;

/// Largest response head. Bytes (Envoy: 80 KiB) and fields (Envoy: 100).
const RESPONSE_LIMITS: Limits = Limits {
    max_head_bytes: 80 * 1024,
    max_fields: 100,
};

/// Interim answers before the final one.
const MAX_INTERIM: u8 = 16;

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The whole answer was passed on.
    Complete {
        /// The upstream connection can carry another request.
        reusable: bool,
    },
    /// The client is gone.
    ClientGone,
    /// The upstream closed the connection before it answered.
    UpstreamClosed,
    /// Nothing was passed on yet; this is to be answered.
    Refused(Reply),
    /// The answer was cut short.
    Truncated(ResponseFlag, &'static str),
}

/// How far the answer is.
#[derive(Debug)]
pub(crate) enum Answer {
    Head,
    Body {
        decoder: BodyDecoder,
        encoder: BodyEncoder,
    },
    Done,
}

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Relay<'a, 'x> {
    pub(crate) conn: &'a mut Conn,
    pub(crate) up: &'a mut Stream,
    pub(crate) exchange: &'a mut Exchange<'x>,
    pub(crate) dispatch: &'a Dispatch<'a>,
    pub(crate) http: &'a HttpOptions,
    pub(crate) request_body: BodyDecoder,
    pub(crate) request_out: BodyEncoder,
    pub(crate) answer: Answer,
    /// When the request was passed on completely.
    pub(crate) complete_at: Option<Nanos>,
    /// When a byte last moved.
    pub(crate) moved_at: Nanos,
    /// When the task was last woken: one reading of the clock serves all that happens then.
    pub(crate) now: Nanos,
    /// A byte of the request was written.
    pub(crate) wrote: bool,
    /// The upstream takes no more of the request; it may still be answering.
    pub(crate) upstream_broken: bool,
}

impl Relay<'_, '_> {
    pub(crate) async fn run(&mut self) -> End {
        let mut interim = 0;
        poll_fn(|cx| self.poll(cx, &mut interim)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, interim: &mut u8) -> Poll<End> {
        self.conn.registration.update(cx);
        self.now = self.conn.worker.now();
        let mut moved = false;
        loop {
            let mut again = false;
            match self.poll_request(cx) {
                Ok(progress) => again |= progress,
                Err(end) => return Poll::Ready(end),
            }
            match self.poll_answer(cx, interim) {
                Ok(progress) => again |= progress,
                Err(end) => return Poll::Ready(end),
            }
            if matches!(self.answer, Answer::Done) && self.conn.down.unsent() == 0 {
                self.exchange
                    .timings
                    .set(Point::DownstreamTxEnd, self.now.0);
                return Poll::Ready(End::Complete {
                    reusable: self.is_reusable(),
                });
            }
            if !again {
                break;
            }
            moved = true;
        }
        if moved {
            self.moved_at = self.now;
        }
        self.poll_deadlines(cx)
    }

    /// Client to upstream. Returns whether anything moved.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        if self.complete_at.is_none() && !self.upstream_broken {
            moved |= self.take_request_body()?;
        }
        if !self.exchange.request_complete {
            if self.up.has_room() && !self.upstream_broken {
                match self.conn.down.poll_fill(cx, BODY_BUFFER) {
                    Poll::Ready(Ok(count)) if count > 0 => moved = true,
                    Poll::Ready(_) => return Err(End::ClientGone),
                    Poll::Pending => {}
                }
            }
        } else if !self.conn.down.eof {
            // Nothing more belongs to this exchange. Reading tells whether the client is still
            // there, and takes the next request out of the socket's way.
            match self.conn.down.poll_fill(cx, BODY_BUFFER) {
                Poll::Ready(Ok(count)) => moved |= count > 0,
                Poll::Ready(Err(_)) => return Err(End::ClientGone),
                Poll::Pending => {}
            }
        }
        if self.up.unsent() > 0 && !self.upstream_broken {
            let before = self.up.unsent();
            match self.up.poll_flush(cx) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(_)) => self.upstream_broken = true,
            }
            if self.up.unsent() < before {
                moved = true;
                if !self.wrote {
                    self.wrote = true;
                    self.exchange
                        .timings
                        .set(Point::UpstreamTxBegin, self.now.0);
                }
            }
        }
        if self.exchange.request_complete && self.complete_at.is_none() && self.up.unsent() == 0 {
            self.complete_at = Some(self.now);
            self.exchange.timings.set(Point::UpstreamTxEnd, self.now.0);
        }
        Ok(moved)
    }

    /// Moves what has arrived of the request's body to the upstream's output.
    fn take_request_body(&mut self) -> Result<bool, End> {
        let mut moved = false;
        while !self.exchange.request_complete && self.up.has_room() {
            let input = self.conn.down.input();
            let step = match self.request_body.decode(input) {
                Ok(step) => step,
                Err(error) => return Err(self.fail(Reply::malformed_body(error))),
            };
            let data = &input[step.data.clone()];
            self.exchange.bytes_received += data.len() as u64;
            let mut encoded = self.request_out.encode(data, self.up.output());
            if step.done {
                encoded = encoded.and_then(|()| self.request_out.finish(self.up.output()));
            }
            if let Err(error) = encoded {
                return Err(self.fail(Reply::malformed_body(error)));
            }
            self.conn.down.consume(step.consumed);
            if step.done {
                self.exchange.request_received(self.now);
            } else if step.consumed == 0 {
                break;
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Upstream to client. Returns whether anything moved.
    fn poll_answer(&mut self, cx: &mut Context<'_>, interim: &mut u8) -> Result<bool, End> {
        let mut moved = match self.answer {
            Answer::Head => self.take_answer_head(interim)?,
            Answer::Body { .. } => self.take_answer_body()?,
            Answer::Done => false,
        };
        if !matches!(self.answer, Answer::Done) && self.conn.down.has_room() {
            let limit = match self.answer {
                Answer::Head => RESPONSE_LIMITS.max_head_bytes + 1,
                _ => BODY_BUFFER,
            };
            if self.up.eof {
                return Err(self.upstream_ended());
            }
            match self.up.poll_fill(cx, limit) {
                Poll::Ready(Ok(0)) => moved |= self.take_close_delimited_end()?,
                Poll::Ready(Ok(_)) => moved = true,
                Poll::Ready(Err(_)) => return Err(self.upstream_ended()),
                Poll::Pending => {}
            }
        }
        if self.conn.down.unsent() > 0 {
            let before = self.conn.down.unsent();
            match self.conn.down.poll_flush(cx) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(_)) => return Err(End::ClientGone),
            }
            moved |= self.conn.down.unsent() < before;
        }
        Ok(moved)
    }

    fn take_answer_head(&mut self, interim: &mut u8) -> Result<bool, End> {
        let mut moved = false;
        while !self.up.input().is_empty() {
            let context = RequestContext {
                head: self.conn.request.method_kind() == Method::Head,
                connect: false,
                upgrade: false,
            };
            let parsed = self
                .conn
                .response
                .parse(self.up.input(), &RESPONSE_LIMITS, context);
            match parsed {
                Ok(Status::Incomplete) => break,
                Ok(Status::Complete(length)) => {
                    self.up.consume(length);
                    moved = true;
                    if self.conn.response.status() >= 200 {
                        self.pass_answer_head();
                        self.take_answer_body()?;
                        break;
                    }
                    // Interim answers are for the hop that asked for them: the proxy itself sends
                    // 100, and Envoy passes none of the others on.
                    *interim += 1;
                    if *interim > MAX_INTERIM {
                        return Err(self.fail(Reply::upstream_protocol_error()));
                    }
                    self.conn.response.clear();
                }
                Err(_) => return Err(self.fail(Reply::upstream_protocol_error())),
            }
        }
        Ok(moved)
    }

    /// Puts the answer's head, as the client is to see it, into the client's output.
    fn pass_answer_head(&mut self) {
        let worker = std::rc::Rc::clone(&self.conn.worker);
        let now = self.now;
        self.exchange.timings.set(Point::UpstreamRxBegin, now.0);
        self.exchange.timings.set(Point::DownstreamTxBegin, now.0);
        self.exchange.keep_alive &= !self.conn.is_draining();

        let response = &mut self.conn.response;
        strip_hop_by_hop_response(response, false);
        let received = response.framing();
        let advertised = response.content_length();
        let headers = response.headers_mut();
        if let Some(complete_at) = self.complete_at {
            let mut number = itoa::Buffer::new();
            let milliseconds = number.format(now.since(complete_at) / 1_000_000);
            headers.set(b"x-envoy-upstream-service-time", milliseconds.as_bytes());
        }
        for mutation in self.dispatch.response_headers.iter().copied().flatten() {
            mutation.apply(headers);
        }
        if !headers.contains(b"date") {
            worker.with_date(now, |date| headers.append(b"date", date));
        }
        let request_id = self.conn.request.headers().get(b"x-request-id");
        edge::finish_response(headers, self.http, request_id);
        if !self.exchange.keep_alive {
            headers.append(b"connection", b"close");
        }
        // A length that only the end of the connection tells would end the client's too.
        let framing = match received {
            Framing::UntilClose => Framing::Chunked,
            other => other,
        };
        let status = response.status();
        let headers = response.headers();
        let before = self.conn.down.output().len();
        write_response_head(
            self.conn.down.output(),
            status,
            headers,
            framing,
            advertised,
        );
        let written = self.conn.down.output().len() - before;
        self.exchange.answer_head_bytes = written as u64;
        self.exchange.upstream_wire.header_received = response.head_bytes() as u64;
        self.exchange.code = status;
        self.exchange.details = Some(std::borrow::Cow::Borrowed("via_upstream"));
        self.answer = Answer::Body {
            decoder: BodyDecoder::new(received),
            encoder: BodyEncoder::new(framing),
        };
    }

    /// Moves what has arrived of the answer's body to the client's output.
    fn take_answer_body(&mut self) -> Result<bool, End> {
        let mut moved = false;
        while self.conn.down.has_room() {
            let Answer::Body { decoder, encoder } = &mut self.answer else {
                break;
            };
            let input = self.up.input();
            let Ok(step) = decoder.decode(input) else {
                return Err(self.fail(Reply::upstream_protocol_error()));
            };
            let data = &input[step.data.clone()];
            self.exchange.bytes_sent += data.len() as u64;
            let mut encoded = encoder.encode(data, self.conn.down.output());
            if step.done {
                encoded = encoded.and_then(|()| encoder.finish(self.conn.down.output()));
            }
            if encoded.is_err() {
                return Err(self.fail(Reply::upstream_protocol_error()));
            }
            self.up.consume(step.consumed);
            if step.done {
                self.answer_done();
                return Ok(true);
            }
            if step.consumed == 0 {
                break;
            }
            moved = true;
        }
        Ok(moved)
    }

    /// The upstream has finished sending: the end of an answer, if that is how it was framed.
    fn take_close_delimited_end(&mut self) -> Result<bool, End> {
        if let Answer::Body { decoder, encoder } = &mut self.answer
            && self.up.input().is_empty()
            && decoder.finish_eof().is_ok()
            && encoder.finish(self.conn.down.output()).is_ok()
        {
            self.answer_done();
            return Ok(true);
        }
        Err(self.upstream_ended())
    }

    fn answer_done(&mut self) {
        self.answer = Answer::Done;
        self.exchange.timings.set(Point::UpstreamRxEnd, self.now.0);
    }

    fn is_reusable(&self) -> bool {
        self.conn.response.keep_alive()
            && self.exchange.request_complete
            && self.up.unsent() == 0
            && !self.up.eof
            && !self.upstream_broken
            && self.up.input().is_empty()
    }

    fn upstream_ended(&mut self) -> End {
        match self.answer {
            Answer::Head if self.up.input().is_empty() => End::UpstreamClosed,
            _ => self.fail(Reply::upstream_protocol_error()),
        }
    }

    /// A failure: an answer of its own if there is none yet, else the end of the one under way.
    fn fail(&self, reply: Reply) -> End {
        match self.answer {
            Answer::Head => End::Refused(reply),
            Answer::Body { .. } | Answer::Done => match reply.flag {
                Some(ResponseFlag::UpstreamRequestTimeout) => {
                    End::Truncated(ResponseFlag::UpstreamRequestTimeout, "response_timeout")
                }
                Some(ResponseFlag::StreamIdleTimeout) => {
                    End::Truncated(ResponseFlag::StreamIdleTimeout, "stream_idle_timeout")
                }
                Some(ResponseFlag::DownstreamProtocolError) => {
                    End::Truncated(ResponseFlag::DownstreamProtocolError, "http1.codec_error")
                }
                _ => End::Truncated(
                    ResponseFlag::UpstreamProtocolError,
                    "upstream_reset_after_response_started{protocol_error}",
                ),
            },
        }
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.conn.worker.phase() == Phase::Closing {
            return Poll::Ready(End::ClientGone);
        }
        let idle = self.moved_at.after_ms(self.http.stream_idle_timeout_ms);
        // Once the endpoint has answered in full, only the client takes its time.
        let route = match self.answer {
            Answer::Done => Nanos::NEVER,
            _ => self
                .exchange
                .route_deadline(self.dispatch.forward.timeout_ms),
        };
        match self.conn.timer.poll(cx, idle.min(route)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if route <= idle => Poll::Ready(self.fail(Reply::request_timed_out())),
            Poll::Ready(()) => {
                let complete = self.exchange.request_complete;
                Poll::Ready(self.fail(Reply::stream_idle(complete)))
            }
        }
    }
}
