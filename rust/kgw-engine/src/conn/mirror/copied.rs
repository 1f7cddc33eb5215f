//! The client's side of a copy: a request whose body comes from another exchange, and whose answer
//! nobody wants.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use kgw_h1::{BodyError, Framing, Headers, Request, Response};

use super::feed::Feed;
use crate::conn::http2::Data;
use crate::conn::io::Traffic;
use crate::conn::message::{Downstream, Lost, Piece, Side};

/// Of an answer's body, what is received so that its connection can be used again. Bytes.
const MOST_ANSWER: u64 = 1024 * 1024;

/// Where a copy comes from.
#[derive(Debug)]
pub(super) struct Copied {
    feed: Rc<Feed>,
    /// What was given out last.
    given: Bytes,
    trailers: Option<Headers>,
    /// Of all that has arrived, what was noticed.
    noticed: u64,
    /// Bytes of the answer's body.
    answered: u64,
    /// What a copy that switched protocols would be; none of them asks for that.
    pipe: Data,
}

impl Copied {
    pub(super) fn new(feed: Rc<Feed>) -> Self {
        Self {
            feed,
            given: Bytes::new(),
            trailers: None,
            noticed: 0,
            answered: 0,
            pipe: Data::default(),
        }
    }

    /// Whether there is no use in going on.
    fn is_given_up(&self) -> bool {
        self.feed.is_cut() || self.answered > MOST_ANSWER
    }
}

impl Drop for Copied {
    /// Nobody takes the rest of the body.
    fn drop(&mut self) {
        self.feed.close();
    }
}

impl Side for Copied {
    fn piece(&mut self) -> Result<Piece<'_>, BodyError> {
        if let Some(chunk) = self.feed.take() {
            self.given = chunk;
            return Ok(Piece::Data(&self.given));
        }
        if self.feed.take_end(&mut self.trailers) {
            return Ok(Piece::End(self.trailers.as_ref()));
        }
        Ok(Piece::Nothing)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        if self.is_given_up() {
            return Poll::Ready(Err(Lost::Closed));
        }
        let arrived = self.feed.arrived(cx);
        let new = arrived - std::mem::replace(&mut self.noticed, arrived);
        if new == 0 {
            return Poll::Pending;
        }
        Poll::Ready(Ok(usize::try_from(new).unwrap_or(usize::MAX)))
    }

    fn has_input(&self) -> bool {
        self.feed.has_input()
    }

    fn ends_with_connection(&mut self) -> bool {
        false
    }

    fn send_data(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.answered += data.len() as u64;
        Ok(())
    }

    fn send_end(&mut self, _trailers: Option<&Headers>) -> Result<(), BodyError> {
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.answered <= MOST_ANSWER
    }

    fn limit_output(&mut self, _bytes: usize) {}

    fn unsent(&self) -> usize {
        0
    }

    fn poll_send(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        Poll::Ready(Ok(()))
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn close_type(&self) -> &'static str {
        "Normal"
    }
}

impl Downstream for Copied {
    type Pipe = Data;

    const CONNECTION_FIELD: bool = false;

    fn begin_request(&mut self, _framing: Framing) {}

    fn send_head(
        &mut self,
        _request: &Request,
        _response: &mut Response,
        _status: u16,
        _framing: Framing,
        _advertised: Option<u64>,
    ) -> u64 {
        0
    }

    fn send_continue(&mut self) {}

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        if self.is_given_up() {
            return Poll::Ready(Err(Lost::Closed));
        }
        self.feed.arrived(cx);
        Poll::Pending
    }

    fn discard_request(&mut self, _received: impl FnMut(&[u8])) -> bool {
        true
    }

    fn abort(&mut self) {}

    fn pipe(&mut self) -> &mut Data {
        &mut self.pipe
    }
}
