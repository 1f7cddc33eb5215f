//! A tunnel: bytes both ways, whatever they are, until both sides have said that nothing more comes.
//!
//! It serves connections that carry no HTTP and requests that have become connections (CONNECT,
//! WebSocket). Each direction goes its own way:
//!
//! 1. Input is taken only while the other side's output has room, so a slow reader slows its writer
//!    down, and a tunnel holds a bounded number of bytes.
//! 2. The end of one side is passed on after its last byte; the other direction goes on.
//! 3. A side that fails is lost in both directions. What it sent before is still delivered, for at
//!    most [`LAST_BYTES_MS`]; then the other side is reset, so that nobody takes the loss for an end.
//! 4. A tunnel ends by itself when nothing moved for its idle time. A worker that drains lets it run.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::io::{BODY_BUFFER, MIN_THROUGH, Traffic};
use super::pipe::Pipe;
use crate::clock::{Nanos, Timer};
use crate::runtime::{Phase, Registration, Worker};

/// Time for one side to take what the other had sent before it failed. Milliseconds.
const LAST_BYTES_MS: u64 = 1_000;

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// Both sides finished sending, and everything was delivered.
    Complete,
    /// The client's side failed: a reset, mostly.
    DownstreamFailed,
    /// The upstream's side failed.
    UpstreamFailed,
    /// Nothing moved for the idle time.
    Idle,
    /// The engine closes its connections.
    Closing,
}

/// How a tunnel ended, and what went through it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// Bytes that went through the client's side.
    pub(crate) down: Traffic,
    /// Bytes that went through the upstream's side.
    pub(crate) up: Traffic,
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Down,
    Up,
}

/// One of the two directions, by the side that it comes from.
#[derive(Debug)]
struct Direction {
    from: Side,
    /// Nothing more is to be received.
    exhausted: bool,
    /// The end was passed on.
    finished: bool,
}

/// Moves bytes between `down` and `up` to the end of the tunnel, which is `idle_ms` after the last
/// byte (0: never) unless the sides end it. Resets the side that is left when the other fails; the
/// caller drops both.
///
/// Dropping the future ends the tunnel where it is.
pub(crate) async fn run<D: Pipe, U: Pipe>(
    down: &mut D,
    up: &mut U,
    timer: &mut Timer,
    registration: &Registration,
    worker: &Worker,
    idle_ms: u64,
) -> Outcome {
    let (down_before, up_before) = (down.traffic(), up.traffic());
    let mut request = Direction::new(Side::Down);
    let mut answer = Direction::new(Side::Up);
    let mut moved_at = worker.now();
    let mut failed: Option<(Side, Nanos)> = None;
    let end = poll_fn(|cx| {
        registration.update(cx);
        let now = worker.now();
        loop {
            let mut moved = false;
            for direction in [&mut request, &mut answer] {
                let lost = failed.map(|(side, _)| side);
                // What would go to a side that failed goes nowhere.
                if lost.is_some_and(|side| side != direction.from) {
                    continue;
                }
                let polled = match direction.from {
                    Side::Down => direction.poll(cx, down, up, lost.is_some(), worker),
                    Side::Up => direction.poll(cx, up, down, lost.is_some(), worker),
                };
                match (polled, lost) {
                    (Ok(progress), _) => moved |= progress,
                    (Err(side), None) => {
                        moved = true;
                        failed = Some((side, now.after_ms(LAST_BYTES_MS)));
                    }
                    // Now both are lost.
                    (Err(_), Some(side)) => return Poll::Ready(End::of_failed(side)),
                }
            }
            if request.finished && answer.finished {
                return Poll::Ready(End::Complete);
            }
            if let Some((side, _)) = failed {
                let delivered = match side {
                    Side::Down => request.exhausted && up.unsent() == 0,
                    Side::Up => answer.exhausted && down.unsent() == 0,
                };
                if delivered {
                    return Poll::Ready(End::of_failed(side));
                }
            }
            if !moved {
                break;
            }
            moved_at = now;
        }
        if worker.phase() == Phase::Closing {
            return Poll::Ready(End::Closing);
        }
        // A tunnel that waits holds next to nothing; thousands of them would.
        down.release_buffers();
        up.release_buffers();
        let (deadline, end) = match failed {
            Some((side, deadline)) => (deadline, End::of_failed(side)),
            None => (moved_at.after_ms(idle_ms), End::Idle),
        };
        timer.poll(cx, deadline).map(|()| end)
    })
    .await;
    let outcome = self::end(end, down, up);
    Outcome {
        down: outcome.down.since(down_before),
        up: outcome.up.since(up_before),
        ..outcome
    }
}

