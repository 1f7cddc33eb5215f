//! What the engine and its workers share: the published snapshot, the phase, acknowledgements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::snapshot::Snapshot;
use crate::listen::socket::Sockets;
use crate::stats::Stats;

/// The phases of an engine's life; they only go up.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Connections are accepted and served.
    Running = 0,
    /// Nothing new is accepted, each answer closes its connection.
    Draining = 1,
    /// Every connection is dropped.
    Closing = 2,
}

/// The engine's side of the workers. Workers read it without locks on the hot path.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    /// One per worker, written by that worker alone.
    pub(crate) stats: Box<[Stats]>,
    generation: AtomicU64,
    phase: AtomicU8,
    snapshot: Mutex<Arc<Snapshot>>,
    /// The listening sockets of the snapshot's listeners; none once draining began, so that the
    /// workers' duplicates are the last.
    sockets: Mutex<Sockets>,
    /// One per worker: "look again".
    wakes: Box<[Notify]>,
    /// The generation that each worker runs; `u64::MAX` once it has ended.
    acknowledged: Mutex<Box<[u64]>>,
    acknowledgement: Condvar,
}

impl Shared {
    pub(crate) fn new(
        clock: Clock,
        workers: usize,
        snapshot: Arc<Snapshot>,
        sockets: Sockets,
    ) -> Self {
        Self {
            clock,
            stats: (0..workers).map(|_| Stats::default()).collect(),
            generation: AtomicU64::new(snapshot.generation),
            phase: AtomicU8::new(Phase::Running as u8),
            snapshot: Mutex::new(snapshot),
            sockets: Mutex::new(sockets),
            wakes: (0..workers).map(|_| Notify::new()).collect(),
            acknowledged: Mutex::new(vec![0; workers].into_boxed_slice()),
            acknowledgement: Condvar::new(),
        }
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

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Closing,
        }
    }

    /// Makes `snapshot` the one that workers serve from their next request on.
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>, sockets: Sockets) {
        let generation = snapshot.generation;
        {
            // Under the lock: draining empties it, and must not find it filled again.
            let mut current = self.sockets.lock();
            if self.phase() == Phase::Running {
                *current = sockets;
            }
        }
        *self.snapshot.lock() = snapshot;
        self.generation.store(generation, Ordering::Release);
        self.wake();
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        if phase != Phase::Running {
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
}
