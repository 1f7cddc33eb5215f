//! The way of a request's body to its copies: bounded, and never waited for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;
use kgw_h1::Headers;
use smallvec::SmallVec;

use crate::runtime::Worker;

/// Body that may wait for one copy to take it: kgateway's `per_connection_buffer_limit`. Bytes, with
/// [`CHUNK_COST`] for each chunk.
const MOST_WAITING: usize = 1024 * 1024;

/// The same for all copies of a worker.
const MOST_WAITING_IN_WORKER: usize = 16 * 1024 * 1024;

/// What a chunk costs beside its data: its [`Bytes`] in a queue that may be half empty (32 each), what they
/// share (24), and what the allocator adds to two allocations (32). Bytes.
const CHUNK_COST: usize = 128;

/// What the copies of a worker take up.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Copies under way.
    pub(super) in_flight: Cell<usize>,
    /// Body that waits for them. Bytes, as [`cost`] counts them.
    waiting: Cell<usize>,
}

/// What of a request's body is for its copies.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    copies: SmallVec<[Rc<Feed>; 1]>,
    /// Of the body, what this attempt at the request's own backend has sent, and what any has: an
    /// attempt that follows another sends again what the copies already have. Bytes.
    sent: u64,
    fed: u64,
    ended: bool,
}

/// The body of one copy.
#[derive(Debug)]
pub(super) struct Feed {
    worker: Rc<Worker>,
    body: RefCell<Body>,
}

#[derive(Debug, Default)]
struct Body {
    chunks: VecDeque<Bytes>,
    /// What they cost. Bytes.
    waiting: usize,
    /// All that has ever arrived, the end counting as a byte.
    arrived: u64,
    end: End,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
enum End {
    /// More is to come.
    #[default]
    Open,
    /// That was all; these are the trailer fields.
    Whole(Option<Headers>),
    /// The end has been taken.
    Over,
    /// The rest will not come, or nobody wants it.
    Cut,
}

/// What a chunk that waits costs. Bytes.
fn cost(chunk: &Bytes) -> usize {
    CHUNK_COST + chunk.len()
}

// === impl Feeds ===

impl Feeds {
    pub(super) fn add(&mut self, feed: &Rc<Feed>) {
        self.copies.push(Rc::clone(feed));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// Whether any copy still wants the body.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.ended && self.copies.iter().any(|feed| feed.is_open())
    }

    /// The body is sent from its beginning.
    pub(crate) fn begin_attempt(&mut self) {
        self.sent = 0;
    }

    /// Some of the body is sent.
    pub(crate) fn data(&mut self, data: &[u8]) {
        let known = self.fed.saturating_sub(self.sent);
        self.sent += data.len() as u64;
        let new = usize::try_from(known).ok().and_then(|at| data.get(at..));
        let Some(new) = new.filter(|new| !new.is_empty()) else {
            return;
        };
        self.fed = self.sent;
        if self.is_wanted() {
            let chunk = Bytes::copy_from_slice(new);
            for feed in &self.copies {
                feed.push(&chunk);
            }
        }
    }

    /// The body is over.
    pub(crate) fn end(&mut self, trailers: Option<&Headers>) {
        if !std::mem::replace(&mut self.ended, true) {
            for feed in &self.copies {
                feed.end(trailers);
            }
        }
    }
}

impl Drop for Feeds {
    /// A request that is given up leaves its copies without their rest.
    fn drop(&mut self) {
        if !self.ended {
            for feed in &self.copies {
                feed.cut_off();
            }
        }
    }
}

// === impl Feed ===

impl Feed {
    pub(super) fn new(worker: &Rc<Worker>) -> Self {
        Self {
            worker: Rc::clone(worker),
            body: RefCell::default(),
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.body.borrow().end, End::Open)
    }

    fn push(&self, chunk: &Bytes) {
        if !self.is_open() {
            return;
        }
        let of_worker = &self.worker.mirrors.waiting;
        let mut body = self.body.borrow_mut();
        let cost = cost(chunk);
        let waiting = body.waiting + cost;
        if waiting > MOST_WAITING || of_worker.get() + cost > MOST_WAITING_IN_WORKER {
            drop(body);
            self.cut_off();
            return;
        }
        of_worker.set(of_worker.get() + cost);
        body.waiting = waiting;
        body.arrived += chunk.len() as u64;
        body.chunks.push_back(chunk.clone());
        body.wake();
    }

    fn end(&self, trailers: Option<&Headers>) {
        if self.is_open() {
            let mut body = self.body.borrow_mut();
            body.end = End::Whole(trailers.cloned());
            body.arrived += 1;
            body.wake();
        }
    }

