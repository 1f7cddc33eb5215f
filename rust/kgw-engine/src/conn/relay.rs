//! Moving messages both ways between a client and an endpoint, for one exchange.
//!
//! One state machine, polled by the exchange's task. In each direction it takes input only while
//! there is room on the other side, so a slow reader slows its writer down and nothing grows. It ends
//! exactly once, with an [`End`].
//!
//! Rules:
//! 1. An answer that begins before the request has ended is passed on while the request goes on.
//! 2. The client's FIN after a whole request is no reason to stop: it may wait for the answer.
//! 3. A failure before the answer's head was passed on becomes an answer of the proxy's own; one
//!    after it cuts the answer short, visibly.
//! 4. The route's time-out runs from the end of the request to the end of the answer's arrival.
//! 5. The time of an attempt, where a route has retries, covers its answer as well, and the route's all
//!    attempts.
//! 6. The upstream connection can be used again only if both messages ended and nothing follows.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::task::{Context, Poll};

use kgw_h1::{
    Framing, Headers, Known, Method, RequestContext, connection_option, response_framing,
    strip_hop_by_hop_response,
};

use super::Conn;
use super::filtered_body::FilteredBody;
use super::filtering::{self, Way};
use super::message::{Downstream, Lost, Piece, Upstream};
use super::retry::{self, Admitted};
use super::splice::Splice;
use super::whole_body;
use crate::clock::Nanos;
use crate::config::ir::HttpOptions;
use crate::pipeline::edge;
use crate::pipeline::exchange_log::{Dispatch, Exchange};
use crate::pipeline::reply::Reply;
use crate::runtime::{Phase, Worker};
use crate::telemetry::access_log::Point;
use crate::telemetry::flags::ResponseFlag;
use crate::upstream::acquire::poll_client_gone;
use crate::upstream::health::outlier::{Outcome, status_of_grpc};

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
    ClientGone(Lost),
    /// The upstream closed the connection, or refused the stream, before it answered.
    UpstreamClosed(Lost),
    /// Nothing was passed on yet; this is to be answered.
    Refused(Reply),
    /// The answer is one in whose place another is asked for. Nothing of it was passed on.
    Retriable,
    /// The answer was cut short.
    Truncated(Option<ResponseFlag>, Cow<'static, str>),
    /// Both sides have agreed to speak another protocol. The client's side has been told.
    Switched,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Head,
    /// Its head is there, and filters are looking at it.
    Filtering,
    Body,
    Done,
}

/// Who was seen to have sent nothing since the task was woken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quiet {
    /// The client, behind its request.
    client: bool,
    /// The endpoint, no answer yet.
    upstream: bool,
}

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Relay<'a, 'x, D, U> {
    pub(crate) conn: &'a mut Conn<D>,
    pub(crate) up: &'a mut U,
    pub(crate) exchange: &'a mut Exchange<'x>,
    pub(crate) dispatch: &'a Dispatch<'a>,
    pub(crate) http: &'a HttpOptions,
    pub(crate) answer: Answer,
    /// The client asks for another protocol, and may.
    pub(crate) switching: bool,
    /// When the request was passed on completely.
    pub(crate) complete_at: Option<Nanos>,
    /// When the request began to be passed on.
    pub(crate) began: Nanos,
    /// When a byte last moved.
    pub(crate) moved_at: Nanos,
    /// When the task was last woken: one reading of the clock serves all that happens then.
    pub(crate) now: Nanos,
    /// Who need not be looked at again before the task is woken again.
    pub(crate) quiet: Quiet,
    /// A byte of the request was written.
    pub(crate) wrote: bool,
    /// The upstream takes no more of the request; it may still be answering.
    pub(crate) upstream_broken: bool,
    /// The status that filters gave the answer so far.
    pub(crate) filtered_status: Option<u16>,
}

