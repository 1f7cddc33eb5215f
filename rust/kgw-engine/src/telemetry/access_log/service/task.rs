//! The task of one worker that sends what is queued for one service.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use kgw_h1::Framing;

use super::rpc::{Caller, Failed, Rpc};
use super::{Feed, IDLE, INTERVAL_MS, MESSAGE_BYTES, Service, URGENT};
use crate::clock::{Nanos, Timer};
use crate::config::snapshot::Cluster;
use crate::protobuf::wire::{Field, read};
use crate::runtime::Worker;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::access_log::queue::Lines;

/// Starts the tasks of the services that the worker's configuration has, and that have none.
pub(crate) fn follow(worker: &Rc<Worker>) {
    let snapshot = Arc::clone(&worker.snapshot());
    for listener in snapshot.listeners.values() {
        let logs = listener.logs.iter().filter_map(AccessLog::service);
        let tracer = listener.tracing.iter().map(|tracer| tracer.service());
        for service in logs.chain(tracer) {
            if worker.log_services.borrow_mut().insert(address(service)) {
                let task = Task::new(worker, Arc::clone(service));
                tokio::task::spawn_local(task.run());
            }
        }
    }
}

/// What tells a service from others while there is one.
fn address(service: &Arc<Service>) -> usize {
    Arc::as_ptr(service).addr()
}

struct Task {
    service: Arc<Service>,
    caller: Caller,
    /// The stream of messages, while there is one.
    stream: Option<Rpc>,
    requests: Lines,
    connections: Lines,
    /// Entries that did not fit into the queues, of which it was told.
    dropped: u64,
    /// Attempts that have failed, one after another.
    failures: u32,
}

/// Has an end, whatever ends the task.
impl Drop for Task {
    fn drop(&mut self) {
        let worker = Rc::clone(&self.caller.worker);
        worker
            .log_services
            .borrow_mut()
            .remove(&address(&self.service));
        // What is left is lost.
        self.take();
        let left = self.requests.lengths.len() + self.connections.lengths.len();
        self.settle(0, left as u64);
    }
}

impl Task {
    fn new(worker: &Rc<Worker>, service: Arc<Service>) -> Self {
        Self {
            service,
            caller: Caller {
                worker: Rc::clone(worker),
                registration: worker.register_in_background(),
                timer: Timer::new(worker.clock().clone()),
            },
            stream: None,
            requests: Lines::default(),
            connections: Lines::default(),
            dropped: 0,
            failures: 0,
        }
    }

    fn feed(&self) -> &Feed {
        &self.service.feeds[self.caller.worker.index()]
    }

    async fn run(mut self) {
        loop {
            self.rest().await;
            // What is written from here on is seen by the next round.
            let is_over = self.is_over();
            self.take();
            self.deliver().await;
            if is_over && self.feed().state.load(Ordering::Acquire) == IDLE {
                break;
            }
        }
        if let Some(mut stream) = self.stream.take() {
            // The end of the service's side says that it has everything.
            let deadline = self.deadline();
            let most = self.service.max_answer;
            let _ = self.caller.finish(&mut stream, most, deadline).await;
        }
    }

    /// Nobody writes any longer, or the worker ends.
    fn is_over(&self) -> bool {
        self.service.is_closed.load(Ordering::Acquire) || self.caller.worker.is_ending_logs()
    }

    fn deadline(&self) -> Nanos {
        self.caller.worker.now().after_ms(self.service.timeout_ms)
    }

    /// Waits until there is something to send.
    async fn rest(&mut self) {
        let service = Arc::clone(&self.service);
        let worker = Rc::clone(&self.caller.worker);
        let feed = &service.feeds[worker.index()];
        let mut deadline = Nanos::NEVER;
        loop {
            let state = feed.state.load(Ordering::Acquire);
            if state == URGENT || self.is_over() {
                return;
            }
            if state != IDLE && deadline == Nanos::NEVER {
                deadline = worker.now().after_ms(INTERVAL_MS);
            }
            let mut told = pin!(feed.wake.notified());
            let stream = &mut self.stream;
            let is_told = self.caller.until(deadline, |cx| {
                if stream
                    .as_mut()
                    .is_some_and(|one| one.poll_over(cx).is_ready())
                {
                    // It is opened anew for what comes next.
                    *stream = None;
                    worker.stats().access_log_service_stream_lost.increment();
                }
                if worker.is_ending_logs() {
                    return Poll::Ready(());
                }
                told.as_mut().poll(cx)
            });
            if is_told.await.is_none() {
                return;
            }
        }
    }

    fn take(&mut self) {
        let service = Arc::clone(&self.service);
        let feed = &service.feeds[self.caller.worker.index()];
        feed.take(&mut self.requests, &mut self.connections);
        let dropped = feed.dropped();
        let more = dropped - std::mem::replace(&mut self.dropped, dropped);
        self.settle(0, more);
    }

    /// Counts entries that were sent, and that are lost.
    fn settle(&self, sent: u64, lost: u64) {
        if sent + lost == 0 {
            return;
        }
        let stats = self.caller.worker.stats();
        if self.service.has_spans {
            stats.trace_spans_sent.add(sent);
            stats.trace_spans_dropped.add(lost);
        } else {
            stats.access_log_service_written.add(sent);
            stats.access_log_service_dropped.add(lost);
        }
        self.feed().done.fetch_add(sent + lost, Ordering::AcqRel);
        self.service.progress.tell();
    }

