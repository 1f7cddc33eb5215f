//! A worker: one thread, one runtime, its own sockets, pools, counters and buffers.
//!
//! Nothing here is shared with another worker except through [`Shared`], which is read with one
//! atomic load a request.

use std::cell::{Cell, Ref, RefCell};
use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::memory::Pressure;
use super::{ListenerCounts, Phase, Shared};
use crate::bridge::Bridge;
use crate::clock::{Clock, Nanos, Timer};
use crate::config::snapshot::Snapshot;
use crate::conn::http2::StreamTasks;
use crate::conn::{mirror, verifying};
use crate::listen::balance::Inbox;
use crate::listen::limit::ConnectionLimit;
use crate::listen::reserve::Reserve;
use crate::listen::socket::{BindKey, BoundAddress, Transport};
use crate::listen::{accept, call};
use crate::room::Room;
use crate::stats::Stats;
use crate::telemetry::access_log::{Taps, service};
use crate::udp;
use crate::upstream::health;
use crate::upstream::pool::{PoolKey, Pools, SWEEP_INTERVAL};
use crate::upstream::redis;

/// What a worker accepts on, and how each accepting task is told what for.
type Accepting = HashMap<BindKey, (Weak<BoundAddress>, Rc<accept::Orders>)>;

/// Looks at the sockets that make a worker settled: what one task does for another, as a connection
/// that is accepted and then served, takes a look each.
const SETTLING_TURNS: usize = 16;

/// Time for the tasks of a closing worker to end by themselves. None of them waits for a peer then, so
/// it is work only.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// Time for services of access logs to take what is left when a worker ends.
const LOGS_TIME: Duration = Duration::from_secs(1);

/// State of one worker thread.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    reserve: Reserve,
    snapshot: RefCell<Arc<Snapshot>>,
    pub(crate) pools: RefCell<Pools>,
    pub(crate) stream_tasks: StreamTasks,
    pub(crate) mirrors: mirror::Load,
    pub(crate) redis: RefCell<redis::Servers>,
    date: RefCell<(u64, String)>,
    connections: Cell<u64>,
    /// When the task that runs was woken.
    moment: Cell<Nanos>,
    /// Wakers of every task that must look again when phase, generation or a manual clock changes.
    wakers: RefCell<Slab<Option<Waker>>>,
    /// The services that have a task here which sends them what is logged, by their addresses.
    pub(crate) log_services: RefCell<HashSet<usize>>,
    /// Registered tasks that the worker does not wait for until nothing else is left.
    background: Cell<usize>,
    /// Nothing is logged any longer.
    ending_logs: Cell<bool>,
    /// A bridge with questions that its reader was not told about yet.
    asked: RefCell<Option<Arc<Bridge>>>,
    asking: Notify,
}

/// Makes the event loop of a worker.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Sockets are looked at after this many task polls; the default of 61 would let answers wait
        // behind a burst of requests.
        .event_interval(31)
        .build()
}

/// Runs a worker to its end on the current thread.
pub(crate) fn run(index: usize, runtime: Runtime, shared: &Arc<Shared>) {
    // However the thread ends, nobody waits for it any longer.
    let _ended = Ended { index, shared };
    let tasks = LocalSet::new();
    let worker = Rc::new(Worker::new(index, Arc::clone(shared)));
    runtime.block_on(tasks.run_until(supervise(worker)));
    // Whatever is left is dropped here: connections close.
    drop(tasks);
    drop(runtime);
}

/// Acknowledges every generation to come when a worker's thread ends.
struct Ended<'a> {
    index: usize,
    shared: &'a Shared,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The kernel goes on giving this worker its share of the connections. An engine that
            // ends is noticed and replaced; one that swallows every n-th connection is not.
            self.shared.enter(Phase::Draining);
        }
        // Nobody takes what waits there, or comes.
        drop(self.shared.inbox(self.index).close());
        drop(self.shared.calls(self.index).close());
        self.shared.acknowledge(self.index, u64::MAX);
        self.shared.settle(self.index, u64::MAX);
    }
}

/// Says that a worker has settled, once the tasks that were woken before have run, and those that
/// their sockets woke by then.
async fn settle(worker: Rc<Worker>, settlings: u64) {
    for _ in 0..SETTLING_TURNS {
        // The runtime looks at its sockets before a task that yielded goes on, behind what they woke.
        tokio::task::yield_now().await;
    }
    worker.shared.settle(worker.index, settlings);
}

