//! Calls of services that are streams of messages both ways: gRPC, over the worker's HTTP/2 connections.
//!
//! A stream is opened when the first message is sent. Messages wait in it until there is a connection and
//! the service takes them; whoever sends looks first whether there [is room](GrpcStream::has_room). What is
//! received waits in the connection, whose flow control stops the service. A stream that fails before the
//! service has said anything is opened anew as often as its options say: nobody has acted on it yet.
//!
//! Dropping a stream cancels it. [`GrpcStream::finish`] ends it in peace.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use kgw_h1::{Framing, Headers, Request, RequestContext, Response};

use super::call::{self, CallError};
use super::endpoint::Serving;
use super::http2::Http2Connection;
use crate::clock::{Nanos, Timer};
use crate::config::snapshot::Cluster;
use crate::conn::Peers;
use crate::conn::http2::ServerStream;
use crate::conn::message::{Lost, Piece, Side, Upstream};
use crate::pipeline::grpc::is_grpc;
use crate::runtime::{Phase, Worker};
use crate::telemetry::grpc::status_of_http;

/// What may wait to be sent before there is no more room. Bytes.
const ROOM: usize = 64 * 1024;

/// Most of what was sent that is kept for another attempt. Bytes.
const MAX_KEPT: usize = 128 * 1024;

/// What is in front of a message: whether it is compressed, and its length. Bytes.
const PREFIX: usize = 5;

/// How long the service may take to end a stream that was ended in peace. Milliseconds.
const END_MS: u64 = 1_000;

/// gRPC's `INTERNAL` and `UNAVAILABLE`.
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;

/// How a stream is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamOptions {
    /// Time until there is a connection. Milliseconds.
    pub(crate) open_timeout_ms: u64,
    pub(crate) retries: u32,
    /// Time before the first retry, of which a random part is waited. Milliseconds.
    pub(crate) retry_interval_ms: u64,
    /// The longest such time. Milliseconds.
    pub(crate) retry_max_interval_ms: u64,
    /// The longest message that is received. Bytes.
    pub(crate) max_message: usize,
}

/// What is received.
#[derive(Debug, PartialEq)]
pub(crate) enum Received {
    Message(Bytes),
    /// The service has ended the stream, and nothing was wrong.
    End,
    /// The stream has failed.
    Failed(Failure),
}

/// Why a stream has failed: in gRPC's terms.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

/// A stream.
pub(crate) struct GrpcStream {
    worker: Rc<Worker>,
    cluster: Arc<Cluster>,
    peers: Rc<Peers>,
    head: Request,
    options: StreamOptions,
    state: State,
    /// What was sent since the stream was opened, while another attempt may need it.
    kept: Option<Vec<u8>>,
    /// What was to be sent before there is a connection.
    early: Vec<u8>,
    /// Nothing more is sent.
    is_ended: bool,
    input: BytesMut,
    attempts: u32,
    timer: Timer,
}

type Opening = Pin<Box<dyn Future<Output = Result<(Rc<Http2Connection>, Serving), CallError>>>>;

enum State {
    Opening(Opening),
    /// Until the next attempt.
    Waiting(Nanos),
    Open {
        stream: Box<ServerStream>,
        _serving: Serving,
        /// The head of the answer is here.
        answered: bool,
    },
    Over,
}

impl fmt::Debug for GrpcStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Opening(_) => "opening",
            State::Waiting(_) => "waiting",
            State::Open { .. } => "open",
            State::Over => "over",
        };
        f.debug_struct("GrpcStream")
            .field("state", &state)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

// === impl GrpcStream ===

