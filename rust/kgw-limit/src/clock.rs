//! Where [`Tick`]s come from.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Tick;

/// A source of the current time.
///
/// The buckets do not need it to be strictly monotonic: a `now` before another thread's is a bucket
/// seen slightly earlier, never a token too many.
pub trait Clock {
    /// The current time.
    fn now(&self) -> Tick;
}

/// The operating system's monotonic clock, counted from its first use in this process.
///
/// All values are the same clock, so times of different `MonotonicClock`s can be mixed.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    #[inline]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Tick {
        static START: OnceLock<Instant> = OnceLock::new();
        Tick::from_duration(START.get_or_init(Instant::now).elapsed())
    }
}

/// A clock that moves when told to. For tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub const fn new(start: Tick) -> Self {
        Self(AtomicU64::new(start.as_raw()))
    }

    /// Moves the clock forward, at most to [`Tick::MAX`].
    pub fn advance(&self, by: Duration) {
        let later = |raw| Some((Tick::from_raw(raw) + by).as_raw());
        let _always_some = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }

    /// Moves the clock to `now`, forward or back.
    pub fn set(&self, now: Tick) {
        self.0.store(now.as_raw(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tick {
        Tick::from_raw(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let first = MonotonicClock.now();
        assert!(MonotonicClock.now() >= first);
    }

    #[test]
    fn a_manual_clock_moves_when_told_to() {
        let clock = ManualClock::new(Tick::from_nanos(5));
        assert_eq!(clock.now(), Tick::from_nanos(5));
        clock.advance(Duration::from_nanos(7));
        assert_eq!(clock.now(), Tick::from_nanos(12));
        clock.set(Tick::ZERO);
        assert_eq!(clock.now(), Tick::ZERO);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Tick::MAX);
    }
}