/// Tells the reader of a bridge that it was asked, once for all that was asked in the same turn of the
/// event loop: this task runs behind those that sockets woke before it. A wake costs both sides a few
/// microseconds.
async fn wake_bridges(worker: Rc<Worker>) {
    loop {
        worker.asking.notified().await;
        let asked = worker.asked.borrow_mut().take();
        if let Some(bridge) = asked {
            bridge.wake();
        }
    }
}

/// Follows generation and phase until the worker has nothing left to do.
async fn supervise(worker: Rc<Worker>) {
    let mut accepting: Accepting = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    tokio::task::spawn_local(wake_bridges(Rc::clone(&worker)));
    let mut lame_duck = Timer::new(worker.clock().clone());
    let mut settled = 0;
    loop {
        let settlings = worker.shared.settlings();
        worker.look_at_clock();
        if worker.phase() == Phase::LameDuck && worker.now() >= worker.shared.accepts_until() {
            worker.shared.enter(Phase::Draining);
        }
        let phase = worker.phase();
        worker.refresh();
        service::follow(&worker);
        if phase < Phase::Draining {
            worker.listen(&mut accepting);
        } else {
            // From here on the others keep what they accept.
            for handed in worker.inbox(worker.index).close() {
                accept::begin_handed(&worker, handed);
            }
            for call in worker.shared.calls(worker.index).close() {
                call::begin(&worker, call);
            }
        }
        if worker.index == 0 && phase < Phase::Draining {
            let snapshot = Arc::clone(&worker.snapshot.borrow());
            verifying::tend(&worker, snapshot.keys.iter().map(|one| &one.keys));
            health::tend(&worker, &snapshot);
        }
        worker.wake_all();
        if settlings != settled {
            settled = settlings;
            tokio::task::spawn_local(settle(Rc::clone(&worker), settlings));
        }
        // Only now are the sockets of this generation being listened on.
        worker
            .shared
            .acknowledge(worker.index, worker.snapshot.borrow().generation);
        if phase == Phase::Closing {
            close(&worker).await;
            return end_logs(&worker).await;
        }
        if phase == Phase::Draining {
            worker.pools.borrow_mut().clear(&worker);
            if worker.is_done() {
                return end_logs(&worker).await;
            }
        }
        loop {
            tokio::select! {
                () = worker.shared.woken(worker.index) => break,
                () = poll_fn(|cx| lame_duck.poll(cx, worker.shared.accepts_until())),
                    if phase == Phase::LameDuck => break,
                () = worker.inbox(worker.index).arrived() => {
                    for handed in worker.inbox(worker.index).take() {
                        accept::begin_handed(&worker, handed);
                    }
                }
                () = worker.shared.calls(worker.index).arrived() => {
                    for call in worker.shared.calls(worker.index).take() {
                        call::begin(&worker, call);
                    }
                }
                _ = sweep.tick() => {
                    worker.look_at_clock();
                    if let Some(forwarding) = &worker.snapshot.borrow().forwarding {
                        forwarding.sweep(worker.now());
                    }
                    worker.pools.borrow_mut().sweep(&worker);
                    worker.stream_tasks.sweep(worker.must_shrink());
                }
            }
        }
    }
}

/// Gives the tasks that were just woken the time to say to their peers and logs that they end.
async fn close(worker: &Worker) {
    let ended = async {
        while !worker.is_done() {
            worker.shared.woken(worker.index).await;
        }
    };
    // Whoever is not done by then is dropped as he is.
    let _ = tokio::time::timeout(CLOSING_TIME, ended).await;
}