    /// Sends what was taken, in messages of a size that receivers take.
    async fn deliver(&mut self) {
        for are_connections in [false, true] {
            let lines = if are_connections {
                &mut self.connections
            } else {
                &mut self.requests
            };
            let lines = std::mem::take(lines);
            let mut rest = &lines.bytes[..];
            let mut lengths = lines.lengths.iter().copied().peekable();
            while lengths.peek().is_some() {
                let (mut bytes, mut entries) = (0, 0);
                while let Some(length) =
                    lengths.next_if(|length| bytes == 0 || bytes + length <= MESSAGE_BYTES)
                {
                    bytes += length;
                    entries += 1;
                }
                let (batch, after) = rest.split_at(bytes);
                rest = after;
                let lost = self.attempt(batch, are_connections, entries).await;
                self.settle(entries - lost, lost);
            }
        }
    }

    /// Sends a message, as often as that is tried; returns how many of its entries are lost.
    async fn attempt(&mut self, batch: &[u8], are_connections: bool, entries: u64) -> u64 {
        let mut left = self.service.retry.attempts;
        loop {
            if self.failures > 0 {
                self.pause().await;
            }
            match self.send(batch, are_connections).await {
                Ok(refused) => {
                    self.failures = 0;
                    return refused.min(entries);
                }
                Err(failed) => {
                    self.stream = None;
                    self.failures = self.failures.saturating_add(1);
                    let stats = self.caller.worker.stats();
                    if self.service.has_spans {
                        stats.trace_service_failed.increment();
                    } else {
                        stats.access_log_service_failed.increment();
                    }
                    if failed == Failed::ForGood || left == 0 {
                        return entries;
                    }
                    left -= 1;
                }
            }
        }
    }

    /// Waits before the next attempt, unless the worker ends: the longer, the more have failed.
    async fn pause(&mut self) {
        let retry = self.service.retry;
        let doubled = 1_u64.checked_shl(self.failures - 1).unwrap_or(u64::MAX);
        let most = retry.base_interval_ms.saturating_mul(doubled);
        let most = most.min(retry.max_interval_ms.max(retry.base_interval_ms));
        // Proxies that lost the same service do not come back all at once.
        let pause = fastrand::u64(most / 2..=most).max(1);
        let worker = Rc::clone(&self.caller.worker);
        let deadline = worker.now().after_ms(pause);
        let service = Arc::clone(&self.service);
        let ends = || worker.is_ending_logs() || service.is_closed.load(Ordering::Acquire);
        let pausing = self.caller.until(deadline, |_| {
            if ends() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        pausing.await;
    }

    /// Sends a message once; returns how many of its entries the service refused.
    async fn send(&mut self, batch: &[u8], are_connections: bool) -> Result<u64, Failed> {
        let deadline = self.deadline();
        let service = Arc::clone(&self.service);
        let cluster = Arc::clone(&service.cluster.lock());
        if service.is_stream {
            let worker = Rc::clone(&self.caller.worker);
            let mut stream = self.stream.take();
            if stream.as_mut().is_some_and(|one| !one.is_usable(&worker)) {
                stream = None;
            }
            let is_first = stream.is_none();
            let mut stream = match stream {
                Some(stream) => stream,
                None => self.open(&cluster, Framing::Chunked, deadline).await?,
            };
            let message = service.message(batch, are_connections, is_first);
            self.caller.send(&mut stream, &message, deadline).await?;
            self.stream = Some(stream);
            return Ok(0);
        }
        let message = service.message(batch, are_connections, true);
        let framing = Framing::Length(message.len() as u64);
        let mut call = self.open(&cluster, framing, deadline).await?;
        self.caller.send(&mut call, &message, deadline).await?;
        let most = service.max_answer;
        let outcome = self.caller.finish(&mut call, most, deadline).await?;
        match outcome.status {
            Some(0) => Ok(refused(&outcome.body)),
            Some(status) if RETRIABLE.contains(&status) => Err(Failed::ForNow),
            // A proxy in between answers for a service that is not there (502, 503, 504).
            None => Err(Failed::ForNow),
            Some(_) => Err(Failed::ForGood),
        }
    }

    async fn open(
        &mut self,
        cluster: &Cluster,
        framing: Framing,
        deadline: Nanos,
    ) -> Result<Rpc, Failed> {
        let service = Arc::clone(&self.service);
        let head = |own| service.head(own);
        self.caller.open(cluster, head, framing, deadline).await
    }
}

/// How many records a collector has refused, by its answer (`ExportLogsServiceResponse`).
fn refused(answer: &[u8]) -> u64 {
    // A message of another length is none, so nothing is known.
    let Some(message) = answer.get(super::PREFIX..) else {
        return 0;
    };
    let mut refused = 0;
    let _ = read(message, |Field { number, value }| {
        if number == 1 {
            read(value.bytes(), |Field { number, value }| {
                if number == 1 {
                    refused = value.int().max(0).unsigned_abs();
                }
                Ok(())
            })?;
        }
        Ok(())
    });
    refused
}

/// Statuses after which OpenTelemetry's exporters try again: `CANCELLED`, `DEADLINE_EXCEEDED`,
/// `RESOURCE_EXHAUSTED`, `ABORTED`, `OUT_OF_RANGE`, `UNAVAILABLE` and `DATA_LOSS`.
const RETRIABLE: [u32; 7] = [1, 4, 8, 10, 11, 14, 15];
