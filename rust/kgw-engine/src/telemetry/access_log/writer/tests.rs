//! The writer with real files and a real FIFO, and the stream with files that fail on purpose.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::output::Output;
use super::sink::{Progress, Shared as SinkShared, Stream};
use super::{LogWriter, Sink, WriterOptions};

// === Files that fail on purpose ===

/// What the next write does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize),
    Fail(io::ErrorKind),
}

#[derive(Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    written: Vec<u8>,
    calls: usize,
    reopened: usize,
}

/// Follows its script, then takes everything.
#[derive(Clone, Debug, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Output for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut script = self.0.lock();
        script.calls += 1;
        match script.steps.pop_front() {
            Some(Step::Fail(kind)) => Err(kind.into()),
            Some(Step::Take(count)) => {
                let count = count.min(bytes.len());
                script.written.extend_from_slice(&bytes[..count]);
                Ok(count)
            }
            None => {
                script.written.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let mut script = self.0.lock();
        script.reopened += 1;
        script.written.extend_from_slice(b"<reopened>");
        Ok(())
    }
}

struct Scene {
    shared: Arc<SinkShared>,
    stream: Stream,
    file: Scripted,
}

impl Scene {
    fn new(steps: &[Step]) -> Self {
        let options = WriterOptions {
            workers: 2,
            queue_bytes: 64,
            ..WriterOptions::default()
        };
        let shared = Arc::new(SinkShared::new(PathBuf::from("scripted"), options));
        let file = Scripted::default();
        file.0.lock().steps.extend(steps);
        let stream = Stream::new(Arc::clone(&shared), Box::new(file.clone()));
        Self {
            shared,
            stream,
            file,
        }
    }

    fn push(&self, line: &str) {
        self.shared
            .push(0, |out| out.extend_from_slice(line.as_bytes()));
    }

    fn written(&self) -> String {
        String::from_utf8(self.file.0.lock().written.clone()).unwrap()
    }
}

#[test]
fn a_batch_of_all_workers_is_one_write() {
    let mut scene = Scene::new(&[]);
    scene.push("one\n");
    scene.shared.push(1, |out| out.extend_from_slice(b"two\n"));
    assert_eq!(scene.stream.pump(), Progress::Wrote);
    assert_eq!(scene.stream.pump(), Progress::Idle);
    assert_eq!(scene.written(), "one\ntwo\n");
    assert_eq!(scene.file.0.lock().calls, 1);
    let counters = scene.shared.counters();
    assert_eq!(
        (counters.written, counters.dropped, counters.bytes),
        (2, 0, 8)
    );
}

#[test]
fn a_line_written_in_part_is_completed_before_anything_else() {
    use io::ErrorKind::{Interrupted, StorageFull, WouldBlock};
    for kind in [WouldBlock, StorageFull] {
        let mut scene = Scene::new(&[Step::Take(6), Step::Fail(Interrupted), Step::Fail(kind)]);
        scene.push("one\n");
        scene.push("two\n");
        assert_eq!(scene.stream.pump(), Progress::Stalled);
        assert_eq!(scene.written(), "one\ntw");
        assert_eq!(scene.shared.counters().written, 1);
        scene.push("three\n");
        assert_eq!(scene.stream.pump(), Progress::Wrote);
        assert_eq!(scene.written(), "one\ntwo\nthree\n");
        let counters = scene.shared.counters();
        assert_eq!((counters.written, counters.dropped), (3, 0));
        assert_eq!(counters.errors, u64::from(kind == StorageFull));
    }
}

#[test]
fn a_stalled_sink_drops_new_lines_and_recovers() {
    let stalled = [Step::Fail(io::ErrorKind::StorageFull); 3];
    let mut scene = Scene::new(&stalled);
    let line = "0123456789abcde\n";
    for _ in 0..3 {
        for _ in 0..5 {
            scene.push(line);
        }
        assert_eq!(scene.stream.pump(), Progress::Stalled);
    }
    // 64 bytes a queue: 4 lines wait in the batch, 4 in the queue.
    let counters = scene.shared.counters();
    assert_eq!(
        (counters.written, counters.dropped, counters.errors),
        (0, 7, 3)
    );
    assert_eq!(scene.stream.pump(), Progress::Wrote);
    assert_eq!(scene.written(), line.repeat(8));
    scene.push("after\n");
    assert_eq!(scene.stream.pump(), Progress::Wrote);
    assert!(scene.written().ends_with("\nafter\n"));
    assert_eq!(scene.shared.counters().written, 9);
}

