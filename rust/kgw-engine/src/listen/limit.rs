//! Limits on open connections: exact, over all workers, and patient.
//!
//! A connection needs a slot before it is accepted. While there is none, accepting pauses: whoever
//! connects waits in the kernel's queue, and the connection that ends next makes room for one more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// How many connections may be open at once.
///
/// Taking and giving back a slot is one atomic operation each, per connection and never per request.
/// The orders are `SeqCst` because a task that begins to wait and a connection that ends each write
/// one variable and read the other's: one of them must see the other.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    max: AtomicU64,
    open: AtomicU64,
    /// Whether there may be somebody in `waiting`, so that an end without one takes no lock.
    has_waiting: AtomicBool,
    waiting: Mutex<VecDeque<Waker>>,
}

impl ConnectionLimit {
    /// A limit of `max` connections; 0 is none.
    pub(crate) fn new(max: u64) -> Self {
        Self {
            max: AtomicU64::new(no_limit_if_0(max)),
            open: AtomicU64::new(0),
            has_waiting: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// Changes the limit. Connections above a lower one stay open.
    pub(crate) fn change(&self, max: u64) {
        let max = no_limit_if_0(max);
        if self.max.swap(max, Ordering::SeqCst) < max {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Takes a slot. If there is none, the task is woken when there may be one.
    pub(crate) fn poll_slot(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Slot> {
        if let Some(slot) = self.slot() {
            return Poll::Ready(slot);
        }
        {
            let mut waiting = self.waiting.lock();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push_back(cx.waker().clone());
            }
            self.has_waiting.store(true, Ordering::SeqCst);
        }
        // A slot that was given back meanwhile saw nobody waiting.
        self.slot().map_or(Poll::Pending, Poll::Ready)
    }

    /// Forgets a task that does not wait any longer. If a slot was meant for it, another gets it.
    pub(crate) fn leave(&self, waker: &Waker) {
        self.waiting.lock().retain(|other| !other.will_wake(waker));
        self.wake_next();
    }

    /// Takes a slot if there is one.
    pub(crate) fn slot(self: &Arc<Self>) -> Option<Slot> {
        let max = self.max.load(Ordering::SeqCst);
        let more = |open| (open < max).then_some(open + 1);
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .ok()
            .map(|_| Slot(Arc::clone(self)))
    }

    /// Wakes one task. One that has no use for the slot gives it back, which wakes the next.
    fn wake_next(&self) {
        if !self.has_waiting.load(Ordering::SeqCst) {
            return;
        }
        let next = {
            let mut waiting = self.waiting.lock();
            let next = waiting.pop_front();
            self.has_waiting
                .store(!waiting.is_empty(), Ordering::SeqCst);
            next
        };
        if let Some(next) = next {
            next.wake();
        }
    }
}

fn no_limit_if_0(max: u64) -> u64 {
    if max == 0 { u64::MAX } else { max }
}

/// The right to have a connection open; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<ConnectionLimit>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.wake_next();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Wakes {
        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn poll(limit: &Arc<ConnectionLimit>, wakes: &Arc<Wakes>) -> Poll<Slot> {
        limit.poll_slot(&Context::from_waker(&Waker::from(Arc::clone(wakes))))
    }

    fn taken(limit: &Arc<ConnectionLimit>) -> Slot {
        match poll(limit, &Arc::default()) {
            Poll::Ready(slot) => slot,
            Poll::Pending => panic!("no slot"),
        }
    }

    #[test]
    fn an_end_wakes_one_of_those_that_wait_in_their_order() {
        let limit = Arc::new(ConnectionLimit::new(1));
        let slot = taken(&limit);
        let (first, second) = (Arc::default(), Arc::default());
        for _ in 0..3 {
            assert!(poll(&limit, &first).is_pending());
            assert!(poll(&limit, &second).is_pending());
        }
        drop(slot);
        assert_eq!((first.count(), second.count()), (1, 0));
        let slot = poll(&limit, &first);
        assert!(slot.is_ready());
        drop(slot);
        assert_eq!((first.count(), second.count()), (1, 1));
    }

    #[test]
    fn a_task_that_leaves_passes_on_what_was_meant_for_it() {
        let limit = Arc::new(ConnectionLimit::new(1));
        let slot = taken(&limit);
        let (first, second) = (Arc::default(), Arc::default());
        assert!(poll(&limit, &first).is_pending());
        assert!(poll(&limit, &second).is_pending());
        drop(slot);
        limit.leave(&Waker::from(Arc::clone(&first)));
        assert_eq!(second.count(), 1);
        assert!(poll(&limit, &second).is_ready());
    }

    #[test]
    fn a_higher_limit_wakes_everyone_and_a_lower_one_closes_nothing() {
        let limit = Arc::new(ConnectionLimit::new(2));
        let slots = [taken(&limit), taken(&limit)];
        let wakes = Arc::default();
        limit.change(1);
        assert!(poll(&limit, &wakes).is_pending());
        limit.change(3);
        assert_eq!(wakes.count(), 1);
        let third = poll(&limit, &wakes);
        assert!(third.is_ready());
        assert!(poll(&limit, &wakes).is_pending());
        limit.change(0);
        assert!(poll(&limit, &wakes).is_ready());
        drop((slots, third));
    }

    #[test]
    fn threads_never_exceed_the_limit_and_nobody_sleeps_through_a_free_slot() {
        let limit = Arc::new(ConnectionLimit::new(3));
        let (open, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let start = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                    for _ in 0..2_000 {
                        let slot = loop {
                            match limit.poll_slot(&Context::from_waker(&waker)) {
                                Poll::Ready(slot) => break slot,
                                Poll::Pending => std::thread::park(),
                            }
                        };
                        most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::hint::spin_loop();
                        open.fetch_sub(1, Ordering::SeqCst);
                        drop(slot);
                    }
                    limit.leave(&waker);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 3);
        assert_eq!(limit.open.load(Ordering::SeqCst), 0);
    }

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
}
