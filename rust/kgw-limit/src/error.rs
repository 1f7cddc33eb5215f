//! Why a limit cannot be built.

use std::time::Duration;

use crate::MIN_FILL_INTERVAL;

/// A limit that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bucket would take so long to fill that a token's time cannot be kept to 0.1 %.
    ///
    /// Every maximum below 2^50 is fine at any interval up to a century.
    #[error("max_tokens {max_tokens} is too large for one token every {}", per_token(*.nanos))]
    CapacityTooLarge {
        /// The maximum that was asked for.
        max_tokens: u64,
        /// Nanoseconds for one token.
        nanos: u128,
    },
    /// The fill interval is below [`MIN_FILL_INTERVAL`], which Envoy refuses too.
    #[error("fill_interval {interval:?} is below the minimum of {MIN_FILL_INTERVAL:?}")]
    IntervalTooShort {
        /// The interval that was asked for.
        interval: Duration,
    },
    /// More than 16 tokens a nanosecond.
    #[error("{tokens_per_fill} tokens every {interval:?} is more than 16 tokens per nanosecond")]
    RateTooHigh {
        /// The tokens of one interval.
        tokens_per_fill: u64,
        /// The interval.
        interval: Duration,
    },
    /// The fill interval is zero.
    #[error("fill_interval must not be zero")]
    ZeroInterval,
    /// Keyed buckets with room for no key.
    #[error("max_keys must be at least 1")]
    ZeroMaxKeys,
    /// A bucket that would never refill.
    #[error("tokens_per_fill must be at least 1")]
    ZeroTokensPerFill,
}

fn per_token(nanos: u128) -> String {
    format!(
        "{:?}",
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    )
}
