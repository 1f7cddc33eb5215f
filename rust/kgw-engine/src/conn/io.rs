//! Buffered sockets: one read buffer and one write buffer each, both bounded, both polled.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Size of a read buffer. Bytes. It grows for a head that is larger, up to the head's limit.
const READ_BUFFER: usize = 16 * 1024;

/// Unconsumed bytes of a body, or of what follows one, to hold. Bytes.
pub(crate) const BODY_BUFFER: usize = 16 * 1024;

/// Buffered output above which no more input is taken for it. Bytes.
const WRITE_WATERMARK: usize = 64 * 1024;

/// Largest write buffer that an idle connection keeps: that of a plain answer's head. Bytes.
const IDLE_OUTPUT: usize = 1024;

/// Read buffers kept for reuse by a worker. Idle connections hold none.
const SPARE_BUFFERS: usize = 256;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A socket with buffered input and output.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    input: Input,
    output: Output,
    /// The peer has finished sending.
    pub(crate) eof: bool,
    /// Reading or writing has failed.
    broken: bool,
    traffic: Traffic,
}

/// Bytes that went through a stream so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Received and consumed.
    pub(crate) consumed: u64,
    /// Written to the socket.
    pub(crate) sent: u64,
}

impl Traffic {
    /// What went through since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            consumed: self.consumed - earlier.consumed,
            sent: self.sent - earlier.sent,
        }
    }
}

/// Received bytes that are not consumed yet.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// Bytes that are still to be written.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    start: usize,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            input: Input::default(),
            output: Output::default(),
            eof: false,
            broken: false,
            traffic: Traffic::default(),
        }
    }

    /// How the peer closed the stream, in Envoy's words; `Normal` also while it has not.
    pub(crate) fn close_type(&self) -> &'static str {
        if self.broken { "RemoteReset" } else { "Normal" }
    }

    /// What went through so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The bytes received and not consumed.
    pub(crate) fn input(&self) -> &[u8] {
        &self.input.bytes[self.input.start..self.input.end]
    }

    /// Drops the first `count` bytes of the input.
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.input.end - self.input.start);
        self.input.start += count;
        self.traffic.consumed += count as u64;
        if self.input.start == self.input.end {
            self.input.start = 0;
            self.input.end = 0;
        }
    }

    /// Reads once into the free part of the buffer, which grows up to `limit` bytes of unconsumed
    /// input. Returns the count, 0 at the end of the stream; pending when `limit` bytes are waiting.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        if self.input().len() >= limit {
            return Poll::Pending;
        }
        self.input.make_room(limit);
        let free = &mut self.input.bytes[self.input.end..];
        let mut buffer = ReadBuf::new(free);
        match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.input.end += count;
                self.eof = count == 0;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => {
                self.broken = true;
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                // A connection that waits holds no buffer; thousands of them would.
                if self.input.end == 0 {
                    self.input.release();
                }
                Poll::Pending
            }
        }
    }

    /// Whether the peer has neither closed the stream nor sent anything, as far as the event loop
    /// has heard. No system call unless it has heard something. Asks past the task's budget, which
    /// makes polls say "pending" when it is spent.
    pub(crate) fn is_quiet(&self) -> bool {
        let nothing = self.socket.try_read(&mut [0]);
        matches!(nothing, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            && !self.eof
            && self.input().is_empty()
    }

    /// The output to append to.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output.bytes
    }

    /// Count of bytes that are still to be written.
    pub(crate) fn unsent(&self) -> usize {
        self.output.bytes.len() - self.output.start
    }

    /// Whether more output may be added. It is bounded by this, give or take one buffer of input.
    pub(crate) fn has_room(&self) -> bool {
        self.unsent() < WRITE_WATERMARK
    }

    /// Writes as much as the socket takes; ready once all output is written.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output.start < self.output.bytes.len() {
            let pending = &self.output.bytes[self.output.start..];
            match Pin::new(&mut self.socket).poll_write(cx, pending) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.output.start += count;
                    self.traffic.sent += count as u64;
                }
                Poll::Ready(Err(error)) => {
                    self.broken = true;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    self.output.compact();
                    return Poll::Pending;
                }
            }
        }
        self.output.reset();
        Poll::Ready(Ok(()))
    }

    /// Sends FIN.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Gives the read buffer back to the worker if nothing is in it: an idle connection holds none.
    pub(crate) fn release_buffers(&mut self) {
        if self.input.end == 0 {
            self.input.release();
        }
        if self.unsent() == 0 && self.output.bytes.capacity() > IDLE_OUTPUT {
            self.output = Output::default();
        }
    }
}

impl Input {
    /// Makes at least one byte of room, and at most `limit` bytes in all.
    fn make_room(&mut self, limit: usize) {
        if self.bytes.is_empty() {
            self.bytes = SPARE
                .with_borrow_mut(Vec::pop)
                .unwrap_or_else(|| vec![0; READ_BUFFER]);
        }
        if self.end < self.bytes.len() {
            return;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            let grown = (self.bytes.len() * 2).min(limit.max(self.bytes.len() + 1));
            self.bytes.resize(grown, 0);
        }
    }

    fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.start = 0;
        self.end = 0;
        if bytes.len() == READ_BUFFER {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARE_BUFFERS {
                    spare.push(bytes);
                }
            });
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.release();
    }
}

impl Output {
    /// Everything is written: the buffer starts again, and is not kept if it grew large.
    fn reset(&mut self) {
        self.start = 0;
        if self.bytes.capacity() > 2 * WRITE_WATERMARK {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Keeps a long stalled output from growing at its written end.
    fn compact(&mut self) {
        if self.start >= WRITE_WATERMARK {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}
