//! [`Tick`]: the unit of time of the buckets.

use std::ops::Add;
use std::time::Duration;

/// A point in time: sixteenths of a nanosecond since some start, usually that of the process.
///
/// **Why 1/16 ns.** A bucket keeps "time for one token" as a whole number of ticks. At 3/60 s that is
/// exact (20 s); at 3 million tokens per second it is 5333⅓ ticks, so rounding down costs 0.006 %
/// (whole nanoseconds would cost 0.1 %).
///
/// **Range.** `0 ..= 2^63 - 1`: 18.2 years after the start. Conversions saturate, so a bucket older
/// than that stops refilling instead of wrapping around. The top bit stays free: that is what lets the
/// algebra of [`Limit`](crate::Limit) add without overflow checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The start.
    pub const ZERO: Self = Self(0);
    /// The last representable time, 18.2 years after the start.
    pub const MAX: Self = Self(u64::MAX >> 1);
    /// Ticks in a nanosecond.
    pub const PER_NANOSECOND: u64 = 16;
    /// Ticks in a second.
    pub const PER_SECOND: u64 = 1_000_000_000 * Self::PER_NANOSECOND;

    /// The time `nanos` nanoseconds after the start, at most [`Tick::MAX`].
    #[inline]
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self::from_raw(nanos.saturating_mul(Self::PER_NANOSECOND))
    }

    /// The time `since_start` after the start, at most [`Tick::MAX`].
    #[inline]
    #[must_use]
    pub const fn from_duration(since_start: Duration) -> Self {
        let nanos = since_start
            .as_secs()
            .saturating_mul(1_000_000_000)
            .saturating_add(since_start.subsec_nanos() as u64);
        Self::from_nanos(nanos)
    }

    /// The time `seconds` after the start, rounded to the nearest tick, at most [`Tick::MAX`].
    ///
    /// `None` for a negative number or NaN.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // 16e9 is exact; sign is checked
    pub fn from_secs_f64(seconds: f64) -> Option<Self> {
        (seconds >= 0.0).then(|| Self::from_raw((seconds * Self::PER_SECOND as f64).round() as u64))
    }

    /// The time `ticks` ticks after the start, at most [`Tick::MAX`].
    #[inline]
    #[must_use]
    pub const fn from_raw(ticks: u64) -> Self {
        if ticks > Self::MAX.0 {
            Self::MAX
        } else {
            Self(ticks)
        }
    }

    /// Ticks since the start.
    #[inline]
    #[must_use]
    pub const fn as_raw(self) -> u64 {
        self.0
    }

    /// Time since the start, rounded down to whole nanoseconds.
    #[inline]
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0 / Self::PER_NANOSECOND)
    }
}

/// A later time, at most [`Tick::MAX`].
impl Add<Duration> for Tick {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self::from_raw(self.0 + Self::from_duration(later).0) // two 63-bit numbers fit 64 bits
    }
}

impl From<Duration> for Tick {
    fn from(since_start: Duration) -> Self {
        Self::from_duration(since_start)
    }
}

impl From<Tick> for Duration {
    fn from(tick: Tick) -> Self {
        tick.as_duration()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nanosecond_is_sixteen_ticks() {
        assert_eq!(Tick::from_nanos(1).as_raw(), 16);
        assert_eq!(
            Tick::from_duration(Duration::new(2, 3)).as_raw(),
            32_000_000_048
        );
        assert_eq!(
            Tick::from_nanos(123_456_789).as_duration(),
            Duration::from_nanos(123_456_789)
        );
        assert_eq!(
            Tick::from_secs_f64(0.5),
            Some(Tick::from_raw(8_000_000_000))
        );
    }

    #[test]
    fn conversions_saturate() {
        assert_eq!(Tick::from_duration(Duration::MAX), Tick::MAX);
        assert_eq!(Tick::from_nanos(u64::MAX), Tick::MAX);
        assert_eq!(Tick::from_raw(u64::MAX), Tick::MAX);
        assert_eq!(Tick::from_secs_f64(f64::INFINITY), Some(Tick::MAX));
        assert_eq!(Tick::MAX + Duration::MAX, Tick::MAX);
        assert_eq!(Tick::MAX + Duration::from_nanos(1), Tick::MAX);
    }

    #[test]
    fn a_time_is_a_number_of_seconds_not_before_the_start() {
        assert_eq!(Tick::from_secs_f64(-0.1), None);
        assert_eq!(Tick::from_secs_f64(f64::NAN), None);
        assert_eq!(Tick::from_secs_f64(-0.0), Some(Tick::ZERO));
    }

    #[test]
    fn the_range_is_eighteen_years() {
        let years = Tick::MAX.as_duration().as_secs() / (365 * 86_400);
        assert_eq!(years, 18);
    }
}
