//! The buckets of one limit: one for all requests, or one for each key, and who waits for them.
//!
//! A key is the hash of the values that it is made of: 128 bits, by two `SipHash`es with secret random
//! keys, so that nobody can find values that share a bucket. So a bucket is 16 bytes of key whatever a
//! client sends, and no address, token or cookie of a client is kept.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::time::Duration;

use kgw_limit::{
    Denied, Entered, Error, KeyedBucket, KeyedBuckets, Limit, Lines, Place, Promise, Refused,
    Taken, Tick, TokenBucket,
};

/// A bucket for all requests, and one of the same size for each key.
#[derive(Debug)]
pub(crate) struct Bucket {
    of_all: TokenBucket,
    /// Made when the first key comes.
    by_key: OnceLock<KeyedBuckets<Key>>,
    max_keys: usize,
    seeds: [RandomState; 2],
    lines: Lines<Option<Key>>,
}

/// What a bucket is kept by.
pub(crate) type Key = u128;

/// Makes a key of values.
#[derive(Debug)]
pub(crate) struct KeyMaker([<RandomState as BuildHasher>::Hasher; 2]);

impl Bucket {
    /// Full buckets, of at most `max_keys` keys.
    pub(crate) fn new(
        max_tokens: u64,
        tokens_per_fill: u64,
        fill_interval: Duration,
        max_keys: usize,
    ) -> Result<Self, Error> {
        if max_keys == 0 {
            return Err(Error::ZeroMaxKeys);
        }
        Ok(Self {
            of_all: TokenBucket::new(max_tokens, tokens_per_fill, fill_interval)?,
            by_key: OnceLock::new(),
            max_keys,
            seeds: [RandomState::new(), RandomState::new()],
            lines: Lines::new(),
        })
    }

    pub(crate) fn limit(&self) -> &Limit {
        self.of_all.limit()
    }

    /// Begins a key.
    pub(crate) fn key(&self) -> KeyMaker {
        KeyMaker([self.seeds[0].build_hasher(), self.seeds[1].build_hasher()])
    }

    pub(crate) fn take(&self, now: Tick, key: Option<Key>, n: u64) -> Result<Taken, Denied> {
        match self.of_key(key.as_ref()) {
            Some(of_key) => of_key.buckets.take(of_key.key, now, n),
            None => self.of_all.take(now, n),
        }
    }

    /// Whole tokens that are left.
    pub(crate) fn remaining(&self, now: Tick, key: Option<Key>) -> u64 {
        match self.of_key(key.as_ref()) {
            Some(of_key) => of_key.buckets.remaining(of_key.key, now),
            None => self.of_all.remaining(now),
        }
    }

    /// How long until there are `n` tokens.
    pub(crate) fn retry_after(&self, now: Tick, key: Option<Key>, n: u64) -> Option<Duration> {
        match self.of_key(key.as_ref()) {
            Some(of_key) => of_key.buckets.retry_after(of_key.key, now, n),
            None => self.of_all.retry_after(now, n),
        }
    }

    /// Whether it equals a new one, and nobody waits for it.
    pub(crate) fn is_full(&self, now: Tick) -> bool {
        let are_full = self.by_key.get().is_none_or(|buckets| {
            buckets.expire(now);
            buckets.is_empty()
        });
        are_full && self.limit().max_tokens() == self.of_all.remaining(now)
    }

    // === Waiting ===

    /// Takes `n` tokens, or gets in line for them.
    pub(super) fn enter(
        &self,
        now: Tick,
        key: Option<Key>,
        n: u64,
        longest: Duration,
        most: usize,
    ) -> Result<Entered, Refused> {
        match self.of_key(key.as_ref()) {
            Some(of_key) => self.lines.enter(&of_key, &key, now, n, longest, most),
            None => self.lines.enter(&self.of_all, &None, now, n, longest, most),
        }
    }

    /// Asks something of the line of a key.
    pub(super) fn with_line<T>(
        &self,
        key: Option<Key>,
        ask: impl FnOnce(&Lines<Option<Key>>, &dyn Promise) -> T,
    ) -> T {
        match self.of_key(key.as_ref()) {
            Some(of_key) => ask(&self.lines, &of_key),
            None => ask(&self.lines, &self.of_all),
        }
    }

    /// Ends a wait; who is not served gives its tokens back.
    pub(super) fn leave(&self, key: Option<Key>, place: Place, is_served: bool) {
        self.with_line(key, |lines, bucket| {
            lines.leave(bucket, &key, place, is_served);
        });
    }

    fn of_key<'a>(&'a self, key: Option<&'a Key>) -> Option<KeyedBucket<'a, Key>> {
        let key = key?;
        let buckets = self.by_key.get_or_init(|| {
            KeyedBuckets::new(*self.limit(), self.max_keys).expect("there may be keys")
        });
        Some(KeyedBucket { buckets, key })
    }
}

// === impl KeyMaker ===

impl KeyMaker {
    /// Adds a value. Values do not run together.
    pub(crate) fn add(&mut self, value: &[u8]) {
        for hasher in &mut self.0 {
            hasher.write_usize(value.len());
            hasher.write(value);
        }
    }

    pub(crate) fn finish(self) -> Key {
        let [high, low] = self.0.map(|hasher| hasher.finish());
        u128::from(high) << 64 | u128::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::ZERO + Duration::from_secs(seconds)
    }

    fn key(bucket: &Bucket, values: &[&str]) -> Key {
        let mut key = bucket.key();
        for value in values {
            key.add(value.as_bytes());
        }
        key.finish()
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let bucket = Bucket::new(1, 1, Duration::from_secs(60), 100).unwrap();
        let (a, b) = (Some(key(&bucket, &["a"])), Some(key(&bucket, &["b"])));
        assert!(bucket.take(at(0), a, 1).is_ok());
        assert!(!bucket.is_full(at(0)));
        assert!(bucket.take(at(0), a, 1).is_err());
        assert!(bucket.take(at(0), b, 1).is_ok());
        assert!(bucket.take(at(0), None, 1).is_ok());
        assert!(bucket.take(at(0), None, 1).is_err());
        assert!(bucket.is_full(at(60)));
        assert!(bucket.take(at(60), a, 1).is_ok());
    }

    #[test]
    fn keys_are_of_their_values_and_of_no_others() {
        let bucket = Bucket::new(1, 1, Duration::from_secs(60), 100).unwrap();
        assert_eq!(key(&bucket, &["a", "b"]), key(&bucket, &["a", "b"]));
        let others: [&[&str]; 5] = [&["ab"], &["b", "a"], &["a", "b", ""], &["", "ab"], &["a"]];
        for other in others {
            assert_ne!(key(&bucket, &["a", "b"]), key(&bucket, other), "{other:?}");
        }
        let elsewhere = Bucket::new(1, 1, Duration::from_secs(60), 100).unwrap();
        assert_ne!(
            key(&bucket, &["a"]),
            key(&elsewhere, &["a"]),
            "it is seeded"
        );
    }

    #[test]
    fn no_more_keys_are_kept_than_may_be() {
        let bucket = Bucket::new(1, 1, Duration::from_secs(60), 10).unwrap();
        for number in 0..1_000 {
            assert!(bucket.take(at(0), Some(number), 1).is_ok());
        }
        let kept = bucket.by_key.get().unwrap();
        assert_eq!(kept.len(), 10);
        assert_eq!(kept.evicted(), 990);
        let none = Bucket::new(1, 1, Duration::from_secs(60), 0);
        assert_eq!(none.unwrap_err(), Error::ZeroMaxKeys);
    }
}
