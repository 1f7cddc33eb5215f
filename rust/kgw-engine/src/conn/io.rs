//! Buffered sockets, with or without TLS: one read buffer and one write buffer each, both bounded,
//! both polled.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread::LocalKey;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::splice::{self, CONDUIT_BYTES, Conduit, Splice};
use crate::tls::TlsSocket;

/// Size of a read buffer. Bytes: a head and 16 KiB, in which many servers write. It grows for a head
/// that is larger, up to the head's limit.
const READ_BUFFER: usize = 20 * 1024;

/// Unconsumed bytes of a body, or of what follows one, to hold. Bytes.
pub(crate) const BODY_BUFFER: usize = 16 * 1024;

/// Output that is handed to the socket at once rather than copied. Bytes.
pub(crate) const MIN_THROUGH: usize = 4 * 1024;

/// Buffered output above which no more input is taken for it, unless the listener says otherwise. Bytes.
const WRITE_WATERMARK: usize = 32 * 1024;

/// Highest watermark that a listener may set. Bytes.
pub(crate) const MAX_WATERMARK: usize = 16 * 1024 * 1024;

/// Largest write buffer that is kept for reuse. Bytes.
const SPARE_OUTPUT: usize = 16 * 1024;

/// Read buffers, and write buffers, kept for reuse by a worker: as many as are in use at once where it
/// has much to do. Idle connections hold none, and after a moment in which all of thousands asked, what
/// is kept counts as theirs.
const SPARE_BUFFERS: usize = 64;

type Spare = RefCell<Vec<Vec<u8>>>;

thread_local! {
    static SPARE_INPUTS: Spare = const { RefCell::new(Vec::new()) };
    static SPARE_OUTPUTS: Spare = const { RefCell::new(Vec::new()) };
}

/// A socket with buffered input and output.
///
/// It is an [`AsyncRead`] and [`AsyncWrite`] as well, for who has buffers of his own: what was
/// received already is read first.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the socket"
)]
pub(crate) struct Stream {
    socket: Socket,
    input: Input,
    output: Output,
    /// Buffered output above which no more input is taken for it. Small: idle connections have it too.
    watermark: u32,
    /// Bytes that the TLS layer took and may still hold. 0 without TLS.
    sealed: usize,
    /// The peer has finished sending.
    pub(crate) eof: bool,
    /// Reading or writing has failed.
    broken: bool,
    /// What was received last filled the buffer: more is there, most likely.
    bulk: bool,
    /// The peer is in this process, and closes both directions at once: the end of what it sends is
    /// the end of its interest.
    pub(crate) ends_whole: bool,
    traffic: Traffic,
}

/// What the bytes go through.
#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsSocket>),
}

