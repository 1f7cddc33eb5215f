//! Idle upstream connections of one worker, by endpoint, last in first out.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use hashbrown::HashMap;

use crate::clock::Nanos;
use crate::config::snapshot::Snapshot;
use crate::conn::io::Stream;
use crate::runtime::{Phase, Worker};

/// How often idle connections are looked through.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long a connection may sit idle. Backends commonly close theirs after a minute or more.
const IDLE_TIMEOUT_MS: u64 = 55_000;

/// Idle connections kept per endpoint by one worker.
const MAX_IDLE_PER_ENDPOINT: usize = 512;

/// Idle connections kept in all by one worker.
const MAX_IDLE: usize = 4096;

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    pub(crate) stream: Stream,
    pub(crate) endpoint: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) id: u64,
    idle_since: Nanos,
}

impl UpstreamConnection {
    pub(crate) fn new(
        stream: Stream,
        endpoint: SocketAddr,
        local: Option<SocketAddr>,
        id: u64,
    ) -> Self {
        Self {
            stream,
            endpoint,
            local,
            id,
            idle_since: Nanos(0),
        }
    }

    fn is_fresh(&self, now: Nanos) -> bool {
        now < self.idle_since.after_ms(IDLE_TIMEOUT_MS)
    }

    /// Whether the peer has neither closed the connection nor sent anything nobody asked for, as
    /// far as the event loop has heard. No system call unless it has heard something.
    fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }
}

/// The pools of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    idle: HashMap<SocketAddr, Vec<UpstreamConnection>, foldhash::fast::RandomState>,
    count: usize,
}

impl Pools {
    /// Takes the connection to `endpoint` that was used last and is still usable.
    pub(crate) fn take(
        &mut self,
        worker: &Worker,
        endpoint: SocketAddr,
    ) -> Option<UpstreamConnection> {
        let idle = self.idle.get_mut(&endpoint)?;
        while let Some(mut connection) = idle.pop() {
            self.count -= 1;
            worker.stats().upstream_cx_idle.decrement();
            if connection.is_fresh(worker.now()) && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for reuse. Its last exchange must have ended exactly at the end of a
    /// message: whatever follows an answer would be taken for the next one.
    pub(crate) fn put(&mut self, worker: &Worker, mut connection: UpstreamConnection) {
        if self.count >= MAX_IDLE || connection.stream.unsent() > 0 || !connection.is_quiet() {
            return;
        }
        // A reload may have taken the endpoint away meanwhile, and a drain ends all use.
        if worker.phase() >= Phase::Draining || !worker.has_endpoint(connection.endpoint) {
            return;
        }
        let idle = self.idle.entry(connection.endpoint).or_default();
        if idle.len() >= MAX_IDLE_PER_ENDPOINT {
            return;
        }
        connection.stream.release_buffers();
        connection.idle_since = worker.now();
        idle.push(connection);
        self.count += 1;
        worker.stats().upstream_cx_idle.increment();
    }

    /// Drops connections that are too old or that their peers have closed.
    pub(crate) fn sweep(&mut self, worker: &Worker) {
        let now = worker.now();
        self.keep(worker, |connection| {
            connection.is_fresh(now) && connection.is_quiet()
        });
    }

    /// Drops connections to endpoints that `snapshot` no longer has.
    pub(crate) fn retain(&mut self, worker: &Worker, snapshot: &Snapshot) {
        let endpoints: &HashSet<SocketAddr> = &snapshot.endpoints;
        self.keep(worker, |connection| {
            endpoints.contains(&connection.endpoint)
        });
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self, worker: &Worker) {
        self.keep(worker, |_| false);
    }

    fn keep(&mut self, worker: &Worker, mut keep: impl FnMut(&mut UpstreamConnection) -> bool) {
        for idle in self.idle.values_mut() {
            idle.retain_mut(&mut keep);
        }
        self.idle.retain(|_, idle| !idle.is_empty());
        let count: usize = self.idle.values().map(Vec::len).sum();
        for _ in count..self.count {
            worker.stats().upstream_cx_idle.decrement();
        }
        self.count = count;
    }
}
