//! Circuit breakers: how much may be under way to a cluster at once.
//!
//! What is counted is counted over all workers, by the [`Slot`]s that connections, requests and retries
//! hold: each gives its own back when it is dropped, however it ends.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use kgw_limit::{Slot, Slots};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::pool::PoolKey;
use crate::config::ir::CircuitBreakers;
use crate::config::snapshot::Cluster;
use crate::runtime::Worker;
use crate::stats::Stats;

/// The breakers of a cluster.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// No other has had it; not 0.
    pub(crate) number: u64,
    pub(crate) connections: Arc<Slots>,
    pub(crate) pending: Arc<Slots>,
    pub(crate) requests: Arc<Slots>,
    pub(crate) retries: Arc<Slots>,
    tracks_remaining: bool,
}

impl Breaker {
    pub(crate) fn new(limits: &CircuitBreakers) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            connections: Slots::new(limits.max_connections),
            pending: Slots::new(limits.max_pending_requests),
            requests: Slots::new(limits.max_requests),
            retries: Slots::new(limits.max_retries),
            tracks_remaining: limits.track_remaining,
        }
    }

    /// Its state, by the names of Envoy's gauges; 1 is a breaker that is open.
    fn gauges(&self) -> Value {
        let all = [
            ("cx_open", "remaining_cx", &self.connections),
            ("rq_pending_open", "remaining_pending", &self.pending),
            ("rq_open", "remaining_rq", &self.requests),
            ("rq_retry_open", "remaining_retries", &self.retries),
        ];
        let mut gauges = Map::new();
        for (open, remaining, slots) in all {
            let left = slots.remaining();
            gauges.insert(open.to_owned(), u8::from(left == 0).into());
            if self.tracks_remaining {
                gauges.insert(remaining.to_owned(), left.into());
            }
        }
        Value::Object(gauges)
    }
}

/// The breakers of clusters by their ids and limits: what is counted outlives changes of anything else.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    known: HashMap<String, (CircuitBreakers, Arc<Breaker>)>,
}

impl Breakers {
    /// The breaker of a cluster. Other limits begin anew, as in Envoy: connections under way are of the
    /// cluster that there was.
    pub(crate) fn breaker(&mut self, id: &str, limits: &CircuitBreakers) -> Arc<Breaker> {
        match self.known.get(id) {
            Some((known, breaker)) if known == limits => Arc::clone(breaker),
            _ => {
                let breaker = Arc::new(Breaker::new(limits));
                let entry = (limits.clone(), Arc::clone(&breaker));
                self.known.insert(id.to_owned(), entry);
                breaker
            }
        }
    }

    /// Forgets what is out of use.
    pub(crate) fn forget_unused(&mut self) {
        self.known
            .retain(|_, (_, breaker)| Arc::strong_count(breaker) > 1);
    }
}

/// What breakers say, by cluster.
pub(crate) fn gauges<'a>(breakers: impl Iterator<Item = (&'a str, &'a Breaker)>) -> Value {
    let all = breakers.map(|(id, breaker)| (id.to_owned(), breaker.gauges()));
    json!(all.collect::<Map<_, _>>())
}

/// The connections of a worker to an endpoint, of a cluster with a breaker.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// How many there are.
    open: Cell<usize>,
    /// Requests that wait until there is room on one, or for another.
    waiting: Cell<usize>,
    /// Told once for each connection, stream or slot that is free again.
    freed: Notify,
}

impl Lane {
    /// The right to open a connection: always the first one, so that nobody waits for what only others
    /// have (Envoy does the same); else if the breaker has a slot left.
    pub(crate) fn open(lane: &Rc<Self>, breaker: &Breaker) -> Option<Held> {
        let slot = if lane.open.get() == 0 {
            Slots::force(&breaker.connections)
        } else {
            Slots::take(&breaker.connections)?
        };
        Some(Self::hold(lane, slot))
    }

    /// The right to open a connection, whatever the breaker says.
    pub(crate) fn force(lane: &Rc<Self>, breaker: &Breaker) -> Held {
        Self::hold(lane, Slots::force(&breaker.connections))
    }

    fn hold(lane: &Rc<Self>, slot: Slot) -> Held {
        lane.open.set(lane.open.get() + 1);
        Held {
            lane: Rc::clone(lane),
            _slot: slot,
        }
    }

    /// Whether requests wait, behind which others have to.
    pub(crate) fn has_queue(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Whether nothing of it is in use.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.get() == 0 && !self.has_queue()
    }

    /// Says that a connection, or a stream of one, is free.
    pub(crate) fn free(&self) {
        if self.has_queue() {
            self.freed.notify_one();
        }
    }

    /// Waits until something is free. Who comes first is told first.
    pub(crate) async fn wait(self: Rc<Self>) {
        let _waiting = Waiting::new(&self);
        self.freed.notified().await;
    }
}

/// Counts a request as long as it waits.
struct Waiting<'a>(&'a Lane);

impl<'a> Waiting<'a> {
    fn new(lane: &'a Lane) -> Self {
        lane.waiting.set(lane.waiting.get() + 1);
        Self(lane)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// A connection's place in its lane, and its slot.
#[derive(Debug)]
pub(crate) struct Held {
    lane: Rc<Lane>,
    _slot: Slot,
}

impl Held {
    /// Says that the connection, or a stream of it, is free.
    pub(crate) fn free(&self) {
        self.lane.free();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.lane.open.set(self.lane.open.get() - 1);
        self.lane.free();
    }
}

/// A request in front of the connections of a cluster.
#[derive(Debug)]
pub(crate) struct Queue<'a> {
    bounds: Option<(&'a Breaker, Rc<Lane>)>,
    /// Its place among those that wait for a connection, or open one.
    pending: Option<Slot>,
    has_waited: bool,
}

/// What a request without a connection does.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It opens one.
    Open(Option<Held>),
    /// It waits until there is one, or it may.
    Wait,
}

/// As many requests wait as may.
#[derive(Debug)]
pub(crate) struct Overflow;

impl<'a> Queue<'a> {
    pub(crate) fn new(worker: &Worker, cluster: &'a Cluster, key: &PoolKey) -> Self {
        let breaker = cluster.breaker.as_deref();
        Self {
            bounds: breaker.map(|breaker| (breaker, worker.pools.borrow_mut().lane(key))),
            pending: None,
            has_waited: false,
        }
    }