    /// Ends a copy for want of its rest, and counts it.
    fn cut_off(&self) {
        if self.is_open() {
            self.worker.stats().mirror_rq_cut.increment();
            self.close();
        }
    }

    /// Drops what waits; nothing more comes.
    pub(super) fn close(&self) {
        let mut body = self.body.borrow_mut();
        body.chunks = VecDeque::new();
        self.release(std::mem::take(&mut body.waiting));
        body.end = End::Cut;
        body.wake();
    }

    fn release(&self, count: usize) {
        let of_worker = &self.worker.mirrors.waiting;
        of_worker.set(of_worker.get() - count);
    }

    /// The next part of the body.
    pub(super) fn take(&self) -> Option<Bytes> {
        let mut body = self.body.borrow_mut();
        let chunk = body.chunks.pop_front()?;
        let cost = cost(&chunk);
        body.waiting -= cost;
        self.release(cost);
        Some(chunk)
    }

    /// Takes the end of the body with its trailer fields, once all parts were taken. Returns whether it
    /// has come, and has not been taken before.
    pub(super) fn take_end(&self, trailers: &mut Option<Headers>) -> bool {
        let mut body = self.body.borrow_mut();
        match &mut body.end {
            End::Whole(given) => {
                *trailers = given.take();
                body.end = End::Over;
                true
            }
            End::Open | End::Over | End::Cut => false,
        }
    }

    /// Whether something waits to be taken.
    pub(super) fn has_input(&self) -> bool {
        let body = self.body.borrow();
        !body.chunks.is_empty() || matches!(body.end, End::Whole(_))
    }

    pub(super) fn is_cut(&self) -> bool {
        matches!(self.body.borrow().end, End::Cut)
    }

    /// All that has ever arrived; the task that asks is woken when there is more.
    pub(super) fn arrived(&self, cx: &Context<'_>) -> u64 {
        let mut body = self.body.borrow_mut();
        body.waker = Some(cx.waker().clone());
        body.arrived
    }
}

impl Body {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::config::snapshot::Snapshot;
    use crate::listen::socket::Sockets;
    use crate::runtime::Shared;

    fn worker() -> Rc<Worker> {
        let snapshot = Arc::new(Snapshot::default());
        let shared = Shared::new(Clock::manual(), 1, 4, snapshot, Sockets::new());
        Rc::new(Worker::new(0, Arc::new(shared)))
    }

    /// Sends a copy chunks of so many bytes until it is cut off. Returns how many waited for it at most.
    fn chunks_until_cut(worker: &Rc<Worker>, length: usize) -> usize {
        let feed = Rc::new(Feed::new(worker));
        let mut feeds = Feeds::default();
        feeds.add(&feed);
        let data = vec![0; length];
        let mut most = 0;
        while feeds.is_wanted() {
            most = feed.body.borrow().chunks.len();
            feeds.data(&data);
        }
        assert!(feed.is_cut());
        assert_eq!(worker.mirrors.waiting.get(), 0);
        assert_eq!(worker.stats().mirror_rq_cut.value(), 1);
        most
    }

    #[test]
    fn small_chunks_count_as_what_they_cost() {
        assert_eq!(
            chunks_until_cut(&worker(), 1),
            MOST_WAITING / (CHUNK_COST + 1)
        );
    }

    #[test]
    fn large_chunks_count_as_their_data() {
        assert_eq!(chunks_until_cut(&worker(), 16 * 1024), 63);
    }

    #[test]
    fn all_copies_of_a_worker_have_one_bound() {
        let worker = worker();
        let feeds: Vec<_> = (0..20).map(|_| Feed::new(&worker)).collect();
        let chunk = Bytes::from_static(b"x");
        for feed in &feeds {
            for _ in 0..MOST_WAITING / cost(&chunk) {
                feed.push(&chunk);
            }
        }
        let cut = feeds.iter().filter(|feed| feed.is_cut()).count();
        assert_eq!(cut, 4);
        assert!(worker.mirrors.waiting.get() <= MOST_WAITING_IN_WORKER);
        for feed in &feeds {
            feed.close();
        }
        assert_eq!(worker.mirrors.waiting.get(), 0);
    }

    #[test]
    fn what_was_taken_does_not_count() {
        let worker = worker();
        let feed = Feed::new(&worker);
        for _ in 0..3 * MOST_WAITING / CHUNK_COST {
            feed.push(&Bytes::from_static(b"x"));
            assert_eq!(feed.take().as_deref(), Some(&b"x"[..]));
        }
        assert!(!feed.is_cut());
        assert_eq!(
            (feed.body.borrow().waiting, worker.mirrors.waiting.get()),
            (0, 0)
        );
    }
}
