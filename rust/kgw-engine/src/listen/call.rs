//! Connections that the process makes to its own listeners, without a port.
//!
//! Both ends are of one socket pair, so nobody else can get hold of one. The caller says who it speaks
//! for, as a PROXY header would, and whether that is secure, as TLS would. All else is as on any other
//! connection of the listener: limits, drains, policies, logs.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::net::TcpStream;

use super::accept::{self, Slots};
use super::limit::ConnectionLimit;
use crate::runtime::{Phase, Registration, Worker};

/// Who makes a connection, and to what.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The client.
    pub peer: SocketAddr,
    /// What the client addressed.
    pub local: SocketAddr,
    /// What else would show on the connection.
    pub within: Within,
}

/// What the caller vouches for, where the bytes themselves would show it on a connection from outside.
#[derive(Clone, Debug, Default)]
pub struct Within {
    /// Requests are `https`.
    pub is_secure: bool,
    /// The server name that the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
}

/// A connection on its way to the worker that serves it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) listener: Arc<str>,
    pub(crate) socket: OwnedFd,
    pub(crate) caller: Caller,
}

/// Makes both ends of a connection. Neither blocks, neither is inherited by programs.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(pair)
}

/// Makes an end of a pair a stream of the running event loop.
///
/// Its type is that of a TCP socket: all that is done with one after it was accepted (reading, writing,
/// shutting down, splicing) is the same system call for a Unix socket. What is not, its addresses and
/// `TCP_NODELAY`, is asked of no end of a pair.
pub(crate) fn stream(socket: OwnedFd) -> io::Result<TcpStream> {
    TcpStream::from_std(std::net::TcpStream::from(socket))
}

/// Starts a connection as soon as the limits allow it; until then its caller waits, as whoever connects
/// to a port that accepts no more.
pub(crate) fn begin(worker: &Rc<Worker>, call: Call) {
    let Some(counts) = worker.listener_counts(&call.listener) else {
        return; // a newer generation took the listener away
    };
    let mut waiting = Waiting {
        registration: worker.register(),
        worker: Rc::clone(worker),
        limit: counts.limit,
        waker: None,
    };
    tokio::task::spawn_local(async move {
        let Some(slots) = poll_fn(|cx| waiting.poll(cx)).await else {
            return;
        };
        let worker = Rc::clone(&waiting.worker);
        match stream(call.socket) {
            Ok(stream) => {
                accept::begin_within(&worker, call.listener, stream, call.caller, slots);
            }
            Err(_) => worker.stats().downstream_accept_error.increment(),
        }
    });
}

/// A connection that waits for the right to be open.
struct Waiting {
    worker: Rc<Worker>,
    registration: Registration,
    limit: Arc<ConnectionLimit>,
    waker: Option<Waker>,
}

impl Waiting {
    fn poll(&mut self, cx: &std::task::Context<'_>) -> Poll<Option<Slots>> {
        self.registration.update(cx);
        if self.worker.phase() == Phase::Closing {
            return Poll::Ready(None);
        }
        self.waker = Some(cx.waker().clone());
        let Poll::Ready(of_process) = self.worker.connection_limit().poll_slot(cx) else {
            return Poll::Pending;
        };
        let of_listener = self.limit.poll_slot(cx);
        of_listener.map(|slot| Some((of_process, slot)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(waker) = &self.waker {
            self.worker.connection_limit().leave(waker);
            self.limit.leave(waker);
        }
    }
}
