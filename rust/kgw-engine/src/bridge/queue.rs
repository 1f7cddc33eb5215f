//! The queue between workers and whoever runs the filters.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use super::declaration::Declaration;
use super::job::{Job, Message, Place};
use super::session::{Session, Sessions};
use super::verdict::{Failure, Verdict};
use crate::room::{Held, Room};

/// A bounded queue of [`Job`]s, and a file descriptor that is readable while there are some.
#[derive(Debug)]
pub struct Bridge {
    declarations: Box<[Declaration]>,
    capacity: usize,
    jobs: ArrayQueue<Job>,
    /// Jobs that were taken, perhaps, and are no longer waited for.
    cancelled: ArrayQueue<u64>,
    /// Jobs that exist, waiting and running.
    taken: Arc<AtomicUsize>,
    /// Room for bodies that are held until a filter can have them as a whole.
    room: Arc<Room>,
    sessions: Sessions,
    next_id: AtomicU64,
    /// The reader was told, and has not looked yet.
    armed: AtomicBool,
    closed: AtomicBool,
    event: OwnedFd,
}

impl Bridge {
    /// Makes a bridge to the filters that `declarations` describe, for at most `capacity` jobs at a time
    /// (at least 1), and for at most `max_bytes` of bodies that are collected for filters. Fails if there
    /// is no file descriptor left.
    pub fn new(
        declarations: Vec<Declaration>,
        capacity: usize,
        max_bytes: usize,
    ) -> io::Result<Self> {
        let capacity = capacity.max(1);
        Ok(Self {
            declarations: declarations.into_boxed_slice(),
            capacity,
            jobs: ArrayQueue::new(capacity),
            cancelled: ArrayQueue::new(capacity),
            taken: Arc::default(),
            room: Arc::new(Room::new(max_bytes)),
            sessions: Sessions::default(),
            next_id: AtomicU64::new(0),
            armed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Returns what was declared, in the order of [`Job::filter`].
    pub fn declarations(&self) -> &[Declaration] {
        &self.declarations
    }

    /// Returns how many jobs exist, waiting and running.
    pub fn active(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Returns how many bytes of bodies are held.
    pub fn held(&self) -> usize {
        self.room.used()
    }

    // === The reader's side ===

    /// Begins a look at the queue, after the descriptor became readable: forgets the wake, and hands
    /// out the numbers of jobs that nobody waits for any longer. Returns false once the bridge is
    /// closed. [`ended`](Self::ended) is to be asked next.
    pub fn begin(&self, mut cancelled: impl FnMut(u64)) -> bool {
        let mut count = [0; 8];
        // Nothing to read is as good as something.
        let _ = rustix::io::read(&self.event, &mut count);
        // Before the first pop: what is pushed after it wakes again. The swap reads what the last
        // wake wrote, so all that was pushed before that is visible.
        self.armed.swap(false, Ordering::AcqRel);
        while let Some(id) = self.cancelled.pop() {
            cancelled(id);
        }
        !self.closed.load(Ordering::Acquire)
    }

    /// Takes the numbers of [sessions](Job::session) that are over: no job of them follows.
    pub fn ended(&self) -> Vec<u64> {
        self.sessions.take_ended()
    }

    /// Takes the next job that somebody waits for.
    pub fn pop(&self) -> Option<Job> {
        loop {
            let job = self.jobs.pop()?;
            if job.deliver() {
                return Some(job);
            }
        }
    }

    /// Ends a look at the queue: what is left of it wakes the reader again.
    pub fn end(&self) {
        if !self.jobs.is_empty() {
            self.wake();
        }
    }

    /// Closes the bridge: jobs in the queue, and all to come, get [`Failure::Closed`]. The reader is
    /// woken and told so.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.drop_jobs();
        self.wake();
    }

    fn drop_jobs(&self) {
        while self.jobs.pop().is_some() {}
    }

    // === The workers' side ===

    /// Asks a filter, as a part of a session if there is one; true says that it is the last part. The reader is not told: that is up to a [`wake`](Self::wake), which may be one for
    /// several questions.
    pub(crate) fn ask(
        self: &Arc<Self>,
        filter: u16,
        message: Message,
        session: Option<(&OpenSession, bool)>,
    ) -> Result<Waiting, Failure> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Failure::Closed);
        }
        let place = Place::take(&self.taken, self.capacity).ok_or(Failure::Overflow)?;
        let (reply, verdict) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let session = match session {
            Some((open, is_last)) => (Some(Arc::clone(&open.session)), is_last),
            None => (None, false),
        };
        let job = Job::new(id, filter, message, session, reply, place);
        if self.jobs.push(job).is_err() {
            // There is a slot for every place; only a job that is being taken out can still hold its.
            return Err(Failure::Overflow);
        }
        if self.closed.load(Ordering::SeqCst) {
            // It may have been closed between the look and the push, and emptied before the latter.
            self.drop_jobs();
        }
        Ok(Waiting {
            bridge: Arc::clone(self),
            id,
            verdict,
            is_over: false,
        })
    }

