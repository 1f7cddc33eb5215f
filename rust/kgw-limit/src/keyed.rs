//! [`KeyedBuckets`]: a bucket for each key, bounded in number.
//!
//! Keys are spread over shards, each a mutex around a hash index into a dense vector of entries. A
//! hand walks that vector (CLOCK): an insertion looks at two entries under the hand and drops those
//! that are full again, which loses nothing, as such a bucket equals a new one. When all room is used, the
//! hand moves on to the first entry that is full or was not used since its last visit and replaces
//! it. Every step of that walk clears a mark that a take had set, so the cost is O(1) amortised.
//!
//! Room is shared: each shard owns one slot and the rest are a common pool, so the total never
//! exceeds `max_keys` and no shard evicts because keys happen to be spread unevenly.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::{Denied, Error, Limit, Taken, Tick, Unreserved};

/// A sensible bound on keys: about 1 MB of state with short keys.
pub const DEFAULT_MAX_KEYS: usize = 10_000;

/// A token bucket for each key, for at most `max_keys` keys.
///
/// A key that is not stored has a full bucket. A bucket that is full again is dropped in passing.
/// When there is room for no more, the least recently used (by CLOCK) gives way *even if it is not full*,
/// and starts again as a full bucket should its key return; [`evicted`](Self::evicted) counts
/// those, and a number that grows means that `max_keys` is too small. (The alternative, to refuse new keys,
/// would let anyone who can invent 10,000 keys lock everybody else out.) A key that keeps
/// asking, even in vain, counts as used, so the ones being limited are the last to be forgotten.
///
/// Keys are hashed with a random seed: which of them collide cannot be planned. The bound is on the number of
/// keys; their own length is the caller's to bound.
#[derive(Debug)]
pub struct KeyedBuckets<K> {
    limit: Limit,
    hasher: RandomState,
    shards: Box<[Shard<K>]>,
    /// Free slots beyond the one that each shard owns.
    pool: AtomicUsize,
    evicted: AtomicU64,
}

#[derive(Debug)]
#[repr(align(64))]
struct Shard<K>(Mutex<Entries<K>>);

#[derive(Debug)]
struct Entries<K> {
    /// Positions in `dense`, by hash of the key.
    index: HashTable<usize>,
    dense: Vec<Entry<K>>,
    hand: usize,
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    hash: u64,
    tat: u64,
    used: bool,
}

/// Keys per shard, at least, and shards at most: a small table is one shard, so that what it evicts
/// is chosen among all keys; in a large one two threads rarely meet.
const KEYS_PER_SHARD: usize = 64;
const MAX_SHARDS: usize = 64;

/// Entries an insertion looks at to drop full ones. With two, the hand gains on the growth.
const SWEEP: usize = 2;

impl<K: Hash + Eq> KeyedBuckets<K> {
    /// Buckets of `limit` for at most `max_keys` keys.
    ///
    /// # Errors
    /// [`Error::ZeroMaxKeys`].
    pub fn new(limit: Limit, max_keys: usize) -> Result<Self, Error> {
        if max_keys == 0 {
            return Err(Error::ZeroMaxKeys);
        }
        let shards = (max_keys / KEYS_PER_SHARD).clamp(1, MAX_SHARDS);
        let shards = 1 << shards.ilog2(); // a power of two, at most max_keys
        Ok(Self {
            limit,
            hasher: RandomState::default(),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            pool: AtomicUsize::new(max_keys - shards),
            evicted: AtomicU64::new(0),
        })
    }

