//! [`Slots`]: how much of something may be in use at once.

#[cfg(not(loom))]
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(loom)]
use loom::sync::Arc;
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

/// So many things that may be in use at once, which threads share without a lock: the resource of a
/// circuit breaker.
///
/// Never more than the maximum are in use by [`Slots::take`], whatever the threads do. A [`Slot`] is in use
/// until it is dropped, so none is lost however its holder ends. The orderings are relaxed: the number is
/// the whole state and guards nothing else.
#[derive(Debug)]
#[repr(align(64))] // threads that count other things share no cache line with this
pub struct Slots {
    used: AtomicU64,
    most: u64,
}

/// One of some [`Slots`], in use until it is dropped.
#[derive(Debug)]
#[must_use = "a slot that is dropped is free"]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// Slots of which so many may be in use.
    #[must_use]
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            most,
        })
    }

    /// Takes a slot; none if as many as may be are in use.
    #[must_use]
    pub fn take(slots: &Arc<Self>) -> Option<Slot> {
        let taken = slots
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < slots.most).then_some(used + 1)
            });
        taken.ok().map(|_| Slot(Arc::clone(slots)))
    }

    /// Takes a slot, however many are in use.
    pub fn force(slots: &Arc<Self>) -> Slot {
        slots.used.fetch_add(1, Ordering::Relaxed);
        Slot(Arc::clone(slots))
    }

    /// How many are in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How many may still be taken.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.most.saturating_sub(self.used())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn none_is_left_when_as_many_as_may_be_are_in_use() {
        let slots = Slots::new(2);
        let (first, second) = (Slots::take(&slots), Slots::take(&slots));
        assert!(first.is_some() && second.is_some());
        assert!(Slots::take(&slots).is_none());
        assert_eq!((slots.used(), slots.remaining()), (2, 0));
        drop(first);
        assert_eq!(slots.remaining(), 1);
        assert!(Slots::take(&slots).is_some());
    }

    #[test]
    fn what_is_forced_counts() {
        let slots = Slots::new(1);
        let (first, second) = (Slots::force(&slots), Slots::force(&slots));
        assert_eq!((slots.used(), slots.remaining()), (2, 0));
        drop(first);
        assert!(Slots::take(&slots).is_none());
        drop(second);
        assert!(Slots::take(&slots).is_some());
    }

    proptest! {
        /// Against a list of those in use: steps take, force or drop one of them.
        #[test]
        fn as_many_are_used_as_are_held(most in 0_u64..6, steps in prop::collection::vec((0_u8..3, any::<prop::sample::Index>()), 0..200)) {
            let slots = Slots::new(most);
            let mut held = Vec::new();
            for (step, which) in steps {
                match step {
                    0 => {
                        let taken = Slots::take(&slots);
                        prop_assert_eq!(taken.is_some(), (held.len() as u64) < most);
                        held.extend(taken);
                    }
                    1 => held.push(Slots::force(&slots)),
                    _ if held.is_empty() => {}
                    _ => drop(held.swap_remove(which.index(held.len()))),
                }
                prop_assert_eq!(slots.used(), held.len() as u64);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    use super::*;

    #[test]
    fn never_more_than_may_be_are_in_use_and_none_is_lost() {
        loom::model(|| {
            let slots = Slots::new(1);
            let inside = Arc::new(AtomicU64::new(0));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (slots, inside) = (Arc::clone(&slots), Arc::clone(&inside));
                    thread::spawn(move || {
                        for _ in 0..2 {
                            let Some(slot) = Slots::take(&slots) else {
                                continue;
                            };
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(slot);
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(slots.used(), 0);
        });
    }
}