    /// Begins a session: one filter's look at one exchange.
    pub(crate) fn session(self: &Arc<Self>) -> OpenSession {
        OpenSession {
            bridge: Arc::clone(self),
            session: self.sessions.begin(),
        }
    }

    /// Begins to hold a body.
    pub(crate) fn hold(&self) -> Held {
        self.room.hold()
    }

    /// Tells the reader that nobody waits for a job any longer.
    fn cancel(&self, id: u64) {
        // Without room it runs to its end, for nobody.
        if self.cancelled.push(id).is_ok() {
            self.wake();
        }
    }

    /// Makes the descriptor readable, unless it is or the reader is about to look.
    pub(crate) fn wake(&self) {
        if !self.armed.swap(true, Ordering::AcqRel) {
            // A counter that is full is readable as well.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl AsFd for Bridge {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// A session, which is over when this is dropped.
#[derive(Debug)]
pub(crate) struct OpenSession {
    bridge: Arc<Bridge>,
    session: Arc<Session>,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if self.bridge.sessions.end(&self.session) {
            self.bridge.wake();
        }
    }
}

/// A verdict that is waited for. Dropped before it is there, it cancels the job.
#[derive(Debug)]
pub(crate) struct Waiting {
    bridge: Arc<Bridge>,
    id: u64,
    verdict: oneshot::Receiver<Verdict>,
    is_over: bool,
}

impl Waiting {
    /// Ready with the verdict; not to be called again after that.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        let verdict = std::pin::Pin::new(&mut self.verdict);
        verdict.poll(cx).map(|verdict| {
            self.is_over = true;
            verdict.unwrap_or(Verdict::Failed(Failure::Closed))
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_over {
            // First of all: a job in the queue is then skipped.
            self.verdict.close();
            self.bridge.cancel(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::bridge::head::{About, RequestHead};

    fn bridge(capacity: usize) -> Arc<Bridge> {
        Arc::new(Bridge::new(Vec::new(), capacity, 100).unwrap())
    }

    fn message() -> Message {
        let about = About {
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            peer: ([127, 0, 0, 1], 1).into(),
            secure: false,
            principal: None,
            route: Arc::from("r"),
            metadata: Vec::new(),
            policy: None,
        };
        let request = kgw_h1::Request::new();
        Message::RequestHead(Box::new(RequestHead::new(&request, about, None)))
    }

    /// Asks, and tells the reader.
    fn ask(bridge: &Arc<Bridge>, filter: u16) -> Result<Waiting, Failure> {
        let waiting = bridge.ask(filter, message(), None);
        bridge.wake();
        waiting
    }

    fn is_readable(bridge: &Bridge) -> bool {
        let mut polled = [rustix::event::PollFd::new(
            bridge,
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::event::Timespec::default();
        rustix::event::poll(&mut polled, Some(&now)).unwrap() == 1
    }

    fn verdict(waiting: &mut Waiting) -> Option<Verdict> {
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(verdict) => Some(verdict),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_wake_covers_all_jobs_until_the_reader_looks() {
        let bridge = bridge(8);
        assert!(!is_readable(&bridge));
        let mut first = ask(&bridge, 0).unwrap();
        let _second = ask(&bridge, 1).unwrap();
        let mut count = [0; 8];
        rustix::io::read(&bridge.event, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        assert!(bridge.begin(|_| panic!("nothing was cancelled")));
        let job = bridge.pop().unwrap();
        assert_eq!((job.id(), job.filter()), (0, 0));
        assert!(verdict(&mut first).is_none());
        job.answer(Verdict::Continue(None));
        assert!(matches!(verdict(&mut first), Some(Verdict::Continue(None))));
        assert!(!is_readable(&bridge));
        bridge.end();
        assert!(is_readable(&bridge), "a job is left");
        assert_eq!(bridge.pop().unwrap().filter(), 1);
    }

    #[test]
    fn a_job_after_the_look_began_wakes_again() {
        let bridge = bridge(8);
        let _first = ask(&bridge, 0).unwrap();
        assert!(bridge.begin(|_| {}));
        let _second = ask(&bridge, 0).unwrap();
        assert!(is_readable(&bridge));
    }

    #[test]
    fn only_so_many_jobs_exist_waiting_or_running() {
        let bridge = bridge(2);
        let _one = ask(&bridge, 0).unwrap();
        let _two = ask(&bridge, 0).unwrap();
        assert_eq!(ask(&bridge, 0).unwrap_err(), Failure::Overflow);
        let running = bridge.pop().unwrap();
        assert_eq!(ask(&bridge, 0).unwrap_err(), Failure::Overflow);
        running.answer(Verdict::Continue(None));
        assert_eq!(bridge.active(), 1);
        let _three = ask(&bridge, 0).unwrap();
        assert_eq!(bridge.active(), 2);
    }

    #[test]
    fn what_is_no_longer_waited_for_is_skipped_or_named() {
        let bridge = bridge(4);
        let queued = ask(&bridge, 0).unwrap();
        let taken = ask(&bridge, 0).unwrap();
        drop(queued);
        let job = bridge.pop().unwrap();
        assert_eq!((job.id(), job.is_cancelled()), (1, false));
        assert!(bridge.begin(|_| {}));
        drop(taken);
        assert!(job.is_cancelled());
        assert!(is_readable(&bridge));
        let mut named = Vec::new();
        assert!(bridge.begin(|id| named.push(id)));
        assert_eq!(named, [1]);
        drop(job);
        assert_eq!(bridge.active(), 0);
    }

    #[test]
    fn a_job_that_is_dropped_and_a_bridge_that_is_closed_say_so() {
        let bridge = bridge(4);
        let mut dropped = ask(&bridge, 0).unwrap();
        drop(bridge.pop());
        let failed = |waiting: &mut Waiting| match verdict(waiting) {
            Some(Verdict::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(&mut dropped), Failure::Closed);
        let mut queued = ask(&bridge, 0).unwrap();
        bridge.close();
        assert_eq!(failed(&mut queued), Failure::Closed);
        assert_eq!(ask(&bridge, 0).unwrap_err(), Failure::Closed);
        assert!(is_readable(&bridge) && !bridge.begin(|_| {}));
        assert_eq!(bridge.active(), 0);
    }

    #[test]
    fn the_end_of_a_session_is_told_if_its_beginning_was() {
        let bridge = bridge(4);
        let unseen = bridge.session();
        let queued = bridge.ask(0, message(), Some((&unseen, false))).unwrap();
        drop(queued);
        drop(unseen);
        assert!(bridge.ended().is_empty());
        let seen = bridge.session();
        let mut waiting = bridge.ask(0, message(), Some((&seen, false))).unwrap();
        let job = bridge.pop().unwrap();
        let number = job.session().unwrap();
        job.answer(Verdict::Continue(None));
        assert!(verdict(&mut waiting).is_some());
        assert!(bridge.ended().is_empty());
        assert!(bridge.begin(|_| {}) && !is_readable(&bridge));
        drop(seen);
        assert!(is_readable(&bridge));
        assert_eq!(bridge.ended(), [number]);
        assert!(bridge.ended().is_empty());
        let last = bridge.session();
        let _waiting = bridge.ask(0, message(), Some((&last, true))).unwrap();
        assert!(bridge.pop().unwrap().is_last());
        drop(last);
        assert!(bridge.ended().is_empty());
    }

    /// Threads that ask and one that answers: every job is answered once, whatever the timing.
    #[test]
    fn no_job_is_forgotten_between_threads() {
        const EACH: usize = 2_000;
        let bridge = bridge(16);
        let askers: Vec<_> = (0..2)
            .map(|_| {
                let bridge = Arc::clone(&bridge);
                std::thread::spawn(move || {
                    for _ in 0..EACH {
                        let waiting = loop {
                            match ask(&bridge, 0) {
                                Ok(waiting) => break waiting,
                                Err(_) => std::thread::yield_now(),
                            }
                        };
                        let mut waiting = waiting;
                        while verdict(&mut waiting).is_none() {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut answered = 0;
        while answered < 2 * EACH {
            let mut polled = [rustix::event::PollFd::new(
                &*bridge,
                rustix::event::PollFlags::IN,
            )];
            rustix::event::poll(&mut polled, None).unwrap();
            bridge.begin(|_| {});
            for _ in 0..3 {
                if let Some(job) = bridge.pop() {
                    job.answer(Verdict::Continue(None));
                    answered += 1;
                }
            }
            bridge.end();
        }
        for asker in askers {
            asker.join().unwrap();
        }
        assert_eq!(bridge.active(), 0);
    }
}
