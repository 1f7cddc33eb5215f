//! The log writer: one thread that appends what the workers queued.
//!
//! ```text
//! worker 0 ─ queue ─┐
//! worker 1 ─ queue ─┼─> batch ─> file        one Sink per path, one thread for all sinks
//! worker n ─ queue ─┘
//! ```
//! Workers never wait and, under load, never make a system call: the thread looks at the queues every
//! [`WriterOptions::interval`] by itself. It is woken for the first line after a pause, and when a
//! queue passes [`WriterOptions::batch_bytes`].
//!
//! A sink that takes no more (full disk, stalled reader) keeps its lines, up to the bounds; later
//! lines are dropped and counted. It is tried again every interval, and a line that was written in
//! part is completed first.

mod output;
mod sink;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::service::Services;
use output::FileOutput;
use sink::{Progress, Shared as SinkShared, Stream};

/// Bounds and times of a [`LogWriter`].
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// Number of workers; worker indices are below it.
    pub workers: usize,
    /// Most bytes that one worker may have waiting for one sink.
    pub queue_bytes: usize,
    /// Bytes in a queue that make the thread look at once.
    pub batch_bytes: usize,
    /// Time between two looks at the queues.
    pub interval: Duration,
}

impl Default for WriterOptions {
    /// One worker, 1 MiB, 64 KiB, 100 ms.
    fn default() -> Self {
        Self {
            workers: 1,
            queue_bytes: 1024 * 1024,
            batch_bytes: 64 * 1024,
            interval: Duration::from_millis(100),
        }
    }
}

/// The writer thread and the sinks that are open.
///
/// Dropping it writes what is queued, for at most a second, and stops the thread. Lines that are
/// pushed later are dropped and counted.
#[derive(Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Logs that are no files, to which the workers write themselves.
    services: Services,
}

/// Where lines go; clones are the same sink, which is closed when the last one is dropped.
#[derive(Clone)]
pub struct Sink {
    owner: Arc<Owner>,
}

/// What happened to the lines of a sink so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SinkCounters {
    /// Lines written in full.
    pub written: u64,
    /// Lines that were lost: the queue was full, or the reader went away in the middle of one.
    pub dropped: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Failed writes and failed reopenings; a reader that is merely slow is none.
    pub errors: u64,
}