#[test]
fn a_reader_that_left_in_the_middle_of_a_line_costs_that_line_only() {
    let mut scene = Scene::new(&[Step::Take(6), Step::Fail(io::ErrorKind::BrokenPipe)]);
    scene.push("one\n");
    scene.push("two\n");
    scene.push("three\n");
    assert_eq!(scene.stream.pump(), Progress::Stalled);
    assert_eq!(scene.stream.pump(), Progress::Wrote);
    assert_eq!(scene.written(), "one\ntwthree\n");
    let counters = scene.shared.counters();
    assert_eq!(
        (counters.written, counters.dropped, counters.errors),
        (2, 1, 1)
    );
}

#[test]
fn a_file_is_opened_again_between_two_lines() {
    let mut scene = Scene::new(&[
        Step::Take(6),
        Step::Fail(io::ErrorKind::WouldBlock),
        Step::Take(2),
    ]);
    scene.push("one\n");
    scene.push("two\n");
    scene.push("three\n");
    assert_eq!(scene.stream.pump(), Progress::Stalled);
    scene.stream.reopen();
    assert_eq!(scene.stream.pump(), Progress::Wrote);
    assert_eq!(scene.written(), "one\ntwo\n<reopened>three\n");
    assert_eq!(scene.file.0.lock().reopened, 1);
}

#[test]
fn what_is_abandoned_is_counted() {
    let mut scene = Scene::new(&[Step::Take(6), Step::Fail(io::ErrorKind::WouldBlock)]);
    scene.push("one\n");
    scene.push("two\n");
    assert_eq!(scene.stream.pump(), Progress::Stalled);
    scene.push("three\n");
    scene.stream.abandon();
    let counters = scene.shared.counters();
    assert_eq!((counters.written, counters.dropped), (1, 2));
    assert_eq!(scene.stream.pump(), Progress::Idle);
}

// === Real files ===

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kgw-log-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn push(sink: &Sink, worker: usize, line: &str) {
    sink.push(worker, |out| out.extend_from_slice(line.as_bytes()));
}

fn writer(workers: usize) -> LogWriter {
    LogWriter::start(WriterOptions {
        workers,
        ..WriterOptions::default()
    })
    .unwrap()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn one_path_is_one_file_that_is_appended_to() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = Directory::new();
    let path = directory.path("access.log");
    let writer = writer(2);
    let first = writer.open(&path).unwrap();
    let second = writer.open(&path).unwrap();
    push(&first, 0, "a\n");
    push(&second, 0, "b\n");
    assert!(writer.flush(LONG));
    assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\n");
    assert_eq!(second.counters().written, 2);
    assert_eq!(writer.sinks().len(), 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0);
    drop((first, second));
    assert_eq!(writer.sinks().len(), 0);
    push(&writer.open(&path).unwrap(), 1, "c\n");
    drop(writer);
    assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\nc\n");
}

#[test]
fn a_path_that_cannot_be_opened_is_named() {
    let directory = Directory::new();
    let path = directory.path("missing/access.log");
    let error = writer(1).open(&path).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_line_after_a_pause_needs_no_flush() {
    let directory = Directory::new();
    let path = directory.path("access.log");
    let writer = writer(1);
    let sink = writer.open(&path).unwrap();
    for number in 1..=20 {
        push(&sink, 0, "line\n");
        while sink.counters().written < number {
            std::thread::yield_now();
        }
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "line\n".repeat(20));
}

#[test]
fn lines_of_many_workers_are_complete_and_in_the_order_of_each() {
    const LINES: usize = 20_000;
    let directory = Directory::new();
    let path = directory.path("access.log");
    let options = WriterOptions {
        workers: 3,
        queue_bytes: usize::MAX,
        ..WriterOptions::default()
    };
    let writer = LogWriter::start(options).unwrap();
    let sink = writer.open(&path).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let sink = sink.clone();
            scope.spawn(move || {
                for number in 0..LINES {
                    push(&sink, worker, &format!("{worker} {number}\n"));
                }
            });
        }
    });
    assert!(writer.flush(LONG));
    let mut next = [0; 3];
    for line in fs::read_to_string(&path).unwrap().lines() {
        let (worker, number) = line.split_once(' ').unwrap();
        let worker: usize = worker.parse().unwrap();
        assert_eq!(number.parse::<usize>().unwrap(), next[worker]);
        next[worker] += 1;
    }
    assert_eq!(next, [LINES; 3]);
    assert_eq!(sink.counters().dropped, 0);
}

