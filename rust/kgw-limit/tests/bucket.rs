//! What a bucket promises, case by case.

use std::time::Duration;

use kgw_limit::{Error, Limit, Tick, TokenBucket, Unreserved};

const SECOND: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Tick {
    Tick::ZERO + Duration::from_millis(millis)
}

#[test]
fn three_a_minute_lets_three_through_and_a_fourth_after_twenty_seconds() {
    let bucket = TokenBucket::new(3, 3, Duration::from_secs(60)).unwrap();
    let left: Vec<u64> = (0..3)
        .map(|_| bucket.take(at(0), 1).unwrap().remaining)
        .collect();
    assert_eq!(left, [2, 1, 0]);
    let denied = bucket.take(at(1_000), 1).unwrap_err();
    assert_eq!(
        (denied.remaining, denied.retry_after),
        (0, Some(Duration::from_secs(19)))
    );
    assert!(bucket.take(at(19_999), 1).is_err());
    assert!(bucket.take(at(20_000), 1).is_ok());
}

#[test]
fn a_refused_take_takes_nothing() {
    let bucket = TokenBucket::new(5, 1, SECOND).unwrap();
    bucket.take(at(0), 3).unwrap();
    assert_eq!(bucket.take(at(0), 3).unwrap_err().remaining, 2);
    assert_eq!(bucket.take(at(0), 2).unwrap().remaining, 0);
}

#[test]
fn retry_after_is_exact_to_the_nanosecond() {
    let bucket = TokenBucket::new(7, 7, SECOND).unwrap(); // 142 857 142.857... ns a token
    bucket.take(at(0), 7).unwrap();
    for n in 1..=7 {
        let wait = bucket.retry_after(at(0), n).unwrap();
        assert_eq!(bucket.take(at(0), n).unwrap_err().retry_after, Some(wait));
        assert!(
            bucket.retry_after(at(0) + wait.saturating_sub(Duration::from_nanos(1)), n)
                > Some(Duration::ZERO)
        );
        assert_eq!(bucket.retry_after(at(0) + wait, n), Some(Duration::ZERO));
    }
}

#[test]
fn more_than_the_maximum_is_never_there() {
    let bucket = TokenBucket::new(3, 1, SECOND).unwrap();
    for n in [4, u64::from(u32::MAX), u64::MAX] {
        let denied = bucket.take(at(0), n).unwrap_err();
        assert_eq!((denied.remaining, denied.retry_after), (3, None));
        assert_eq!(bucket.retry_after(at(0), n), None);
        assert_eq!(bucket.reserve(at(0), n), None);
    }
    assert_eq!(bucket.remaining(at(0)), 3);
}

#[test]
fn a_maximum_of_zero_refuses_everything() {
    let bucket = TokenBucket::new(0, 1, SECOND).unwrap();
    assert_eq!(bucket.take(at(5_000), 1).unwrap_err().retry_after, None);
    assert_eq!(bucket.remaining(at(5_000)), 0);
}

#[test]
fn nothing_is_always_granted() {
    let bucket = TokenBucket::new(1, 1, SECOND).unwrap();
    bucket.reserve(at(1_000), 1).unwrap();
    bucket.reserve(at(1_000), 1).unwrap();
    assert_eq!(bucket.take(at(0), 0).unwrap().remaining, 0);
    assert_eq!(bucket.remaining(at(3_000)), 1);
}

#[test]
fn a_clock_that_goes_back_neither_gives_nor_takes() {
    let bucket = TokenBucket::new(2, 1, SECOND).unwrap();
    bucket.take(at(10_000), 2).unwrap();
    assert_eq!(bucket.remaining(at(0)), 0);
    assert_eq!(
        bucket.take(at(0), 1).unwrap_err().retry_after,
        Some(11 * SECOND)
    );
    assert_eq!(bucket.remaining(at(11_000)), 1);
}