/// Bytes that went through a stream so far, inside of TLS.
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
    /// What comes after them without having been seen; nothing is added before it.
    conduit: Option<Box<Conduit>>,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self::over(Socket::Tcp(socket))
    }

    /// A stream to a peer in this process.
    pub(crate) fn within(socket: TcpStream) -> Self {
        Self {
            ends_whole: true,
            ..Self::new(socket)
        }
    }

    /// A stream of what is inside of TLS.
    pub(crate) fn over_tls(socket: TlsSocket) -> Self {
        Self::over(Socket::Tls(Box::new(socket)))
    }

    fn over(socket: Socket) -> Self {
        Self {
            socket,
            input: Input::default(),
            output: Output::default(),
            watermark: WRITE_WATERMARK as u32,
            sealed: 0,
            eof: false,
            broken: false,
            bulk: false,
            ends_whole: false,
            traffic: Traffic::default(),
        }
    }

    /// The socket, and what was received from it and not consumed; none if there is TLS already. The
    /// output must have been flushed.
    pub(crate) fn into_tcp(self) -> Option<(TcpStream, Vec<u8>)> {
        debug_assert_eq!(self.unsent(), 0);
        let received = self.input().to_vec();
        match self.socket {
            Socket::Tcp(socket) => Some((socket, received)),
            Socket::Tls(_) => None,
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
        match self.socket.poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.bulk = buffer.remaining() == 0;
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
    pub(crate) fn is_quiet(&mut self) -> bool {
        !self.eof && self.input().is_empty() && self.socket.is_quiet()
    }

    /// Takes what `from` receives next into the output without a copy, up to `most` bytes, while bytes
    /// come in bulk: pieces that are small are copied as cheaply. Returns the count, 0 at the end of the
    /// stream. Pending also while what was taken before waits: whoever asks flushes as well.
    ///
    /// A listener whose output may not even hold what it holds by default gets copies, which can be
    /// kept to any measure.
    pub(crate) fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Self,
        most: usize,
    ) -> Splice {
        let (Socket::Tcp(source), Socket::Tcp(_)) = (&from.socket, &self.socket) else {
            return Splice::Unfit;
        };
        let is_next = from.input().is_empty() && !from.eof;
        if !is_next || !from.bulk || self.watermark() < WRITE_WATERMARK {
            return Splice::Unfit;
        }
        if self.output.conduit.is_some() {
            // Copies go behind it where more may wait than it holds.
            return if self.watermark() > CONDUIT_BYTES {
                Splice::Unfit
            } else {
                Splice::Polled(Poll::Pending)
            };
        }
        let Some(mut conduit) = Conduit::take() else {
            return Splice::Refused;
        };
        match conduit.poll_fill(cx, source, most.min(CONDUIT_BYTES)) {
            Poll::Ready(Ok(count)) if count > 0 => {
                from.traffic.consumed += count as u64;
                from.bulk = count >= READ_BUFFER;
                self.output.conduit = Some(conduit);
                Splice::Polled(Poll::Ready(Ok(count)))
            }
            Poll::Ready(Ok(_)) => {
                conduit.put_back();
                from.eof = true;
                Splice::Polled(Poll::Ready(Ok(0)))
            }
            Poll::Ready(Err(error)) if splice::is_refusal(&error) => Splice::Refused,
            Poll::Ready(Err(error)) => {
                conduit.put_back();
                from.broken = true;
                Splice::Polled(Poll::Ready(Err(error)))
            }
            Poll::Pending => {
                conduit.put_back();
                from.input.release();
                Splice::Polled(Poll::Pending)
            }
        }
    }

    /// Puts something before and behind what [`poll_splice`](Self::poll_splice) has just taken.
    pub(crate) fn enclose(
        &mut self,
        head: impl FnOnce(&mut Vec<u8>),
        tail: impl FnOnce(&mut Vec<u8>),
    ) {
        head(&mut self.output.bytes);
        tail(self.output());
    }

    /// Appends to the output, but hands to the socket at once what it takes: that is not copied. Returns
    /// whether it took anything. An error shows when the rest is flushed.
    pub(crate) fn write_through(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> bool {
        let mut taken = 0;
        let mut of_bytes = 0;
        if let Socket::Tcp(_) = self.socket
            && self.output.conduit.is_none()
        {
            let waiting = &self.output.bytes[self.output.start..];
            let parts = [io::IoSlice::new(waiting), io::IoSlice::new(bytes)];
            let parts = &parts[usize::from(waiting.is_empty())..];
            if let Poll::Ready(Ok(count)) = self.socket.poll_write_vectored(cx, parts) {
                taken = count;
                of_bytes = count.saturating_sub(waiting.len());
                self.output.start += count - of_bytes;
                self.written(count);
                if self.output.start == self.output.bytes.len() {
                    self.output.reset();
                }
            }
        }
        self.output().extend_from_slice(&bytes[of_bytes..]);
        taken > 0
    }

    /// The output to append to.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        self.output.make_room();
        match &mut self.output.conduit {
            None => &mut self.output.bytes,
            Some(conduit) => &mut conduit.tail,
        }
    }

    /// Count of bytes that are still to be written.
    pub(crate) fn unsent(&self) -> usize {
        self.output.len() + self.sealed
    }

    /// Whether more output may be added. It is bounded by this, give or take one buffer of input or,
    /// where bytes are spliced, one pipe.
    pub(crate) fn has_room(&self) -> bool {
        self.unsent() < self.watermark()
    }

    fn watermark(&self) -> usize {
        self.watermark as usize
    }

    /// Sets how much output may wait, give or take one buffer of input.
    pub(crate) fn limit_output(&mut self, bytes: usize) {
        self.watermark = bytes.clamp(1, MAX_WATERMARK) as u32;
    }

    /// Writes as much as the socket takes; ready once all output is written.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.output.start < self.output.bytes.len() {
                let pending = &self.output.bytes[self.output.start..];
                match self.socket.poll_write(cx, pending) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => {
                        self.output.start += count;
                        self.written(count);
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
            if self.output.conduit.is_none() {
                break;
            }
            if let Err(error) = ready!(self.poll_drain(cx)) {
                self.broken = true;
                return Poll::Ready(Err(error));
            }
        }
        if self.sealed == 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.socket.poll_flush(cx)) {
            Ok(()) => self.sealed = 0,
            Err(error) => {
                self.broken = true;
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was spliced; what is to follow it becomes the output.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (Socket::Tcp(socket), Some(conduit)) = (&self.socket, &mut self.output.conduit) else {
            return Poll::Ready(Ok(()));
        };
        while !conduit.is_drained() {
            match ready!(conduit.poll_drain(cx, socket)) {
                Ok(count) => self.traffic.sent += count as u64,
                Err(error) if splice::is_refusal(&error) => {
                    conduit.tail = conduit.reclaim()?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if let Some(mut conduit) = self.output.conduit.take() {
            self.output.bytes.append(&mut conduit.tail);
            conduit.put_back();
        }
        Poll::Ready(Ok(()))
    }

    /// Counts bytes that the socket took.
    fn written(&mut self, count: usize) {
        self.traffic.sent += count as u64;
        if let Socket::Tls(_) = self.socket {
            self.sealed += count;
        }
    }

    /// Sends FIN; over TLS a `close_notify` first.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_shutdown(cx)
    }

    /// Makes the socket's end a RST, which nobody takes for a clean one. What the peer has not read yet
    /// is lost with it.
    pub(crate) fn reset(&mut self) {
        // A socket that refuses is closed with FIN instead.
        let _ = self.socket.set_zero_linger();
    }

    /// Gives buffers with nothing in them back to the worker: an idle connection holds none.
    pub(crate) fn release_buffers(&mut self) {
        if self.input.end == 0 {
            self.input.release();
        }
        if self.unsent() == 0 {
            self.output.release();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let waiting = stream.input().len().min(buffer.remaining());
        if waiting > 0 {
            buffer.put_slice(&stream.input()[..waiting]);
            stream.consume(waiting);
            stream.release_buffers();
            return Poll::Ready(Ok(()));
        }
        if stream.eof || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let filled = buffer.filled().len();
        let read = ready!(stream.socket.poll_read(cx, buffer));
        let count = buffer.filled().len() - filled;
        stream.traffic.consumed += count as u64;
        stream.broken |= read.is_err();
        stream.eof = read.is_ok() && count == 0;
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if stream.output.len() > 0 {
            ready!(stream.poll_flush(cx))?;
        }
        let written = ready!(stream.socket.poll_write_vectored(cx, bytes));
        match &written {
            Ok(count) => stream.written(*count),
            Err(_) => stream.broken = true,
        }
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(stream.poll_flush(cx))?;
        stream.poll_shutdown(cx)
    }
}

impl Socket {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(socket) => socket.poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(socket) => socket.poll_write_vectored(cx, &[io::IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bytes),
            Self::Tls(socket) => socket.poll_write_vectored(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(socket) => socket.poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => socket.poll_shutdown(cx),
        }
    }

    fn set_zero_linger(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_zero_linger(),
            Self::Tls(socket) => socket.set_zero_linger(),
        }
    }

    fn is_quiet(&mut self) -> bool {
        match self {
            Self::Tcp(socket) => {
                let nothing = socket.try_read(&mut [0]);
                matches!(nothing, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(socket) => socket.is_quiet(),
        }
    }
}

impl Input {
    /// Makes at least one byte of room, and at most `limit` bytes in all.
    fn make_room(&mut self, limit: usize) {
        if self.bytes.is_empty() {
            self.bytes = SPARE_INPUTS
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
            keep(&SPARE_INPUTS, bytes);
        }
    }
}

/// Keeps a buffer for reuse, unless there are many.
fn keep(spare: &'static LocalKey<Spare>, buffer: Vec<u8>) {
    spare.with_borrow_mut(|spare| {
        if spare.len() < SPARE_BUFFERS {
            spare.push(buffer);
        }
    });
}

impl Drop for Output {
    fn drop(&mut self) {
        self.release();
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.release();
    }
}

impl Output {
    /// Count of the bytes.
    fn len(&self) -> usize {
        let conduit = self.conduit.as_ref().map_or(0, |conduit| conduit.len());
        self.bytes.len() - self.start + conduit
    }

    /// Takes a buffer of the worker's, if it has none.
    fn make_room(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE_OUTPUTS.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
    }

    fn release(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.start = 0;
        if (1..=SPARE_OUTPUT).contains(&bytes.capacity()) {
            bytes.clear();
            keep(&SPARE_OUTPUTS, bytes);
        }
    }

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
