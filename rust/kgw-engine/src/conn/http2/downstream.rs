//! An HTTP/2 stream as a client's side of an exchange.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, StatusCode};
use kgw_h1::{Framing, Method, Request, Response};

use super::data::{Data, lost};
use super::fields;
use super::stream::Stream;
use crate::conn::message::{Downstream, Lost, Piece};

/// A stream that a client opened, or the place for one.
#[derive(Debug, Default)]
pub(crate) struct ClientStream {
    respond: Option<SendResponse<Bytes>>,
    data: Data,
    answered: bool,
    /// The answer ends here and is not whole.
    aborted: bool,
}

impl Stream for ClientStream {
    fn data(&self) -> &Data {
        &self.data
    }

    fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        if self.answered {
            return self.data.poll_reset(cx);
        }
        let Some(respond) = &mut self.respond else {
            return Poll::Pending;
        };
        match respond.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Lost::Reset(reason)),
            Poll::Ready(Err(error)) => Poll::Ready(lost(&error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Downstream for ClientStream {
    type Pipe = Data;

    const CONNECTION_FIELD: bool = false;

    fn begin_request(&mut self, _framing: Framing) {}

    fn send_head(
        &mut self,
        request: &Request,
        response: &mut Response,
        status: u16,
        framing: Framing,
        advertised: Option<u64>,
    ) -> u64 {
        // A switch of protocols is a success here, and the handshake's fields have no meaning
        // (RFC 8441 5).
        let (status, switched) = match status {
            101 if request.extended_connect() => (200, true),
            status => (status, false),
        };
        let without: &[&[u8]] = if switched {
            &[b"content-length", b"sec-websocket-accept"]
        } else {
            &[b"content-length"]
        };
        let headers = response.headers();
        let mut map = HeaderMap::with_capacity(headers.len() + 1);
        let mut bytes = fields::append_to(&mut map, headers, without);
        let length = match framing {
            Framing::Length(length) if length > 0 => Some(length),
            Framing::Length(_) | Framing::None if !switched => advertised,
            _ => None,
        };
        if let Some(length) = length {
            bytes += fields::append_length(&mut map, length);
        }
        let is_tunnel = request.method_kind() == Method::Connect && status == 200;
        let mut head = http::Response::new(());
        *head.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        *head.headers_mut() = map;
        let is_whole = framing.is_empty() && !switched && !is_tunnel;
        self.answered = true;
        // This fails only where the stream is gone already, which the next poll tells.
        if let Some(respond) = &mut self.respond
            && let Ok(send) = respond.send_response(head, is_whole)
        {
            self.data.begin_sending(send);
        }
        if is_whole {
            self.data.sent_whole();
        }
        self.data.count_head_sent(bytes);
        bytes as u64
    }

    fn send_continue(&mut self) {
        let mut head = http::Response::new(());
        *head.status_mut() = StatusCode::CONTINUE;
        if let Some(respond) = &mut self.respond {
            // As above.
            let _ = respond.send_informational(head);
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        self.poll_lost(cx).map(Err)
    }

    fn discard_request(&mut self, mut received: impl FnMut(&[u8])) -> bool {
        while let Piece::Data(data) = self.data.piece() {
            received(data);
        }
        true
    }

    fn abort(&mut self) {
        self.aborted = true;
    }

    fn pipe(&mut self) -> &mut Data {
        &mut self.data
    }
}

impl ClientStream {
    /// Takes a stream's place.
    pub(super) fn begin(&mut self, respond: SendResponse<Bytes>, receive: RecvStream) {
        self.release();
        self.respond = Some(respond);
        self.data.begin_receiving(receive);
    }

    /// Lets go of the stream: what is not at its end is reset.
    pub(super) fn release(&mut self) {
        self.respond = None;
        self.data.release();
        self.answered = false;
        self.aborted = false;
    }

    /// Whether the request has ended with its head.
    pub(crate) fn is_whole(&self) -> bool {
        self.data.is_receive_ended()
    }

    /// Ends the stream: with an error if it was [aborted](Downstream::abort).
    ///
    /// A reset throws away what waits to be sent, so the connection's task has its turn first: it
    /// moves everything that the peer's windows and the socket take.
    pub(crate) async fn finish(&mut self) {
        if !self.aborted {
            return;
        }
        tokio::task::yield_now().await;
        if self.answered {
            self.data.reset(Reason::INTERNAL_ERROR);
        } else if let Some(respond) = &mut self.respond {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
