//! Many threads on one bucket admit exactly what one would.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use kgw_limit::{Clock, KeyedBuckets, Limit, ManualClock, Tick, TokenBucket};

const THREADS: usize = 4;

#[test]
fn a_standing_clock_admits_the_burst_exactly() {
    let bucket = TokenBucket::new(10_000, 1, Duration::from_secs(1)).unwrap();
    let admitted = AtomicU64::new(0);
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..10_000 {
                    if bucket.take(Tick::ZERO, 1).is_ok() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 10_000);
    assert_eq!(bucket.remaining(Tick::ZERO), 0);
}

/// The clock moves while threads with stale readings take: never more than burst and rate x time,
/// and once all is drained at the end, not one less.
#[test]
fn a_moving_clock_admits_burst_and_refill_exactly() {
    const STEPS: u64 = 20_000;
    let bucket = TokenBucket::new(50, 1, Duration::from_millis(50)).unwrap();
    let clock = ManualClock::new(Tick::ZERO);
    let admitted = AtomicU64::new(0);
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (bucket, clock, admitted, start) = (&bucket, &clock, &admitted, &start);
            scope.spawn(move || {
                start.wait();
                for step in 0..STEPS {
                    if thread == 0 && step % 2 == 0 {
                        clock.advance(Duration::from_millis(7));
                    }
                    let n = 1 + (step + thread as u64) % 3;
                    if bucket.take(clock.now(), n).is_ok() {
                        admitted.fetch_add(n, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let elapsed = clock.now().as_duration();
    let refilled = u64::try_from(elapsed.as_millis() / 50).unwrap();
    let admitted = admitted.into_inner();
    assert!(admitted <= 50 + refilled, "{admitted} of {}", 50 + refilled);
    // What the bucket still holds is what was not taken, unless it stood full for a while.
    assert!(admitted + bucket.remaining(clock.now()) <= 50 + refilled);
}

#[test]
fn keyed_buckets_do_not_mix_keys() {
    let limit = Limit::new(100, 1, Duration::from_secs(1)).unwrap();
    let buckets = KeyedBuckets::<u64>::new(limit, 1_000).unwrap();
    let admitted: Vec<AtomicU64> = (0..50).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 0..10_000_u64 {
                    let key = round % 50;
                    if buckets.take(&key, Tick::ZERO, 1).is_ok() {
                        admitted[usize::try_from(key).unwrap()].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(
        admitted
            .iter()
            .all(|of_key| of_key.load(Ordering::Relaxed) == 100)
    );
    assert_eq!((buckets.len(), buckets.evicted()), (50, 0));
}
