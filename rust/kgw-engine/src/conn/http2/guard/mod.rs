//! What stands between an HTTP/2 connection's socket and the h2 crate, and ends floods.
//!
//! [`Guarded`] looks at the headers of the frames that pass, in both directions, and keeps the
//! budgets of [`budget`]. When one is exceeded, nothing more is read, and the shared [`GuardState`] says
//! so to the connection's task, which polls it after each poll of the h2 connection, calls
//! `abrupt_shutdown(ENHANCE_YOUR_CALM)`, and drops the connection at [`GuardState::deadline`] at the
//! latest.
//!
//! What the h2 crate (0.4.20) does itself, and the guard therefore does not:
//! * It reads no further frame while an acknowledgement of PING or SETTINGS, or the reset of a refused
//!   stream, waits for room to be written, so a peer that reads nothing gets it to hold one of each
//!   behind 16 KiB of output. It never gives up on such a peer: [`GuardState::deadline`] does.
//! * It bounds CONTINUATION frames, the decoded size of header blocks, the state of reset streams, the
//!   resets it makes for faults, empty DATA frames and the overhead of small ones;
//!   [`settings::server_builder`] says how each is set.
//!
//! It does not bound PING, SETTINGS, PRIORITY, `WINDOW_UPDATE` and unknown frames, nor resets of streams
//! that were accepted.

pub(crate) mod budget;
pub(crate) mod frames;
pub(crate) mod settings;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::budget::{Flood, Meter, Role};
use self::frames::{ACK, FrameScanner, HEADER_BYTES, kind};
use crate::clock::{Clock, Nanos};

/// Time that a peer has to take the GOAWAY and to close. Milliseconds.
const FAREWELL_MS: u64 = 1000;

/// Bytes that are read and thrown away after the GOAWAY: closing a socket with unread input resets it,
/// and the peer would see neither why nor the last of what it was sent.
const MAX_DISCARDED: usize = 8 * 1024 * 1024;

/// Bytes read in a turn of the connection's task. The h2 crate decodes every frame that it can read before
/// it hands out the first request, and heads of 1 MiB can become 16 MiB of fields.
const READ_AT_ONCE: usize = 32 * 1024;

/// Requests answered as malformed, above those that were not, after which a connection is ended. Each
/// costs as much as a sound one.
const MOST_MALFORMED: u32 = 100;

/// A socket under guard.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    io: S,
    inbound: FrameScanner,
    greeting: Greeting,
    outbound: FrameScanner,
    meter: Meter,
    clock: Clock,
    state: Rc<GuardState>,
    role: Role,
    discarded: usize,
    shut_down: bool,
}

/// Whether the peer's first frame is SETTINGS. The h2 crate takes any; a peer that sends another does not
/// speak HTTP/2, and needs no GOAWAY (RFC 9113 3.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Greeting {
    Awaited,
    Heard,
    Missed,
}

/// What a connection's task must know of its guard.
#[derive(Debug)]
pub(crate) struct GuardState {
    flood: Cell<Option<Flood>>,
    /// When the peer has had its time to take the GOAWAY.
    end_by: Cell<Nanos>,
    /// The peer's SETTINGS have come.
    settings: Cell<bool>,
    /// Since when the socket has taken nothing of what is to be written.
    stalled: Cell<Option<Nanos>>,
    /// When the peer was last heard.
    heard: Cell<Nanos>,
    /// Bytes that may still be read in this turn, if there are turns.
    allowance: Cell<Option<usize>>,
    /// Malformed requests above the others.
    malformed: Cell<u32>,
}

impl GuardState {
    /// The flood, if there was one. It stays.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// When the peer was last heard.
    pub(crate) fn heard(&self) -> Nanos {
        self.heard.get()
    }

    /// Whether the peer has said what it offers.
    pub(crate) fn has_settings(&self) -> bool {
        self.settings.get()
    }

    /// When the connection is to be dropped as it is: the time for the peer to close it is over, or the
    /// socket has taken nothing for `write_timeout_ms` (0 is no limit).
    pub(crate) fn deadline(&self, write_timeout_ms: u64) -> Nanos {
        let stalled = self
            .stalled
            .get()
            .map_or(Nanos::NEVER, |since| since.after_ms(write_timeout_ms));
        stalled.min(self.end_by.get())
    }

    /// Begins a turn of the connection's task: from now on, no more than [`READ_AT_ONCE`] is read until
    /// the next one, and the tasks of streams get to run in between.
    pub(crate) fn begin_turn(&self) {
        self.allowance.set(Some(READ_AT_ONCE));
    }