/// A sink that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the access log {}: {source}", path.display())]
pub struct OpenError {
    /// The path as configured.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// What the thread, the sinks and the owner of the writer share.
struct Shared {
    options: WriterOptions,
    /// One of [`IDLE`], [`TICKING`], [`URGENT`], [`STOPPED`].
    state: AtomicU8,
    thread: OnceLock<Thread>,
    control: Mutex<Control>,
    /// Signalled when `flushed` or `stopped` changes.
    progress: Condvar,
    open: Mutex<HashMap<PathBuf, Weak<Owner>>>,
}

#[derive(Debug, Default)]
struct Control {
    /// Sinks the thread has not taken over yet.
    new: Vec<Stream>,
    /// Tickets: flushes asked for and done.
    flush: u64,
    flushed: u64,
    /// Whether everything was written at the last flush.
    clean: bool,
    reopen: u64,
    stop: bool,
    stopped: bool,
}

/// Keeps a sink open.
struct Owner {
    sink: Arc<SinkShared>,
    writer: Arc<Shared>,
}

impl LogWriter {
    /// Starts the thread.
    pub fn start(options: WriterOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            options,
            state: AtomicU8::new(TICKING),
            thread: OnceLock::new(),
            control: Mutex::default(),
            progress: Condvar::new(),
            open: Mutex::default(),
        });
        let runner = Runner {
            shared: Arc::clone(&shared),
            streams: Vec::new(),
            reopened: 0,
        };
        let thread = thread::Builder::new()
            .name("kgw-log".to_owned())
            .spawn(move || runner.run())?;
        let _ = shared.thread.set(thread.thread().clone());
        Ok(Self {
            shared,
            thread: Some(thread),
            services: Services::new(options.workers),
        })
    }

    /// The logs that are services.
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// Opens `path` for appending, or returns the sink of that path if it is open.
    ///
    /// Files are created with mode 0644. `/dev/stdout` and `/dev/stderr` are the process's own.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Sink, OpenError> {
        let path = path.as_ref();
        let mut open = self.shared.open.lock();
        if let Some(owner) = open.get(path).and_then(Weak::upgrade) {
            return Ok(Sink { owner });
        }
        let output = FileOutput::open(path).map_err(|source| OpenError {
            path: path.to_owned(),
            source,
        })?;
        let sink = Arc::new(SinkShared::new(path.to_owned(), self.shared.options));
        let owner = Arc::new(Owner {
            sink: Arc::clone(&sink),
            writer: Arc::clone(&self.shared),
        });
        open.retain(|_, owner| owner.strong_count() > 0);
        open.insert(path.to_owned(), Arc::downgrade(&owner));
        self.shared
            .control
            .lock()
            .new
            .push(Stream::new(sink, Box::new(output)));
        Ok(Sink { owner })
    }

    /// Opens all files again, by name, once the line in progress is complete: for log rotation.
    ///
    /// A file that cannot be opened keeps its old handle and counts an error.
    pub fn reopen(&self) {
        self.shared.control.lock().reopen += 1;
        self.shared.wake();
    }

    /// Waits until everything queued so far is written, or sent to services; returns whether it was, within
    /// `timeout`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the caller waits in real time, whatever clock the engine runs by"
    )]
    pub fn flush(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        let left = || timeout.saturating_sub(start.elapsed());
        let is_sent = self.services.flush(timeout);
        let progress = &self.shared.progress;
        let mut control = self.shared.control.lock();
        loop {
            control.flush += 1;
            let ticket = control.flush;
            drop(control);
            self.shared.wake();
            control = self.shared.control.lock();
            let pending = |control: &mut Control| control.flushed < ticket && !control.stopped;
            progress.wait_while_for(&mut control, pending, left());
            if pending(&mut control) {
                return false;
            }
            if control.clean || control.stopped {
                return control.clean && is_sent;
            }
            // A sink is stalled: look again after an interval.
            let pause = self.shared.options.interval.min(left());
            progress.wait_for(&mut control, pause);
            if left().is_zero() {
                return false;
            }
        }
    }

    /// Returns the open sinks, sorted by path.
    pub fn sinks(&self) -> Vec<Sink> {
        let open = self.shared.open.lock();
        let mut sinks: Vec<_> = open
            .values()
            .filter_map(Weak::upgrade)
            .map(|owner| Sink { owner })
            .collect();
        sinks.sort_unstable_by(|a, b| a.path().cmp(b.path()));
        sinks
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.flush(Duration::from_secs(1));
        self.shared.control.lock().stop = true;
        self.shared.wake();
        let mut control = self.shared.control.lock();
        self.shared.progress.wait_while_for(
            &mut control,
            |control| !control.stopped,
            Duration::from_secs(1),
        );
        if !control.stopped {
            return; // It hangs in a write (a dead network file system): leave it behind.
        }
        drop(control);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Sink {
    /// Queues the line that `render` appends to the buffer it is given; never waits.
    ///
    /// Each worker uses its own index, below [`WriterOptions::workers`]; its lines stay in order. A
    /// line that does not fit is dropped and counted.
    pub fn push(&self, worker: usize, render: impl FnOnce(&mut Vec<u8>)) {
        let writer = &self.owner.writer;
        let queued = self.owner.sink.push(worker, render);
        match writer.state.load(Ordering::SeqCst) {
            TICKING if queued < writer.options.batch_bytes => {}
            IDLE | TICKING => writer.wake(),
            STOPPED => self.owner.sink.drop_queued(),
            _ => {}
        }
    }

    /// Returns the path as configured.
    pub fn path(&self) -> &Path {
        self.owner.sink.path()
    }

    /// Returns what happened to the lines so far.
    pub fn counters(&self) -> SinkCounters {
        self.owner.sink.counters()
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("path", &self.path())
            .field("counters", &self.counters())
            .finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.sink.close();
        self.writer.wake();
    }
}

impl Shared {
    /// Makes the thread look at the queues now; at most one caller pays for the system call.
    fn wake(&self) {
        let woken = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
                matches!(state, IDLE | TICKING).then_some(URGENT)
            });
        if woken.is_ok()
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// The thread's own state.
struct Runner {
    shared: Arc<Shared>,
    streams: Vec<Stream>,
    reopened: u64,
}

impl Runner {
    fn run(mut self) {
        loop {
            self.shared.state.store(TICKING, Ordering::SeqCst);
            let (flush, reopen, stop) = {
                let mut control = self.shared.control.lock();
                self.streams.append(&mut control.new);
                (control.flush, control.reopen, control.stop)
            };
            if reopen != self.reopened {
                self.reopened = reopen;
                self.streams.iter_mut().for_each(Stream::reopen);
            }
            let progress = self.pump();
            if self.report(flush, stop, progress != Progress::Stalled) {
                return;
            }
            self.sleep(progress);
        }
    }

    /// Writes what is queued; returns the furthest from idle that a sink is.
    fn pump(&mut self) -> Progress {
        let mut progress = Progress::Idle;
        self.streams.retain_mut(|stream| {
            // Nobody can push to a sink that was closed before this look.
            let closing = stream.is_closing();
            let at = stream.pump();
            let done = closing && (at != Progress::Stalled || stream.is_given_up());
            if done {
                stream.abandon();
            } else {
                progress = progress.max(at);
            }
            !done
        });
        progress
    }

    /// Answers flushes, and the end of the thread.
    fn report(&mut self, flush: u64, stop: bool, clean: bool) -> bool {
        let mut control = self.shared.control.lock();
        if stop {
            self.shared.state.store(STOPPED, Ordering::SeqCst);
            self.streams.append(&mut control.new);
            self.streams
                .drain(..)
                .for_each(|mut stream| stream.abandon());
            control.stopped = true;
        }
        // The flush was asked for before this look, so its lines are written unless a sink stalled.
        if control.flushed < flush {
            control.flushed = flush;
            control.clean = clean;
        }
        self.shared.progress.notify_all();
        stop
    }

    fn sleep(&self, progress: Progress) {
        let state = &self.shared.state;
        if progress != Progress::Idle {
            if state.load(Ordering::SeqCst) == TICKING {
                thread::park_timeout(self.shared.options.interval);
            }
            return;
        }
        // From here on every push wakes the thread. A push whose line the last look missed took its
        // queue's lock before this store and is found by the second look; one that takes it after
        // that look sees the store.
        if state
            .compare_exchange(TICKING, IDLE, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
            && self.streams.iter().all(Stream::is_empty)
            && state.load(Ordering::SeqCst) == IDLE
        {
            thread::park();
        }
    }
}

/// The thread sleeps until it is woken.
const IDLE: u8 = 0;
/// The thread looks at the queues within an interval.
const TICKING: u8 = 1;
/// The thread was woken and has not looked yet.
const URGENT: u8 = 2;
/// The thread is gone.
const STOPPED: u8 = 3;

#[cfg(test)]
mod tests;
