//! Token buckets without locks, timers or I/O.
//!
//! * [`Limit`] is the algebra: so many tokens, refilled at such a rate (GCRA, the generic cell
//!   rate algorithm of ITU-T I.371). Immutable and shared by every bucket of one policy.
//! * [`TokenBucket`] is one `Limit` and one `AtomicU64`; [`TokenBucket::take`] is a relaxed
//!   compare-and-swap, and a refused take writes nothing.
//! * [`KeyedBuckets`] is one bucket for each key (client address, header value, identity), bounded in
//!   number.
//! * [`Lines`] is who waits for the tokens of buckets: in the order in which they came, bounded in number.
//! * [`RetryBudget`] is how many of the requests to a backend may be retries, counted over a while.
//! * [`Slots`] is how many of something may be in use at once.
//!
//! Nothing here reads a clock: every operation receives `now`, a [`Tick`]. A [`MonotonicClock`] and,
//! for tests, a [`ManualClock`] provide it.
//!
//! The decisions are those of Envoy's local rate limit filter (`TokenBucketImpl`/`AtomicTokenBucketImpl`,
//! Envoy 1.32 and later): a bucket starts full, refills *continuously* (3 tokens per 60 s is one
//! token every 20 s) and never holds more than its maximum. `tests/envoy.rs` replays decisions
//! recorded from Envoy 1.40.
//!
//! ```
//! use std::time::Duration;
//! use kgw_limit::{Tick, TokenBucket};
//!
//! let bucket = TokenBucket::new(3, 3, Duration::from_secs(60))?;
//! let start = Tick::ZERO;
//! for left in [2, 1, 0] {
//!     assert_eq!(bucket.take(start, 1).unwrap().remaining, left);
//! }
//! let denied = bucket.take(start, 1).unwrap_err();
//! assert_eq!(denied.retry_after, Some(Duration::from_secs(20)));
//! assert!(bucket.take(start + Duration::from_secs(20), 1).is_ok());
//! # Ok::<(), kgw_limit::Error>(())
//! ```

#![forbid(unsafe_code)]

mod bucket;
mod clock;
mod error;
mod keyed;
mod limit;
mod lines;
mod retry_budget;
mod slots;
mod sync;
mod tick;

pub use bucket::TokenBucket;
pub use clock::{Clock, ManualClock, MonotonicClock};
pub use error::Error;
pub use keyed::{DEFAULT_MAX_KEYS, KeyedBuckets};
pub use limit::{Denied, Limit, MIN_FILL_INTERVAL, Taken, Unreserved};
pub use lines::{Entered, KeyedBucket, Lines, Place, Promise, Refused};
pub use retry_budget::RetryBudget;
pub use slots::{Slot, Slots};
pub use tick::Tick;
