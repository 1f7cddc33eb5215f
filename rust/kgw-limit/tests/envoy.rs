//! Decisions recorded from Envoy 1.40 (local rate limit filter, one client polling a route).

use std::time::Duration;

use kgw_limit::{Tick, TokenBucket};

/// When Envoy let requests through, in milliseconds. The first `max` drain a full bucket; each later one
/// is the first poll after a token arrived, so it is less than `poll` late.
struct Recording {
    max_tokens: u64,
    tokens_per_fill: u64,
    fill_interval: Duration,
    poll: Duration,
    granted_ms: &'static [u64],
}

const RECORDINGS: [Recording; 2] = [
    Recording {
        max_tokens: 3,
        tokens_per_fill: 3,
        fill_interval: Duration::from_secs(1),
        poll: Duration::from_millis(23), // 20 ms of sleep and the request
        granted_ms: &[0, 20, 45, 342, 674, 1010, 1350],
    },
    Recording {
        max_tokens: 3,
        tokens_per_fill: 3,
        fill_interval: Duration::from_secs(6),
        poll: Duration::from_millis(150), // 116 polls in 14 s, on a busy machine
        granted_ms: &[0, 100, 210, 2070, 4120, 6110, 8140, 10_020, 12_080],
    },
];

#[test]
fn grants_what_envoy_granted_and_not_earlier() {
    for recording in RECORDINGS {
        let Recording {
            max_tokens,
            tokens_per_fill,
            fill_interval,
            poll,
            granted_ms,
        } = recording;
        let bucket = TokenBucket::new(max_tokens, tokens_per_fill, fill_interval).unwrap();
        for (nth, &at) in granted_ms.iter().enumerate() {
            let at = Tick::ZERO + Duration::from_millis(at);
            if nth as u64 >= max_tokens {
                let previous_poll = Tick::ZERO + at.as_duration().saturating_sub(poll);
                let denied = bucket.take(previous_poll, 1).unwrap_err();
                assert_eq!(denied.remaining, 0);
                assert!(
                    denied.retry_after.unwrap() <= poll,
                    "grant {nth} would come later"
                );
            }
            bucket
                .take(at, 1)
                .unwrap_or_else(|denied| panic!("grant {nth}: {denied:?}"));
        }
    }
}

/// The milliseconds at which polls of a full bucket every `step_ms` are granted.
fn polled(bucket: &TokenBucket, step_ms: usize, until_ms: u64) -> Vec<u64> {
    (0..until_ms)
        .step_by(step_ms)
        .filter(|&at| {
            bucket
                .take(Tick::ZERO + Duration::from_millis(at), 1)
                .is_ok()
        })
        .collect()
}

#[test]
fn ten_at_once_then_one_every_fifth_of_a_second() {
    let bucket = TokenBucket::new(10, 1, Duration::from_millis(200)).unwrap();
    let granted = polled(&bucket, 10, 3_100);
    assert_eq!(granted[..10], [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
    assert_eq!(
        granted[10..],
        (1..=15).map(|nth| nth * 200).collect::<Vec<_>>()
    );
}

#[test]
fn two_tokens_a_second_come_half_a_second_apart() {
    let bucket = TokenBucket::new(5, 2, Duration::from_secs(1)).unwrap();
    let granted = polled(&bucket, 20, 4_200);
    assert_eq!(granted[..5], [0, 20, 40, 60, 80]);
    assert_eq!(
        granted[5..],
        [500, 1000, 1500, 2000, 2500, 3000, 3500, 4000]
    );
}

/// A bucket drained before the recording began: grants at 11.5, 31.6, ... 111.4 s, polled every 502 ms.
#[test]
fn three_tokens_a_minute_come_twenty_seconds_apart() {
    let bucket = TokenBucket::new(3, 3, Duration::from_secs(60)).unwrap();
    bucket.take(Tick::ZERO, 3).unwrap();
    let recording = Duration::from_millis(8_600); // the first token falls 11.4 s into it
    let granted: Vec<String> = (0..256)
        .map(|nth| Duration::from_millis(502) * nth)
        .filter(|&at| bucket.take(Tick::ZERO + recording + at, 1).is_ok())
        .map(|at| format!("{:.1}", at.as_secs_f64()))
        .collect();
    assert_eq!(granted, ["11.5", "31.6", "51.7", "71.8", "91.9", "111.4"]);
}

#[test]
fn after_a_long_idle_time_the_burst_is_exactly_the_maximum() {
    let bucket = TokenBucket::new(5, 2, Duration::from_secs(1)).unwrap();
    bucket.take(Tick::ZERO, 5).unwrap();
    let later = Tick::ZERO + Duration::from_secs(3600);
    assert!(bucket.take(later, 6).is_err());
    assert_eq!(bucket.take(later, 5).unwrap().remaining, 0);
    assert!(bucket.take(later, 1).is_err());
}
