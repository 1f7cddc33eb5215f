//! What a client's and an endpoint's streams have in common: their data is a side of an exchange.

use std::task::{Context, Poll};

use kgw_h1::{BodyError, Headers};

use super::data::Data;
use crate::conn::io::Traffic;
use crate::conn::message::{Lost, Piece, Side};

/// A stream.
pub(super) trait Stream {
    fn data(&self) -> &Data;

    fn data_mut(&mut self) -> &mut Data;

    /// Whether the peer is gone, which data that stands still for want of room elsewhere does not tell.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost>;
}

impl<S: Stream> Side for S {
    fn piece(&mut self) -> Result<Piece<'_>, BodyError> {
        Ok(self.data_mut().piece())
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        match self.data_mut().poll_receive(cx) {
            Poll::Pending => self.poll_lost(cx).map(Err),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn has_input(&self) -> bool {
        self.data().has_input()
    }

    fn ends_with_connection(&mut self) -> bool {
        false
    }

    fn send_data(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.data_mut().send_data(data)
    }

    fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), BodyError> {
        self.data_mut().send_end(trailers);
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.data().has_room()
    }

    fn limit_output(&mut self, bytes: usize) {
        self.data_mut().limit_output(bytes);
    }

    fn unsent(&self) -> usize {
        self.data().unsent()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.data_mut().poll_send(cx)
    }

    fn traffic(&self) -> Traffic {
        self.data().traffic()
    }

    fn close_type(&self) -> &'static str {
        self.data().close_type()
    }
}
