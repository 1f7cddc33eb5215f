//! The data of one HTTP/2 stream, both ways, bounded by the stream's flow-control windows.
//!
//! Received data is held one frame's worth at a time and its window is given back only when it is
//! consumed, so a peer can send no faster than the other side takes it.

use std::io;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use kgw_h1::{BodyError, Headers};

use super::fields;
use crate::conn::io::{MAX_WATERMARK, Traffic};
use crate::conn::message::{Lost, Piece};
use crate::conn::pipe::Pipe;

/// Buffered output above which no more is taken. Bytes.
const WRITE_WATERMARK: usize = 32 * 1024;

/// Room for output that is kept from one stream to the next. Bytes.
const KEPT_OUTPUT: usize = 4 * 1024;

/// A stream's data.
#[derive(Debug, Default)]
pub(crate) struct Data {
    /// None before a head went out that lets data follow, and once the end was sent.
    send: Option<SendStream<Bytes>>,
    /// None before a head came in that lets data follow.
    receive: Option<RecvStream>,
    input: Bytes,
    /// Input that the piece given out last stands for.
    given: usize,
    received: Received,
    trailers: Option<Headers>,
    output: BytesMut,
    /// Buffered output above which no more is taken; 0 is the default.
    watermark: usize,
    end: End,
    traffic: Traffic,
    /// The peer's reset.
    reset: Option<Reason>,
}

/// How far the peer's message has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Received {
    #[default]
    Going,
    /// Its end has arrived.
    Whole,
    /// Its end was given out.
    Over,
}

/// How far the end of our own message is.
#[derive(Debug, Default)]
enum End {
    #[default]
    Open,
    /// It follows the output.
    Due(Option<http::HeaderMap>),
    Sent,
}

impl Data {
    /// Lets go of the stream. Only the storage of the output stays, if it is small.
    pub(crate) fn release(&mut self) {
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        if output.capacity() > KEPT_OUTPUT {
            output = BytesMut::new();
        }
        *self = Self {
            output,
            ..Self::default()
        };
    }

    /// The peer's message follows.
    pub(crate) fn begin_receiving(&mut self, receive: RecvStream) {
        self.receive = Some(receive);
        self.received = Received::Going;
    }

    /// Our own message follows.
    pub(crate) fn begin_sending(&mut self, send: SendStream<Bytes>) {
        self.send = Some(send);
    }

    /// Our own message has ended with its head.
    pub(crate) fn sent_whole(&mut self) {
        self.end = End::Sent;
    }

    /// Whether nothing is to be received any more.
    pub(crate) fn is_receive_ended(&self) -> bool {
        self.receive.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    pub(crate) fn count_head_received(&mut self, bytes: usize) {
        self.traffic.consumed += bytes as u64;
    }

    pub(crate) fn count_head_sent(&mut self, bytes: usize) {
        self.traffic.sent += bytes as u64;
    }

    pub(crate) fn piece(&mut self) -> Piece<'_> {
        let given = std::mem::take(&mut self.given);
        self.take(given);
        if !self.input.is_empty() {
            self.given = self.input.len();
            return Piece::Data(&self.input);
        }
        if self.received == Received::Whole {
            self.received = Received::Over;
            return Piece::End(self.trailers.as_ref());
        }
        Piece::Nothing
    }

    /// Drops input and lets the peer send as much again.
    fn take(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.input.advance(count);
        self.traffic.consumed += count as u64;
        if let Some(receive) = &mut self.receive {
            // This fails only for more than was received.
            let _ = receive.flow_control().release_capacity(count);
        }
    }

