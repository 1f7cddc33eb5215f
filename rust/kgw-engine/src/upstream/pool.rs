//! Upstream connections of one worker, kept for the next request.
//!
//! A worker does not take over another's idle connections. All that this could save is what several
//! workers open more than one does, and they do so once: in one run of 3 s with a new client connection
//! for each request, two workers opened 32 connections for 12,000 requests and one worker 16, however
//! long it went on; with clients that stay, both opened as many. Sixteen connections are less than a
//! millisecond of CPU in the life of a process.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::Notify;

use super::breaker::{Held, Lane};
use super::connect::Opened;
use super::http2::Http2Connection;
use super::options::Options;
use crate::clock::Nanos;
use crate::config::snapshot::{FastMap, Snapshot};
use crate::conn::h1_side::Http1;
use crate::runtime::{Phase, Worker};
use crate::tls::TlsInfo;

/// How often idle connections are looked through.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Idle connections kept per endpoint by one worker.
const MAX_IDLE_PER_ENDPOINT: usize = 512;

/// HTTP/2 connections to an endpoint by one worker, however few streams its peer allows on each.
const MAX_HTTP2_PER_ENDPOINT: usize = 32;

/// Idle connections kept in all by one worker.
const MAX_IDLE: usize = 4096;

/// Which connections are as good as each other: those to one endpoint that were opened in one way.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct PoolKey {
    pub(crate) endpoint: SocketAddr,
    /// The number of the cluster's kind of transport; 0 is plain TCP.
    pub(crate) transport: u64,
}

/// An HTTP/1.1 connection to an endpoint. It is boxed once: each request moves it out of the pool and
/// back.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    pub(crate) http1: Http1,
    pub(crate) key: PoolKey,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) id: u64,
    /// The TLS session.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    /// Requests that it has carried.
    pub(crate) requests: u64,
    options: Arc<Options>,
    held: Option<Held>,
    idle_since: Nanos,
}

impl UpstreamConnection {
    pub(crate) fn new(opened: Opened, key: PoolKey) -> Self {
        Self {
            http1: Http1::to_endpoint(opened.stream, &opened.options),
            key,
            local: opened.local,
            id: opened.id,
            tls: opened.tls,
            requests: 0,
            options: opened.options,
            held: opened.held,
            idle_since: Nanos(0),
        }
    }

    fn is_fresh(&self, now: Nanos) -> bool {
        now < self.idle_since.after_ms(self.options.idle_ms)
    }

    /// Whether the peer has neither closed the connection nor sent anything nobody asked for, as
    /// far as the event loop has heard. No system call unless it has heard something.
    fn is_quiet(&mut self) -> bool {
        self.http1.stream.is_quiet()
    }
}

/// The pools of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    /// Idle HTTP/1.1 connections, last in first out.
    #[expect(
        clippy::vec_box,
        reason = "moving one out and back is moving a pointer"
    )]
    idle: FastMap<PoolKey, Vec<Box<UpstreamConnection>>>,
    count: usize,
    /// HTTP/2 connections, idle or not.
    http2: HashMap<PoolKey, Http2Pool>,
    /// Endpoints that agreed on HTTP/1.1 last time, of those that were asked.
    http1_only: HashSet<PoolKey>,
    /// The connections of clusters with breakers, in use or not.
    lanes: HashMap<PoolKey, Rc<Lane>>,
}

/// HTTP/2 connections to an endpoint.
#[derive(Debug, Default)]
struct Http2Pool {
    connections: Vec<Rc<Http2Connection>>,
    /// Somebody is opening one; told when that has succeeded or failed.
    opening: Option<Rc<Notify>>,
}

/// What a request for an HTTP/2 connection gets.
#[derive(Debug)]
pub(crate) enum Http2Take {
    /// A connection with room for another stream.
    Connection(Rc<Http2Connection>),
    /// Somebody else is opening one: ask again when told.
    Wait(Rc<Notify>),
    /// Nobody is: the caller opens one, and drops this when it has succeeded or failed.
    Open(Opening),
}

/// The duty to open an HTTP/2 connection that others may be waiting for.
#[derive(Debug)]
pub(crate) struct Opening {
    worker: Rc<Worker>,
    key: PoolKey,
    notify: Rc<Notify>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut pools = self.worker.pools.borrow_mut();
        if let Some(pool) = pools.http2.get_mut(&self.key)
            && pool
                .opening
                .as_ref()
                .is_some_and(|opening| Rc::ptr_eq(opening, &self.notify))
        {
            pool.opening = None;
            if pool.connections.is_empty() {
                pools.http2.remove(&self.key);
            }
        }
        self.notify.notify_waiters();
    }
}

