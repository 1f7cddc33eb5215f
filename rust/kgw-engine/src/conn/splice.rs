//! Bytes from socket to socket inside the kernel: through a pipe, with splice(2), never copied.
//!
//! A [`Conduit`] is a pipe that holds what one socket gave until another takes it. One is filled only
//! while it is empty: a pipe that is full and a socket that has nothing say the same, and are told
//! apart by that. Pipes are lent for as long as bytes wait in them, so a worker needs few; one that is
//! dropped with bytes inside is closed, and they are gone.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use rustix::io::{Errno, read};
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};
use rustix::process::{Resource, getrlimit};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::stats::Stats;

/// Bytes that a pipe takes at once. 1 MiB in pieces of 64 KiB costs half as much again.
pub(crate) const CONDUIT_BYTES: usize = 256 * 1024;

/// Smallest pipe that is of use. Bytes. Users get smaller ones when they have too many.
const LEAST_BYTES: usize = 64 * 1024;

/// Pipes of the process, at most.
const MAX_CONDUITS: usize = 256;

/// Of how many file descriptors that the process may have one is the end of a pipe, at most.
const DESCRIPTOR_SHARE: u64 = 16;

/// Pipes kept for reuse by a worker.
const SPARE_CONDUITS: usize = 32;

/// Pipes open in the process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The kernel, or what stands before it, does not splice sockets.
static REFUSED: AtomicBool = AtomicBool::new(false);

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes are what is lent")]
    static SPARE: RefCell<Vec<Box<Conduit>>> = const { RefCell::new(Vec::new()) };
    static SIGPIPE_BLOCKED: Cell<bool> = const { Cell::new(false) };
}

/// What came of trying to pass bytes on without a copy.
#[derive(Debug)]
pub(crate) enum Splice {
    /// This many were taken off the socket and wait to be sent; 0 at the end of the stream.
    Polled(Poll<io::Result<usize>>),
    /// Nothing was done: these bytes, or these streams, are to be copied.
    Unfit,
    /// Nothing was done, for want of a pipe, or because the kernel does not do it: copy.
    Refused,
}

impl Splice {
    /// What came of it, counted; none if the bytes are to be copied.
    pub(crate) fn counted(self, stats: &Stats) -> Option<Poll<io::Result<usize>>> {
        match self {
            Self::Unfit => None,
            Self::Refused => {
                stats.splice_refused.increment();
                None
            }
            Self::Polled(polled) => {
                if let Poll::Ready(Ok(count)) = polled {
                    stats.splice_bytes.add(count as u64);
                }
                Some(polled)
            }
        }
    }
}

/// A pipe, and how much is in it.
#[derive(Debug)]
pub(crate) struct Conduit {
    input: OwnedFd,
    output: OwnedFd,
    /// Bytes in the pipe.
    held: usize,
    /// What is to be sent after them.
    pub(crate) tail: Vec<u8>,
}

// === impl Conduit ===

impl Conduit {
    /// An empty one, if there is one to be had.
    pub(crate) fn take() -> Option<Box<Self>> {
        if REFUSED.load(Ordering::Relaxed) {
            return None;
        }
        SPARE
            .with_borrow_mut(Vec::pop)
            .or_else(|| Self::open().map(Box::new))
    }

    fn open() -> Option<Self> {
        block_sigpipe();
        if OPEN.fetch_add(1, Ordering::Relaxed) >= most_conduits() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let Ok((output, input)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) else {
            OPEN.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        let conduit = Self {
            input,
            output,
            held: 0,
            tail: Vec::new(),
        };
        // Who may have no larger one uses what there is, unless it is next to nothing.
        let sized = fcntl_setpipe_size(&conduit.input, CONDUIT_BYTES);
        let size = sized.or_else(|_| fcntl_getpipe_size(&conduit.input));
        size.is_ok_and(|size| size >= LEAST_BYTES)
            .then_some(conduit)
    }

    /// Keeps it for another, unless something is in it.
    pub(crate) fn put_back(self: Box<Self>) {
        if self.len() > 0 {
            return;
        }
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_CONDUITS {
                spare.push(self);
            }
        });
    }

    /// Count of bytes that wait in it and behind it.
    pub(crate) fn len(&self) -> usize {
        self.held + self.tail.len()
    }

    /// Takes up to `most` bytes off a socket; it must be empty. Returns the count, 0 at the end of the
    /// stream.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.len(), 0);
        loop {
            ready!(socket.poll_read_ready(cx))?;
            let taken = socket.try_io(Interest::READABLE, || {
                Ok(splice(socket, None, &self.input, None, most, FLAGS)?)
            });
            match taken {
                Ok(count) => {
                    self.held = count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Poll::Ready(Err(noted(error))),
            }
        }
    }

    /// Hands what is in the pipe to a socket, as much as it takes at once. Returns the count; none is
    /// left once it is everything.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        while self.held > 0 {
            ready!(socket.poll_write_ready(cx))?;
            let given = socket.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.output, None, socket, None, self.held, FLAGS)?)
            });
            match given {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held -= count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Poll::Ready(Err(noted(error))),
            }
        }
        Poll::Ready(Ok(0))
    }

    /// Whether the pipe is empty; something may still be to be sent after it.
    pub(crate) fn is_drained(&self) -> bool {
        self.held == 0
    }

    /// Takes everything out of it, to be copied instead.
    pub(crate) fn reclaim(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        while self.held > 0 {
            let at = bytes.len() - self.held;
            match read(&self.output, &mut bytes[at..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.held -= count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.append(&mut self.tail);
        Ok(bytes)
    }
}

impl Drop for Conduit {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an error says that splicing is not to be had here, and nothing about the socket.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

/// The error; if it is a refusal, nobody asks again.
fn noted(error: io::Error) -> io::Error {
    if is_refusal(&error) {
        REFUSED.store(true, Ordering::Relaxed);
    }
    error
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Pipes that this process may have.
fn most_conduits() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = descriptors / DESCRIPTOR_SHARE / 2;
        usize::try_from(share).map_or(MAX_CONDUITS, |share| share.min(MAX_CONDUITS))
    })
}

/// Keeps SIGPIPE from this thread, once. Writing to a socket can be told not to send it, splicing
/// cannot (sendfile(2) neither), and in a host whose SIGPIPE is not ignored, one client that leaves
/// would end the process.
fn block_sigpipe() {
    if SIGPIPE_BLOCKED.replace(true) {
        return;
    }
    #[expect(
        unsafe_code,
        reason = "no crate here offers a thread's signal mask safely"
    )]
    // SAFETY: a `sigset_t` of zeros is valid to be initialised by `sigemptyset`, and all pointers are
    // to that local, or null where null is allowed (sigsetops(3), pthread_sigmask(3)). Only the mask
    // of this thread changes.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Pages change owner instead of being copied; nobody waits in the kernel.
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
