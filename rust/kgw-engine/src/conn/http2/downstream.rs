//! An HTTP/2 stream as a client's side of an exchange.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderValue, StatusCode};
use kgw_h1::{BodyError, Framing, Headers, Method, Request, Response};

use super::data::{Data, lost};
use super::fields;
use crate::conn::io::Traffic;
use crate::conn::message::{Downstream, Lost, Piece, Side};

/// A stream that a client opened.
#[derive(Debug)]
pub(crate) struct ClientStream {
    respond: SendResponse<Bytes>,
    data: Data,
    answered: bool,
    /// The answer ends here and is not whole.
    aborted: bool,
}

impl ClientStream {
    pub(crate) fn new(respond: SendResponse<Bytes>, receive: RecvStream) -> Self {
        let mut data = Data::default();
        data.begin_receiving(receive);
        Self {
            respond,
            data,
            answered: false,
            aborted: false,
        }
    }
}

impl Side for ClientStream {
    fn piece(&mut self) -> Result<Piece<'_>, BodyError> {
        Ok(self.data.piece())
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        match self.data.poll_receive(cx) {
            // Data may stand still for want of room elsewhere; a reset is noticed nevertheless.
            Poll::Pending => self.poll_gone(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn has_input(&self) -> bool {
        self.data.has_input()
    }

    fn ends_with_connection(&mut self) -> bool {
        false
    }

    fn send_data(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.data.send_data(data)
    }

    fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), BodyError> {
        self.data.send_end(trailers);
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.data.has_room()
    }

    fn unsent(&self) -> usize {
        self.data.unsent()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.data.poll_send(cx)
    }

    fn traffic(&self) -> Traffic {
        self.data.traffic()
    }

    fn close_type(&self) -> &'static str {
        self.data.close_type()
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
        let mut map = fields::map_of(response.headers());
        map.remove(http::header::CONTENT_LENGTH);
        // A switch of protocols is a success here, and the handshake's fields have no meaning
        // (RFC 8441 5).
        let (status, switched) = match status {
            101 if request.extended_connect() => (200, true),
            status => (status, false),
        };
        if switched {
            map.remove("sec-websocket-accept");
        }
        let length = match framing {
            Framing::Length(length) if length > 0 => Some(length),
            Framing::Length(_) | Framing::None if !switched => advertised,
            _ => None,
        };
        if let Some(length) = length {
            map.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let is_tunnel = request.method_kind() == Method::Connect && status == 200;
        let bytes = map
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum::<usize>();
        let mut head = http::Response::new(());
        *head.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        *head.headers_mut() = map;
        let is_whole = framing.is_empty() && !switched && !is_tunnel;
        self.answered = true;
        // This fails only where the stream is gone already, which the next poll tells.
        if let Ok(send) = self.respond.send_response(head, is_whole) {
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
        // As above.
        let _ = self.respond.send_informational(head);
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        if self.answered {
            return self.data.poll_reset(cx).map(Err);
        }
        match self.respond.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Err(Lost::Reset(reason))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(&error))),
            Poll::Pending => Poll::Pending,
        }
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
        } else {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
