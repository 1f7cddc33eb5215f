//! [`RetryBudget`]: how many of the requests to a backend may be retries (GEP-3388).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Tick;

/// Slots of a [`Window`].
const SLOTS: usize = 10;

/// Bits of a slot that count; those above say which slot of time it is.
const COUNT_BITS: u32 = 32;

/// A bound on retries, as a share of the requests of late, which threads share without a lock.
///
/// A retry is granted while retries are at most `percent` of all requests of the last `interval`,
/// retries included, or at most `min_retries` were granted in the last `min_interval`.
///
/// Requests are counted in tenths of an interval, and the tenth that is under way counts as a whole one.
/// So what is taken for an interval is between nine tenths of it and all of it: never longer. A retry that
/// is refused while other threads ask may be one too many; granted is never one too many.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    min_retries: u64,
    requests: Window,
    retries: Window,
    /// Retries of the last `min_interval`.
    recent: Window,
}

impl RetryBudget {
    /// A budget of `percent` (more than 100 is 100) of the requests in `interval`, and of at least
    /// `min_retries` in `min_interval`. An `interval` is at least a second long (as the API demands); of a
    /// shorter `min_interval` the rate counts, over a second.
    #[must_use]
    pub fn new(percent: u8, interval: Duration, min_retries: u64, min_interval: Duration) -> Self {
        let second = 1_000_000_000;
        let shorter = min_interval.as_nanos().clamp(1, second);
        let per_second = u128::from(min_retries) * second / shorter;
        let min_retries = u64::try_from(per_second).unwrap_or(u64::MAX);
        Self {
            percent: u64::from(percent.min(100)),
            min_retries,
            requests: Window::new(interval),
            retries: Window::new(interval),
            recent: Window::new(min_interval),
        }
    }

    /// Counts a request that is not a retry.
    pub fn request(&self, now: Tick) {
        self.requests.add(now);
    }

    /// Asks for a retry. It is counted if it is granted.
    #[must_use = "a retry that is granted is counted"]
    pub fn retry(&self, now: Tick) -> bool {
        self.retries.add(now);
        self.recent.add(now);
        let retries = self.retries.sum(now);
        let all = self.requests.sum(now) + retries;
        let granted =
            self.recent.sum(now) <= self.min_retries || retries * 100 <= all * self.percent;
        if !granted {
            self.retries.take_back(now);
            self.recent.take_back(now);
        }
        granted
    }
}

/// Events of an interval, by tenths of it.
#[derive(Debug)]
struct Window {
    slot: u64,
    /// Each has the number of its slot of time above its count.
    counts: [AtomicU64; SLOTS],
}

impl Window {
    fn new(interval: Duration) -> Self {
        let interval = Tick::from_duration(interval).as_raw();
        Self {
            slot: interval.max(Tick::PER_SECOND) / SLOTS as u64,
            counts: Default::default(),
        }
    }

    /// The number of the slot of time, from 1 on: 0 is that of a count never used. It fits its bits for
    /// thirteen years.
    fn number(&self, now: Tick) -> u64 {
        now.as_raw() / self.slot + 1
    }

    fn count(&self, number: u64) -> &AtomicU64 {
        &self.counts[number as usize % SLOTS]
    }

    fn add(&self, now: Tick) {
        let number = self.number(now);
        let tag = number << COUNT_BITS;
        let mut known = self.count(number).load(Ordering::Relaxed);
        loop {
            // A thread whose clock is behind counts in the slot that has taken the place of its own.
            let next = if is_older(known, tag) { tag } else { known } + 1;
            match self.count(number).compare_exchange_weak(
                known,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(other) => known = other,
            }
        }
    }

    /// Undoes an [`add`](Self::add) of the same time.
    fn take_back(&self, now: Tick) {
        let number = self.number(now);
        let tag = number << COUNT_BITS;
        let _ = self
            .count(number)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| {
                (!is_older(known, tag) && count_of(known) > 0).then(|| known - 1)
            });
    }

    fn sum(&self, now: Tick) -> u64 {
        let first = (self.number(now) + 1).saturating_sub(SLOTS as u64) << COUNT_BITS;
        self.counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .filter(|&known| !is_older(known, first))
            .map(count_of)
            .sum()
    }
}

/// Whether a count is of an earlier slot of time than `tag`.
fn is_older(known: u64, tag: u64) -> bool {
    known >> COUNT_BITS < tag >> COUNT_BITS
}