    /// Notes whether a head was a request that can be served.
    pub(crate) fn saw_head(&self, is_request: bool, now: Nanos) {
        let malformed = self.malformed.get();
        if is_request {
            self.malformed.set(malformed.saturating_sub(1));
        } else if malformed == MOST_MALFORMED {
            self.report(Flood::Malformed, now);
        } else {
            self.malformed.set(malformed + 1);
        }
    }

    fn report(&self, flood: Flood, now: Nanos) {
        if self.flood.get().is_none() {
            self.flood.set(Some(flood));
            self.end_by.set(now.after_ms(FAREWELL_MS));
        }
    }
}

impl<S> Guarded<S> {
    /// Guards a new connection, before any byte of HTTP/2. Heads of the peer may have `max_head_bytes`.
    pub(crate) fn new(io: S, role: Role, max_head_bytes: usize, clock: Clock) -> Self {
        let (inbound, outbound) = match role {
            Role::Server => (FrameScanner::of_client(), FrameScanner::of_server()),
            Role::Client => (FrameScanner::of_server(), FrameScanner::of_client()),
        };
        let now = clock.now();
        Self {
            io,
            inbound,
            greeting: Greeting::Awaited,
            outbound,
            meter: Meter::new(role, max_head_bytes, now),
            clock,
            state: Rc::new(GuardState {
                flood: Cell::new(None),
                end_by: Cell::new(Nanos::NEVER),
                settings: Cell::new(false),
                stalled: Cell::new(None),
                heard: Cell::new(now),
                allowance: Cell::new(None),
                malformed: Cell::new(0),
            }),
            role,
            discarded: 0,
            shut_down: false,
        }
    }

    /// What the connection's task polls.
    pub(crate) fn state(&self) -> Rc<GuardState> {
        Rc::clone(&self.state)
    }

    /// Scans received bytes. Returns how many may be passed on: those before the frame that is too much.
    fn scan_received(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(head) = self.inbound.next(&mut rest) {
            match self.greeting {
                Greeting::Awaited if head.kind == kind::SETTINGS && !head.has(ACK) => {
                    self.greeting = Greeting::Heard;
                    self.state.settings.set(true);
                }
                Greeting::Awaited => {
                    self.greeting = Greeting::Missed;
                    return 0;
                }
                Greeting::Heard | Greeting::Missed => {}
            }
            if let Err(flood) = self.meter.received(head, &self.clock) {
                self.state.report(flood, self.clock.now());
                // The start of the header may have come earlier; it does not matter then.
                return (bytes.len() - rest.len()).saturating_sub(HEADER_BYTES);
            }
        }
        bytes.len()
    }

    /// Scans bytes that the socket took.
    fn scan_sent(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(head) = self.outbound.next(&mut rest) {
            if let Err(flood) = self.meter.sent(head, &self.clock) {
                self.state.report(flood, self.clock.now());
            }
        }
    }

    /// Notes what came of a write.
    fn wrote(&mut self, result: &Poll<io::Result<usize>>, cx: &Context<'_>) {
        if result.is_ready() {
            self.state.stalled.set(None);
            if self.state.flood().is_some() {
                cx.waker().wake_by_ref();
            }
        } else if self.state.stalled.get().is_none() {
            self.state.stalled.set(Some(self.clock.now()));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.flood().is_some() {
            // The task that polls the connection looks at the state next.
            return Poll::Pending;
        }
        let allowance = this.state.allowance.get();
        if allowance == Some(0) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        this.state.heard.set(this.clock.now());
        let received = &buffer.filled()[before..];
        let count = received.len();
        let left = allowance.map(|allowance| allowance.saturating_sub(count));
        this.state.allowance.set(left);
        let passed = this.scan_received(received);
        if this.greeting == Greeting::Missed {
            buffer.set_filled(before);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if passed < count {
            buffer.set_filled(before + passed);
            cx.waker().wake_by_ref();
            if passed == 0 {
                // Nothing read would be the end of the stream.
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = result {
            this.scan_sent(&bytes[..count]);
        }
        this.wrote(&result, cx);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(mut count)) = result {
            for slice in slices {
                let taken = slice.len().min(count);
                this.scan_sent(&slice[..taken]);
                count -= taken;
            }
        }
        this.wrote(&result, cx);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    /// Sends FIN. Towards a client, and after a flood, also reads and drops what the peer had under way
    /// until it closes; [`GuardState::deadline`] ends that.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut_down {
            std::task::ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.shut_down = true;
            let by = this.clock.now().after_ms(FAREWELL_MS);
            this.state.end_by.set(by.min(this.state.end_by.get()));
        }
        if this.role == Role::Client && this.state.flood().is_none() {
            return Poll::Ready(Ok(()));
        }
        let mut space = [0; 4096];
        while this.discarded < MAX_DISCARDED {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut this.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    this.discarded += buffer.filled().len();
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