#[test]
fn a_whole_interval_brings_all_of_its_tokens() {
    let intervals = [
        50_000_000,
        999_999_937,
        1_000_000_000,
        60_000_000_000,
        3_600_000_000_000,
    ];
    for nanos in intervals {
        for per_fill in [1, 3, 7, 60, 997, 3_000_000, 799_999_999] {
            let interval = Duration::from_nanos(nanos);
            let bucket = TokenBucket::new(per_fill, per_fill, interval).unwrap();
            bucket.take(at(77), per_fill).unwrap();
            let granted = bucket.take(at(77) + interval, per_fill);
            assert!(granted.is_ok(), "{per_fill}/{interval:?}: {granted:?}");
        }
    }
}

#[test]
fn three_million_a_second_are_not_noticeably_more() {
    let bucket = TokenBucket::new(6_000_000, 3_000_000, SECOND).unwrap();
    bucket.take(at(0), 6_000_000).unwrap();
    let gained = bucket.remaining(at(1_000));
    assert!((3_000_000..3_000_200).contains(&gained), "{gained}");
}

#[test]
fn reservations_are_served_in_order() {
    let bucket = TokenBucket::new(2, 1, SECOND).unwrap();
    let waits: Vec<_> = (0..5)
        .map(|_| bucket.reserve(at(0), 1).unwrap().as_secs())
        .collect();
    assert_eq!(waits, [0, 0, 1, 2, 3]);
    assert!(
        bucket.take(at(3_000), 1).is_err(),
        "the token of second 3 is the last reservation's"
    );
    assert!(bucket.take(at(4_000), 1).is_ok());
}

#[test]
fn a_refund_undoes_a_reservation_and_never_overfills() {
    let bucket = TokenBucket::new(2, 1, SECOND).unwrap();
    bucket.take(at(0), 2).unwrap();
    assert_eq!(bucket.reserve(at(0), 2), Some(2 * SECOND));
    bucket.refund(2);
    assert_eq!(bucket.retry_after(at(0), 1), Some(SECOND));
    bucket.refund(u64::MAX);
    assert_eq!(bucket.remaining(at(0)), 2);
    assert!(bucket.take(at(0), 3).is_err());
}

#[test]
fn who_will_not_wait_that_long_reserves_nothing() {
    let bucket = TokenBucket::new(2, 1, SECOND).unwrap();
    bucket.take(at(0), 2).unwrap();
    assert_eq!(bucket.reserve_within(at(0), 1, SECOND), Ok(SECOND));
    assert_eq!(
        bucket.reserve_within(at(0), 1, SECOND),
        Err(Unreserved::TooLate { wait: 2 * SECOND })
    );
    assert_eq!(
        bucket.reserve_within(at(0), 3, Duration::MAX),
        Err(Unreserved::Never)
    );
    assert_eq!(bucket.retry_after(at(0), 1), Some(2 * SECOND));
}

#[test]
fn a_refund_brings_the_reservations_behind_it_forward() {
    let bucket = TokenBucket::new(3, 1, SECOND).unwrap();
    bucket.take(at(0), 3).unwrap();
    let waits = [3, 1, 2].map(|n| bucket.reserve(at(0), n).unwrap().as_secs());
    assert_eq!(waits, [3, 4, 6]);
    assert_eq!(bucket.ready_in(at(0), 2 + 1), 3 * SECOND);
    bucket.refund(3);
    assert_eq!(bucket.ready_in(at(0), 2), SECOND);
    assert_eq!(bucket.ready_in(at(0), 0), 3 * SECOND);
    assert_eq!(bucket.ready_in(at(1_500), 0), 3 * SECOND / 2);
    assert_eq!(bucket.ready_in(at(9_000), 0), Duration::ZERO);
    assert_eq!(bucket.ready_in(at(0), u64::MAX), Duration::ZERO);
}