/// Gives what was logged the time to get to its services.
async fn end_logs(worker: &Worker) {
    worker.ending_logs.set(true);
    worker.wake_all();
    let ended = async {
        while worker.background.get() > 0 {
            worker.shared.woken(worker.index).await;
        }
    };
    // A service that takes nothing is told nothing more.
    let _ = tokio::time::timeout(LOGS_TIME, ended).await;
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Self {
        let snapshot = shared.snapshot();
        Self {
            index,
            reserve: Reserve::new(),
            snapshot: RefCell::new(snapshot),
            pools: RefCell::default(),
            stream_tasks: StreamTasks::default(),
            mirrors: mirror::Load::default(),
            redis: RefCell::default(),
            date: RefCell::default(),
            connections: Cell::new(0),
            moment: Cell::new(shared.clock.now()),
            wakers: RefCell::default(),
            log_services: RefCell::default(),
            background: Cell::new(0),
            ending_logs: Cell::new(false),
            asked: RefCell::default(),
            asking: Notify::new(),
            shared,
        }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Now, or rather when the task that runs was woken: one reading of the clock serves all that
    /// happens then.
    pub(crate) fn now(&self) -> Nanos {
        if self.shared.clock.is_manual() {
            // It may be turned at any time, and what follows must see it.
            return self.shared.clock.now();
        }
        self.moment.get()
    }

    /// Says that a task was woken.
    fn look_at_clock(&self) {
        self.moment.set(self.shared.clock.now());
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.shared.stats[self.index]
    }

    /// Who reads the access log in this process.
    pub(crate) fn taps(&self) -> &Taps {
        &self.shared.taps
    }

    pub(crate) fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// How much memory there is left: an atomic load.
    pub(crate) fn pressure(&self) -> Pressure {
        self.shared.pressure()
    }

    /// Whether memory is so short that idle connections are closed.
    pub(crate) fn must_shrink(&self) -> bool {
        self.pressure() != Pressure::Normal
    }

    /// Room for bodies that are held until a service can have them as a whole.
    pub(crate) fn body_room(&self) -> &Arc<Room> {
        &self.shared.body_room
    }

    /// Room for bodies of requests that may be sent once more.
    pub(crate) fn replay_room(&self) -> &Arc<Room> {
        &self.shared.replay_room
    }

    /// The limit of all listeners together.
    pub(crate) fn connection_limit(&self) -> &Arc<ConnectionLimit> {
        &self.shared.connection_limit
    }

    /// The counts of a listener.
    pub(crate) fn listener_counts(&self, listener: &str) -> Option<ListenerCounts> {
        self.shared.listener_counts(listener)
    }

    /// What other workers accepted for a worker.
    pub(crate) fn inbox(&self, worker: usize) -> &Inbox {
        self.shared.inbox(worker)
    }

    /// A file descriptor for when there is no other.
    pub(crate) fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// The newest snapshot: an atomic load, unless there is a newer one than last time.
    pub(crate) fn snapshot(&self) -> Ref<'_, Arc<Snapshot>> {
        if self.shared.generation() != self.snapshot.borrow().generation {
            self.refresh();
        }
        self.snapshot.borrow()
    }

    fn refresh(&self) {
        let newest = self.shared.snapshot();
        if newest.generation != self.snapshot.borrow().generation {
            self.pools.borrow_mut().retain(self, &newest);
            // The engine keeps old snapshots until no worker has them and frees them itself.
            *self.snapshot.borrow_mut() = newest;
        }
    }

    /// Whether the snapshot in use has an endpoint of this address, reached in this way.
    pub(crate) fn has_endpoint(&self, key: &PoolKey) -> bool {
        self.snapshot.borrow().has_endpoint(key)
    }

    /// Starts and stops accepting so that the sockets in use are those of the snapshot.
    fn listen(self: &Rc<Self>, accepting: &mut Accepting) {
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let sockets = self.shared.sockets();
        accepting.retain(|key, (bound, orders)| {
            // An address that went and came back between two looks has other sockets.
            let current = sockets.get(key);
            let keep = current.is_some_and(|current| Arc::as_ptr(current) == bound.as_ptr());
            if !keep {
                orders.stop();
            }
            keep
        });
        for (id, listener) in &snapshot.listeners {
            // A newer generation may have taken the listener away; its look comes next.
            let Some(counts) = self.shared.listener_counts(id) else {
                continue;
            };
            for key in &listener.bind {
                if let Some((_, orders)) = accepting.get(key) {
                    // A listener of another name may have the address now.
                    orders.accept_for(id, counts.clone());
                    continue;
                }
                let Some(bound) = sockets.get(key) else {
                    continue;
                };
                let orders = Rc::new(accept::Orders::new(id, counts.clone()));
                if self.listen_on(key, bound, &orders).is_err() {
                    // The next look tries again.
                    self.stats().downstream_accept_error.increment();
                    continue;
                }
                accepting.insert(key.clone(), (Arc::downgrade(bound), orders));
            }
        }
    }

    /// Starts the tasks that take what comes to an address.
    fn listen_on(
        self: &Rc<Self>,
        key: &BindKey,
        bound: &BoundAddress,
        orders: &Rc<accept::Orders>,
    ) -> io::Result<()> {
        let own = bound.sockets(self.index)?.into_iter();
        match key.transport {
            Transport::Tcp => {
                let own = own.map(|socket| tokio::net::TcpListener::from_std(socket.into()));
                for socket in own.collect::<io::Result<Vec<_>>>()? {
                    tokio::task::spawn_local(accept::run(
                        Rc::clone(self),
                        Rc::clone(orders),
                        socket,
                        Arc::clone(&bound.lease),
                        self.register(),
                    ));
                }
            }
            Transport::Udp => {
                let own = own.map(|socket| tokio::net::UdpSocket::from_std(socket.into()));
                for socket in own.collect::<io::Result<Vec<_>>>()? {
                    tokio::task::spawn_local(udp::run(
                        Rc::clone(self),
                        Rc::clone(orders),
                        socket,
                        bound.local,
                        Arc::clone(&bound.lease),
                        self.register(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The addresses that this engine takes datagrams on.
    pub(crate) fn datagram_addresses(&self) -> Box<[SocketAddr]> {
        let sockets = self.shared.sockets();
        let own = sockets.values().filter_map(|bound| bound.datagrams());
        own.collect()
    }

    /// Whether another process may take what comes to the sockets.
    pub(crate) fn shares_sockets(&self) -> bool {
        self.shared.shares_sockets()
    }

    /// Whether a draining worker has nothing left to do. Accepting tasks count as well: they take
    /// what waits in their queues first, as connections whose tasks may not have run yet.
    fn is_done(&self) -> bool {
        self.wakers.borrow().len() == self.background.get()
            && self.stats().downstream_cx_active.value() == 0
    }

    /// Makes a draining worker end if this was the last that it waited for.
    pub(crate) fn end_if_done(&self) {
        if self.phase() >= Phase::Draining && self.is_done() {
            self.shared.wake();
        }
    }

    /// Tells the reader of a bridge, at the end of this turn of the event loop, that it was asked.
    pub(crate) fn wake_soon(&self, bridge: &Arc<Bridge>) {
        let asked = self.asked.borrow_mut().replace(Arc::clone(bridge));
        if asked.is_none() {
            self.asking.notify_one();
        }
    }

    /// A number for the next connection, unique in the engine.
    pub(crate) fn next_connection_id(&self) -> u64 {
        let count = self.connections.get();
        self.connections.set(count + 1);
        count * self.shared.stats.len() as u64 + self.index as u64
    }

    /// Registers the calling task to be woken when phase, generation or a manual clock changes.
    pub(crate) fn register(self: &Rc<Self>) -> Registration {
        self.look_at_clock();
        let key = self.wakers.borrow_mut().insert(None);
        Registration {
            worker: Rc::clone(self),
            key,
            in_background: false,
        }
    }

    /// The same for a task that goes on for as long as there are others, and a little longer: it is to end
    /// once [`is_ending_logs`](Self::is_ending_logs).
    pub(crate) fn register_in_background(self: &Rc<Self>) -> Registration {
        self.background.set(self.background.get() + 1);
        let mut registration = self.register();
        registration.in_background = true;
        registration
    }

    /// Whether nothing is logged any longer, so that tasks that send it are to end.
    pub(crate) fn is_ending_logs(&self) -> bool {
        self.ending_logs.get()
    }

    fn wake_all(&self) {
        for (_, waker) in &*self.wakers.borrow() {
            if let Some(waker) = waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Calls `use_date` with the current date in the form of RFC 9110 5.6.7, made once a second.
    pub(crate) fn with_date<R>(&self, now: Nanos, use_date: impl FnOnce(&[u8]) -> R) -> R {
        let seconds = self.shared.clock.wall_nanos(now) / 1_000_000_000;
        let mut date = self.date.borrow_mut();
        if date.0 != seconds || date.1.is_empty() {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            *date = (seconds, httpdate::fmt_http_date(time));
        }
        use_date(date.1.as_bytes())
    }
}

/// A task's entry in its worker's list of wakers.
#[derive(Debug)]
pub(crate) struct Registration {
    worker: Rc<Worker>,
    key: usize,
    in_background: bool,
}

impl Registration {
    /// Names the task that runs now as the one to wake. To be called whenever it was woken, before
    /// the time is asked for.
    pub(crate) fn update(&self, cx: &Context<'_>) {
        self.worker.look_at_clock();
        let mut wakers = self.worker.wakers.borrow_mut();
        let waker = &mut wakers[self.key];
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let worker = &self.worker;
        worker.wakers.borrow_mut().remove(self.key);
        if self.in_background {
            worker.background.set(worker.background.get() - 1);
        }
        self.worker.end_if_done();
    }
}
