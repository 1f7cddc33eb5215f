//! Any limit and any sequence of operations: no panic, no overflow, and never a token too many.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use kgw_limit::{KeyedBuckets, Limit, Tick, TokenBucket};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    max_tokens: u64,
    tokens_per_fill: u64,
    fill_interval: Duration,
    max_keys: u8,
    operations: Vec<Operation>,
}

#[derive(Debug, Arbitrary)]
enum Operation {
    Advance(u64),
    Take { key: u8, n: u64 },
    Reserve(u64),
    Refund(u64),
    Expire,
}

fuzz_target!(|input: Input| {
    let Ok(limit) = Limit::with_rate(input.max_tokens, input.tokens_per_fill, input.fill_interval)
    else {
        return;
    };
    let max_keys = usize::from(input.max_keys) + 1;
    let (bucket, exact) = (TokenBucket::from(limit), TokenBucket::from(limit));
    let keyed = KeyedBuckets::<u8>::new(limit, max_keys).expect("room for a key");
    let mut now = Tick::ZERO;
    for operation in input.operations {
        match operation {
            Operation::Advance(nanos) => now = now + Duration::from_nanos(nanos),
            Operation::Take { key, n } => {
                check_take(&exact, now, n);
                let left = keyed.remaining(&key, now);
                assert_eq!(keyed.take(&key, now, n).is_ok(), n <= left);
                let _either = bucket.take(now, n);
            }
            Operation::Reserve(n) => {
                if let Some(wait) = bucket.reserve(now, n) {
                    assert!(n <= limit.max_tokens());
                    assert!(
                        n == 0
                            || wait > Duration::ZERO
                            || bucket.remaining(now) <= limit.max_tokens() - n
                    );
                }
            }
            Operation::Refund(n) => bucket.refund(n),
            Operation::Expire => {
                keyed.expire(now);
            }
        }
        assert!(bucket.remaining(now) <= limit.max_tokens());
        assert!(keyed.len() <= max_keys);
    }
});

/// A take is granted iff the tokens are there, costs exactly its tokens, and its `retry_after` holds.
fn check_take(bucket: &TokenBucket, now: Tick, n: u64) {
    let left = bucket.remaining(now);
    match bucket.take(now, n) {
        Ok(taken) => assert_eq!(taken.remaining, left - n),
        Err(denied) => {
            assert!(n > left);
            assert_eq!((denied.remaining, bucket.remaining(now)), (left, left));
            match denied.retry_after {
                None => assert!(n > bucket.limit().max_tokens()),
                Some(wait) if now + wait < Tick::MAX => assert!(bucket.remaining(now + wait) >= n),
                Some(_beyond_the_clock) => {}
            }
        }
    }
}
