//! A socket with TLS around it.

use std::io;
use std::ops::DerefMut;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{ConnectionCommon, SideData};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

/// A socket after the handshake.
#[derive(Debug)]
pub(crate) struct TlsSocket {
    end: End,
    /// An end of the bytes without `close_notify` is an end like any other: what is inside says itself
    /// where its messages end. Else it is an error, since anybody on the way can cut a connection.
    tolerates_truncation: bool,
}

/// Which end of the connection this is.
#[derive(Debug)]
enum End {
    Client(client::TlsStream<Prefixed>),
    Server(server::TlsStream<Prefixed>),
}

/// A TCP socket some of whose bytes were received already.
#[derive(Debug)]
pub(super) struct Prefixed {
    prefix: Vec<u8>,
    start: usize,
    socket: TcpStream,
}

impl TlsSocket {
    /// The client's end. What follows a response is of no use, but a response may end with the
    /// connection: that must be the server's doing.
    pub(super) fn client(socket: client::TlsStream<Prefixed>) -> Self {
        Self {
            end: End::Client(socket),
            tolerates_truncation: false,
        }
    }

    /// The server's end.
    pub(super) fn server(socket: server::TlsStream<Prefixed>, tolerates_truncation: bool) -> Self {
        Self {
            end: End::Server(socket),
            tolerates_truncation,
        }
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match &mut self.end {
            End::Client(socket) => ready!(Pin::new(socket).poll_read(cx, buffer)),
            End::Server(socket) => ready!(Pin::new(socket).poll_read(cx, buffer)),
        };
        match read {
            Err(error)
                if self.tolerates_truncation && error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                Poll::Ready(Ok(()))
            }
            read => Poll::Ready(read),
        }
    }

    /// Takes bytes, some of which may stay here until [`poll_flush`](Self::poll_flush) is ready.
    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.end {
            End::Client(socket) => Pin::new(socket).poll_write_vectored(cx, bytes),
            End::Server(socket) => Pin::new(socket).poll_write_vectored(cx, bytes),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.end {
            End::Client(socket) => Pin::new(socket).poll_flush(cx),
            End::Server(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    /// Sends `close_notify` and FIN.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.end {
            End::Client(socket) => Pin::new(socket).poll_shutdown(cx),
            End::Server(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }

    pub(crate) fn set_zero_linger(&self) -> io::Result<()> {
        let inner = match &self.end {
            End::Client(socket) => socket.get_ref().0,
            End::Server(socket) => socket.get_ref().0,
        };
        inner.socket.set_zero_linger()
    }

    /// Whether the peer has neither closed the connection nor sent any data, as far as the event loop
    /// has heard. Takes in what is no data: session tickets follow a handshake whenever the server
    /// likes.
    pub(crate) fn is_quiet(&mut self) -> bool {
        match &mut self.end {
            End::Client(socket) => {
                let (socket, session) = socket.get_mut();
                is_quiet(socket, session)
            }
            End::Server(socket) => {
                let (socket, session) = socket.get_mut();
                is_quiet(socket, session)
            }
        }
    }
}

fn is_quiet<D: SideData>(
    socket: &mut Prefixed,
    session: &mut impl DerefMut<Target = ConnectionCommon<D>>,
) -> bool {
    loop {
        // False also when there is data to be read.
        if !session.wants_read() {
            return false;
        }
        match session.read_tls(&mut Waiting(socket)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(_) | Ok(0) => return false,
            Ok(_) => match session.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                _ => return false,
            },
        }
    }
}

/// Reads what has arrived, waits for nothing and wakes nobody.
struct Waiting<'a>(&'a mut Prefixed);

impl io::Read for Waiting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.take_prefix(buffer) {
            0 => self.0.socket.try_read(buffer),
            count => Ok(count),
        }
    }
}

impl Prefixed {
    pub(super) fn new(socket: TcpStream, prefix: Vec<u8>) -> Self {
        Self {
            prefix,
            start: 0,
            socket,
        }
    }

    fn take_prefix(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.prefix[self.start..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.start += count;
        if self.start == self.prefix.len() {
            self.prefix = Vec::new();
            self.start = 0;
        }
        count
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buffer);
        }
        let count = this.take_prefix(buffer.initialize_unfilled());
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