fn count_of(known: u64) -> u64 {
    known & ((1 << COUNT_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(milliseconds: u64) -> Tick {
        Tick::from_nanos(milliseconds * 1_000_000)
    }

    /// Retries granted out of `asked`.
    fn granted(budget: &RetryBudget, now: Tick, asked: u64) -> u64 {
        (0..asked).filter(|_| budget.retry(now)).count() as u64
    }

    #[test]
    fn a_fifth_of_all_requests_may_be_retries() {
        let budget = RetryBudget::new(20, 10 * SECOND, 0, SECOND);
        for number in 0..800 {
            budget.request(at(number * 10));
        }
        // 200 of then 1000 requests.
        assert_eq!(granted(&budget, at(8_000), 1_000), 200);
        // What was asked for and refused does not count against what comes.
        for _ in 0..4 {
            budget.request(at(8_000));
        }
        assert_eq!(granted(&budget, at(8_000), 10), 1);
    }

    #[test]
    fn requests_count_for_the_interval_and_no_longer() {
        let budget = RetryBudget::new(50, 10 * SECOND, 0, SECOND);
        (0..100).for_each(|_| budget.request(at(0)));
        assert_eq!(granted(&budget, at(10_000), 1), 0);
        assert_eq!(granted(&budget, at(9_999), 1), 1);
    }

    #[test]
    fn a_few_retries_are_always_granted() {
        let budget = RetryBudget::new(0, 10 * SECOND, 3, SECOND);
        assert_eq!(granted(&budget, at(0), 10), 3);
        assert_eq!(granted(&budget, at(900), 10), 0);
        assert_eq!(granted(&budget, at(1_000), 10), 3);
    }

    #[test]
    fn of_an_interval_below_a_second_the_rate_counts() {
        let budget = RetryBudget::new(0, SECOND, 2, SECOND / 4);
        assert_eq!(granted(&budget, at(0), 10), 8);
    }

    #[test]
    fn all_requests_may_be_retries_and_none() {
        let all = RetryBudget::new(100, SECOND, 0, SECOND);
        assert_eq!(granted(&all, at(0), 50), 50);
        let none = RetryBudget::new(0, SECOND, 0, SECOND);
        none.request(at(0));
        assert_eq!(granted(&none, at(0), 50), 0);
    }

    #[test]
    fn threads_are_never_granted_more_than_there_is() {
        let budget = Arc::new(RetryBudget::new(0, 10 * SECOND, 100, 10 * SECOND));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let budget = Arc::clone(&budget);
                std::thread::spawn(move || granted(&budget, at(0), 1_000))
            })
            .collect();
        let total: u64 = threads.into_iter().map(|one| one.join().unwrap()).sum();
        assert!(total <= 100, "{total}");
        // Nobody else asks, so what was refused in the rush is there.
        assert_eq!(total + granted(&budget, at(0), 1_000), 100);
    }

    proptest! {
        /// Against a list of times, of which those count that are in the same ten slots.
        #[test]
        fn it_decides_as_a_list_of_times_does(
            percent in 0_u8..=100,
            interval_s in 1_u64..100,
            min_retries in 0_u64..5,
            min_interval_s in 1_u64..100,
            steps in prop::collection::vec((0_u64..20, any::<bool>()), 1..200),
        ) {
            let interval = Duration::from_secs(interval_s);
            let min_interval = Duration::from_secs(min_interval_s);
            let budget = RetryBudget::new(percent, interval, min_retries, min_interval);
            let (mut requests, mut retries) = (VecDeque::new(), VecDeque::new());
            let mut now = 0;
            for (wait, is_retry) in steps {
                now += wait;
                let since = |times: &VecDeque<u64>, interval: u64| {
                    let slot = |seconds: u64| seconds * 10 / interval;
                    times.iter().filter(|&&one| slot(one) + 9 >= slot(now)).count() as u64
                };
                if !is_retry {
                    budget.request(at(now * 1_000));
                    requests.push_back(now);
                    continue;
                }
                retries.push_back(now);
                let count = since(&retries, interval_s);
                let all = since(&requests, interval_s) + count;
                let expected = since(&retries, min_interval_s) <= min_retries
                    || count * 100 <= all * u64::from(percent);
                if !expected {
                    retries.pop_back();
                }
                prop_assert_eq!(budget.retry(at(now * 1_000)), expected);
            }
        }
    }
}
