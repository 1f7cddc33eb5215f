//! The bucket against a model in exact fractions: a level in tokens scaled by the interval.

use std::time::Duration;

use kgw_limit::{Error, Limit, Tick, TokenBucket};
use proptest::prelude::*;

/// Tokens times `interval` (in ticks), so that a tick adds exactly `per_fill`.
struct Model {
    max: u128,
    per_fill: u128,
    interval: u128,
    level: u128,
    now: u64,
}

impl Model {
    fn new(max: u64, per_fill: u64, interval: Duration) -> Self {
        let interval = interval.as_nanos() * u128::from(Tick::PER_NANOSECOND);
        let (max, per_fill) = (u128::from(max), u128::from(per_fill));
        Self {
            max,
            per_fill,
            interval,
            level: max * interval,
            now: 0,
        }
    }

    fn refill(&mut self, now: Tick) {
        let elapsed = u128::from(now.as_raw() - self.now);
        self.now = now.as_raw();
        self.level = (self.level + elapsed * self.per_fill).min(self.max * self.interval);
    }

    fn take(&mut self, now: Tick, n: u64) -> Result<u64, u64> {
        self.refill(now);
        let wanted = u128::from(n) * self.interval;
        if wanted <= self.level {
            self.level -= wanted;
            Ok(self.remaining())
        } else {
            Err(self.remaining())
        }
    }

    fn remaining(&self) -> u64 {
        u64::try_from(self.level / self.interval).expect("at most `max`")
    }
}

/// Rates at which a token's time is a whole number of ticks, where bucket and model must agree exactly.
fn exact_rate() -> impl Strategy<Value = (u64, Duration)> {
    (1_u64..=1_000, 50_000_000_u64..=100_000_000_000)
        .prop_map(|(per_fill, nanos)| (per_fill, Duration::from_nanos(nanos / per_fill * per_fill)))
        .prop_filter("Envoy's minimum", |(_, interval)| {
            interval.as_millis() >= 50
        })
}

fn steps() -> impl Strategy<Value = Vec<(u64, u64)>> {
    // nanoseconds to the next take: bursts, fractions of a token, long idle times
    let gap = prop_oneof![
        Just(0),
        0_u64..1_000_000,
        0_u64..500_000_000,
        0_u64..300_000_000_000
    ];
    prop::collection::vec((gap, 0_u64..12), 1..200)
}

proptest! {
    // No file of failures: what was found becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_exact_fractions((per_fill, interval) in exact_rate(), max in 0_u64..20, steps in steps()) {
        let bucket = TokenBucket::new(max, per_fill, interval).unwrap();
        let mut model = Model::new(max, per_fill, interval);
        let mut now = Tick::ZERO;
        for (gap, n) in steps {
            now = now + Duration::from_nanos(gap);
            let before = bucket.remaining(now);
            let taken = bucket.take(now, n);
            prop_assert_eq!(taken.map(|taken| taken.remaining).map_err(|denied| denied.remaining), model.take(now, n));
            if let Err(denied) = taken {
                prop_assert_eq!(bucket.remaining(now), before);
                prop_assert_eq!(denied.retry_after.is_none(), n > max);
                if let Some(wait) = denied.retry_after {
                    prop_assert!(wait > Duration::ZERO);
                    prop_assert_eq!(bucket.retry_after(now + wait, n), Some(Duration::ZERO));
                }
            }
        }
    }

    /// Any rate: rounding a token's time down may only ever give more, and by no more than the rounding.
    #[test]
    fn never_gives_less_than_exact_fractions(
        per_fill in 1_u64..10_000_000, nanos in 50_000_000_u64..100_000_000_000, max in 1_u64..1_000, steps in steps(),
    ) {
        let interval = Duration::from_nanos(nanos);
        let bucket = TokenBucket::new(max, per_fill, interval).unwrap();
        let mut model = Model::new(max, per_fill, interval);
        let (mut now, mut granted) = (Tick::ZERO, 0_u64);
        for (gap, n) in steps {
            now = now + Duration::from_nanos(gap);
            model.refill(now);
            prop_assert!(bucket.remaining(now) >= model.remaining());
            if bucket.take(now, n).is_ok() {
                granted += n;
                model.level = model.level.saturating_sub(u128::from(n) * model.interval);
            }
        }
        let cost = interval.as_nanos() * 16 / u128::from(per_fill);
        prop_assert!(u128::from(granted) <= u128::from(max) + u128::from(now.as_raw()) / cost);
    }

    /// Every 64-bit number is an answer or a named error, in every operation; nothing overflows.
    #[test]
    fn any_numbers_do(
        max in any::<u64>(), per_fill in any::<u64>(), interval in any::<Duration>(),
        steps in prop::collection::vec((any::<u64>(), any::<u64>(), 0_u8..4), 1..20),
    ) {
        let bucket = match Limit::with_rate(max, per_fill, interval) {
            Ok(limit) => TokenBucket::from(limit),
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                let named = matches!(
                    error,
                    Error::CapacityTooLarge { .. } | Error::RateTooHigh { .. }
                        | Error::ZeroInterval | Error::ZeroTokensPerFill
                );
                prop_assert!(named);
                return Ok(());
            }
        };
        for (now, n, operation) in steps {
            let now = Tick::from_raw(now);
            match operation {
                0 => { let _either = bucket.take(now, n); }
                1 => { bucket.reserve(now, n); }
                2 => bucket.refund(n),
                _ => { bucket.retry_after(now, n % max.max(1)); }
            }
            prop_assert!(bucket.remaining(now) <= max);
        }
    }

    #[test]
    fn any_envoy_configuration_is_accepted(max in any::<u32>(), per_fill in 1_u32.., millis in 50_u64..=31_536_000_000) {
        let rate = u128::from(per_fill) * 1_000 / u128::from(millis);
        prop_assume!(rate < 16_000_000_000);
        let limit = Limit::new(max.into(), per_fill.into(), Duration::from_millis(millis));
        prop_assert!(limit.is_ok(), "{limit:?}");
    }
}
