//! HTTP/1.1 as a side of an exchange: a connection that carries one message each way at a time.

use std::io;
use std::task::{Context, Poll};

use kgw_h1::{
    BodyDecoder, BodyEncoder, BodyError, Framing, Headers, Limits, Method, Request, RequestContext,
    Response, Status, has_no_body, response_framing, write_chunk_end, write_chunk_head,
    write_continue, write_request_head, write_response_head_as,
};

use super::io::{BODY_BUFFER, MIN_THROUGH, Stream, Traffic};
use super::message::{Downstream, Lost, Piece, Side, Upstream};
use super::splice::Splice;
use crate::upstream::options::Options;

/// Data of a body that must be left for it to be worth passing on unseen. Bytes.
const MIN_SPLICE: u64 = 16 * 1024;

/// Envoy's.
const MAX_FIELDS: u16 = Limits::RESPONSE.max_fields as u16;

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(crate) stream: Stream,
    decoder: BodyDecoder,
    encoder: BodyEncoder,
    /// Input that the piece given out last stands for.
    given: usize,
    /// How far the body that is received was given out.
    body: Body,
    /// The answer's head says that no other message follows.
    keep_alive: bool,
    /// Most fields that the head of an answer may have. Small: idle connections of clients have it too.
    max_fields: u16,
    /// An answer was cut short that only the end of the connection would end: that end must not
    /// look like a clean one.
    pub(crate) aborted: bool,
}

/// How far a body was given out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Body {
    Going,
    /// All of its data was; its end was not.
    Whole,
    Over,
}

impl Http1 {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            decoder: BodyDecoder::new(Framing::None),
            encoder: BodyEncoder::new(Framing::None),
            given: 0,
            body: Body::Over,
            keep_alive: false,
            max_fields: MAX_FIELDS,
            aborted: false,
        }
    }

    /// Makes it a connection to an endpoint that behaves so.
    pub(crate) fn to_endpoint(stream: Stream, options: &Options) -> Self {
        Self {
            max_fields: u16::try_from(options.heads.max_fields).unwrap_or(u16::MAX),
            ..Self::new(stream)
        }
    }

    fn receive_body(&mut self, framing: Framing) {
        self.decoder = BodyDecoder::new(framing);
        self.given = 0;
        self.body = Body::Going;
    }

    /// Receives more of the body, as [`poll_receive`](Side::poll_receive) does, into what `to` sends,
    /// without a copy and without a look at it, if the body allows that and is long enough.
    pub(crate) fn poll_splice(&mut self, cx: &mut Context<'_>, to: &mut Self) -> Splice {
        let ahead = self.decoder.data_ahead();
        if self.body != Body::Going || self.given > 0 || ahead < MIN_SPLICE {
            return Splice::Unfit;
        }
        let most = usize::try_from(ahead).unwrap_or(usize::MAX);
        let spliced = to.stream.poll_splice(cx, &mut self.stream, most);
        if let Splice::Polled(Poll::Ready(Ok(count))) = spliced
            && count > 0
        {
            let counted = self.decoder.skip_data(count as u64);
            if counted.and_then(|()| to.encoder.account(count)).is_err() {
                let error = io::ErrorKind::InvalidData.into();
                return Splice::Polled(Poll::Ready(Err(error)));
            }
            if to.encoder.framing() == Framing::Chunked {
                to.stream
                    .enclose(|head| write_chunk_head(head, count), write_chunk_end);
            }
        }
        spliced
    }
}

impl Side for Http1 {
    fn piece(&mut self) -> Result<Piece<'_>, BodyError> {
        self.stream.consume(std::mem::take(&mut self.given));
        if self.body == Body::Over {
            return Ok(Piece::Nothing);
        }
        let mut range = 0..0;
        while self.body == Body::Going && range.is_empty() {
            let step = self.decoder.decode(self.stream.input())?;
            if step.done {
                self.body = Body::Whole;
            }
            if step.data.is_empty() {
                self.stream.consume(step.consumed);
                if step.consumed == 0 && !step.done {
                    return Ok(Piece::Nothing);
                }
            } else {
                self.given = step.consumed;
                range = step.data;
            }
        }
        if range.is_empty() {
            self.body = Body::Over;
            return Ok(Piece::End(self.decoder.trailers()));
        }
        Ok(Piece::Data(&self.stream.input()[range]))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        self.stream
            .poll_fill(cx, BODY_BUFFER)
            .map_err(|_| Lost::Closed)
    }

    fn http1(&mut self) -> Option<&mut Self> {
        Some(self)
    }

    fn has_input(&self) -> bool {
        self.stream.input().len() > self.given
    }

    fn ends_with_connection(&mut self) -> bool {
        self.given == 0 && self.stream.input().is_empty() && self.decoder.finish_eof().is_ok()
    }

    fn send_data(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.encoder.encode(data, self.stream.output())
    }

    fn pass_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Result<bool, BodyError> {
        if data.len() < MIN_THROUGH || self.encoder.framing() == Framing::Chunked {
            return self.send_data(data).map(|()| false);
        }
        self.encoder.account(data.len())?;
        Ok(self.stream.write_through(cx, data))
    }

    fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), BodyError> {
        let output = self.stream.output();
        match trailers {
            Some(trailers) => self.encoder.finish_with_trailers(trailers, output),
            None => self.encoder.finish(output),
        }
    }

    fn has_room(&self) -> bool {
        self.stream.has_room()
    }

    fn limit_output(&mut self, bytes: usize) {
        self.stream.limit_output(bytes);
    }

    fn unsent(&self) -> usize {
        self.stream.unsent()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.stream.poll_flush(cx).map_err(|_| Lost::Closed)
    }

    fn traffic(&self) -> Traffic {
        self.stream.traffic()
    }

    fn close_type(&self) -> &'static str {
        self.stream.close_type()
    }
}

