//! Bytes both ways, as everything that passes them on sees them.

use std::io;
use std::task::{Context, Poll};

use super::io::{Stream, Traffic};
use super::message::Lost;

/// A byte stream in both directions, buffered and bounded in each: a socket, with or without TLS, or
/// the data of one HTTP/2 stream.
pub(crate) trait Pipe {
    /// What was received and not consumed.
    fn input(&self) -> &[u8];

    /// Drops the first `count` bytes of the input.
    fn consume(&mut self, count: usize);

    /// Receives once. Returns the count, 0 at the end of the stream; pending also while `limit` bytes
    /// wait to be consumed. An error is the end of the stream, and not a clean one.
    fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>>;

    /// The socket with its buffers, if that is all there is to it: bytes can be spliced between two.
    fn stream(&mut self) -> Option<&mut Stream> {
        None
    }

    /// Whether the peer has finished sending; input may still wait.
    fn has_ended(&self) -> bool;

    /// Appends to the output. It is for the caller to look at [`has_room`](Self::has_room) first.
    fn write(&mut self, bytes: &[u8]);

    /// Whether more output may be added.
    fn has_room(&self) -> bool;

    /// Count of bytes of output that are still to be sent.
    fn unsent(&self) -> usize;

    /// Sends what there is of output; ready once all of it is sent.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the peer that nothing more comes. The output must have been flushed.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Makes dropping this tell the peer that the stream is cut short. Where that is what dropping it
    /// does anyhow, there is nothing to do.
    fn reset(&mut self) {}

    /// Why the stream failed, where more is known than that its connection is closed.
    fn lost(&self) -> Option<Lost> {
        None
    }

    /// Gives back the memory of buffers that hold nothing.
    fn release_buffers(&mut self) {}

    /// What went through so far.
    fn traffic(&self) -> Traffic;

    /// How the peer closed the stream, in Envoy's words; `Normal` also while it has not.
    fn close_type(&self) -> &'static str;
}

impl Pipe for Stream {
    fn input(&self) -> &[u8] {
        Self::input(self)
    }

    fn consume(&mut self, count: usize) {
        Self::consume(self, count);
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        Self::poll_fill(self, cx, limit)
    }

    fn stream(&mut self) -> Option<&mut Stream> {
        Some(self)
    }

    fn has_ended(&self) -> bool {
        self.eof
    }

    fn write(&mut self, bytes: &[u8]) {
        self.output().extend_from_slice(bytes);
    }

    fn has_room(&self) -> bool {
        Self::has_room(self)
    }

    fn unsent(&self) -> usize {
        Self::unsent(self)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(self, cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(self, cx)
    }

    fn reset(&mut self) {
        Self::reset(self);
    }

    fn release_buffers(&mut self) {
        Self::release_buffers(self);
    }

    fn traffic(&self) -> Traffic {
        Self::traffic(self)
    }

    fn close_type(&self) -> &'static str {
        Self::close_type(self)
    }
}
