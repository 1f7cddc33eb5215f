//! [`Limit`]: the algebra of a token bucket, as pure functions on one number.
//!
//! A bucket's whole state is its *theoretical arrival time* `tat`: the time at which it will be full
//! again. With `cost` the time for one token and `burst = max_tokens * cost`:
//!
//! ```text
//! take n:     new = max(tat, now) + n * cost,   allowed iff new <= now + burst
//! remaining:  (now + burst - max(tat, now)) / cost
//! full:       tat <= now           (so a bucket left alone that long equals a new one)
//! ```
//!
//! This is GCRA. Envoy's `AtomicTokenBucketImpl` keeps the time `T` at which the bucket was empty, as
//! seconds in a double; `tat = T + burst`, and the two take the same decisions.
//!
//! Invariants, none of which needs a check on the way of a request:
//! * `now < 2^63` (see [`Tick`]) and `burst < 2^61`, so `tat < 2^63 + 2^61` and `new < 2^64`;
//! * `cost` is rounded *down*: `tokens_per_fill * cost <= fill_interval`, so a whole interval
//!   always brings all of its tokens.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::{Error, Tick};

/// The shortest fill interval that Envoy accepts, and so [`Limit::new`]: 50 ms.
pub const MIN_FILL_INTERVAL: Duration = Duration::from_millis(50);

/// How many tokens a bucket holds and how quickly they come back.
///
/// Immutable; the state it applies to is in [`TokenBucket`](crate::TokenBucket) or
/// [`KeyedBuckets`](crate::KeyedBuckets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Time for one token, in units of `2^grain` ticks.
    cost: NonZeroU64,
    /// Time to fill the bucket, in the same unit.
    burst: u64,
    max_tokens: u64,
    /// Zero, except where `burst` would not fit: a bucket that needs more than 4.5 years to fill
    /// counts in coarser ticks (always finer than a thousandth of a token).
    grain: u32,
}

/// A granted take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whole tokens left (Envoy's `x-ratelimit-remaining`).
    pub remaining: u64,
}

/// A refused take. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rate limited")]
pub struct Denied {
    /// Whole tokens left; fewer than were asked for.
    pub remaining: u64,
    /// When the same take can succeed if nobody else takes any, rounded up to a nanosecond.
    /// `None`: never, more was asked for than the bucket can hold.
    pub retry_after: Option<Duration>,
}

/// Tokens that were not promised. Nothing was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreserved {
    /// The bucket can never hold as many, or promises would reach more than 4.5 years ahead.
    #[error("the bucket will never have the tokens")]
    Never,
    /// The caller would have to wait longer than it is willing to.
    #[error("the tokens are there in {wait:?} only")]
    TooLate {
        /// How long it would have to wait, rounded up to a nanosecond.
        wait: Duration,
    },
}

/// Bits of a bucket's `burst`.
const BURST_BITS: u32 = 61;

/// The least `cost` of a bucket with coarser ticks: keeps the rounding of its rate below 0.1 %.
const MIN_COARSE_COST: u64 = 1 << 10;

impl Limit {
    /// A bucket of at most `max_tokens`, to which `tokens_per_fill` come back every `fill_interval`.
    ///
    /// Zero `max_tokens` refuses everything, as in Envoy.
    ///
    /// # Errors
    /// [`Error::IntervalTooShort`] below [`MIN_FILL_INTERVAL`], and those of [`Limit::with_rate`].
    pub fn new(
        max_tokens: u64,
        tokens_per_fill: u64,
        fill_interval: Duration,
    ) -> Result<Self, Error> {
        if fill_interval < MIN_FILL_INTERVAL {
            return Err(Error::IntervalTooShort {
                interval: fill_interval,
            });
        }
        Self::with_rate(max_tokens, tokens_per_fill, fill_interval)
    }

    /// As [`Limit::new`], with any interval above zero.
    ///
    /// # Errors
    /// [`Error::ZeroInterval`], [`Error::ZeroTokensPerFill`], [`Error::RateTooHigh`] (more than 16
    /// tokens a nanosecond), [`Error::CapacityTooLarge`].
    pub fn with_rate(
        max_tokens: u64,
        tokens_per_fill: u64,
        interval: Duration,
    ) -> Result<Self, Error> {
        if interval.is_zero() {
            return Err(Error::ZeroInterval);
        }
        if tokens_per_fill == 0 {
            return Err(Error::ZeroTokensPerFill);
        }
        let exact = interval.as_nanos() * u128::from(Tick::PER_NANOSECOND); // < 2^98
        let cost = exact / u128::from(tokens_per_fill);
        if cost == 0 {
            return Err(Error::RateTooHigh {
                tokens_per_fill,
                interval,
            });
        }
        // cost < 2^a and max_tokens < 2^b, so (cost >> grain) * max_tokens < 2^BURST_BITS
        let bits = (u128::BITS - cost.leading_zeros()) + (u64::BITS - max_tokens.leading_zeros());
        let grain = bits.saturating_sub(BURST_BITS);
        let too_large = || Error::CapacityTooLarge {
            max_tokens,
            nanos: cost / u128::from(Tick::PER_NANOSECOND),
        };
        let cost = u64::try_from(cost >> grain)
            .ok()
            .and_then(NonZeroU64::new)
            .ok_or_else(too_large)?;
        if grain > 0 && (cost.get() < MIN_COARSE_COST || grain >= u64::BITS) {
            return Err(too_large());
        }
        Ok(Self {
            cost,
            burst: cost.get() * max_tokens,
            max_tokens,
            grain,
        })
    }

