//! The two sides of an exchange, whatever version of HTTP each of them speaks.
//!
//! A [`Side`] gives the body that its peer sends piece by piece and takes the body that its peer is
//! to get. [`Downstream`] is a client's side, [`Upstream`] an endpoint's; they add the heads. Both
//! directions are bounded: a side takes what is added only while it [has room](Side::has_room), and
//! receives no more while what it received waits.

use std::task::{Context, Poll};

use kgw_h1::{BodyError, Framing, Headers, Request, RequestContext, Response};

use super::h1_side::Http1;
use super::io::Traffic;
use super::pipe::Pipe;

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    /// Nothing that has arrived is left.
    Nothing,
    /// Some of the data.
    Data(&'a [u8]),
    /// The end, with the trailer fields if there are any. Given out once.
    End(Option<&'a Headers>),
}

/// Why a side can go no further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lost {
    /// Its connection is closed.
    Closed,
    /// The peer reset the stream.
    Reset(h2::Reason),
    /// The peer refused the stream without looking at the message: it can be sent again.
    Refused,
    /// The peer closes the connection without having looked at the message: it can be sent again.
    Unprocessed,
    /// What the peer sent is no message.
    Malformed,
}

/// One side of an exchange, as far as bodies go.
pub(crate) trait Side {
    /// The next piece of what has arrived of the body. It is consumed by the next call.
    fn piece(&mut self) -> Result<Piece<'_>, BodyError>;

    /// Receives more of the body. Returns the count, 0 at the end of everything.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>>;

    /// The connection, if it carries one message at a time: between two of these, bodies can be spliced.
    fn http1(&mut self) -> Option<&mut Http1> {
        None
    }

    /// Whether something that was received waits to be taken.
    fn has_input(&self) -> bool;

    /// Whether the end of everything is the proper end of the body that was being received.
    fn ends_with_connection(&mut self) -> bool;

    /// Adds data to the body that is sent.
    fn send_data(&mut self, data: &[u8]) -> Result<(), BodyError>;

    /// Adds data to the body that is sent, and hands to the peer at once what it takes where that saves
    /// copying it. Returns whether anything was handed over.
    fn pass_data(&mut self, _cx: &mut Context<'_>, data: &[u8]) -> Result<bool, BodyError> {
        self.send_data(data).map(|()| false)
    }

    /// Ends the body that is sent.
    fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), BodyError>;

    /// Whether more may be sent.
    fn has_room(&self) -> bool;

    /// Sets how much may wait to be handed to the peer before there is no more room. Bytes.
    fn limit_output(&mut self, bytes: usize);

    /// What is still to be handed to the peer. Bytes.
    fn unsent(&self) -> usize;

    /// Hands to the peer what it takes; ready once that is everything.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>>;

    /// What went through the side so far.
    fn traffic(&self) -> Traffic;

    /// How the peer closed its connection, in Envoy's words; `Normal` also while it is open.
    fn close_type(&self) -> &'static str;
}

/// A client's side.
pub(crate) trait Downstream: Side {
    /// What the connection or stream is once it carries no messages.
    type Pipe: Pipe;

    /// Whether an answer can end the connection, so that it has to say so.
    const CONNECTION_FIELD: bool;

    /// Says how the body of the request that is being read is framed.
    fn begin_request(&mut self, framing: Framing);

    /// Takes the head of an answer to `request`. Without a body (`framing` is [`Framing::None`]) it
    /// is the whole answer, save for [`send_end`](Side::send_end). Returns the count of its bytes.
    fn send_head(
        &mut self,
        request: &Request,
        response: &mut Response,
        status: u16,
        framing: Framing,
        advertised: Option<u64>,
    ) -> u64;

    /// Asks for the body of a request that waits to be asked.
    fn send_continue(&mut self);

    /// Notices whether the peer is gone, after its request has been received. Count of what arrived
    /// meanwhile, of requests to come.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>>;

    /// Whether the rest of a request's body need not be received: the connection can carry the next
    /// request nevertheless. Calls `received` with the data that was there.
    fn discard_request(&mut self, received: impl FnMut(&[u8])) -> bool;

    /// Makes it visible to the client that its answer ends here and is not whole.
    fn abort(&mut self);

    /// The connection or stream, once it has stopped carrying messages.
    fn pipe(&mut self) -> &mut Self::Pipe;
}

/// An endpoint's side.
pub(crate) trait Upstream: Side {
    /// What the connection or stream is once it carries no messages.
    type Pipe: Pipe;

    /// The protocol as access logs have it.
    const PROTOCOL: &'static str;

    /// Takes a request's head. Returns the count of its bytes.
    fn send_head(&mut self, request: &Request, framing: Framing) -> u64;

    /// Receives the head of the next answer, interim or final.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut Response,
        context: RequestContext,
    ) -> Poll<Result<(), Lost>>;

    /// Whether an answer of this status takes up the protocol that was asked for.
    fn is_switch(&self, status: u16) -> bool;

    /// Whether another exchange can follow on the connection, as far as this side can tell.
    fn is_reusable(&self) -> bool;

    /// The connection or stream, once it has stopped carrying messages.
    fn pipe(&mut self) -> &mut Self::Pipe;
}
