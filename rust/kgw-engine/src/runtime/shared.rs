//! What the engine and its workers share: the published snapshot, the phase, acknowledgements.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::memory::Pressure;
use crate::clock::{Clock, Nanos};
use crate::config::ir;
use crate::config::snapshot::{Listener, Snapshot, Traffic};
use crate::listen::balance::{Balance, Inbox};
use crate::listen::call::Call;
use crate::listen::limit::ConnectionLimit;
use crate::listen::socket::Sockets;
use crate::room::Room;
use crate::stats::Stats;
use crate::telemetry::access_log::Taps;
use crate::udp;

/// Most bytes of bodies that are held at a time until services can have them as a whole.
const MAX_BODIES: usize = 256 * 1024 * 1024;

/// Most bytes of bodies that are kept at a time for requests that may be sent once more.
const MAX_REPLAYS: usize = 256 * 1024 * 1024;

/// The phases of an engine's life; they only go up.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Connections are accepted and served.
    Running = 0,
    /// Connections are accepted still, and each answer closes its connection: whoever balances load
    /// has not yet heard that this engine ends.
    LameDuck = 1,
    /// Nothing new is accepted, each answer closes its connection.
    Draining = 2,
    /// Every connection is dropped.
    Closing = 3,
}

/// What is counted of a listener's open connections, over all workers.
#[derive(Clone, Debug)]
pub(crate) struct ListenerCounts {
    pub(crate) limit: Arc<ConnectionLimit>,
    /// Where the workers even out what they have, those that were opened since it is asked for.
    pub(crate) balance: Option<Arc<Balance>>,
}

/// The engine's side of the workers. Workers read it without locks on the hot path.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    /// One per worker, written by that worker alone.
    pub(crate) stats: Box<[Stats]>,
    /// Who reads the access log in this process.
    pub(crate) taps: Arc<Taps>,
    /// Room for bodies that are held until a service can have them as a whole.
    pub(crate) body_room: Arc<Room>,
    /// Room for bodies of requests that may be sent once more. A room of its own: what can only be sent
    /// once is no failure, what no service can decide about is.
    pub(crate) replay_room: Arc<Room>,
    generation: AtomicU64,
    phase: AtomicU8,
    /// When a lame duck stops accepting.
    accepts_until: AtomicU64,
    pressure: AtomicU8,
    /// Of all listeners together.
    pub(crate) connection_limit: Arc<ConnectionLimit>,
    /// Of each listener, by its id; a reload does not forget what is open.
    listeners: Mutex<HashMap<Arc<str>, ListenerCounts>>,
    snapshot: Mutex<Arc<Snapshot>>,
    /// The listening sockets of the snapshot's listeners; none once draining began, so that the
    /// workers' duplicates are the last.
    sockets: Mutex<Sockets>,
    /// Whether another process may have the sockets as well.
    shares_sockets: AtomicBool,
    /// One per worker: "look again".
    wakes: Box<[Notify]>,
    /// One per worker: what others accepted for it.
    inboxes: Box<[Inbox]>,
    /// One per worker: connections of this process itself.
    calls: Box<[Inbox<Call>]>,
    /// Whose turn it is to take the next of them.
    turn: AtomicUsize,
    /// The generation that each worker runs; `u64::MAX` once it has ended.
    acknowledged: Mutex<Box<[u64]>>,
    acknowledgement: Condvar,
    /// How often it was asked that the workers settle.
    settlings: AtomicU64,
    /// The last of these that each worker did; `u64::MAX` once it has ended.
    settled: Mutex<Box<[u64]>>,
    settlement: Condvar,
}

