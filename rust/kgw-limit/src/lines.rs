//! [`Lines`]: callers that wait for the tokens of buckets, in the order in which they came.
//!
//! A caller in line has *reserved* its tokens: the bucket itself counts them, so nobody else can take
//! them, and the caller knows from the start when they will be there at the latest. Each sleeps by its
//! own clock. When one gives up, its tokens go back and those behind it can go earlier. Only the first in
//! line is told: it works out how long it still has to wait, and the next one is told when it goes. So a
//! caller that leaves costs one wake-up, however long the line is.
//!
//! Invariants, all under the lock of the lines:
//! * `reserved` of a line is the sum of what its callers have reserved;
//! * the places of a line are numbered in the order of their reservations;
//! * a bucket gets the reservations and refunds of callers that wait, and of no others, under the lock. A
//!   caller that finds its tokens there takes them without: it cannot overtake, since a bucket grants
//!   nothing before all that was reserved is there.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::task::Waker;
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashMap;

use crate::sync::Mutex;
use crate::{KeyedBuckets, Tick, TokenBucket, Unreserved};

/// A bucket whose tokens can be promised before they are there.
pub trait Promise {
    /// As [`TokenBucket::reserve_within`].
    ///
    /// # Errors
    /// [`Unreserved`], and then nothing has changed.
    fn reserve_within(&self, now: Tick, n: u64, longest: Duration) -> Result<Duration, Unreserved>;

    /// As [`TokenBucket::refund`].
    fn refund(&self, n: u64);

    /// As [`TokenBucket::ready_in`].
    fn ready_in(&self, now: Tick, behind: u64) -> Duration;
}

/// The bucket of one key.
#[derive(Debug)]
pub struct KeyedBucket<'a, K> {
    /// The buckets of all keys.
    pub buckets: &'a KeyedBuckets<K>,
    /// The key.
    pub key: &'a K,
}

/// Who waits for buckets: a line for each of them, known by its key.
///
/// The keys are those of lines, and have no meaning for the lock-free buckets themselves: what is reserved
/// under a key has always to be of the same bucket.
#[derive(Debug)]
pub struct Lines<K> {
    all: Mutex<All<K>>,
}

#[derive(Debug)]
struct All<K> {
    lines: HashMap<K, Line, RandomState>,
    waiting: usize,
    next: u64,
}

#[derive(Debug, Default)]
struct Line {
    places: BTreeMap<u64, Caller>,
    reserved: u64,
}

#[derive(Debug)]
struct Caller {
    n: u64,
    /// It is to look how long it has to wait still.
    is_called: bool,
    waker: Option<Waker>,
}

/// A place in a line. It is to be [left](Lines::leave).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place in a line is to be left"]
pub struct Place(u64);

/// What came of asking for tokens.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// They were there, and are taken.
    Ready,
    /// They are reserved.
    Waiting {
        /// Where in line.
        place: Place,
        /// How long it takes at most until they are there. Not zero.
        wait: Duration,
    },
}

/// Tokens that were neither taken nor reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many wait already as may.
    #[error("too many wait already")]
    Full {
        /// How long it would have to wait.
        wait: Duration,
    },
    /// The caller would have to wait longer than it is willing to, or for ever.
    #[error(transparent)]
    Unreserved(#[from] Unreserved),
}

impl<K: Clone + Eq + Hash> Lines<K> {
    /// Nobody waits.
    #[must_use]
    pub fn new() -> Self {
        let all = All {
            lines: HashMap::default(),
            waiting: 0,
            next: 0,
        };
        Self {
            all: Mutex::new(all),
        }
    }

    /// Takes `n` tokens of `bucket`, or gets in line for them.
    ///
    /// Args: `longest` is what the caller is willing to wait; `most` is how many may wait, in all lines.
    ///
    /// # Errors
    /// [`Refused`], and then nothing has changed.
    pub fn enter(
        &self,
        bucket: &(impl Promise + ?Sized),
        key: &K,
        now: Tick,
        n: u64,
        longest: Duration,
        most: usize,
    ) -> Result<Entered, Refused> {
        let mut all = self.all.lock();
        let is_full = all.waiting >= most;
        let longest = if is_full { Duration::ZERO } else { longest };
        let wait = match bucket.reserve_within(now, n, longest) {
            Ok(Duration::ZERO) => return Ok(Entered::Ready),
            Ok(wait) => wait,
            Err(Unreserved::TooLate { wait }) if is_full => return Err(Refused::Full { wait }),
            Err(unreserved) => return Err(unreserved.into()),
        };
        let number = all.next;
        all.next += 1;
        all.waiting += 1;
        let line = all.lines.entry(key.clone()).or_default();
        line.reserved += n;
        let caller = Caller {
            n,
            is_called: false,
            waker: None,
        };
        line.places.insert(number, caller);
        Ok(Entered::Waiting {
            place: Place(number),
            wait,
        })
    }

    /// How long the caller at `place` has to wait still, if it has been called since it looked last. If
    /// not, its waker is kept, and woken when it is.
    pub fn look(
        &self,
        bucket: &(impl Promise + ?Sized),
        key: &K,
        place: &Place,
        now: Tick,
        waker: &Waker,
    ) -> Option<Duration> {
        let mut all = self.all.lock();
        let line = all.lines.get_mut(key)?;
        let reserved = line.reserved;
        let caller = line.places.get_mut(&place.0)?;
        if caller.is_called {
            caller.is_called = false;
            // It is the first, so all that is reserved beside its own is behind it.
            return Some(bucket.ready_in(now, reserved - caller.n));
        }
        match &mut caller.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        None
    }