    /// Whether others came first.
    pub(crate) fn is_behind(&self) -> bool {
        let lane = self.bounds.as_ref().map(|(_, lane)| lane);
        !self.has_waited && lane.is_some_and(|lane| lane.has_queue())
    }

    /// Whether it takes what it gets.
    pub(crate) fn has_waited(&self) -> bool {
        self.has_waited
    }

    /// Counts the request among those that wait.
    pub(crate) fn enter(&mut self, stats: &Stats) -> Result<(), Overflow> {
        let Some((breaker, _)) = &self.bounds else {
            return Ok(());
        };
        if self.pending.is_none() {
            self.pending = Slots::take(&breaker.pending);
        }
        if self.pending.is_none() {
            stats.upstream_rq_pending_overflow.increment();
            return Err(Overflow);
        }
        Ok(())
    }

    /// Asks whether it may open a connection.
    pub(crate) fn turn(&mut self, stats: &Stats) -> Result<Turn, Overflow> {
        self.enter(stats)?;
        let Some((breaker, lane)) = &self.bounds else {
            return Ok(Turn::Open(None));
        };
        if let Some(held) = Lane::open(lane, breaker) {
            return Ok(Turn::Open(Some(held)));
        }
        Ok(Turn::Wait)
    }

    /// What is told when something is free.
    pub(crate) fn wait(&mut self, stats: &Stats) -> impl Future<Output = ()> + use<> {
        if !self.has_waited {
            self.has_waited = true;
            stats.upstream_cx_overflow.increment();
        }
        let lane = self.bounds.as_ref().map(|(_, lane)| Rc::clone(lane));
        async move {
            if let Some(lane) = lane {
                lane.wait().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn breaker(max_connections: u64) -> Breaker {
        Breaker::new(&CircuitBreakers {
            max_connections,
            ..CircuitBreakers::default()
        })
    }

    fn poll(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn each_lane_has_a_connection_and_no_more_than_the_breaker_allows() {
        let breaker = breaker(1);
        let (one, other) = (Rc::<Lane>::default(), Rc::<Lane>::default());
        let first = Lane::open(&one, &breaker);
        assert!(first.is_some());
        assert!(Lane::open(&one, &breaker).is_none());
        let forced = Lane::open(&other, &breaker);
        assert!(forced.is_some());
        assert_eq!(breaker.connections.used(), 2);
        drop(first);
        assert!(Lane::open(&other, &breaker).is_none());
        drop(forced);
        assert_eq!(breaker.connections.used(), 0);
        assert!(one.is_idle() && other.is_idle());
    }

    #[test]
    fn who_waits_is_told_in_turn_and_who_leaves_passes_it_on() {
        let breaker = breaker(1);
        let lane = Rc::<Lane>::default();
        let held = Lane::open(&lane, &breaker).unwrap();
        let mut first = Box::pin(Rc::clone(&lane).wait());
        let mut second = pin!(Rc::clone(&lane).wait());
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        held.free();
        assert!(poll(second.as_mut()).is_pending());
        // It was told, and is gone before it looked.
        drop(first);
        assert!(poll(second.as_mut()).is_ready());
        assert!(!lane.has_queue());
    }

    #[test]
    fn a_connection_that_ends_makes_room_for_who_waits() {
        let breaker = breaker(1);
        let lane = Rc::<Lane>::default();
        let held = Lane::open(&lane, &breaker);
        let mut waiting = pin!(Rc::clone(&lane).wait());
        assert!(poll(waiting.as_mut()).is_pending());
        drop(held);
        assert!(poll(waiting.as_mut()).is_ready());
        assert!(Lane::open(&lane, &breaker).is_some());
    }

    #[test]
    fn gauges_say_what_is_open_and_what_is_left_if_that_is_asked_for() {
        let plain = breaker(1);
        let _slot = Slots::take(&plain.connections);
        let expected =
            json!({"cx_open": 1, "rq_pending_open": 0, "rq_open": 0, "rq_retry_open": 0});
        assert_eq!(plain.gauges(), expected);
        let tracking = Breaker::new(&CircuitBreakers {
            max_retries: 0,
            track_remaining: true,
            ..CircuitBreakers::default()
        });
        let gauges = tracking.gauges();
        assert_eq!(gauges["remaining_cx"], 1024);
        assert_eq!(
            (&gauges["remaining_retries"], &gauges["rq_retry_open"]),
            (&json!(0), &json!(1))
        );
    }

    #[test]
    fn a_breaker_is_one_as_long_as_it_is_used_with_the_same_limits() {
        let mut breakers = Breakers::default();
        let limits = CircuitBreakers::default();
        let one = breakers.breaker("a", &limits);
        assert!(Arc::ptr_eq(&one, &breakers.breaker("a", &limits)));
        assert!(!Arc::ptr_eq(&one, &breakers.breaker("b", &limits)));
        let other = CircuitBreakers {
            max_requests: 1,
            ..limits
        };
        assert!(!Arc::ptr_eq(&one, &breakers.breaker("a", &other)));
        breakers.forget_unused();
        assert!(breakers.known.is_empty());
    }
}