impl GrpcStream {
    /// Opens a stream with the head of a request. It goes on when it is polled.
    pub(crate) fn open(
        worker: &Rc<Worker>,
        cluster: &Arc<Cluster>,
        peers: &Rc<Peers>,
        head: Request,
        options: StreamOptions,
    ) -> Self {
        let mut stream = Self {
            worker: Rc::clone(worker),
            cluster: Arc::clone(cluster),
            peers: Rc::clone(peers),
            head,
            options,
            state: State::Over,
            kept: Some(Vec::new()),
            early: Vec::new(),
            is_ended: false,
            input: BytesMut::new(),
            attempts: 0,
            timer: Timer::new(worker.clock().clone()),
        };
        stream.begin();
        stream
    }

    fn begin(&mut self) {
        self.attempts += 1;
        let deadline = self.worker.now().after_ms(self.options.open_timeout_ms);
        let connection = call::http2_connection(
            Rc::clone(&self.worker),
            Arc::clone(&self.cluster),
            Rc::clone(&self.peers),
            deadline,
        );
        self.state = State::Opening(Box::pin(connection));
    }

    /// Adds a message.
    pub(crate) fn send(&mut self, message: &[u8]) {
        let mut framed = Vec::with_capacity(PREFIX + message.len());
        framed.push(0);
        // Bodies are bounded far below.
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        framed.extend(length.to_be_bytes());
        framed.extend(message);
        match &mut self.kept {
            Some(kept) if kept.len() + framed.len() <= MAX_KEPT => kept.extend_from_slice(&framed),
            _ => self.kept = None,
        }
        match &mut self.state {
            // What comes behind the end is not sent.
            State::Open { stream, .. } => drop(stream.send_data(&framed)),
            State::Opening(_) | State::Waiting(_) => self.early.extend(framed),
            State::Over => {}
        }
    }

    /// Whether more is to be sent now.
    pub(crate) fn has_room(&self) -> bool {
        match &self.state {
            State::Open { stream, .. } => stream.unsent() < ROOM,
            State::Opening(_) | State::Waiting(_) => self.early.len() < ROOM,
            State::Over => true,
        }
    }

