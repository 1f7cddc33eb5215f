//! The queue between one worker and one reader, a sink or a tap: bounded in bytes, and never waited for by the worker.
//!
//! Two buffers, each behind a lock that is only ever tried by the worker. The thread holds at most
//! one of them at a time, so the other is free. Order: the worker changes buffers only when it finds
//! its own one taken, that is, while it is being emptied; so the other buffer is always the older
//! one, and the thread empties that first.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// Lines of one worker for one reader.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Queue {
    buffers: [Mutex<Lines>; 2],
    active: AtomicUsize,
    dropped: AtomicU64,
}

/// Lines and where each ends.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    /// Lengths of the lines. Bytes.
    pub(super) lengths: Vec<usize>,
}

impl Queue {
    /// Adds the line that `render` appends, unless that makes more than `limit` bytes.
    ///
    /// Returns the bytes in the buffer.
    pub(super) fn push(&self, limit: usize, render: impl FnOnce(&mut Vec<u8>)) -> usize {
        let mut lines = self.lock();
        let start = lines.bytes.len();
        let mut fits = start < limit;
        if fits {
            let mut line = Line {
                lines: &mut lines,
                start,
            };
            render(&mut line.lines.bytes);
            fits = line.lines.bytes.len() <= limit;
            if fits {
                line.keep();
            }
        }
        if !fits {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        lines.bytes.len()
    }

    /// Moves all lines to the end of `batch`, oldest first.
    pub(super) fn drain(&self, batch: &mut Lines) {
        let active = self.active.load(Ordering::Acquire);
        for buffer in [active ^ 1, active] {
            let mut lines = self.buffers[buffer].lock();
            batch.bytes.extend_from_slice(&lines.bytes);
            batch.lengths.extend_from_slice(&lines.lengths);
            lines.clear();
        }
    }

    /// Returns whether nothing is queued.
    ///
    /// Only for a queue that is drained before this is asked again, or order may be lost.
    pub(super) fn is_empty(&self) -> bool {
        self.buffers
            .iter()
            .all(|buffer| buffer.lock().bytes.is_empty())
    }

    /// Returns the lines that did not fit.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        let active = self.active.load(Ordering::Relaxed);
        if let Some(lines) = self.buffers[active].try_lock() {
            return lines;
        }
        let other = active ^ 1;
        // Waits only if two workers share an index against the rules.
        let lines = self.buffers[other].lock();
        self.active.store(other, Ordering::Release);
        lines
    }
}

impl Lines {
    /// Forgets the lines, and the memory too if a burst made it large.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > KEEP_BYTES {
            *self = Self::default();
        }
        self.bytes.clear();
        self.lengths.clear();
    }
}

/// A line in the making: taken back unless kept, when rendering it panics too.
struct Line<'a> {
    lines: &'a mut Lines,
    start: usize,
}

impl Line<'_> {
    fn keep(&mut self) {
        let end = self.lines.bytes.len();
        if end > self.start {
            self.lines.lengths.push(end - self.start);
        }
        self.start = end;
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.lines.bytes.truncate(self.start);
    }
}

/// Buffers up to this size are kept for reuse.
const KEEP_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::sync::Arc;

    fn push(queue: &Queue, limit: usize, line: &str) {
        queue.push(limit, |out| out.extend_from_slice(line.as_bytes()));
    }

    fn drained(queue: &Queue) -> String {
        let mut batch = Lines::default();
        queue.drain(&mut batch);
        String::from_utf8(batch.bytes).unwrap()
    }

    #[test]
    fn a_line_that_does_not_fit_is_dropped_whole_and_counted() {
        let queue = Queue::default();
        push(&queue, 10, "12345\n");
        push(&queue, 10, "6789\n");
        push(&queue, 10, "abc\n");
        push(&queue, 10, "d");
        assert_eq!(queue.dropped(), 2);
        assert_eq!(drained(&queue), "12345\nabc\n");
        push(&queue, 10, "6789\n");
        assert_eq!(drained(&queue), "6789\n");
    }

    #[test]
    fn a_panic_in_the_middle_of_a_line_leaves_no_piece_of_it() {
        let queue = Queue::default();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            queue.push(100, |out| {
                out.extend_from_slice(b"half");
                panic!("rendering fails");
            })
        }));
        assert!(result.is_err());
        push(&queue, 100, "next\n");
        assert_eq!(drained(&queue), "next\n");
    }

    #[test]
    fn lines_pushed_while_the_buffer_is_taken_follow_in_order() {
        let queue = Queue::default();
        push(&queue, 100, "a");
        let taken = queue.buffers[0].lock();
        push(&queue, 100, "b");
        push(&queue, 100, "c");
        drop(taken);
        push(&queue, 100, "d");
        assert_eq!(drained(&queue), "abcd");
        assert!(queue.is_empty());
    }

    #[test]
    fn nothing_is_lost_and_order_is_kept_between_threads() {
        const LINES: usize = 50_000;
        let queue = Arc::new(Queue::default());
        let worker = Arc::clone(&queue);
        let thread = std::thread::spawn(move || {
            for number in 0..LINES {
                push(&worker, usize::MAX, &format!("{number}\n"));
            }
        });
        let mut batch = Lines::default();
        while batch.lengths.len() < LINES {
            queue.drain(&mut batch);
        }
        thread.join().unwrap();
        let mut expected = Vec::new();
        for number in 0..LINES {
            writeln!(expected, "{number}").unwrap();
        }
        assert!(batch.bytes == expected, "lines are lost or out of order");
    }
}