impl Pools {
    /// Takes the HTTP/1.1 connection that was used last and is still usable.
    pub(crate) fn take(
        &mut self,
        worker: &Worker,
        key: &PoolKey,
    ) -> Option<Box<UpstreamConnection>> {
        let now = worker.now();
        let idle = self.idle.get_mut(key)?;
        while let Some(mut connection) = idle.pop() {
            self.count -= 1;
            worker.stats().upstream_cx_idle.decrement();
            if connection.is_fresh(now) && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for reuse. Its last exchange must have ended exactly at the end of a
    /// message: whatever follows an answer would be taken for the next one.
    pub(crate) fn put(&mut self, worker: &Worker, mut connection: Box<UpstreamConnection>) {
        if self.count >= MAX_IDLE || connection.http1.stream.unsent() > 0 || !connection.is_quiet()
        {
            return;
        }
        // A reload may have taken the endpoint away meanwhile, and a drain ends all use.
        if worker.phase() >= Phase::Draining || !worker.has_endpoint(&connection.key) {
            return;
        }
        let idle = self.idle.entry(connection.key).or_default();
        if idle.len() >= MAX_IDLE_PER_ENDPOINT {
            return;
        }
        connection.http1.stream.release_buffers();
        connection.idle_since = worker.now();
        if let Some(held) = &connection.held {
            held.free();
        }
        idle.push(connection);
        self.count += 1;
        worker.stats().upstream_cx_idle.increment();
    }

    /// The lane of connections of a cluster with a breaker.
    pub(crate) fn lane(&mut self, key: &PoolKey) -> Rc<Lane> {
        Rc::clone(self.lanes.entry(*key).or_default())
    }

    /// Whether an endpoint that was asked agreed on HTTP/1.1 last time.
    pub(crate) fn agreed_on_http1(&self, key: &PoolKey) -> bool {
        self.http1_only.contains(key)
    }

    /// Notes what an endpoint agreed on.
    pub(crate) fn agreed(&mut self, worker: &Worker, key: PoolKey, http2: bool) {
        if http2 || !worker.has_endpoint(&key) {
            self.http1_only.remove(&key);
        } else {
            self.http1_only.insert(key);
        }
    }

    /// Takes an HTTP/2 connection with room for a stream, or the duty to open one.
    pub(crate) fn take_http2(&mut self, worker: &Rc<Worker>, key: &PoolKey) -> Http2Take {
        let pool = self.http2.entry(*key).or_default();
        let now = worker.now();
        pool.connections
            .retain(|connection| connection.is_usable() && is_in_use(connection, now));
        if let Some(connection) = pool
            .connections
            .iter()
            .find(|connection| connection.has_room())
        {
            return Http2Take::Connection(Rc::clone(connection));
        }
        if pool.connections.len() >= MAX_HTTP2_PER_ENDPOINT
            && let Some(connection) = pool
                .connections
                .iter()
                .min_by_key(|connection| connection.active.get())
        {
            // Its stream waits until the peer allows it, or its time is over.
            return Http2Take::Connection(Rc::clone(connection));
        }
        if let Some(notify) = &pool.opening {
            return Http2Take::Wait(Rc::clone(notify));
        }
        let notify = Rc::new(Notify::new());
        pool.opening = Some(Rc::clone(&notify));
        Http2Take::Open(Opening {
            worker: Rc::clone(worker),
            key: *key,
            notify,
        })
    }

    /// Shares an HTTP/2 connection with requests to come.
    pub(crate) fn share_http2(&mut self, worker: &Worker, connection: &Rc<Http2Connection>) {
        if worker.has_endpoint(&connection.key) {
            let pool = self.http2.entry(connection.key).or_default();
            pool.connections.push(Rc::clone(connection));
        }
    }

    /// Drops connections that are too old, that their peers have closed, or to addresses that a name no
    /// longer has.
    pub(crate) fn sweep(&mut self, worker: &Worker) {
        let now = worker.now();
        self.keep(worker, |connection| {
            connection.is_fresh(now)
                && connection.is_quiet()
                && worker.has_endpoint(&connection.key)
        });
        self.keep_http2(|connection| {
            connection.is_usable()
                && is_in_use(connection, now)
                && worker.has_endpoint(&connection.key)
        });
        // Whoever has one will look at it, and nobody else has.
        self.lanes
            .retain(|_, lane| !lane.is_idle() || Rc::strong_count(lane) > 1);
    }

    /// Drops connections to endpoints that `snapshot` no longer has, or reaches in another way.
    pub(crate) fn retain(&mut self, worker: &Worker, snapshot: &Snapshot) {
        self.keep(worker, |connection| snapshot.has_endpoint(&connection.key));
        self.keep_http2(|connection| snapshot.has_endpoint(&connection.key));
        self.http1_only.retain(|key| snapshot.has_endpoint(key));
    }

    /// Drops everything. Streams under way go on.
    pub(crate) fn clear(&mut self, worker: &Worker) {
        self.keep(worker, |_| false);
        self.keep_http2(|_| false);
    }

    fn keep(&mut self, worker: &Worker, mut keep: impl FnMut(&mut UpstreamConnection) -> bool) {
        for idle in self.idle.values_mut() {
            idle.retain_mut(|connection| keep(connection));
        }
        self.idle.retain(|_, idle| !idle.is_empty());
        let count: usize = self.idle.values().map(Vec::len).sum();
        for _ in count..self.count {
            worker.stats().upstream_cx_idle.decrement();
        }
        self.count = count;
    }

    fn keep_http2(&mut self, mut keep: impl FnMut(&Http2Connection) -> bool) {
        self.http2.retain(|_, pool| {
            pool.connections.retain(|connection| keep(connection));
            !pool.connections.is_empty() || pool.opening.is_some()
        });
    }
}

/// Whether an HTTP/2 connection has streams, or had one not long ago.
fn is_in_use(connection: &Http2Connection, now: Nanos) -> bool {
    !connection.is_idle() || now < connection.used_at().after_ms(connection.options.idle_ms)
}