#[test]
fn a_rotated_file_is_left_complete_and_a_new_one_begun() {
    let directory = Directory::new();
    let (path, old) = (directory.path("access.log"), directory.path("access.log.1"));
    let writer = writer(1);
    let sink = writer.open(&path).unwrap();
    push(&sink, 0, "before\n");
    assert!(writer.flush(LONG));
    fs::rename(&path, &old).unwrap();
    writer.reopen();
    assert!(writer.flush(LONG));
    push(&sink, 0, "after\n");
    assert!(writer.flush(LONG));
    assert_eq!(fs::read_to_string(&old).unwrap(), "before\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");
}

#[test]
fn a_flush_may_wait_for_ever() {
    let directory = Directory::new();
    let path = directory.path("access.log");
    let writer = writer(1);
    push(&writer.open(&path).unwrap(), 0, "a\n");
    assert!(writer.flush(Duration::MAX));
    assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
}

#[test]
fn a_full_disk_is_counted_and_does_not_end_the_thread() {
    let directory = Directory::new();
    let writer = writer(1);
    let full = writer.open("/dev/full").unwrap();
    let path = directory.path("access.log");
    let other = writer.open(&path).unwrap();
    push(&full, 0, "lost\n");
    assert!(!writer.flush(Duration::from_millis(1)));
    while full.counters().errors == 0 {
        std::thread::yield_now();
    }
    push(&other, 0, "kept\n");
    while other.counters().written == 0 {
        std::thread::yield_now();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept\n");
    assert_eq!(full.counters().written, 0);
}

#[test]
fn a_stalled_fifo_drops_lines_and_goes_on_when_it_is_read_again() {
    const QUEUE: usize = 64 * 1024;
    let directory = Directory::new();
    let path = directory.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let options = WriterOptions {
        queue_bytes: QUEUE,
        ..WriterOptions::default()
    };
    let writer = LogWriter::start(options).unwrap();
    let sink = writer.open(&path).unwrap();
    // Nobody reads yet: the line waits.
    push(&sink, 0, "first\n");
    assert!(!writer.flush(Duration::from_millis(1)));
    let mut reader = File::open(&path).unwrap();
    assert!(writer.flush(LONG));

    // The reader stops: the pipe (64 KiB), a batch and the queue fill up.
    let line = format!("{}\n", "x".repeat(1023));
    let mut pushed = 1;
    while sink.counters().dropped < 10 {
        push(&sink, 0, &line);
        pushed += 1;
    }
    assert!(!writer.flush(Duration::from_millis(1)));

    // It reads again: all that was kept arrives, in whole lines.
    let kept = pushed - sink.counters().dropped;
    let mut text = vec![0; 6 + (kept as usize - 1) * 1024];
    reader.read_exact(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("first\n"));
    assert!(text.lines().skip(1).all(|found| found.len() == 1023));
    push(&sink, 0, "last\n");
    assert!(writer.flush(LONG));
    let mut last = [0; 5];
    reader.read_exact(&mut last).unwrap();
    assert_eq!(&last, b"last\n");
    assert_eq!(sink.counters().written, kept + 1);

    // It leaves, and another comes.
    drop(reader);
    push(&sink, 0, "kept\n");
    while sink.counters().errors == 0 {
        std::thread::yield_now();
    }
    let mut reader = File::open(&path).unwrap();
    let mut text = [0; 5];
    assert!(writer.flush(LONG));
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"kept\n");
}

#[test]
fn lines_pushed_after_the_writer_is_gone_are_counted() {
    let directory = Directory::new();
    let path = directory.path("access.log");
    let writer = writer(1);
    let sink = writer.open(&path).unwrap();
    push(&sink, 0, "in time\n");
    drop(writer);
    push(&sink, 0, "too late\n");
    let counters = sink.counters();
    assert_eq!((counters.written, counters.dropped), (1, 1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "in time\n");
}