/// Ends a tunnel: one side learns that the other failed, if that is why. The outcome counts everything
/// that went through the sides.
pub(crate) fn end<D: Pipe, U: Pipe>(end: End, down: &mut D, up: &mut U) -> Outcome {
    match end {
        End::DownstreamFailed => up.reset(),
        End::UpstreamFailed => down.reset(),
        End::Complete | End::Idle | End::Closing => {}
    }
    Outcome {
        end,
        down: down.traffic(),
        up: up.traffic(),
    }
}

impl End {
    fn of_failed(side: Side) -> Self {
        match side {
            Side::Down => Self::DownstreamFailed,
            Side::Up => Self::UpstreamFailed,
        }
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Down => Self::Up,
            Self::Up => Self::Down,
        }
    }
}

impl Direction {
    fn new(from: Side) -> Self {
        Self {
            from,
            exhausted: false,
            finished: false,
        }
    }

    /// Moves what can be moved now. Returns whether anything was; an error names the side that
    /// failed. If `lost`, the side that it comes from has failed: what is there is delivered, the end
    /// is not.
    fn poll<F: Pipe, T: Pipe>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        lost: bool,
        worker: &Worker,
    ) -> Result<bool, Side> {
        if self.finished {
            return Ok(false);
        }
        let mut moved = false;
        let mut broke = false;
        if to.has_room() {
            if from.input().is_empty() && !self.exhausted {
                match receive(cx, from, to, worker) {
                    Poll::Ready(Ok(count)) => {
                        self.exhausted = count == 0;
                        // The end is news as much as a byte is.
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => {
                        self.exhausted = true;
                        broke = !lost;
                    }
                    Poll::Pending => {}
                }
            }
            let count = from.input().len();
            if count > 0 {
                match to.stream() {
                    Some(to) if count >= MIN_THROUGH => {
                        to.write_through(cx, from.input());
                    }
                    _ => to.write(from.input()),
                }
                from.consume(count);
                moved = true;
            }
        }
        let before = to.unsent();
        if before > 0 {
            match to.poll_flush(cx) {
                Poll::Ready(Ok(())) | Poll::Pending => moved |= to.unsent() < before,
                Poll::Ready(Err(_)) => return Err(self.from.other()),
            }
        }
        if broke {
            return Err(self.from);
        }
        if self.exhausted && !lost && from.input().is_empty() && to.unsent() == 0 {
            match to.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {
                    self.finished = true;
                    moved = true;
                }
                Poll::Ready(Err(_)) => return Err(self.from.other()),
                Poll::Pending => {}
            }
        }
        Ok(moved)
    }
}

/// Receives once; without a copy, it has then moved to the other side's output.
fn receive<F: Pipe, T: Pipe>(
    cx: &mut Context<'_>,
    from: &mut F,
    to: &mut T,
    worker: &Worker,
) -> Poll<io::Result<usize>> {
    if let (Some(from), Some(to)) = (from.stream(), to.stream())
        && let Some(polled) = to.poll_splice(cx, from, usize::MAX).counted(worker.stats())
    {
        return polled;
    }
    from.poll_fill(cx, BODY_BUFFER)
}
