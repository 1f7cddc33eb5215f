//! Time for the data plane: one clock per engine, real or turned by hand.
//!
//! Every deadline is a [`Nanos`] of this clock and every wait goes through a [`Timer`], so a test that
//! turns the clock by hand sees the whole proxy move: buckets refill, time-outs fire, logs are dated.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::Sleep;

/// Nanoseconds since the engine was made.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Nanos(pub(crate) u64);

impl Nanos {
    /// A deadline that never comes.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// This moment plus `milliseconds`, where 0 milliseconds mean "no limit".
    #[must_use]
    pub(crate) fn after_ms(self, milliseconds: u64) -> Self {
        if milliseconds == 0 {
            Self::NEVER
        } else {
            Self(
                self.0
                    .saturating_add(milliseconds.saturating_mul(1_000_000)),
            )
        }
    }

    /// Nanoseconds from `earlier` to this moment, 0 if it is not earlier.
    #[must_use]
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The engine's clock. A clone is the same clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Arc<Source>);

#[derive(Debug)]
struct Source {
    origin: Instant,
    origin_wall: Duration,
    manual: Option<Manual>,
}

/// Time that is turned by hand.
#[derive(Debug)]
struct Manual {
    now: AtomicU64,
    /// The first deadline that anything has waited for since the last turn.
    next: AtomicU64,
}

impl Clock {
    /// The operating system's monotonic clock.
    pub(crate) fn system() -> Self {
        Self::new(None)
    }

    /// A clock that stands still until [`Clock::advance`].
    pub(crate) fn manual() -> Self {
        Self::new(Some(Manual {
            now: AtomicU64::default(),
            next: AtomicU64::new(Nanos::NEVER.0),
        }))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn new(manual: Option<Manual>) -> Self {
        Self(Arc::new(Source {
            origin: Instant::now(),
            origin_wall: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            manual,
        }))
    }

    /// Returns whether the clock is turned by hand.
    pub(crate) fn is_manual(&self) -> bool {
        self.0.manual.is_some()
    }

    /// Now.
    pub(crate) fn now(&self) -> Nanos {
        match &self.0.manual {
            Some(manual) => Nanos(manual.now.load(Ordering::Acquire)),
            None => Nanos(self.0.origin.elapsed().as_nanos() as u64),
        }
    }

    /// The date of `moment`: nanoseconds since 1970-01-01T00:00:00Z.
    ///
    /// Dates follow the monotonic clock from the engine's start on, so a step of the system's date
    /// moves no log line before its predecessor.
    pub(crate) fn wall_nanos(&self, moment: Nanos) -> u64 {
        (self.0.origin_wall.as_nanos() as u64).saturating_add(moment.0)
    }

    /// Turns a manual clock; a system clock does not move.
    pub(crate) fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0.manual {
            manual.now.fetch_add(by.as_nanos() as u64, Ordering::AcqRel);
            // Whoever waits is woken after this, and says again for what.
            manual.next.store(Nanos::NEVER.0, Ordering::Release);
        }
    }

    /// How long from now the first deadline is that anything has waited for since the manual clock
    /// was turned last; none if nothing has, or the clock is the system's.
    ///
    /// What waited may have ended meanwhile. Zero says to turn the clock by nothing and ask again: a
    /// task has named its deadline just as the clock passed it.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let next = Nanos(self.0.manual.as_ref()?.next.load(Ordering::Acquire));
        (next != Nanos::NEVER).then(|| Duration::from_nanos(next.since(self.now())))
    }
}

/// A re-armable deadline that costs nothing to move.
///
/// A request's time-outs only change the deadline that the next poll names. The runtime's timer stays
/// armed for the earliest moment asked for and is armed again when it fires too early, which spares
/// two timer-wheel operations a request.
#[derive(Debug)]
pub(crate) struct Timer {
    clock: Clock,
    sleep: Option<Pin<Box<Sleep>>>,
    armed_for: Nanos,
}

impl Timer {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            sleep: None,
            armed_for: Nanos::NEVER,
        }
    }

    /// Ready once `deadline` has come. With a manual clock the worker wakes the task on each turn.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Nanos) -> Poll<()> {
        if deadline == Nanos::NEVER {
            return Poll::Pending;
        }
        // As long as what is armed for no later has not fired, the clock need not be read.
        if self.armed_for <= deadline
            && let Some(sleep) = &mut self.sleep
        {
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed_for = Nanos::NEVER;
        }
        let now = self.clock.now();
        if now >= deadline {
            return Poll::Ready(());
        }
        if let Some(manual) = &self.clock.0.manual {
            manual.next.fetch_min(deadline.0, Ordering::AcqRel);
            return Poll::Pending;
        }
        // The runtime's timer counts in milliseconds, so it can fire within one of them.
        self.arm(now, deadline).poll(cx)
    }

    fn arm(&mut self, now: Nanos, deadline: Nanos) -> Pin<&mut Sleep> {
        self.armed_for = deadline;
        let wait = Duration::from_nanos(deadline.since(now));
        match &mut self.sleep {
            Some(sleep) => {
                let at = tokio::time::Instant::now() + wait;
                sleep.as_mut().reset(at);
                sleep.as_mut()
            }
            none => none.insert(Box::pin(tokio::time::sleep(wait))).as_mut(),
        }
    }
}