#[test]
fn reservations_end_some_years_ahead() {
    let bucket = TokenBucket::new(1, 1, Duration::from_secs(86_400 * 365)).unwrap();
    let waits: Vec<_> = (0..9).map_while(|_| bucket.reserve(at(0), 1)).collect();
    assert_eq!(waits.len(), 4);
    assert_eq!(bucket.reserve(at(0), 1), None);
}

#[test]
fn limits_that_cannot_be_are_refused_by_name() {
    let short = Duration::from_millis(49);
    assert_eq!(
        Limit::new(1, 1, short),
        Err(Error::IntervalTooShort { interval: short })
    );
    assert!(Limit::with_rate(1, 1, short).is_ok());
    assert_eq!(
        Limit::with_rate(1, 1, Duration::ZERO),
        Err(Error::ZeroInterval)
    );
    assert_eq!(Limit::new(1, 0, SECOND), Err(Error::ZeroTokensPerFill));
    assert_eq!(
        Limit::new(1, 16_000_000_001, SECOND),
        Err(Error::RateTooHigh {
            tokens_per_fill: 16_000_000_001,
            interval: SECOND
        })
    );
    assert_eq!(
        Limit::new(u64::MAX, 1, SECOND),
        Err(Error::CapacityTooLarge {
            max_tokens: u64::MAX,
            nanos: 1_000_000_000
        })
    );
    assert_eq!(
        Error::IntervalTooShort { interval: short }.to_string(),
        "fill_interval 49ms is below the minimum of 50ms"
    );
    assert_eq!(
        Limit::new(u64::MAX, 1, SECOND).unwrap_err().to_string(),
        "max_tokens 18446744073709551615 is too large for one token every 1s"
    );
}

/// Envoy takes any 32-bit maximum, whatever the interval; so does a bucket that needs centuries to fill.
#[test]
fn a_bucket_that_takes_centuries_to_fill_still_counts_exactly() {
    let max = u64::from(u32::MAX);
    for seconds in [1, 60, 86_400, 31_536_000] {
        let interval = Duration::from_secs(seconds);
        let bucket = TokenBucket::new(max, 1, interval).unwrap();
        assert_eq!(bucket.take(at(500), max - 1).unwrap().remaining, 1);
        assert_eq!(bucket.take(at(500), 1).unwrap().remaining, 0);
        let wait = bucket.take(at(500), 1).unwrap_err().retry_after.unwrap();
        assert!(
            wait <= interval && wait > interval.mul_f64(0.999),
            "{wait:?}"
        );
        assert!(bucket.take(at(500) + wait, 1).is_ok());
    }
}

#[test]
fn the_end_of_time_is_not_the_end_of_the_process() {
    let bucket = TokenBucket::new(3, 3, SECOND).unwrap();
    assert!(bucket.take(Tick::MAX, 3).is_ok());
    assert!(bucket.take(Tick::MAX, 1).is_err());
    assert!(bucket.reserve(Tick::MAX, 3).is_some());
    assert!(bucket.take(Tick::from_raw(u64::MAX), 1).is_err());
}

#[test]
fn a_limit_says_how_long_a_token_and_a_full_bucket_take() {
    let limit = Limit::new(10, 3, Duration::from_secs(60)).unwrap();
    assert_eq!(limit.token_time(), Duration::from_secs(20));
    assert_eq!(limit.fill_time(), Duration::from_secs(200));
    let third = Limit::new(1, 3, Duration::from_secs(1)).unwrap();
    assert_eq!(third.token_time(), Duration::from_nanos(333_333_334));
    assert_eq!(
        Limit::new(0, 1, Duration::from_secs(1))
            .unwrap()
            .fill_time(),
        Duration::ZERO
    );
    let century = Duration::from_secs(100 * 365 * 86_400);
    let slow = Limit::new(2, 1, century).unwrap();
    let off = century.abs_diff(slow.token_time()).as_secs_f64() / century.as_secs_f64();
    assert!(off < 0.001, "{off}");
}
