//! The local rate limit: a token bucket in the process (Envoy `local_ratelimit`).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kgw_limit::{DEFAULT_MAX_KEYS, Denied, Error, KeyedBuckets, Tick, TokenBucket};

use crate::clock::Nanos;
use crate::pipeline::reply::Reply;

/// A bucket that each request takes one token of.
#[derive(Debug)]
pub(crate) struct LocalRateLimit {
    pub(crate) bucket: Arc<Bucket>,
}

/// A bucket for all requests, and one of the same size for each key that a filter gave a request, for at
/// most [`DEFAULT_MAX_KEYS`] of them.
#[derive(Debug)]
pub(crate) struct Bucket {
    of_all: TokenBucket,
    /// Made when the first key comes.
    by_key: OnceLock<Option<KeyedBuckets<String>>>,
}

impl LocalRateLimit {
    pub(crate) fn on_request(&self, now: Nanos, key: Option<&str>) -> Result<(), Reply> {
        match self.bucket.take(Tick::from_nanos(now.0), key) {
            Ok(()) => Ok(()),
            Err(denied) => Err(Reply::rate_limited(denied.retry_after)),
        }
    }
}

impl Bucket {
    pub(crate) fn new(
        max_tokens: u64,
        tokens_per_fill: u64,
        fill_interval: Duration,
    ) -> Result<Self, Error> {
        Ok(Self {
            of_all: TokenBucket::new(max_tokens, tokens_per_fill, fill_interval)?,
            by_key: OnceLock::new(),
        })
    }

    fn take(&self, now: Tick, key: Option<&str>) -> Result<(), Denied> {
        let by_key = key.and_then(|key| {
            let buckets = self.by_key.get_or_init(|| {
                let limit = *self.of_all.limit();
                KeyedBuckets::new(limit, DEFAULT_MAX_KEYS).ok()
            });
            Some((buckets.as_ref()?, key))
        });
        match by_key {
            Some((buckets, key)) => buckets.take(key, now, 1).map(drop),
            None => self.of_all.take(now, 1).map(drop),
        }
    }

    /// Whether it equals a new one.
    pub(crate) fn is_full(&self, now: Tick) -> bool {
        let by_key = self.by_key.get().and_then(Option::as_ref);
        let are_full = by_key.is_none_or(|buckets| {
            buckets.expire(now);
            buckets.is_empty()
        });
        are_full && self.of_all.limit().max_tokens() == self.of_all.remaining(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let bucket = Bucket::new(1, 1, Duration::from_secs(60)).unwrap();
        let now = Tick::from_nanos(0);
        assert!(bucket.take(now, Some("a")).is_ok());
        assert!(!bucket.is_full(now));
        assert!(bucket.take(now, Some("a")).is_err());
        assert!(bucket.take(now, Some("b")).is_ok());
        assert!(bucket.take(now, None).is_ok());
        assert!(bucket.take(now, None).is_err());
        let later = Tick::from_nanos(60_000_000_000);
        assert!(bucket.is_full(later));
        assert!(bucket.take(later, Some("a")).is_ok());
    }
}
