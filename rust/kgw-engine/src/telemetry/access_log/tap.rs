//! Taps: the access log for readers in this process.
//!
//! A tap has a format of its own, a queue per worker, and a file descriptor that is readable while
//! there are lines. Workers do what they do for a file, but for one system call after each look of the
//! reader, and never wait for it: what does not fit is dropped and counted. Without a tap the end of a
//! request costs one load.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::format::LogProgram;
use super::queue::{Lines, Queue};
use super::record::Record;
use crate::wake::Wake;

/// The taps of an engine.
#[derive(Debug)]
pub(crate) struct Taps {
    workers: usize,
    /// How many there are.
    count: AtomicUsize,
    feeds: Mutex<Feeds>,
}

#[derive(Debug, Default)]
struct Feeds {
    open: Arc<[Arc<Feed>]>,
    closed: bool,
}

/// What the workers and the reader of one tap share.
#[derive(Debug)]
struct Feed {
    program: LogProgram,
    limit: usize,
    queues: Box<[Queue]>,
    closed: AtomicBool,
    wake: Wake,
}

/// The reader's end of a tap, which dropping closes.
#[derive(Debug)]
pub struct Tap {
    feed: Arc<Feed>,
    taps: Arc<Taps>,
}

// === impl Taps ===

impl Taps {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            count: AtomicUsize::new(0),
            feeds: Mutex::default(),
        }
    }

    /// Whether nobody reads: one load.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Queues the line of `record` for everybody who reads; never waits.
    pub(crate) fn log(&self, worker: usize, record: &Record<'_>) {
        if self.is_empty() {
            return;
        }
        let open = Arc::clone(&self.feeds.lock().open);
        for feed in &*open {
            feed.queues[worker % feed.queues.len()]
                .push(feed.limit, |out| feed.program.render(record, out));
            feed.wake.ring();
        }
    }

    /// Ends all of them, once nothing is logged any longer. What is queued can still be read.
    pub(crate) fn close(&self) {
        let open = {
            let mut feeds = self.feeds.lock();
            feeds.closed = true;
            self.set(&mut feeds, Arc::default())
        };
        for feed in &*open {
            feed.close();
        }
    }

    fn add(&self, feed: &Arc<Feed>) {
        let mut feeds = self.feeds.lock();
        if feeds.closed {
            feed.close();
            return;
        }
        let open = feeds.open.iter().chain([feed]).map(Arc::clone).collect();
        self.set(&mut feeds, open);
    }

    fn remove(&self, feed: &Arc<Feed>) {
        let mut feeds = self.feeds.lock();
        let others = feeds.open.iter().filter(|one| !Arc::ptr_eq(one, feed));
        let open = others.map(Arc::clone).collect();
        self.set(&mut feeds, open);
    }

    /// Returns those that were open before.
    fn set(&self, feeds: &mut Feeds, open: Arc<[Arc<Feed>]>) -> Arc<[Arc<Feed>]> {
        self.count.store(open.len(), Ordering::Relaxed);
        std::mem::replace(&mut feeds.open, open)
    }
}

// === impl Feed ===

impl Feed {
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.ring();
    }
}

// === impl Tap ===

impl Tap {
    /// Opens a tap. Fails if there is no file descriptor left.
    pub(crate) fn open(taps: &Arc<Taps>, program: LogProgram, limit: usize) -> io::Result<Self> {
        let feed = Arc::new(Feed {
            program,
            limit,
            queues: (0..taps.workers.max(1)).map(|_| Queue::default()).collect(),
            closed: AtomicBool::new(false),
            wake: Wake::new()?,
        });
        taps.add(&feed);
        Ok(Self {
            feed,
            taps: Arc::clone(taps),
        })
    }

    /// Whether no line comes any more, after those that a look from now on finds.
    pub fn is_closed(&self) -> bool {
        self.feed.closed.load(Ordering::Acquire)
    }

    /// Takes what is queued: whole lines, those of a worker in the order in which its requests ended.
    pub fn take(&self) -> Vec<u8> {
        self.feed.wake.hush();
        let mut batch = Lines::default();
        for queue in &self.feed.queues {
            queue.drain(&mut batch);
        }
        if self.is_closed() {
            // It stays readable, for whoever looks before waiting and for whoever does not.
            self.feed.wake.ring();
        }
        batch.bytes
    }

    /// Returns how many lines did not fit into the queues.
    pub fn dropped(&self) -> u64 {
        self.feed.queues.iter().map(Queue::dropped).sum()
    }

    /// Ends the tap, and wakes who waits for it.
    pub fn close(&self) {
        self.taps.remove(&self.feed);
        self.feed.close();
    }
}

impl AsFd for Tap {
    /// Readable while there is something to take, and for ever once the tap is closed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.feed.wake.as_fd()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.taps.remove(&self.feed);
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use serde_json::json;

    use super::super::{FormatOptions, sample};
    use super::*;

    fn program() -> LogProgram {
        let format = json!({"code": "%RESPONSE_CODE%"});
        LogProgram::json(&format, FormatOptions::default()).unwrap()
    }

    const LINE: &str = "{\"code\":429}\n";

    fn taps(workers: usize) -> Arc<Taps> {
        Arc::new(Taps::new(workers))
    }

    fn tap(taps: &Arc<Taps>) -> Tap {
        Tap::open(taps, program(), 1024).unwrap()
    }

    fn log(taps: &Taps, worker: usize) {
        sample(|record| taps.log(worker, record));
    }

    fn is_readable(tap: &Tap) -> bool {
        let mut polled = [PollFd::new(tap, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
    }

    fn text(tap: &Tap) -> String {
        String::from_utf8(tap.take()).unwrap()
    }

    #[test]
    fn every_reader_gets_every_line_of_all_workers() {
        let taps = taps(2);
        log(&taps, 0);
        let (one, other) = (tap(&taps), tap(&taps));
        assert!(!is_readable(&one));
        log(&taps, 0);
        log(&taps, 1);
        assert!(is_readable(&one) && is_readable(&other));
        assert_eq!(text(&one), LINE.repeat(2));
        assert!(!is_readable(&one) && is_readable(&other));
        assert_eq!(text(&other), LINE.repeat(2));
        log(&taps, 1);
        assert!(is_readable(&one));
        assert_eq!(text(&one), LINE);
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let taps = taps(1);
        let tap = Tap::open(&taps, program(), 2 * LINE.len()).unwrap();
        for _ in 0..5 {
            log(&taps, 0);
        }
        assert_eq!(tap.dropped(), 3);
        assert_eq!(text(&tap), LINE.repeat(2));
        log(&taps, 0);
        assert_eq!((text(&tap).as_str(), tap.dropped()), (LINE, 3));
    }

    #[test]
    fn a_tap_that_is_gone_costs_nothing() {
        let taps = taps(1);
        let (one, other) = (tap(&taps), tap(&taps));
        drop(one);
        assert!(!taps.is_empty());
        log(&taps, 0);
        other.close();
        assert!(taps.is_empty());
        log(&taps, 0);
        assert_eq!(text(&other), LINE);
        assert!(other.is_closed() && is_readable(&other));
    }

    #[test]
    fn an_end_is_seen_after_the_last_line() {
        let taps = taps(1);
        let early = tap(&taps);
        log(&taps, 0);
        assert!(!early.is_closed());
        taps.close();
        assert!(early.is_closed() && is_readable(&early));
        assert_eq!(text(&early), LINE);
        assert!(is_readable(&early) && early.take().is_empty());
        let late = tap(&taps);
        assert!(late.is_closed() && is_readable(&late) && taps.is_empty());
    }
}