    /// Sends what the service takes, and receives. Nothing follows an end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        loop {
            let failed = match &mut self.state {
                State::Opening(opening) => match opening.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok((connection, serving))) => {
                        self.begin_messages(connection, serving);
                        continue;
                    }
                    Poll::Ready(Err(error)) => unopened(error),
                },
                State::Waiting(until) => match self.timer.poll(cx, *until) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => {
                        self.begin();
                        continue;
                    }
                },
                State::Open { .. } => match self.poll_open(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(received)) => {
                        self.kept = None;
                        if received == Received::End {
                            self.state = State::Over;
                        }
                        return Poll::Ready(received);
                    }
                    Poll::Ready(Err(failed)) => failed,
                },
                State::Over => return Poll::Pending,
            };
            if !self.try_again(&failed) {
                self.state = State::Over;
                return Poll::Ready(Received::Failed(failed.failure));
            }
        }
    }

    /// Opens the stream on a connection.
    fn begin_messages(&mut self, connection: Rc<Http2Connection>, serving: Serving) {
        self.worker.stats().upstream_rq_total.increment();
        let mut stream = Box::new(ServerStream::new(connection));
        stream.send_head(&self.head, Framing::Chunked);
        let early = std::mem::take(&mut self.early);
        // The stream has just begun.
        let _ = stream.send_data(&early);
        if self.is_ended {
            let _ = stream.send_end(None);
        }
        self.state = State::Open {
            stream,
            _serving: serving,
            answered: false,
        };
    }

    /// Waits for another attempt, if there is to be one.
    fn try_again(&mut self, failed: &Failed) -> bool {
        // An endpoint may close a connection, and the stream cross with that.
        let crossed = failed.is_unseen && self.attempts == 1;
        let Some(kept) = &self.kept else {
            return false;
        };
        let made = self.attempts - 1;
        if !failed.is_retriable || !crossed && made >= self.options.retries {
            return false;
        }
        self.early.clone_from(kept);
        self.input.clear();
        if crossed && self.options.retries == 0 {
            self.begin();
            return true;
        }
        let options = &self.options;
        let most = options.retry_interval_ms.saturating_mul(1 << made.min(20));
        // At least one, since no time at all would be no end of it.
        let most = most.min(options.retry_max_interval_ms).max(1);
        let wait = fastrand::u64(1..=most);
        self.state = State::Waiting(self.worker.now().after_ms(wait));
        true
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Failed>> {
        let State::Open {
            stream, answered, ..
        } = &mut self.state
        else {
            return Poll::Pending;
        };
        let sent = stream.poll_send(cx);
        if !*answered {
            let mut head = Response::new();
            match stream.poll_head(cx, &mut head, RequestContext::default()) {
                Poll::Pending => {
                    return match sent {
                        Poll::Ready(Err(lost)) => Poll::Ready(Err(Failed::of(lost))),
                        _ => Poll::Pending,
                    };
                }
                Poll::Ready(Err(lost)) => return Poll::Ready(Err(Failed::of(lost))),
                Poll::Ready(Ok(())) => *answered = true,
            }
            if head.status() != 200 || !is_grpc(head.headers()) {
                return Poll::Ready(Err(Failed {
                    is_retriable: matches!(head.status(), 502..=504),
                    ..Failed::now(status_of_http(head.status()), "")
                }));
            }
            // A call that fails at once has its status in the head.
            if head.headers().contains(b"grpc-status") {
                return Poll::Ready(status(head.headers()));
            }
        }
        loop {
            match take_message(&mut self.input, self.options.max_message) {
                Ok(Some(message)) => return Poll::Ready(Ok(Received::Message(message))),
                Ok(None) => {}
                Err(failed) => return Poll::Ready(Err(failed)),
            }
            match stream.piece() {
                Ok(Piece::Data(data)) => {
                    self.input.extend_from_slice(data);
                    continue;
                }
                Ok(Piece::End(_)) if !self.input.is_empty() => {
                    return Poll::Ready(Err(Failed::now(INTERNAL, "")));
                }
                Ok(Piece::End(trailers)) => {
                    let none = Headers::new();
                    return Poll::Ready(status(trailers.unwrap_or(&none)));
                }
                Ok(Piece::Nothing) => {}
                Err(_) => return Poll::Ready(Err(Failed::now(INTERNAL, ""))),
            }
            match stream.poll_receive(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failed::of(Lost::Closed))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(lost)) => return Poll::Ready(Err(Failed::of(lost))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ends the stream in peace: says that nothing follows, and gives the service a moment to do the
    /// same.
    pub(crate) fn finish(mut self) {
        if !matches!(self.state, State::Open { .. }) || self.worker.phase() == Phase::Closing {
            return;
        }
        if let State::Open { stream, .. } = &mut self.state {
            let _ = stream.send_end(None);
        }
        self.is_ended = true;
        self.kept = None;
        tokio::task::spawn_local(async move {
            let registration = self.worker.register();
            let deadline = self.worker.now().after_ms(END_MS);
            poll_fn(|cx| {
                registration.update(cx);
                loop {
                    match self.poll(cx) {
                        Poll::Ready(Received::Message(_)) => {}
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending if self.worker.phase() == Phase::Closing => {
                            return Poll::Ready(());
                        }
                        Poll::Pending => return self.timer.poll(cx, deadline),
                    }
                }
            })
            .await;
        });
    }
}

/// A failure, and what can be done about it.
struct Failed {
    failure: Failure,
    is_retriable: bool,
    /// The service has not looked at the stream.
    is_unseen: bool,
}

impl Failed {
    fn now(code: u8, message: impl Into<String>) -> Self {
        Self {
            failure: Failure {
                code,
                message: message.into(),
            },
            is_retriable: false,
            is_unseen: false,
        }
    }

    fn of(lost: Lost) -> Self {
        let (code, message) = match lost {
            Lost::Malformed => (INTERNAL, "protocol error"),
            Lost::Closed | Lost::Unprocessed => (UNAVAILABLE, "connection termination"),
            Lost::Refused => (UNAVAILABLE, "remote refused stream reset"),
            Lost::Reset(_) => (INTERNAL, "remote reset"),
        };
        Self {
            is_retriable: !matches!(lost, Lost::Malformed),
            is_unseen: matches!(lost, Lost::Refused | Lost::Unprocessed),
            ..Self::now(code, message)
        }
    }
}

fn unopened(error: CallError) -> Failed {
    let (code, message) = match error {
        CallError::NoEndpoint => (UNAVAILABLE, "no healthy upstream"),
        CallError::Overflow => (UNAVAILABLE, "overflow"),
        CallError::NotConnected => (UNAVAILABLE, "remote connection failure"),
        CallError::TimedOut => (UNAVAILABLE, "connection timeout"),
        CallError::Closing | CallError::Lost => (UNAVAILABLE, "connection termination"),
        CallError::Protocol | CallError::TooLarge => (INTERNAL, "protocol error"),
    };
    Failed {
        is_retriable: code == UNAVAILABLE,
        ..Failed::now(code, message)
    }
}

/// What the status of a call says. One that is missing or no number is not known.
fn status(trailers: &Headers) -> Result<Received, Failed> {
    const UNKNOWN: u8 = 2;
    let text = |name: &[u8]| {
        let value = trailers.get(name).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    match text(b"grpc-status").parse().unwrap_or(UNKNOWN) {
        0 => Ok(Received::End),
        code => Err(Failed {
            is_retriable: code == UNAVAILABLE,
            ..Failed::now(code, text(b"grpc-message"))
        }),
    }
}

/// Takes a message off what was received, once all of it is there.
fn take_message(input: &mut BytesMut, most: usize) -> Result<Option<Bytes>, Failed> {
    let [compressed, a, b, c, d, ..] = **input else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    // No compression was offered.
    if compressed != 0 {
        return Err(Failed::now(INTERNAL, ""));
    }
    if length > most {
        const RESOURCE_EXHAUSTED: u8 = 8;
        return Err(Failed::now(RESOURCE_EXHAUSTED, "message too large"));
    }
    if input.len() < PREFIX + length {
        return Ok(None);
    }
    input.advance(PREFIX);
    Ok(Some(input.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_once_they_are_whole() {
        let mut input = BytesMut::new();
        let mut taken = Vec::new();
        for byte in *b"\0\0\0\0\x02ab\0\0\0\0\0\0\0\0\0\x01c" {
            input.extend_from_slice(&[byte]);
            while let Ok(Some(message)) = take_message(&mut input, 2) {
                taken.push(message);
            }
        }
        assert_eq!(taken, [&b"ab"[..], b"", b"c"]);
    }

    #[test]
    fn what_is_too_long_or_compressed_is_refused() {
        for (bytes, code) in [(&b"\0\0\0\0\x03"[..], 8), (b"\x01\0\0\0\x01a", INTERNAL)] {
            let failed = take_message(&mut BytesMut::from(bytes), 2).err().unwrap();
            assert_eq!(failed.failure.code, code);
        }
    }

    #[test]
    fn statuses() {
        let of = |fields: &[(&str, &str)]| {
            let mut headers = Headers::new();
            for (name, value) in fields {
                headers.append(name.as_bytes(), value.as_bytes());
            }
            status(&headers).map_err(|failed| (failed.failure.code, failed.failure.message))
        };
        assert_eq!(of(&[("grpc-status", "0")]), Ok(Received::End));
        let failed = of(&[("grpc-status", "13"), ("grpc-message", "boom")]);
        assert_eq!(failed, Err((13, "boom".to_owned())));
        assert_eq!(of(&[("grpc-status", "x")]), Err((2, String::new())));
        assert_eq!(of(&[]), Err((2, String::new())));
    }
}