    /// The limit of every bucket.
    #[inline]
    pub const fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Takes `n` tokens from the bucket of `key`, or none.
    ///
    /// # Errors
    /// [`Denied`] if there are fewer than `n`. A refusal changes no bucket.
    pub fn take<Q>(&self, key: &Q, now: Tick, n: u64) -> Result<Taken, Denied>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.change(key, now, |tat| self.limit.take(tat, now, n))
    }

    /// Takes `n` tokens from the bucket of `key`, now or as soon as they are there, for a caller that
    /// waits for `longest` at most; says how long. As in
    /// [`TokenBucket::reserve_within`](crate::TokenBucket::reserve_within).
    ///
    /// A key that is evicted loses what was reserved, as it loses what was taken.
    ///
    /// # Errors
    /// [`Unreserved`], and then no bucket has changed.
    pub fn reserve_within<Q>(
        &self,
        key: &Q,
        now: Tick,
        n: u64,
        longest: Duration,
    ) -> Result<Duration, Unreserved>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.change(key, now, |tat| {
            self.limit.reserve_within(tat, now, n, longest)
        })
    }

    /// Puts `n` tokens back into the bucket of `key`. It never holds more than its maximum.
    pub fn refund<Q>(&self, key: &Q, n: u64)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        if let Some(entry) = self.shard(hash).lock().find_mut(hash, key) {
            entry.tat = self.limit.refund(entry.tat, n);
        }
    }

    /// How long until everything reserved for `key` is there, but for the `behind` tokens that were
    /// reserved last.
    pub fn ready_in<Q>(&self, key: &Q, now: Tick, behind: u64) -> Duration
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.limit.ready_in(self.tat(key), now, behind)
    }

    /// Whole tokens in the bucket of `key`.
    pub fn remaining<Q>(&self, key: &Q, now: Tick) -> u64
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.limit.remaining(self.tat(key), now)
    }

    /// How long until the bucket of `key` has `n` tokens: zero if it has, `None` if it never will.
    pub fn retry_after<Q>(&self, key: &Q, now: Tick, n: u64) -> Option<Duration>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.limit.retry_after(self.tat(key), now, n)
    }

    /// Stored keys, at most `max_keys`. Some may be full again and not yet dropped.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.0.lock().dense.len())
            .sum()
    }

    /// Whether no key is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many buckets were dropped before they were full again, for want of room.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Drops every bucket that is full again, and returns how many. Never needed for correctness or for the bound;
    /// it frees keys early when traffic has stopped. Locks one shard at a time.
    pub fn expire(&self, now: Tick) -> usize {
        let mut dropped = 0;
        for shard in &self.shards {
            let mut entries = shard.0.lock();
            let mut at = 0;
            while let Some(entry) = entries.dense.get(at) {
                if self.limit.is_full(entry.tat, now) {
                    self.drop_entry(&mut entries, at);
                    dropped += 1;
                } else {
                    at += 1;
                }
            }
        }
        dropped
    }

    /// Gives the bucket of `key` the state that `change` makes of it.
    fn change<Q, T, E>(
        &self,
        key: &Q,
        now: Tick,
        change: impl FnOnce(u64) -> Result<(u64, T), E>,
    ) -> Result<T, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let mut entries = self.shard(hash).lock();
        if let Some(entry) = entries.find_mut(hash, key) {
            entry.used = true;
            let (next, done) = change(entry.tat)?;
            entry.tat = next;
            return Ok(done);
        }
        let (tat, done) = change(0)?;
        if !self.limit.is_full(tat, now) {
            let entry = Entry {
                key: key.to_owned(),
                hash,
                tat,
                used: false,
            };
            self.insert(&mut entries, entry, now);
        }
        Ok(done)
    }

    fn shard(&self, hash: u64) -> &Mutex<Entries<K>> {
        // The table uses the top 7 bits and the low ones; these are neither.
        let at = (hash >> 40) as usize & (self.shards.len() - 1);
        &self.shards[at].0
    }

    fn tat<Q>(&self, key: &Q) -> u64
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        self.shard(hash)
            .lock()
            .find_mut(hash, key)
            .map_or(0, |entry| entry.tat)
    }

    fn insert(&self, entries: &mut Entries<K>, entry: Entry<K>, now: Tick) {
        for _ in 0..SWEEP {
            let at = entries.next();
            match entries.dense.get(at) {
                Some(old) if self.limit.is_full(old.tat, now) => self.drop_entry(entries, at),
                _ => entries.hand = at + 1,
            }
        }
        if entries.dense.is_empty() || self.reserve_slot() {
            entries.push(entry);
            return;
        }
        loop {
            let at = entries.next();
            let old = &mut entries.dense[at];
            let full = self.limit.is_full(old.tat, now);
            if full || !old.used {
                if !full {
                    self.evicted.fetch_add(1, Ordering::Relaxed);
                }
                entries.replace(at, entry);
                entries.hand = at + 1;
                return;
            }
            old.used = false;
            entries.hand = at + 1;
        }
    }

    /// Takes a slot from the pool, if there is one.
    fn reserve_slot(&self) -> bool {
        let less = |free: usize| free.checked_sub(1);
        self.pool
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    fn drop_entry(&self, entries: &mut Entries<K>, at: usize) {
        entries.remove(at);
        if !entries.dense.is_empty() {
            self.pool.fetch_add(1, Ordering::Relaxed); // the last slot is the shard's own
        }
    }
}

impl<K> Default for Shard<K> {
    fn default() -> Self {
        Self(Mutex::new(Entries {
            index: HashTable::new(),
            dense: Vec::new(),
            hand: 0,
        }))
    }
}

// === impl Entries ===

impl<K> Entries<K> {
    fn find_mut<Q>(&mut self, hash: u64, key: &Q) -> Option<&mut Entry<K>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let at = *self
            .index
            .find(hash, |&at| self.dense[at].key.borrow() == key)?;
        Some(&mut self.dense[at])
    }

    /// The position under the hand.
    fn next(&self) -> usize {
        if self.hand < self.dense.len() {
            self.hand
        } else {
            0
        }
    }

    fn push(&mut self, entry: Entry<K>) {
        let Self { index, dense, .. } = self;
        index.insert_unique(entry.hash, dense.len(), |&at| dense[at].hash);
        dense.push(entry);
    }

    fn replace(&mut self, at: usize, entry: Entry<K>) {
        self.unlink(self.dense[at].hash, at);
        let Self { index, dense, .. } = self;
        index.insert_unique(entry.hash, at, |&at| dense[at].hash);
        dense[at] = entry;
    }

    /// Removes the entry at `at`; the last one takes its place.
    fn remove(&mut self, at: usize) {
        let last = self.dense.len() - 1;
        self.unlink(self.dense[at].hash, at);
        if at != last {
            let hash = self.dense[last].hash;
            let moved = self.index.find_mut(hash, |&other| other == last);
            *moved.expect("every entry is indexed") = at;
        }
        self.dense.swap_remove(at);
    }

    fn unlink(&mut self, hash: u64, at: usize) {
        let slot = self.index.find_entry(hash, |&other| other == at);
        slot.expect("every entry is indexed").remove();
    }
}
