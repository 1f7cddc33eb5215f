//! What a take costs: `cargo bench -p kgw-limit`. The clock is read outside, except where named.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use divan::{Bencher, black_box};
use kgw_limit::{Clock, KeyedBuckets, Limit, MonotonicClock, Tick, TokenBucket};

fn main() {
    divan::main();
}

/// A bucket that is never empty in a benchmark.
fn generous() -> Limit {
    Limit::new(1 << 40, 1, Duration::from_secs(1)).expect("a valid limit")
}

fn drained() -> TokenBucket {
    let bucket = TokenBucket::new(3, 3, Duration::from_secs(60)).expect("a valid limit");
    bucket.take(Tick::ZERO, 3).expect("it starts full");
    bucket
}

/// What the hardware asks for one successful compare-and-swap: no take can cost less.
#[divan::bench(threads = [1, 2])]
fn bare_compare_and_swap(bencher: Bencher<'_, '_>) {
    let number = AtomicU64::new(0);
    bencher.bench(|| {
        let mut seen = number.load(Ordering::Relaxed);
        while let Err(newer) = number.compare_exchange_weak(
            seen,
            seen + black_box(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            seen = newer;
        }
    });
}

#[divan::bench(threads = [1, 2])]
fn granted(bencher: Bencher<'_, '_>) {
    let bucket = TokenBucket::from(generous());
    bencher.bench(|| bucket.take(black_box(Tick::ZERO), 1).is_ok());
}

#[divan::bench]
fn granted_with_remaining(bencher: Bencher<'_, '_>) {
    let bucket = TokenBucket::from(generous());
    bencher.bench(|| bucket.take(black_box(Tick::ZERO), 1));
}

#[divan::bench(threads = [1, 2])]
fn denied(bencher: Bencher<'_, '_>) {
    let bucket = drained();
    bencher.bench(|| bucket.take(black_box(Tick::ZERO), 1).is_ok());
}

#[divan::bench]
fn denied_with_retry_after(bencher: Bencher<'_, '_>) {
    let bucket = drained();
    bencher.bench(|| bucket.take(black_box(Tick::ZERO), 1));
}

#[divan::bench]
fn granted_with_the_clock(bencher: Bencher<'_, '_>) {
    let bucket = TokenBucket::from(generous());
    bencher.bench(|| bucket.take(MonotonicClock.now(), 1).is_ok());
}

#[divan::bench(threads = [1, 2])]
fn keyed_granted(bencher: Bencher<'_, '_>) {
    let buckets = KeyedBuckets::<String>::new(generous(), 10_000).expect("room");
    let keys: Vec<String> = (0..1_000)
        .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
        .collect();
    let next = AtomicU64::new(0);
    bencher
        .with_inputs(|| &keys[next.fetch_add(1, Ordering::Relaxed) as usize % keys.len()])
        .bench_refs(|key| buckets.take(key.as_str(), Tick::ZERO, 1).is_ok());
}

/// The worst case: every take is a new key, evicts another and allocates.
#[divan::bench]
fn keyed_flood(bencher: Bencher<'_, '_>) {
    let buckets = KeyedBuckets::<u64>::new(generous(), 10_000).expect("room");
    let next = AtomicU64::new(0);
    bencher.bench(|| {
        let key = next.fetch_add(1, Ordering::Relaxed);
        buckets.take(&key, Tick::ZERO, 1).is_ok()
    });
}
