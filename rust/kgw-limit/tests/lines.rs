//! Those who wait, against a queue that is served token by token.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use kgw_limit::{
    Entered, KeyedBucket, KeyedBuckets, Limit, Lines, Place, Promise, Refused, Tick, TokenBucket,
    Unreserved,
};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(milliseconds: u64) -> Tick {
    Tick::from_nanos(milliseconds * 1_000_000)
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// One that waits.
struct Sleeper {
    id: usize,
    place: Place,
    /// Milliseconds.
    deadline: u64,
    told: u64,
    woken: Arc<Woken>,
    seen: usize,
}

fn milliseconds(wait: Duration) -> u64 {
    assert_eq!(wait.subsec_nanos() % 1_000_000, 0, "{wait:?}");
    u64::try_from(wait.as_millis()).expect("it is short")
}

/// Lines with their sleepers, each of which only does what its own timer and waker tell it.
struct Waiting<B> {
    bucket: B,
    lines: Lines<u8>,
    sleepers: Vec<Sleeper>,
    served: Vec<(usize, u64)>,
}

impl<B: Promise> Waiting<B> {
    fn new(bucket: B) -> Self {
        Self {
            bucket,
            lines: Lines::new(),
            sleepers: Vec::new(),
            served: Vec::new(),
        }
    }

    fn enter(&mut self, id: usize, now: u64, n: u64, longest: u64, most: usize) -> bool {
        let longest = Duration::from_millis(longest);
        let entered = self
            .lines
            .enter(&self.bucket, &0, at(now), n, longest, most);
        match entered {
            Ok(Entered::Ready) => self.served.push((id, now)),
            Ok(Entered::Waiting { place, wait }) => {
                assert!(wait > Duration::ZERO && wait <= longest);
                let told = now + milliseconds(wait);
                self.sleepers.push(Sleeper {
                    id,
                    place,
                    deadline: told,
                    told,
                    woken: Arc::default(),
                    seen: 0,
                });
                let last = self.sleepers.len() - 1;
                self.look(last, now);
            }
            Err(Refused::Full { .. }) => {
                assert_eq!(self.lines.waiting(), most);
                return false;
            }
            Err(Refused::Unreserved(_)) => return false,
        }
        true
    }

    fn look(&mut self, index: usize, now: u64) {
        let sleeper = &mut self.sleepers[index];
        let waker = Waker::from(Arc::clone(&sleeper.woken));
        while let Some(wait) = self
            .lines
            .look(&self.bucket, &0, &sleeper.place, at(now), &waker)
        {
            sleeper.deadline = sleeper.deadline.min(now + milliseconds(wait));
        }
    }

    /// Lets those go on that were woken or whose time has come, until there are none.
    fn settle(&mut self, now: u64) {
        loop {
            for index in 0..self.sleepers.len() {
                let sleeper = &mut self.sleepers[index];
                let count = sleeper.woken.count();
                if sleeper.seen != count {
                    sleeper.seen = count;
                    self.look(index, now);
                }
            }
            let is_due = |sleeper: &Sleeper| sleeper.deadline <= now;
            let Some(index) = self.sleepers.iter().position(is_due) else {
                return;
            };
            let sleeper = self.sleepers.remove(index);
            assert!(now <= sleeper.told, "it waited longer than it was told");
            self.served.push((sleeper.id, now));
            self.lines.leave(&self.bucket, &0, sleeper.place, true);
        }
    }

    fn cancel(&mut self, index: usize) -> usize {
        let sleeper = self.sleepers.remove(index);
        self.lines.leave(&self.bucket, &0, sleeper.place, false);
        sleeper.id
    }
}

/// A queue in front of a bucket that gains a token each `per_token` milliseconds, evenly.
struct Queue {
    max: u64,
    per_token: u64,
    /// In milliseconds of refill.
    level: u64,
    now: u64,
    waiting: VecDeque<(usize, u64)>,
    served: Vec<(usize, u64)>,
}

impl Queue {
    fn advance(&mut self, to: u64) {
        while self.now < to {
            self.now += 1;
            self.level = (self.level + 1).min(self.max * self.per_token);
            self.serve();
        }
    }

    fn serve(&mut self) {
        while let Some(&(id, n)) = self.waiting.front() {
            if self.level < n * self.per_token {
                return;
            }
            self.level -= n * self.per_token;
            self.served.push((id, self.now));
            self.waiting.pop_front();
        }
    }

    fn enter(&mut self, id: usize, n: u64, longest: u64, most: usize) -> bool {
        let ordered: u64 = self.waiting.iter().map(|&(_, n)| n).sum::<u64>() + n;
        let wait = (ordered * self.per_token).saturating_sub(self.level);
        let longest = if self.waiting.len() >= most {
            0
        } else {
            longest
        };
        if n > self.max || wait > longest {
            return false;
        }
        self.waiting.push_back((id, n));
        self.serve();
        true
    }
}

#[derive(Clone, Debug)]
enum Event {
    Enter { n: u64, longest: u64 },
    Cancel(usize),
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1_u64..4, 0_u64..4_000).prop_map(|(n, longest)| Event::Enter { n, longest }),
        2 => (0_usize..8).prop_map(Event::Cancel),
        3 => (1_u64..700).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..60)
}