impl<D: Downstream, U: Upstream> Relay<'_, '_, D, U> {
    pub(crate) async fn run(&mut self) -> End {
        let mut interim = 0;
        poll_fn(|cx| self.poll(cx, &mut interim)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, interim: &mut u8) -> Poll<End> {
        self.conn.registration.update(cx);
        self.now = self.conn.worker.now();
        self.quiet = Quiet::default();
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
            if self.answer == Answer::Done && self.conn.down.unsent() == 0 {
                self.exchange
                    .timings
                    .set(Point::DownstreamTxEnd, self.now.0);
                return Poll::Ready(End::Complete {
                    reusable: self.exchange.request_complete
                        && !self.upstream_broken
                        && self.up.is_reusable(),
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
            moved |= self.take_request_body(cx)?;
        }
        if self.exchange.request_complete {
            // Nothing more belongs to this exchange. Looking tells whether the client is still
            // there, and takes the next request out of the socket's way. Once a wake is enough.
            if !self.quiet.client {
                match self.conn.down.poll_gone(cx) {
                    Poll::Ready(Ok(count)) => moved |= count > 0,
                    Poll::Ready(Err(lost)) => return Err(self.client_lost(lost)),
                    Poll::Pending => self.quiet.client = D::CONNECTION_FIELD,
                }
            }
        } else if self.wants_request() && !(moved && self.exchange.has_filtered_request()) {
            // Filters that have just made room may find the end among what is here already.
            match self.receive_request(cx) {
                Poll::Ready(Ok(count)) if count > 0 => moved = true,
                Poll::Ready(Ok(_)) => return Err(End::ClientGone(Lost::Closed)),
                Poll::Ready(Err(lost)) => return Err(self.client_lost(lost)),
                Poll::Pending => {}
            }
        } else if !D::CONNECTION_FIELD
            && let Poll::Ready(Err(lost)) = self.conn.down.poll_gone(cx)
        {
            // A stream can be reset while nobody takes its data; a connection says so in its data.
            return Err(self.client_lost(lost));
        } else if self.exchange.has_filtered_request()
            && let Some(lost) = poll_client_gone(&mut self.conn.down, false, cx)
        {
            // A filter may take long, and there is no use in it once the client is gone.
            return Err(self.client_lost(lost));
        }
        if self.up.unsent() > 0 && !self.upstream_broken {
            let before = self.up.unsent();
            match self.up.poll_send(cx) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(_)) => self.upstream_broken = true,
            }
            if self.up.unsent() < before {
                moved = true;
                self.note_written();
            }
        }
        if self.complete_at.is_none() && self.up.unsent() == 0 && self.is_request_passed_on() {
            self.complete_at = Some(self.now);
            self.exchange.timings.set(Point::UpstreamTxEnd, self.now.0);
        }
        Ok(moved)
    }

    /// Whether all of the request has been handed to the upstream's side.
    fn is_request_passed_on(&mut self) -> bool {
        self.exchange.request_complete
            && !self.exchange.is_replaying()
            && self
                .exchange
                .request_body_mut()
                .is_none_or(|body| body.is_over())
    }

    /// Whether more of the request is to be received.
    fn wants_request(&mut self) -> bool {
        let has_room = match self.exchange.request_body_mut() {
            Some(body) => body.has_room(),
            None => self.up.has_room(),
        };
        has_room && !self.upstream_broken
    }

    /// Something of the request is on its way.
    fn note_written(&mut self) {
        if !self.wrote {
            self.wrote = true;
            self.exchange
                .timings
                .set(Point::UpstreamTxBegin, self.now.0);
        }
    }

    /// Receives more of the request's body; without a copy, it has then moved to the upstream.
    fn receive_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        if self.exchange.grpc_web.is_none()
            && !self.exchange.has_filtered_request()
            && !self.exchange.is_body_copied()
            && !self.exchange.keeps_request()
            && let (Some(down), Some(up)) = (self.conn.down.http1(), self.up.http1())
            && let Some(polled) = spliced(down.poll_splice(cx, up), &self.conn.worker)
        {
            if let Poll::Ready(Ok(count)) = polled {
                self.exchange.bytes_received += count as u64;
            }
            return polled;
        }
        self.conn.down.poll_receive(cx)
    }