impl Downstream for Http1 {
    type Pipe = Stream;

    const CONNECTION_FIELD: bool = true;

    fn begin_request(&mut self, framing: Framing) {
        self.receive_body(framing);
        self.encoder = BodyEncoder::new(Framing::None);
    }

    fn send_head(
        &mut self,
        request: &Request,
        response: &mut Response,
        status: u16,
        framing: Framing,
        advertised: Option<u64>,
    ) -> u64 {
        let framing = match response_framing(request.version(), framing) {
            // HTTP/2 need not say that nothing follows.
            Framing::None
                if advertised.is_none()
                    && !has_no_body(status)
                    && !(request.method_kind() == Method::Connect
                        && matches!(status, 200..300))
                    && request.method_kind() != Method::Head =>
            {
                Framing::Length(0)
            }
            other => other,
        };
        if status == 101 {
            complete_switch(request, response);
        }
        let output = self.stream.output();
        let before = output.len();
        let (version, headers) = (request.version(), response.headers());
        write_response_head_as(output, version, status, headers, framing, advertised);
        let written = output.len() - before;
        self.encoder = BodyEncoder::new(framing);
        written as u64
    }

    fn send_continue(&mut self) {
        // A body that is there already was not waited with.
        if self.stream.input().is_empty() {
            write_continue(self.stream.output());
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        if self.stream.eof && !self.stream.ends_whole {
            // It has finished sending, and may wait for its answer.
            return Poll::Pending;
        }
        match self.stream.poll_fill(cx, BODY_BUFFER) {
            Poll::Ready(Ok(0)) if self.stream.ends_whole => Poll::Ready(Err(Lost::Closed)),
            filled => filled.map_err(|_| Lost::Closed),
        }
    }

    /// A body that is all there already is consumed. The connection can then be kept, which Envoy
    /// does not do.
    fn discard_request(&mut self, mut received: impl FnMut(&[u8])) -> bool {
        self.stream.consume(std::mem::take(&mut self.given));
        let mut decoder = self.decoder.clone();
        let mut at = 0;
        loop {
            let input = &self.stream.input()[at..];
            let Ok(step) = decoder.decode(input) else {
                return false;
            };
            received(&input[step.data]);
            at += step.consumed;
            if step.done {
                self.stream.consume(at);
                self.body = Body::Over;
                return true;
            }
            if step.consumed == 0 {
                return false;
            }
        }
    }

    /// A length or chunks tell that something is missing; where neither does, the connection is reset.
    fn abort(&mut self) {
        if self.encoder.framing() == Framing::UntilClose {
            self.stream.reset();
            self.aborted = true;
        }
    }

    fn pipe(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

impl Upstream for Http1 {
    type Pipe = Stream;

    const PROTOCOL: &'static str = "HTTP/1.1";

    fn send_head(&mut self, request: &Request, framing: Framing) -> u64 {
        self.encoder = BodyEncoder::new(framing);
        write_request_head(self.stream.output(), request, framing);
        self.stream.unsent() as u64
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut Response,
        context: RequestContext,
    ) -> Poll<Result<(), Lost>> {
        let limits = Limits {
            max_fields: usize::from(self.max_fields),
            ..Limits::RESPONSE
        };
        loop {
            if !self.stream.input().is_empty() {
                match response.parse(self.stream.input(), &limits, context) {
                    Ok(Status::Complete(length)) => {
                        self.stream.consume(length);
                        if response.status() >= 200 {
                            self.receive_body(response.framing());
                            self.keep_alive = response.keep_alive();
                        }
                        return Poll::Ready(Ok(()));
                    }
                    Ok(Status::Incomplete) => {}
                    Err(_) => return Poll::Ready(Err(Lost::Malformed)),
                }
            }
            let limit = limits.max_head_bytes + 1;
            match self.stream.poll_fill(cx, limit) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) if self.stream.input().is_empty() => {
                    return Poll::Ready(Err(Lost::Closed));
                }
                Poll::Ready(_) => return Poll::Ready(Err(Lost::Malformed)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_switch(&self, status: u16) -> bool {
        status == 101
    }

    fn is_reusable(&self) -> bool {
        self.keep_alive
            && self.body == Body::Over
            && self.given == 0
            && self.stream.unsent() == 0
            && !self.stream.eof
            && self.stream.input().is_empty()
    }

    fn pipe(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// Adds to a 101 what an endpoint that speaks HTTP/2 does not say (RFC 8441 5, RFC 6455 4.2.2).
fn complete_switch(request: &Request, response: &mut Response) {
    if response.headers().get(b"upgrade").is_some() {
        return;
    }
    let accept = request
        .headers()
        .get(b"sec-websocket-key")
        .map(kgw_h1::websocket_accept);
    let headers = response.headers_mut();
    headers.append(b"upgrade", request.upgrade().unwrap_or_default());
    headers.append(b"connection", b"Upgrade");
    if let Some(accept) = accept {
        headers.set(b"sec-websocket-accept", accept.as_bytes());
    }
}