impl Shared {
    pub(crate) fn new(
        clock: Clock,
        workers: usize,
        max_connections: u64,
        snapshot: Arc<Snapshot>,
        sockets: Sockets,
    ) -> Self {
        let shared = Self {
            clock,
            stats: (0..workers).map(|_| Stats::default()).collect(),
            taps: Arc::new(Taps::new(workers)),
            body_room: Arc::new(Room::new(MAX_BODIES)),
            replay_room: Arc::new(Room::new(MAX_REPLAYS)),
            generation: AtomicU64::new(snapshot.generation),
            phase: AtomicU8::new(Phase::Running as u8),
            accepts_until: AtomicU64::new(u64::MAX),
            pressure: AtomicU8::new(Pressure::Normal as u8),
            connection_limit: Arc::new(ConnectionLimit::new(max_connections)),
            listeners: Mutex::default(),
            snapshot: Mutex::new(snapshot),
            sockets: Mutex::new(sockets),
            shares_sockets: AtomicBool::new(false),
            wakes: (0..workers).map(|_| Notify::new()).collect(),
            inboxes: (0..workers).map(|_| Inbox::default()).collect(),
            calls: (0..workers).map(|_| Inbox::default()).collect(),
            turn: AtomicUsize::new(0),
            acknowledged: Mutex::new(vec![0; workers].into_boxed_slice()),
            acknowledgement: Condvar::new(),
            settlings: AtomicU64::default(),
            settled: Mutex::new(vec![0; workers].into_boxed_slice()),
            settlement: Condvar::new(),
        };
        shared.set_limits();
        shared
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock())
    }

    pub(crate) fn sockets(&self) -> Sockets {
        self.sockets.lock().clone()
    }

    /// Whether another process may have the sockets as well, and take what comes.
    pub(crate) fn shares_sockets(&self) -> bool {
        self.shares_sockets.load(Ordering::Acquire)
    }

    /// Says that another process gets the sockets.
    pub(crate) fn share_sockets(&self) {
        self.shares_sockets.store(true, Ordering::Release);
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::LameDuck,
            2 => Phase::Draining,
            _ => Phase::Closing,
        }
    }

    /// When a lame duck stops accepting.
    pub(crate) fn accepts_until(&self) -> Nanos {
        Nanos(self.accepts_until.load(Ordering::Acquire))
    }

    /// Goes on accepting for `min`, then drains.
    pub(crate) fn drain_after(&self, min: Duration) {
        let now = self.clock.now().0;
        let until = now.saturating_add(u64::try_from(min.as_nanos()).unwrap_or(u64::MAX));
        self.accepts_until.fetch_min(until, Ordering::AcqRel);
        self.enter(if min.is_zero() {
            Phase::Draining
        } else {
            Phase::LameDuck
        });
    }

    pub(crate) fn pressure(&self) -> Pressure {
        Pressure::from_u8(self.pressure.load(Ordering::Relaxed))
    }

    /// Says how much memory there is left. Whoever waits looks again if that changed.
    pub(crate) fn set_pressure(&self, pressure: Pressure) {
        if self.pressure.swap(pressure as u8, Ordering::AcqRel) != pressure as u8 {
            self.wake();
        }
    }

    /// The counts of a listener of the snapshot.
    pub(crate) fn listener_counts(&self, listener: &str) -> Option<ListenerCounts> {
        self.listeners.lock().get(listener).cloned()
    }

    /// What other workers accepted for a worker.
    pub(crate) fn inbox(&self, worker: usize) -> &Inbox {
        &self.inboxes[worker]
    }

    /// Connections of this process itself for a worker.
    pub(crate) fn calls(&self, worker: usize) -> &Inbox<Call> {
        &self.calls[worker]
    }

    /// Gives a connection to the worker whose turn it is, or to another. Returns whether one takes it.
    pub(crate) fn call(&self, call: Call) -> bool {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut call = call;
        for step in 0..self.calls.len() {
            let worker = first.wrapping_add(step) % self.calls.len();
            match self.calls[worker].put(call) {
                Ok(()) => return true,
                Err(kept) => call = kept,
            }
        }
        false
    }

    /// Makes the listeners' limits, and how they are balanced, those of the snapshot.
    fn set_limits(&self) {
        let snapshot = self.snapshot();
        let mut listeners = self.listeners.lock();
        listeners.retain(|id, counts| {
            snapshot.listeners.contains_key(id) || Arc::strong_count(&counts.limit) > 1
        });
        for (id, listener) in &snapshot.listeners {
            let max = limit_of(listener);
            let counts = listeners
                .entry(Arc::clone(id))
                .or_insert_with(|| ListenerCounts {
                    limit: Arc::new(ConnectionLimit::new(max)),
                    balance: None,
                });
            counts.limit.change(max);
            // One worker has nobody to share with.
            if listener.balance == ir::Balance::Kernel || self.stats.len() == 1 {
                counts.balance = None;
            } else if counts.balance.is_none() {
                counts.balance = Some(Arc::new(Balance::new(self.stats.len())));
            }
        }
    }

    /// Makes `snapshot` the one that workers serve from their next request on.
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>, sockets: Sockets) {
        let generation = snapshot.generation;
        {
            // Under the lock: draining empties it, and must not find it filled again.
            let mut current = self.sockets.lock();
            if self.phase() < Phase::Draining {
                *current = sockets;
            }
        }
        *self.snapshot.lock() = snapshot;
        self.set_limits();
        self.generation.store(generation, Ordering::Release);
        self.wake();
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        if phase >= Phase::Draining {
            self.sockets.lock().clear();
        }
        self.wake();
    }

    /// Makes every worker look at generation, phase and clock.
    pub(crate) fn wake(&self) {
        for wake in &self.wakes {
            wake.notify_one();
        }
    }

    pub(crate) async fn woken(&self, worker: usize) {
        self.wakes[worker].notified().await;
    }

    pub(crate) fn acknowledge(&self, worker: usize, generation: u64) {
        self.acknowledged.lock()[worker] = generation;
        self.acknowledgement.notify_all();
    }

    /// Waits until every worker runs `generation` or a later one, or has ended.
    pub(crate) fn wait_acknowledged(&self, generation: u64, timeout: Duration) -> bool {
        let mut acknowledged = self.acknowledged.lock();
        let behind =
            |acknowledged: &mut Box<[u64]>| acknowledged.iter().any(|&worker| worker < generation);
        self.acknowledgement
            .wait_while_for(&mut acknowledged, behind, timeout);
        !behind(&mut acknowledged)
    }

    /// How often it was asked that the workers settle.
    pub(crate) fn settlings(&self) -> u64 {
        self.settlings.load(Ordering::Acquire)
    }

    /// Says that a worker has settled as often as `settlings` say.
    pub(crate) fn settle(&self, worker: usize, settlings: u64) {
        let mut settled = self.settled.lock();
        settled[worker] = settled[worker].max(settlings);
        self.settlement.notify_all();
    }

    /// Asks every worker to settle, and waits until they did or have ended.
    pub(crate) fn wait_settled(&self, timeout: Duration) -> bool {
        let asked = self.settlings.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake();
        let mut settled = self.settled.lock();
        let behind = |settled: &mut Box<[u64]>| settled.iter().any(|&worker| worker < asked);
        self.settlement
            .wait_while_for(&mut settled, behind, timeout);
        !behind(&mut settled)
    }
}

/// Most connections or sessions of a listener; 0 is no limit.
fn limit_of(listener: &Listener) -> u64 {
    match (&listener.traffic, listener.max_connections) {
        // Whoever can send datagrams can send them from any number of addresses.
        (Traffic::Udp(_), 0) => udp::MAX_SESSIONS,
        (_, max) => max,
    }
}
