//! Keyed buckets: bounded, and exact as long as the bound is not reached.

use std::collections::HashMap;
use std::time::Duration;

use kgw_limit::{DEFAULT_MAX_KEYS, Error, KeyedBuckets, Limit, Tick, TokenBucket, Unreserved};
use proptest::prelude::*;

fn limit(max_tokens: u64) -> Limit {
    Limit::new(max_tokens, 1, Duration::from_secs(1)).expect("a valid limit")
}

fn at(seconds: u64) -> Tick {
    Tick::ZERO + Duration::from_secs(seconds)
}

#[test]
fn each_key_has_its_own_bucket() {
    let buckets = KeyedBuckets::<String>::new(limit(2), 10).unwrap();
    assert_eq!(buckets.take("alice", at(0), 2).unwrap().remaining, 0);
    let denied = buckets.take("alice", at(0), 1).unwrap_err();
    assert_eq!(denied.retry_after, Some(Duration::from_secs(1)));
    assert_eq!(buckets.remaining("alice", at(0)), 0);
    assert_eq!(
        buckets.retry_after("alice", at(0), 1),
        Some(Duration::from_secs(1))
    );
    assert_eq!(buckets.take("bob", at(0), 1).unwrap().remaining, 1);
    assert_eq!(buckets.remaining("carol", at(0)), 2);
    assert_eq!(buckets.retry_after("carol", at(0), 3), None);
    assert_eq!(buckets.len(), 2, "looking does not store a key");
    assert_eq!(buckets.limit().max_tokens(), 2);
}

#[test]
fn a_refused_or_empty_take_stores_no_key() {
    let buckets = KeyedBuckets::<String>::new(limit(2), 10).unwrap();
    assert!(buckets.take("greedy", at(0), 3).is_err());
    assert!(buckets.take("idle", at(0), 0).is_ok());
    assert!(buckets.is_empty());
}

#[test]
fn each_key_has_its_own_reservations() {
    let second = Duration::from_secs(1);
    let buckets = KeyedBuckets::<String>::new(limit(2), 10).unwrap();
    let reserve = |key: &str, n, longest| buckets.reserve_within(key, at(0), n, longest);
    assert_eq!(reserve("alice", 2, Duration::ZERO), Ok(Duration::ZERO));
    assert_eq!(reserve("alice", 2, 9 * second), Ok(2 * second));
    assert_eq!(reserve("alice", 1, 9 * second), Ok(3 * second));
    let wait = 4 * second;
    assert_eq!(
        reserve("alice", 1, 3 * second),
        Err(Unreserved::TooLate { wait })
    );
    assert_eq!(reserve("bob", 3, Duration::MAX), Err(Unreserved::Never));
    assert_eq!(buckets.len(), 1, "a refusal stores no key");
    assert!(buckets.take("alice", at(2), 1).is_err());
    buckets.refund("alice", 2);
    assert_eq!(buckets.ready_in("alice", at(0), 0), second);
    assert_eq!(buckets.ready_in("alice", at(0), 1), Duration::ZERO);
    buckets.refund("carol", 1);
    assert_eq!(buckets.remaining("carol", at(0)), 2);
    assert_eq!(buckets.ready_in("carol", at(0), 0), Duration::ZERO);
}

#[test]
fn room_for_no_key_is_an_error() {
    assert_eq!(
        KeyedBuckets::<u64>::new(limit(1), 0).unwrap_err(),
        Error::ZeroMaxKeys
    );
}

#[test]
fn exactly_max_keys_fit_without_an_eviction() {
    for max_keys in [1, 2, 63, 64, 129, 1_000, DEFAULT_MAX_KEYS] {
        let buckets = KeyedBuckets::<usize>::new(limit(1), max_keys).unwrap();
        for key in 0..max_keys {
            buckets.take(&key, at(0), 1).unwrap();
        }
        assert_eq!((buckets.len(), buckets.evicted()), (max_keys, 0));
    }
}

#[test]
fn the_bound_holds_under_a_flood_of_keys() {
    for max_keys in [1, 100, 5_000] {
        let buckets = KeyedBuckets::<usize>::new(limit(1), max_keys).unwrap();
        for key in 0..max_keys * 4 {
            buckets.take(&key, at(0), 1).unwrap();
            assert!(key % 997 != 0 || buckets.len() <= max_keys);
        }
        assert!(buckets.len() <= max_keys);
        assert_eq!(
            buckets.evicted() + buckets.len() as u64,
            max_keys as u64 * 4
        );
    }
}

#[test]
fn a_key_that_keeps_asking_survives_a_flood_of_others() {
    let buckets = KeyedBuckets::<u64>::new(limit(1), 50).unwrap();
    buckets.take(&0, at(0), 1).unwrap();
    for stranger in 1..1_000 {
        assert!(
            buckets.take(&0, at(0), 1).is_err(),
            "forgotten after {stranger} strangers"
        );
        buckets.take(&stranger, at(0), 1).unwrap();
    }
}

#[test]
fn full_buckets_make_room_and_lose_nothing() {
    let buckets = KeyedBuckets::<u64>::new(limit(1), 100).unwrap();
    for second in 0..50 {
        for key in 0..20 {
            buckets
                .take(&(second * 20 + key), at(second * 2), 1)
                .unwrap();
        }
    }
    assert_eq!(
        buckets.evicted(),
        0,
        "1,000 keys through room for 100, all refilled in time"
    );
    assert!(buckets.len() <= 40, "{}", buckets.len());
    assert_eq!(buckets.expire(at(1_000)), 20);
    assert!(buckets.is_empty());
}

#[test]
fn expire_keeps_what_is_not_full() {
    let buckets = KeyedBuckets::<u64>::new(limit(5), 1_000).unwrap();
    for key in 0..500 {
        buckets.take(&key, at(0), 1 + key % 5).unwrap();
    }
    assert_eq!(buckets.expire(at(2)), 200);
    assert_eq!(buckets.len(), 300);
    assert!((0..500).all(|key| buckets.remaining(&key, at(2)) == (5 - (1 + key % 5) + 2).min(5)));
    for key in 1_000..1_700 {
        buckets.take(&key, at(2), 1).unwrap();
    }
    assert_eq!(
        (buckets.len(), buckets.evicted()),
        (1_000, 0),
        "the freed slots are usable again"
    );
}

proptest! {
    // No file of failures: what was found becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Below the bound, a keyed bucket decides as a bucket of its own would: expiry is invisible.
    #[test]
    fn agrees_with_one_bucket_for_each_key(
        steps in prop::collection::vec((0_u64..30, 0_u64..4, 0_u64..3_000), 1..400), max_keys in 30_usize..200,
    ) {
        let limit = limit(3);
        let buckets = KeyedBuckets::<u64>::new(limit, max_keys).unwrap();
        let mut model: HashMap<u64, TokenBucket> = HashMap::new();
        let mut now = Tick::ZERO;
        for (key, n, gap) in steps {
            now = now + Duration::from_millis(gap);
            let single = model.entry(key).or_insert_with(|| limit.into());
            prop_assert_eq!(buckets.take(&key, now, n), single.take(now, n));
            prop_assert_eq!(buckets.remaining(&key, now), single.remaining(now));
            prop_assert_eq!(buckets.retry_after(&key, now, 2), single.retry_after(now, 2));
        }
        prop_assert_eq!(buckets.evicted(), 0);
    }
}