    pub(crate) fn has_input(&self) -> bool {
        self.input.len() > self.given
    }

    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        let Some(receive) = &mut self.receive else {
            return Poll::Pending;
        };
        if !self.input.is_empty() || self.received != Received::Going {
            return Poll::Pending;
        }
        loop {
            match receive.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) => {
                    self.input = data;
                    return Poll::Ready(Ok(self.input.len()));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.reset = reset_of(&error);
                    return Poll::Ready(Err(lost(&error)));
                }
                Poll::Ready(None) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        match receive.poll_trailers(cx) {
            Poll::Ready(Ok(trailers)) => {
                self.trailers = trailers.map(|map| fields::headers_of(&map));
                self.received = Received::Whole;
                // The end is something that has arrived.
                Poll::Ready(Ok(1))
            }
            Poll::Ready(Err(error)) => {
                self.reset = reset_of(&error);
                Poll::Ready(Err(lost(&error)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    pub(crate) fn send_data(&mut self, data: &[u8]) -> Result<(), BodyError> {
        if !matches!(self.end, End::Open) {
            return if data.is_empty() {
                Ok(())
            } else {
                Err(BodyError::TooLong)
            };
        }
        self.output.extend_from_slice(data);
        Ok(())
    }

    pub(crate) fn send_end(&mut self, trailers: Option<&Headers>) {
        if matches!(self.end, End::Open) {
            self.end = End::Due(trailers.map(fields::map_of));
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        let watermark = match self.watermark {
            0 => WRITE_WATERMARK,
            bytes => bytes,
        };
        self.output.len() < watermark
    }

    /// Sets how much output may wait, give or take a frame.
    pub(crate) fn limit_output(&mut self, bytes: usize) {
        self.watermark = bytes.clamp(1, MAX_WATERMARK);
    }

    pub(crate) fn unsent(&self) -> usize {
        self.output.len() + usize::from(matches!(self.end, End::Due(_)))
    }

    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if self.unsent() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(send) = &mut self.send else {
            return Poll::Ready(Err(Lost::Closed));
        };
        while !self.output.is_empty() {
            send.reserve_capacity(self.output.len());
            let capacity = match send.capacity() {
                0 => match send.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(capacity))) => capacity,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(lost(&error))),
                    Poll::Ready(None) => return Poll::Ready(Err(Lost::Closed)),
                    Poll::Pending => return Poll::Pending,
                },
                capacity => capacity,
            };
            let count = capacity.min(self.output.len());
            if count == 0 {
                continue;
            }
            let data = self.output.split_to(count).freeze();
            let is_last = self.output.is_empty() && matches!(self.end, End::Due(None));
            if let Err(error) = send.send_data(data, is_last) {
                return Poll::Ready(Err(lost(&error)));
            }
            self.traffic.sent += count as u64;
            if is_last {
                self.end = End::Sent;
            }
        }
        if let End::Due(trailers) = &mut self.end {
            let sent = match trailers.take() {
                None => send.send_data(Bytes::new(), true),
                Some(trailers) => send.send_trailers(trailers),
            };
            if let Err(error) = sent {
                return Poll::Ready(Err(lost(&error)));
            }
            self.end = End::Sent;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the peer has reset the stream or is gone, once our head went out.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        match &mut self.send {
            Some(send) => match send.poll_reset(cx) {
                Poll::Ready(Ok(reason)) => {
                    self.reset = Some(reason);
                    Poll::Ready(Lost::Reset(reason))
                }
                Poll::Ready(Err(error)) => Poll::Ready(lost(&error)),
                Poll::Pending => Poll::Pending,
            },
            None => Poll::Pending,
        }
    }

    /// Ends the stream with an error.
    pub(crate) fn reset(&mut self, reason: Reason) {
        if let Some(send) = &mut self.send {
            send.send_reset(reason);
        }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    pub(crate) fn close_type(&self) -> &'static str {
        if self.reset.is_some() {
            "RemoteReset"
        } else {
            "Normal"
        }
    }
}

/// The peer's reset, if that is what an error says.
fn reset_of(error: &h2::Error) -> Option<Reason> {
    let is_reset = error.is_reset() && error.is_remote();
    error.reason().filter(|_| is_reset)
}

/// What an error of a stream means to the exchange.
pub(crate) fn lost(error: &h2::Error) -> Lost {
    if error.is_go_away() && error.is_remote() {
        // Streams that the peer still serves outlive its GOAWAY.
        return Lost::Unprocessed;
    }
    let is_nonsense = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
    if error.get_io().is_some_and(is_nonsense) {
        // The guard found that what the peer speaks is not HTTP/2.
        return Lost::Malformed;
    }
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => Lost::Refused,
        Some(reason) if error.is_reset() && error.is_remote() => Lost::Reset(reason),
        Some(_) if error.is_reset() || error.is_library() => Lost::Malformed,
        _ => Lost::Closed,
    }
}

fn broken(lost: Lost) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, format!("{lost:?}"))
}

/// Once a stream has stopped carrying messages, its data is a tunnel's.
impl Pipe for Data {
    fn input(&self) -> &[u8] {
        &self.input[self.given..]
    }

    fn consume(&mut self, count: usize) {
        let given = std::mem::take(&mut self.given);
        self.take(given + count);
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, _limit: usize) -> Poll<io::Result<usize>> {
        if self.received != Received::Going {
            self.received = Received::Over;
            return Poll::Ready(Ok(0));
        }
        match Self::poll_receive(self, cx) {
            Poll::Ready(Ok(_)) if self.received == Received::Going => {
                Poll::Ready(Ok(self.input.len()))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(0)),
            Poll::Ready(Err(lost)) => Poll::Ready(Err(broken(lost))),
            Poll::Pending => match self.poll_reset(cx) {
                Poll::Ready(lost) => Poll::Ready(Err(broken(lost))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn has_ended(&self) -> bool {
        self.received != Received::Going
    }

    fn write(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    fn has_room(&self) -> bool {
        Self::has_room(self)
    }

    fn unsent(&self) -> usize {
        Self::unsent(self)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx).map_err(broken)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send_end(None);
        self.poll_send(cx).map_err(broken)
    }

    fn lost(&self) -> Option<Lost> {
        self.reset.map(Lost::Reset)
    }

    fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn close_type(&self) -> &'static str {
        Self::close_type(self)
    }
}