    /// Receives more of the answer's body; without a copy, it has then moved to the client.
    fn receive_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        if self.exchange.grpc_web.is_none()
            && self.exchange.response_body_mut().is_none()
            && let (Some(up), Some(down)) = (self.up.http1(), self.conn.down.http1())
            && let Some(polled) = spliced(up.poll_splice(cx, down), &self.conn.worker)
        {
            if let Poll::Ready(Ok(count)) = polled {
                self.exchange.bytes_sent += count as u64;
            }
            return polled;
        }
        self.up.poll_receive(cx)
    }

    /// Moves what has arrived of the request's body to the upstream.
    fn take_request_body(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.exchange.is_replaying() {
            let moved = self.replay_request_body()?;
            if self.exchange.is_replaying() {
                return Ok(moved);
            }
            return Ok(self.take_request_body(cx)? || moved);
        }
        if let Some(mut body) = self.exchange.take_request_body() {
            let moved = self.filter_request_body(cx, &mut body);
            self.exchange.put_request_body(body);
            return moved;
        }
        let mut moved = false;
        while !self.exchange.request_complete && self.up.has_room() {
            let passed = match self.conn.down.piece() {
                Ok(Piece::Nothing) => break,
                Ok(Piece::Data(data)) => {
                    self.exchange.bytes_received += data.len() as u64;
                    match &mut self.exchange.grpc_web {
                        None => {
                            self.exchange.copy_data(data);
                            self.exchange
                                .keep_request(data, self.conn.worker.replay_room());
                            self.up.pass_data(cx, data).map(|written| {
                                if written {
                                    self.note_written();
                                }
                            })
                        }
                        Some(web) => {
                            let mut messages = Vec::with_capacity(data.len());
                            if web.request_data(data, &mut messages).is_err() {
                                return Err(self.fail(Reply::bad_grpc_web()));
                            }
                            self.exchange.copy_data(&messages);
                            self.exchange
                                .keep_request(&messages, self.conn.worker.replay_room());
                            self.up.send_data(&messages)
                        }
                    }
                }
                Ok(Piece::End(trailers)) => {
                    self.exchange.keep_request_end(trailers);
                    self.exchange.request_received(self.now);
                    let web = self.exchange.grpc_web.as_ref();
                    if web.is_some_and(|web| web.request_end().is_err()) {
                        return Err(self.fail(Reply::bad_grpc_web()));
                    }
                    self.exchange.copy_end(trailers);
                    self.up.send_end(trailers)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = passed {
                return Err(self.fail(Reply::malformed_body(error)));
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Sends what another endpoint was sent of the request's body.
    fn replay_request_body(&mut self) -> Result<bool, End> {
        let Some(retrying) = &mut self.exchange.retrying else {
            return Ok(false);
        };
        let replay = &mut retrying.replay;
        let mut moved = false;
        let mut sent = Ok(());
        while sent.is_ok() && self.up.has_room() && !replay.piece().is_empty() {
            let piece = replay.piece();
            let count = piece.len();
            sent = self.up.send_data(piece);
            replay.advance(count);
            moved = true;
        }
        if sent.is_ok() && self.up.has_room() && replay.is_end_due() {
            sent = self.up.send_end(replay.end());
            moved = true;
        }
        match sent {
            Ok(()) => Ok(moved),
            Err(_) => Err(self.fail(Reply::upstream_protocol_error())),
        }
    }

    /// The same through filters.
    fn filter_request_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut FilteredBody,
    ) -> Result<bool, End> {
        let taken = whole_body::take_request(self.conn, self.exchange, body);
        let filtered = taken.and_then(|taken| {
            let moved = body.poll(cx, self.conn, self.exchange, Way::Request)?;
            Ok(taken || moved)
        });
        let mut moved = filtered.map_err(|reply| self.fail(reply))?;
        while self.up.has_room() && !body.unsent().is_empty() {
            let count = body.unsent().len();
            self.exchange.copy_data(body.unsent());
            self.exchange
                .keep_request(body.unsent(), self.conn.worker.replay_room());
            if self.up.send_data(body.unsent()).is_err() {
                return Err(self.fail(Reply::upstream_protocol_error()));
            }
            body.sent(count);
            moved = true;
        }
        if body.is_end_due() {
            let trailers = body.end();
            self.exchange.copy_end(trailers);
            self.exchange.keep_request_end(trailers);
            if self.up.send_end(trailers).is_err() {
                return Err(self.fail(Reply::upstream_protocol_error()));
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Upstream to client. Returns whether anything moved.
    fn poll_answer(&mut self, cx: &mut Context<'_>, interim: &mut u8) -> Result<bool, End> {
        let mut moved = false;
        match self.answer {
            Answer::Head => moved |= self.poll_answer_head(cx, interim)?,
            Answer::Filtering => moved |= self.poll_filters(cx)?,
            Answer::Body => {
                moved |= self.take_answer_body(cx)?;
                // Filters that have just made room may find the end among what is here already.
                let is_filtered = self.exchange.response_body_mut().is_some();
                if self.answer == Answer::Body && self.wants_answer() && !(moved && is_filtered) {
                    match self.receive_answer(cx) {
                        Poll::Ready(Ok(0)) => {
                            if !self.up.ends_with_connection() {
                                return Err(self.upstream_lost(Lost::Malformed));
                            }
                            moved |= self.take_answer_body(cx)?;
                        }
                        Poll::Ready(Ok(_)) => moved = true,
                        Poll::Ready(Err(lost)) => return Err(self.upstream_lost(lost)),
                        Poll::Pending => {}
                    }
                }
            }
            Answer::Done => {}
        }
        if self.conn.down.unsent() > 0 {
            let before = self.conn.down.unsent();
            match self.conn.down.poll_send(cx) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(lost)) => return Err(self.client_lost(lost)),
            }
            moved |= self.conn.down.unsent() < before;
        }
        Ok(moved)
    }

    fn poll_answer_head(&mut self, cx: &mut Context<'_>, interim: &mut u8) -> Result<bool, End> {
        if self.quiet.upstream {
            return Ok(false);
        }
        let context = RequestContext {
            head: self.conn.request.method_kind() == Method::Head,
            connect: false,
            upgrade: self.switching,
        };
        let mut moved = false;
        loop {
            match self.up.poll_head(cx, &mut self.conn.response, context) {
                Poll::Pending => {
                    // A stream may answer only once its request has left.
                    self.quiet.upstream = U::PROTOCOL != "HTTP/2";
                    return Ok(moved);
                }
                Poll::Ready(Err(lost)) => return Err(self.upstream_lost(lost)),
                Poll::Ready(Ok(())) => moved = true,
            }
            let status = self.conn.response.status();
            if self.switching && self.up.is_switch(status) {
                self.note_status(status);
                return Err(self.switch());
            }
            if self.conn.request.extended_connect() && matches!(status, 200..300) {
                // The client would take it for the switch (RFC 8441 5).
                return Err(self.fail(Reply::upstream_protocol_error()));
            }
            if status >= 200 {
                self.note_status(status);
                self.refuse_failure(status)?;
                self.note_answer_head();
                if self.exchange.awaits_response_filters() {
                    let framing = self.conn.response.framing();
                    let (has_body, has_content) = (framing != Framing::None, !framing.is_empty());
                    self.exchange
                        .begin_response_filters(has_body, has_content, None);
                    strip_hop_by_hop_response(&mut self.conn.response, false);
                    self.add_configured_fields();
                    self.answer = Answer::Filtering;
                    return self.poll_filters(cx);
                }
                self.pass_answer_head(status);
                self.take_answer_body(cx)?;
                return Ok(true);
            }
            // Interim answers are for the hop that asked for them: the proxy itself sends 100, unless
            // it has passed the question on, and Envoy passes none of the others on.
            if status == 100 && self.passes_on_continue() {
                self.conn.down.send_continue();
            }
            *interim += 1;
            if *interim > MAX_INTERIM {
                return Err(self.fail(Reply::upstream_protocol_error()));
            }
            self.conn.response.clear();
        }
    }

    /// Whether the client waits for the endpoint to want its body.
    fn passes_on_continue(&self) -> bool {
        self.conn.request.expects_continue()
            && self.conn.request.headers().contains(b"expect")
            && !self.exchange.request_complete
    }

    /// Notes what the answer says of its endpoint.
    fn note_status(&self, status: u16) {
        let cluster = self.dispatch.cluster;
        if let (Some(outliers), Some(serving)) = (&cluster.outliers, &self.exchange.serving) {
            let code = self.exchange.is_grpc.then(|| {
                let headers = self.conn.response.headers();
                headers.get(b"grpc-status")
            });
            let status = code.flatten().map_or(status, status_of_grpc);
            let outcome = Outcome::Answered(status);
            outliers.note(cluster, serving.endpoint(), outcome, self.now);
        }
    }

    /// Does not go on with an answer in whose place there will be another.
    fn refuse_failure(&mut self, status: u16) -> Result<(), End> {
        let Some(retrying) = &mut self.exchange.retrying else {
            return Ok(());
        };
        let retry = self.dispatch.forward.retry.as_deref();
        if !retry.is_some_and(|retry| retry.covers(status, self.conn.response.headers())) {
            retrying.slot = None;
            if retrying.made() > 0 {
                self.conn
                    .worker
                    .stats()
                    .upstream_rq_retry_success
                    .increment();
            }
            return Ok(());
        }
        match retry::admit(self.conn, self.exchange, self.dispatch) {
            Admitted::Yes => Err(End::Retriable),
            Admitted::No | Admitted::Exhausted => Ok(()),
            Admitted::OverBudget if status == 503 => {
                self.exchange.flags.set(ResponseFlag::UpstreamOverflow);
                Ok(())
            }
            // As in Envoy, the client gets the answer that there is.
            Admitted::Overflow => {
                self.exchange.flags.set(ResponseFlag::UpstreamOverflow);
                Ok(())
            }
            Admitted::OverBudget => Err(End::Refused(Reply::retry_overflow())),
        }
    }

    /// Shows the answer's head to filters, and passes it on once they have seen it. Returns whether
    /// anything moved.
    fn poll_filters(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        loop {
            let mut status = self.filtered_status.unwrap_or(self.conn.response.status());
            let filtered = filtering::poll_response(cx, self.conn, self.exchange, &mut status);
            self.filtered_status = Some(status);
            match filtered {
                Poll::Pending => {}
                Poll::Ready(Some(reply)) => return Err(End::Refused(reply)),
                Poll::Ready(None) => {
                    let timings = &mut self.exchange.timings;
                    timings.set(Point::DownstreamTxBegin, self.now.0);
                    self.pass_answer_head(status);
                    self.take_answer_body(cx)?;
                    return Ok(true);
                }
            }
            if !self.exchange.wants_response_body() {
                return Ok(moved);
            }
            if !self.take_answer()? {
                match self.up.poll_receive(cx) {
                    Poll::Ready(Ok(0)) if !self.up.ends_with_connection() => {
                        return Err(self.upstream_lost(Lost::Malformed));
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(lost)) => return Err(self.upstream_lost(lost)),
                    Poll::Pending => return Ok(moved),
                }
            }
            moved = true;
        }
    }

    /// Tells the client that the protocol changes.
    fn switch(&mut self) -> End {
        self.note_answer_head();
        let response = &mut self.conn.response;
        strip_hop_by_hop_response(response, true);
        self.edit_answer_head();
        let written = self.conn.down.send_head(
            &self.conn.request,
            &mut self.conn.response,
            101,
            Framing::None,
            None,
        );
        self.exchange.answer_head_bytes = written;
        self.exchange.code = 101;
        End::Switched
    }

    /// Passes the answer's head on, as the client is to see it.
    fn pass_answer_head(&mut self, mut status: u16) {
        self.exchange.keep_alive &= !self.conn.is_draining();
        let response = &mut self.conn.response;
        strip_hop_by_hop_response(response, false);
        let (mut framing, mut advertised) = (response.framing(), response.content_length());
        if let Some(body) = self.exchange.response_body_mut() {
            (framing, advertised) = body.framing(framing, advertised);
        } else if self.exchange.may_change_bodies() {
            // The length is that of a body which a filter would have seen.
            advertised = None;
        }
        if let Some(web) = &mut self.exchange.grpc_web {
            status = web.on_response_head(status, response.headers_mut());
            (framing, advertised) = (Framing::Chunked, None);
        }
        self.edit_answer_head();
        if D::CONNECTION_FIELD {
            let version = self.conn.request.version();
            // A client of HTTP/1.0 sees the end of some answers only by the connection's.
            self.exchange.keep_alive &= response_framing(version, framing) != Framing::UntilClose;
            if let Some(option) = connection_option(version, self.exchange.keep_alive) {
                let headers = self.conn.response.headers_mut();
                headers.append_known(Known::Connection, option);
            }
        }
        let written = self.conn.down.send_head(
            &self.conn.request,
            &mut self.conn.response,
            status,
            framing,
            advertised,
        );
        self.exchange.answer_head_bytes = written;
        self.exchange.code = status;
        self.answer = Answer::Body;
    }

    fn note_answer_head(&mut self) {
        let now = self.now.0;
        self.exchange.timings.set(Point::UpstreamRxBegin, now);
        self.exchange.timings.set(Point::DownstreamTxBegin, now);
        self.exchange.let_request_go();
        self.exchange.upstream_wire.header_received = self.conn.response.head_bytes() as u64;
        self.exchange.details = Some(std::borrow::Cow::Borrowed("via_upstream"));
    }

    /// Makes the proxy's changes to the answer's fields.
    fn edit_answer_head(&mut self) {
        // What filters saw has the configured ones.
        if self.answer == Answer::Head {
            self.add_configured_fields();
        }
        let worker = std::rc::Rc::clone(&self.conn.worker);
        let headers = self.conn.response.headers_mut();
        if headers.get_known(Known::Date).is_none() {
            worker.with_date(self.now, |date| headers.append_known(Known::Date, date));
        }
        let request_id = self.conn.request.headers().get_known(Known::XRequestId);
        edge::finish_response(headers, self.http, request_id);
    }

    /// Makes the changes to the answer's fields that the route asks for.
    fn add_configured_fields(&mut self) {
        let headers = self.conn.response.headers_mut();
        // Envoy: not of a request that asks for another protocol, for it never ends.
        if let Some(complete_at) = self.complete_at.filter(|_| !self.switching) {
            let mut number = itoa::Buffer::new();
            let milliseconds = number.format(self.now.since(complete_at) / 1_000_000);
            headers.set_known(Known::XEnvoyUpstreamServiceTime, milliseconds.as_bytes());
        }
        for mutation in self.dispatch.response_headers.iter().copied().flatten() {
            mutation.apply(headers);
        }
        if let Some(sharing) = &self.exchange.sharing {
            sharing.apply(headers);
        }
        self.exchange.edit_response(headers);
        if let (Some(session), Some(&endpoint)) =
            (self.dispatch.session, self.exchange.endpoints.last())
        {
            let wall = self.conn.worker.clock().wall_nanos(self.now);
            let request = self.conn.request.headers();
            // A proxy in front that is believed may have ended TLS.
            let is_secure = request.get_known(Known::XForwardedProto) == Some(b"https");
            session.issue(
                request,
                headers,
                &self.dispatch.cluster.name,
                endpoint,
                wall / 1_000_000_000,
                is_secure,
            );
        }
    }

    /// Moves what has arrived of the answer's body to the client.
    fn take_answer_body(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.exchange.response_body_mut().is_some() {
            return self.filter_answer_body(cx);
        }
        let mut moved = false;
        while self.answer == Answer::Body && self.conn.down.has_room() {
            let passed = match self.up.piece() {
                Ok(Piece::Nothing) => break,
                Ok(Piece::Data(data)) => match &mut self.exchange.grpc_web {
                    None => {
                        self.exchange.bytes_sent += data.len() as u64;
                        self.conn.down.pass_data(cx, data).map(drop)
                    }
                    Some(web) => {
                        let mut translated = Vec::with_capacity(data.len() * 4 / 3 + 4);
                        web.response_data(data, &mut translated);
                        self.exchange.bytes_sent += translated.len() as u64;
                        self.conn.down.send_data(&translated)
                    }
                },
                Ok(Piece::End(trailers)) => {
                    self.answer = Answer::Done;
                    self.exchange.timings.set(Point::UpstreamRxEnd, self.now.0);
                    self.exchange.trailers = trailers.cloned();
                    match &mut self.exchange.grpc_web {
                        None => self.conn.down.send_end(trailers),
                        Some(web) => {
                            let mut translated = Vec::new();
                            web.response_end(trailers, &mut translated);
                            self.exchange.bytes_sent += translated.len() as u64;
                            let sent = self.conn.down.send_data(&translated);
                            sent.and_then(|()| self.conn.down.send_end(None))
                        }
                    }
                }
                Err(error) => Err(error),
            };
            if passed.is_err() {
                self.answer = Answer::Body;
                return Err(self.fail(Reply::upstream_protocol_error()));
            }
            moved = true;
        }
        Ok(moved)
    }

    /// The same through filters.
    fn filter_answer_body(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = self.take_answer()?;
        let Some(mut body) = self.exchange.take_response_body() else {
            return Ok(moved);
        };
        let filtered = body.poll(cx, self.conn, self.exchange, Way::Response);
        let passed = filtered.map_err(|reply| self.fail(reply));
        let passed = passed.and_then(|filtered| {
            moved |= filtered;
            moved |= self.pass_filtered_answer(&mut body)?;
            Ok(moved)
        });
        self.exchange.put_response_body(body);
        passed
    }

    /// Moves what has arrived of the answer's body in front of the filters.
    fn take_answer(&mut self) -> Result<bool, End> {
        let mut moved = false;
        let Some(body) = self.exchange.response_body_mut() else {
            return Ok(false);
        };
        while body.has_room() {
            match self.up.piece() {
                Ok(Piece::Nothing) => break,
                Ok(Piece::Data(data)) => body.push(data),
                Ok(Piece::End(trailers)) => body.push_end(trailers.cloned()),
                Err(_) => return Err(self.fail(Reply::upstream_protocol_error())),
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Passes on what came out of the filters.
    fn pass_filtered_answer(&mut self, body: &mut FilteredBody) -> Result<bool, End> {
        let mut moved = false;
        while self.conn.down.has_room() && !body.unsent().is_empty() {
            let data = body.unsent();
            let count = data.len();
            let sent = match &mut self.exchange.grpc_web {
                None => {
                    self.exchange.bytes_sent += count as u64;
                    self.conn.down.send_data(data)
                }
                Some(web) => {
                    let mut translated = Vec::with_capacity(count * 4 / 3 + 4);
                    web.response_data(data, &mut translated);
                    self.exchange.bytes_sent += translated.len() as u64;
                    self.conn.down.send_data(&translated)
                }
            };
            if sent.is_err() {
                return Err(self.fail(Reply::upstream_protocol_error()));
            }
            body.sent(count);
            moved = true;
        }
        if body.is_end_due() {
            self.end_answer(body.end())?;
            moved = true;
        }
        Ok(moved)
    }

    /// Ends the answer.
    fn end_answer(&mut self, trailers: Option<&Headers>) -> Result<(), End> {
        self.exchange.timings.set(Point::UpstreamRxEnd, self.now.0);
        self.exchange.trailers = trailers.cloned();
        let sent = match &mut self.exchange.grpc_web {
            None => self.conn.down.send_end(trailers),
            Some(web) => {
                let mut translated = Vec::new();
                web.response_end(trailers, &mut translated);
                self.exchange.bytes_sent += translated.len() as u64;
                let sent = self.conn.down.send_data(&translated);
                sent.and_then(|()| self.conn.down.send_end(None))
            }
        };
        if sent.is_err() {
            return Err(self.fail(Reply::upstream_protocol_error()));
        }
        self.answer = Answer::Done;
        Ok(())
    }

    /// Whether more of the answer's body is to be received.
    fn wants_answer(&mut self) -> bool {
        match self.exchange.response_body_mut() {
            Some(body) => body.has_room(),
            None => self.conn.down.has_room(),
        }
    }

    fn client_lost(&mut self, lost: Lost) -> End {
        match lost {
            Lost::Malformed => self.fail(Reply::malformed_message()),
            lost => End::ClientGone(lost),
        }
    }

    fn upstream_lost(&mut self, lost: Lost) -> End {
        match (self.answer, lost) {
            (Answer::Head, Lost::Malformed) => self.fail(Reply::upstream_protocol_error()),
            (Answer::Head, lost) => End::UpstreamClosed(lost),
            // Nothing of it has been passed on.
            (Answer::Filtering, lost) => self.fail(Reply::upstream_lost(lost)),
            (_, Lost::Reset(_)) => End::Truncated(
                Some(ResponseFlag::UpstreamRemoteReset),
                "upstream_reset_after_response_started{remote_reset}".into(),
            ),
            // In HTTP/1.1 it is the end of the body that is missing.
            (_, Lost::Closed | Lost::Unprocessed) if U::PROTOCOL == "HTTP/2" => End::Truncated(
                Some(ResponseFlag::UpstreamConnectionTermination),
                "upstream_reset_after_response_started{connection_termination}".into(),
            ),
            _ => self.fail(Reply::upstream_protocol_error()),
        }
    }

    /// A failure: an answer of its own if there is none yet, else the end of the one under way.
    fn fail(&self, mut reply: Reply) -> End {
        // Filters have seen the answer.
        reply.is_retriable &= self.answer == Answer::Head;
        match self.answer {
            Answer::Head | Answer::Filtering => End::Refused(reply),
            Answer::Body | Answer::Done => match reply.flag {
                Some(ResponseFlag::UpstreamProtocolError) => End::Truncated(
                    reply.flag,
                    "upstream_reset_after_response_started{protocol_error}".into(),
                ),
                flag => End::Truncated(flag, reply.details),
            },
        }
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.conn.worker.phase() == Phase::Closing {
            return Poll::Ready(End::ClientGone(Lost::Closed));
        }
        let idle = self.moved_at.after_ms(self.exchange.idle_timeout_ms);
        // Once the endpoint has answered in full, only the client takes its time.
        let route = match self.answer {
            Answer::Done => Nanos::NEVER,
            _ => self
                .exchange
                .route_deadline(self.dispatch.forward.timeout_ms),
        };
        let call = match self.answer {
            Answer::Done => Nanos::NEVER,
            _ => self.exchange.call_deadline,
        };
        // As Envoy's, it is no limit for a request whose answer has begun: both may be streams.
        let request = if self.exchange.request_complete || self.answer != Answer::Head {
            Nanos::NEVER
        } else {
            self.exchange.began.after_ms(self.http.request_timeout_ms)
        };
        let attempt = match self.answer {
            Answer::Done => Nanos::NEVER,
            _ => self.exchange.attempt_deadline(),
        };
        let stream = self
            .began
            .after_ms(self.dispatch.cluster.max_stream_duration_ms);
        let first = idle
            .min(route)
            .min(call)
            .min(request)
            .min(attempt)
            .min(stream);
        match self.conn.timer.poll(cx, first) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if call == first => Poll::Ready(self.fail(Reply::duration_timed_out())),
            Poll::Ready(()) if stream == first => {
                let stats = self.conn.worker.stats();
                stats.upstream_rq_max_duration_reached.increment();
                Poll::Ready(self.fail(Reply::stream_took_too_long()))
            }
            Poll::Ready(()) if request == first => {
                Poll::Ready(self.fail(Reply::request_took_too_long()))
            }
            Poll::Ready(()) if attempt == first && attempt < route => {
                let stats = self.conn.worker.stats();
                stats.upstream_rq_per_try_timeout.increment();
                Poll::Ready(self.fail(Reply::attempt_timed_out()))
            }
            Poll::Ready(()) if route <= idle => Poll::Ready(self.fail(Reply::request_timed_out())),
            Poll::Ready(()) => {
                let complete = self.exchange.request_complete;
                Poll::Ready(self.fail(Reply::stream_idle(complete)))
            }
        }
    }
}

/// What came of splicing, counted; none if the bytes are to be copied.
fn spliced(splice: Splice, worker: &Worker) -> Option<Poll<Result<usize, Lost>>> {
    let polled = splice.counted(worker.stats())?;
    Some(polled.map_err(|error| match error.kind() {
        // It does not go with the lengths that both sides were told.
        ErrorKind::InvalidData => Lost::Malformed,
        _ => Lost::Closed,
    }))
}