    /// Ends a wait. Who is not served gives its tokens back, and all behind it can go earlier.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a place is left once, and then there is none"
    )]
    pub fn leave(&self, bucket: &(impl Promise + ?Sized), key: &K, place: Place, is_served: bool) {
        let called = {
            let mut all = self.all.lock();
            let Some(line) = all.lines.get_mut(key) else {
                return;
            };
            let was_first = line.places.keys().next() == Some(&place.0);
            let Some(caller) = line.places.remove(&place.0) else {
                return;
            };
            line.reserved -= caller.n;
            if !is_served {
                bucket.refund(caller.n);
            }
            let called = if was_first { line.call() } else { None };
            if line.places.is_empty() {
                all.lines.remove(key);
            }
            all.waiting -= 1;
            called
        };
        wake(called);
    }

    /// Gives back `n` tokens that were taken, for those who wait for them.
    pub fn give_back(&self, bucket: &(impl Promise + ?Sized), key: &K, n: u64) {
        let called = {
            let mut all = self.all.lock();
            bucket.refund(n);
            all.lines.get_mut(key).and_then(Line::call)
        };
        wake(called);
    }

    /// How many wait, in all lines.
    pub fn waiting(&self) -> usize {
        self.all.lock().waiting
    }
}

impl<K: Clone + Eq + Hash> Default for Lines<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl Line {
    /// Calls the first in line.
    fn call(&mut self) -> Option<Waker> {
        let caller = self.places.values_mut().next()?;
        caller.is_called = true;
        caller.waker.take()
    }
}

/// Wakes a caller, outside of the lock: it may run at once.
fn wake(called: Option<Waker>) {
    if let Some(waker) = called {
        waker.wake();
    }
}

// === impl Promise ===

impl Promise for TokenBucket {
    fn reserve_within(&self, now: Tick, n: u64, longest: Duration) -> Result<Duration, Unreserved> {
        self.reserve_within(now, n, longest)
    }

    fn refund(&self, n: u64) {
        self.refund(n);
    }

    fn ready_in(&self, now: Tick, behind: u64) -> Duration {
        self.ready_in(now, behind)
    }
}

impl<K: Clone + Eq + Hash> Promise for KeyedBucket<'_, K> {
    fn reserve_within(&self, now: Tick, n: u64, longest: Duration) -> Result<Duration, Unreserved> {
        self.buckets.reserve_within(self.key, now, n, longest)
    }

    fn refund(&self, n: u64) {
        self.buckets.refund(self.key, n);
    }

    fn ready_in(&self, now: Tick, behind: u64) -> Duration {
        self.buckets.ready_in(self.key, now, behind)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Tick {
        Tick::ZERO + Duration::from_secs(seconds)
    }

    struct Scene {
        bucket: TokenBucket,
        lines: Lines<()>,
    }

    impl Scene {
        /// One token a second, and none left of two.
        fn new() -> Arc<Self> {
            let bucket = TokenBucket::new(2, 1, Duration::from_secs(1)).unwrap();
            bucket.take(at(0), 2).unwrap();
            let lines = Lines::new();
            Arc::new(Self { bucket, lines })
        }

        fn enter(&self, most: usize) -> Result<Entered, Refused> {
            self.lines.enter(&self.bucket, &(), at(0), 1, MINUTE, most)
        }

        fn leave(&self, entered: Entered, is_served: bool) {
            if let Entered::Waiting { place, .. } = entered {
                self.lines.leave(&self.bucket, &(), place, is_served);
            }
        }
    }

    fn model(check: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(check);
    }

    #[test]
    fn whoever_gives_up_leaves_no_token_reserved() {
        model(|| {
            let scene = Scene::new();
            let other = Arc::clone(&scene);
            let leaver = thread::spawn(move || other.leave(other.enter(9).unwrap(), false));
            let taker = Arc::clone(&scene);
            let taken = thread::spawn(move || taker.bucket.take(at(1), 1).is_ok());
            scene.leave(scene.enter(9).unwrap(), false);
            leaver.join().unwrap();
            let taken = u64::from(taken.join().unwrap());
            assert_eq!(scene.lines.waiting(), 0);
            assert_eq!(scene.bucket.remaining(at(2)) + taken, 2);
        });
    }

    #[test]
    fn no_more_wait_than_may() {
        model(|| {
            let scene = Scene::new();
            let other = Arc::clone(&scene);
            let first = thread::spawn(move || other.enter(1));
            let second = scene.enter(1);
            let first = first.join().unwrap();
            assert_eq!(scene.lines.waiting(), 1);
            let entered = [first, second].into_iter().filter_map(Result::ok);
            let entered: Vec<_> = entered.collect();
            assert_eq!(entered.len(), 1);
            for one in entered {
                scene.leave(one, true);
            }
        });
    }

    #[test]
    fn a_caller_is_called_when_the_one_before_it_gives_up_at_any_moment() {
        model(|| {
            let scene = Scene::new();
            let first = scene.enter(9).unwrap();
            let Entered::Waiting { place, wait } = scene.enter(9).unwrap() else {
                panic!("there is no token");
            };
            assert_eq!(wait, Duration::from_secs(2));
            let other = Arc::clone(&scene);
            let leaver = thread::spawn(move || other.leave(first, false));
            let waker = Waker::noop();
            let look = || scene.lines.look(&scene.bucket, &(), &place, at(0), waker);
            let before = look();
            leaver.join().unwrap();
            // Before or after: once, and with the time of the first.
            let called = before.or_else(look);
            assert_eq!(called, Some(Duration::from_secs(1)));
            assert_eq!(look(), None);
            scene.lines.leave(&scene.bucket, &(), place, true);
        });
    }
}
