//! A sink: the queues of one path, and the stream that writes them out.
//!
//! The stream takes what is queued as one batch and writes it with as few calls as the file takes.
//! It knows where lines end: a line written in part is completed before anything else, and what is
//! lost is lost in whole lines.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::queue::{Lines, Queue};
use super::output::Output;
use super::{SinkCounters, WriterOptions};

/// The part of a sink that workers and thread share.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    limit: usize,
    queues: Box<[Queue]>,
    closed: AtomicBool,
    written: AtomicU64,
    dropped: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

/// How far a sink got; the later, the more is left to do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Progress {
    /// There was nothing to write.
    Idle,
    /// All there was is written.
    Wrote,
    /// The file takes no more for now.
    Stalled,
}

/// The part of a sink that belongs to the thread.
#[derive(Debug)]
pub(super) struct Stream {
    shared: Arc<Shared>,
    output: Box<dyn Output>,
    batch: Lines,
    /// Bytes of the batch that are written.
    offset: usize,
    /// The line that `offset` is in: its index, start and end.
    line: usize,
    line_start: usize,
    line_end: usize,
    reopen: bool,
    /// Looks that a closed sink has left to get its lines out.
    patience: u32,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(path: PathBuf, options: WriterOptions) -> Self {
        Self {
            path,
            limit: options.queue_bytes,
            queues: (0..options.workers.max(1))
                .map(|_| Queue::default())
                .collect(),
            closed: AtomicBool::new(false),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    /// Queues a line; returns the bytes the worker has queued now.
    pub(super) fn push(&self, worker: usize, render: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.queues[worker % self.queues.len()].push(self.limit, render)
    }

    /// Drops what is queued: there is no thread any more.
    pub(super) fn drop_queued(&self) {
        let mut lost = Lines::default();
        self.queues.iter().for_each(|queue| queue.drain(&mut lost));
        self.dropped
            .fetch_add(lost.lengths.len() as u64, Ordering::Relaxed);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn counters(&self) -> SinkCounters {
        let unqueued: u64 = self.queues.iter().map(Queue::dropped).sum();
        SinkCounters {
            written: self.written.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed) + unqueued,
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, output: Box<dyn Output>) -> Self {
        Self {
            shared,
            output,
            batch: Lines::default(),
            offset: 0,
            line: 0,
            line_start: 0,
            line_end: 0,
            reopen: false,
            patience: PATIENCE,
        }
    }

    /// Writes what is left of the last batch, then what is queued.
    pub(super) fn pump(&mut self) -> Progress {
        let leftover = self.offset < self.batch.bytes.len();
        if leftover && !self.write_batch() {
            return Progress::Stalled;
        }
        self.take_batch();
        if self.reopen {
            self.reopen_output();
        }
        if self.batch.bytes.is_empty() {
            return if leftover {
                Progress::Wrote
            } else {
                Progress::Idle
            };
        }
        if self.write_batch() {
            Progress::Wrote
        } else {
            Progress::Stalled
        }
    }

    /// Opens the file again as soon as the line in progress is complete.
    pub(super) fn reopen(&mut self) {
        self.reopen = true;
    }

    /// Returns whether nothing is left to write.
    pub(super) fn is_empty(&self) -> bool {
        self.offset == self.batch.bytes.len() && self.shared.queues.iter().all(Queue::is_empty)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Returns whether a closed sink was stalled for so long that its lines are lost.
    pub(super) fn is_given_up(&mut self) -> bool {
        self.patience = self.patience.saturating_sub(1);
        self.patience == 0
    }

    /// Drops and counts all that is left.
    pub(super) fn abandon(&mut self) {
        let left = self.batch.lengths.len() - self.line;
        self.shared
            .dropped
            .fetch_add(left as u64, Ordering::Relaxed);
        self.batch.clear();
        self.start_batch();
        self.shared.drop_queued();
    }

    fn take_batch(&mut self) {
        self.batch.clear();
        for queue in &self.shared.queues {
            queue.drain(&mut self.batch);
        }
        self.start_batch();
    }

    fn start_batch(&mut self) {
        self.offset = 0;
        self.line = 0;
        self.line_start = 0;
        self.line_end = self.batch.lengths.first().copied().unwrap_or(0);
    }

    /// Writes the rest of the batch; returns whether all of it is written.
    fn write_batch(&mut self) -> bool {
        while self.offset < self.batch.bytes.len() {
            if self.reopen && self.offset == self.line_start {
                self.reopen_output();
            }
            match self.output.write(&self.batch.bytes[self.offset..]) {
                Ok(count @ 1..) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    // The next reader, if there is one, must not start in the middle of a line.
                    self.skip_torn_line();
                    self.shared.errors.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
                Ok(0) | Err(_) => {
                    self.shared.errors.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
            }
        }
        true
    }

    fn advance(&mut self, count: usize) {
        self.offset += count;
        self.shared.bytes.fetch_add(count as u64, Ordering::Relaxed);
        let mut written = 0;
        while self.line < self.batch.lengths.len() && self.offset >= self.line_end {
            self.next_line();
            written += 1;
        }
        self.shared.written.fetch_add(written, Ordering::Relaxed);
    }

    fn skip_torn_line(&mut self) {
        if self.offset > self.line_start {
            self.offset = self.line_end;
            self.next_line();
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn next_line(&mut self) {
        self.line += 1;
        self.line_start = self.line_end;
        self.line_end += self.batch.lengths.get(self.line).copied().unwrap_or(0);
    }

    fn reopen_output(&mut self) {
        self.reopen = false;
        if self.output.reopen().is_err() {
            self.shared.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Ten seconds at the default interval.
const PATIENCE: u32 = 100;