    /// The most tokens a bucket holds.
    #[inline]
    pub const fn max_tokens(&self) -> u64 {
        self.max_tokens
    }

    /// The time for one token to come back, rounded up to a nanosecond. A limit with a longer one is the
    /// slower one, whatever the sizes of the buckets.
    #[must_use]
    pub fn token_time(&self) -> Duration {
        self.span(self.cost.get())
    }

    /// The time for an empty bucket to fill, rounded up to a nanosecond.
    #[must_use]
    pub fn fill_time(&self) -> Duration {
        self.span(self.burst)
    }

    /// Decides on `n` tokens from a bucket in state `tat`; with a grant comes its next state.
    #[inline]
    pub(crate) fn take(&self, tat: u64, now: Tick, n: u64) -> Result<(u64, Taken), Denied> {
        let at = self.grains(now);
        let base = tat.max(at);
        let full = at + self.burst;
        if n > self.max_tokens {
            return Err(Denied {
                remaining: self.tokens(full, base),
                retry_after: None,
            });
        }
        let new = base + n * self.cost.get();
        if new <= full || n == 0 {
            return Ok((
                new,
                Taken {
                    remaining: self.tokens(full, new),
                },
            ));
        }
        Err(Denied {
            remaining: self.tokens(full, base),
            retry_after: Some(self.wait(now, new - self.burst)),
        })
    }

    /// Promises `n` tokens to come: the next state, and how long until they are there.
    ///
    /// `None` if there will never be `n`, or the promises would reach more than 4.5 years ahead.
    pub(crate) fn reserve(&self, tat: u64, now: Tick, n: u64) -> Option<(u64, Duration)> {
        if n > self.max_tokens {
            return None;
        }
        let at = self.grains(now);
        let new = tat.max(at) + n * self.cost.get();
        if new - at > 1 << BURST_BITS {
            return None;
        }
        let ready = new.saturating_sub(self.burst);
        Some((
            new,
            if n == 0 || ready <= at {
                Duration::ZERO
            } else {
                self.wait(now, ready)
            },
        ))
    }

    /// As [`reserve`](Self::reserve), for a caller that waits for `longest` at most.
    pub(crate) fn reserve_within(
        &self,
        tat: u64,
        now: Tick,
        n: u64,
        longest: Duration,
    ) -> Result<(u64, Duration), Unreserved> {
        match self.reserve(tat, now, n) {
            None => Err(Unreserved::Never),
            Some((_, wait)) if wait > longest => Err(Unreserved::TooLate { wait }),
            Some(reserved) => Ok(reserved),
        }
    }

    /// How long until all that was promised is there, but for the last `behind` tokens.
    pub(crate) fn ready_in(&self, tat: u64, now: Tick, behind: u64) -> Duration {
        let last = self.refund(tat, behind);
        let ready = last.saturating_sub(self.burst);
        if ready <= self.grains(now) {
            return Duration::ZERO;
        }
        self.wait(now, ready)
    }

    /// The state after `n` taken tokens are put back. More than were taken fill the bucket, no more.
    pub(crate) fn refund(&self, tat: u64, n: u64) -> u64 {
        tat.saturating_sub(n.saturating_mul(self.cost.get()))
    }

    /// Whole tokens in a bucket in state `tat`.
    #[inline]
    pub(crate) fn remaining(&self, tat: u64, now: Tick) -> u64 {
        let at = self.grains(now);
        self.tokens(at + self.burst, tat.max(at))
    }

    /// How long until `n` tokens are there if nobody takes any; `None` if that is never.
    pub(crate) fn retry_after(&self, tat: u64, now: Tick, n: u64) -> Option<Duration> {
        match self.take(tat, now, n) {
            Ok(_) => Some(Duration::ZERO),
            Err(denied) => denied.retry_after,
        }
    }

    /// Whether a bucket in state `tat` equals a new one.
    #[inline]
    pub(crate) fn is_full(&self, tat: u64, now: Tick) -> bool {
        tat <= self.grains(now)
    }

    #[inline]
    fn grains(&self, now: Tick) -> u64 {
        now.as_raw() >> self.grain
    }

    #[inline]
    fn tokens(&self, full: u64, base: u64) -> u64 {
        full.saturating_sub(base) / self.cost
    }

    /// A span of grains, rounded up to a nanosecond.
    fn span(&self, grains: u64) -> Duration {
        let nanos = (u128::from(grains) << self.grain).div_ceil(u128::from(Tick::PER_NANOSECOND));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// From `now` until `ready` (in grains), rounded up: a take after exactly that long succeeds.
    #[inline]
    fn wait(&self, now: Tick, ready: u64) -> Duration {
        let ticks = (u128::from(ready) << self.grain).saturating_sub(u128::from(now.as_raw()));
        let nanos = ticks.div_ceil(u128::from(Tick::PER_NANOSECOND));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
