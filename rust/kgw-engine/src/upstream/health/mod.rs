//! Which endpoints are in order: what their answers say, and what is asked for that purpose.
//!
//! The first worker looks after a cluster, in a task that follows the newest configuration and ends with
//! what it is for. What it finds out is in the endpoints, where every worker sees it.

pub(crate) mod checks;
pub(crate) mod outlier;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use self::outlier::State;
use crate::clock::{Nanos, Timer};
use crate::config::snapshot::{Cluster, Snapshot};
use crate::runtime::{Phase, Registration, Worker};

/// Begins to look after clusters that nobody looks after yet.
pub(crate) fn tend(worker: &Rc<Worker>, snapshot: &Snapshot) {
    for cluster in &*snapshot.tended {
        if let Some(outliers) = &cluster.outliers
            && outliers.begin()
        {
            let state = Arc::clone(&outliers.state);
            let (worker, id) = (Rc::clone(worker), cluster.name.clone());
            tokio::task::spawn_local(sweep(worker, id, state));
        }
        if let Some(checks) = &cluster.checks
            && checks.begin()
        {
            let state = Arc::clone(&checks.state);
            let (worker, id) = (Rc::clone(worker), cluster.name.clone());
            tokio::task::spawn_local(checks::run(worker, id, state));
        }
    }
}

/// Ends ejections that are over, at each interval.
async fn sweep(worker: Rc<Worker>, id: String, state: Arc<State>) {
    let mut pausing = Pausing::new(&worker);
    let mut last = worker.now();
    loop {
        let due = {
            let cluster = cluster(&worker, &id);
            let outliers = cluster.as_ref().and_then(|one| one.outliers.as_ref());
            let outliers = outliers.filter(|one| Arc::ptr_eq(&one.state, &state));
            let (Some(cluster), Some(outliers)) = (&cluster, outliers) else {
                state.end(worker.now());
                return;
            };
            let now = worker.now();
            if now >= last.after_ms(outliers.interval_ms()) {
                outliers.sweep(cluster, now);
                last = now;
            }
            last.after_ms(outliers.interval_ms())
        };
        if !pausing.until(due).await {
            return;
        }
    }
}

/// The cluster of an id in the newest configuration, if it is looked after.
fn cluster(worker: &Worker, id: &str) -> Option<Arc<Cluster>> {
    let snapshot = worker.snapshot();
    let place = snapshot
        .tended
        .binary_search_by(|one| one.name.as_str().cmp(id));
    place.ok().map(|place| Arc::clone(&snapshot.tended[place]))
}

/// Lets time go by.
struct Pausing {
    worker: Rc<Worker>,
    registration: Registration,
    timer: Timer,
    generation: u64,
}

impl Pausing {
    fn new(worker: &Rc<Worker>) -> Self {
        Self {
            worker: Rc::clone(worker),
            registration: worker.register(),
            timer: Timer::new(worker.clock().clone()),
            generation: worker.snapshot().generation,
        }
    }

    /// Waits until then, or for another configuration. False if the worker drains first.
    async fn until(&mut self, moment: Nanos) -> bool {
        poll_fn(|cx| {
            self.registration.update(cx);
            if self.worker.phase() >= Phase::Draining {
                return Poll::Ready(false);
            }
            let generation = self.worker.snapshot().generation;
            if generation != self.generation {
                self.generation = generation;
                return Poll::Ready(true);
            }
            self.timer.poll(cx, moment).map(|()| true)
        })
        .await
    }
}