fn check<B: Promise>(
    bucket: B,
    (max, per_token): (u64, u64),
    most: usize,
    events: Vec<Event>,
) -> Result<(), TestCaseError> {
    let mut waiting = Waiting::new(bucket);
    let mut queue = Queue {
        max,
        per_token,
        level: max * per_token,
        now: 0,
        waiting: VecDeque::new(),
        served: Vec::new(),
    };
    let mut now = 0;
    for (id, event) in events.into_iter().enumerate() {
        match event {
            Event::Enter { n, longest } => {
                let entered = waiting.enter(id, now, n, longest, most);
                prop_assert_eq!(entered, queue.enter(id, n, longest, most));
            }
            Event::Cancel(index) if index < waiting.sleepers.len() => {
                let gone = waiting.cancel(index);
                queue.waiting.retain(|&(id, _)| id != gone);
                queue.serve();
            }
            Event::Cancel(_) => {}
            Event::Pass(time) => {
                for _ in 0..time {
                    now += 1;
                    waiting.settle(now);
                }
                queue.advance(now);
            }
        }
        waiting.settle(now);
        prop_assert!(waiting.lines.waiting() <= most);
        prop_assert_eq!(waiting.lines.waiting(), queue.waiting.len());
        prop_assert_eq!(&waiting.served, &queue.served);
    }
    Ok(())
}

proptest! {
    /// Whoever waits is served in order, at the very moment at which a queue would serve it, also after
    /// others have given up.
    #[test]
    fn lines_are_queues(max in 1_u64..5, most in 0_usize..6, events in events()) {
        let limit = Limit::new(max, 1, SECOND / 4).unwrap();
        check(TokenBucket::from(limit), (max, 250), most, events)?;
    }

    #[test]
    fn lines_of_a_key_are_queues(max in 1_u64..5, most in 0_usize..6, events in events()) {
        let limit = Limit::new(max, 1, SECOND / 4).unwrap();
        let buckets = KeyedBuckets::new(limit, 8).unwrap();
        let bucket = KeyedBucket { buckets: &buckets, key: &7_u128 };
        check(bucket, (max, 250), most, events)?;
    }
}

#[test]
fn lines_do_not_wait_for_each_other() {
    let limit = Limit::new(1, 1, SECOND).unwrap();
    let buckets = KeyedBuckets::new(limit, 8).unwrap();
    let lines = Lines::new();
    let enter = |key: u128| {
        let bucket = KeyedBucket {
            buckets: &buckets,
            key: &key,
        };
        lines.enter(&bucket, &key, at(0), 1, SECOND, 9)
    };
    assert_eq!(enter(1), Ok(Entered::Ready));
    assert!(matches!(enter(1), Ok(Entered::Waiting { .. })));
    assert_eq!(enter(2), Ok(Entered::Ready));
    assert!(matches!(
        enter(1),
        Err(Refused::Unreserved(Unreserved::TooLate { wait })) if wait == 2 * SECOND
    ));
    assert_eq!(lines.waiting(), 1);
}

#[test]
fn what_can_never_be_had_is_not_waited_for() {
    let bucket = TokenBucket::new(2, 1, SECOND).unwrap();
    let lines = Lines::new();
    let refused = lines.enter(&bucket, &(), at(0), 3, Duration::MAX, 9);
    assert_eq!(refused, Err(Refused::Unreserved(Unreserved::Never)));
    assert_eq!(bucket.remaining(at(0)), 2);
}

#[test]
fn tokens_that_are_given_back_are_for_the_first_in_line() {
    let bucket = TokenBucket::new(1, 1, SECOND).unwrap();
    let lines = Lines::new();
    let enter = || lines.enter(&bucket, &(), at(0), 1, 2 * SECOND, 9).unwrap();
    assert_eq!(enter(), Entered::Ready);
    let Entered::Waiting { place, wait } = enter() else {
        panic!("there is no token");
    };
    assert_eq!(wait, SECOND);
    let woken = Arc::new(Woken::default());
    let look = || {
        let waker = Waker::from(Arc::clone(&woken));
        lines.look(&bucket, &(), &place, at(100), &waker)
    };
    assert_eq!(look(), None);
    lines.give_back(&bucket, &(), 1);
    assert_eq!(woken.count(), 1);
    assert_eq!(look(), Some(Duration::ZERO));
    assert!(bucket.take(at(100), 1).is_err(), "it is reserved");
    lines.leave(&bucket, &(), place, true);
    assert_eq!(lines.waiting(), 0);
}
