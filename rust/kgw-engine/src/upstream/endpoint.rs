//! An endpoint of a cluster, and what is known of it.
//!
//! Invariants:
//! 1. An endpoint is the same as long as its cluster (by id) has its address: reloads that change anything
//!    else keep what is known of it ([`carried`]).
//! 2. Any thread may say that it is out of use, or in use again, for each [reason](Fault) on its own. The
//!    cluster's [`Changes`] are told, so that whoever chooses among its endpoints looks at them anew.
//! 3. The requests that it serves are those whose [`Serving`] exists.

#![cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "health checks, and what asks how busy endpoints are, are built on this"
    )
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::clock::Nanos;
use crate::config::snapshot::FastMap;

/// An endpoint, on a cache line of its own: all workers count its requests.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// Requests that it serves.
    active: AtomicU32,
    /// Why it is not to be used, as bits of [`Fault`]; 0 if it is.
    faults: AtomicU8,
    /// Since when it is there, or available again. Nanoseconds.
    since: AtomicU64,
    /// Failures that follow each other, by [`Errors`].
    errors: [AtomicU32; 2],
    /// Those of its cluster.
    changes: Arc<Changes>,
}

/// Why an endpoint is not to be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// Health checks say so.
    Unhealthy = 1,
    /// Its answers say so.
    Ejected = 2,
}

/// Whose failures are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Errors {
    /// Those of the endpoint's answers.
    Server,
    /// Those to have an answer of it.
    Local,
}

/// How often endpoints of a cluster came, went, or changed.
#[derive(Debug, Default)]
pub(crate) struct Changes(AtomicU64);

/// A request that an endpoint serves, until it is dropped.
#[derive(Debug)]
pub(crate) struct Serving(Arc<Endpoint>);

// === impl Endpoint ===

impl Endpoint {
    /// One that is there from `now` on.
    pub(crate) fn new(address: SocketAddr, now: Nanos, changes: Arc<Changes>) -> Self {
        Self {
            address,
            active: AtomicU32::new(0),
            faults: AtomicU8::new(0),
            since: AtomicU64::new(now.0),
            errors: Default::default(),
            changes,
        }
    }

    /// Whether nothing speaks against its use.
    pub(crate) fn is_available(&self) -> bool {
        self.faults.load(Ordering::Relaxed) == 0
    }

    /// Whether it is out of use for this reason.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.load(Ordering::Relaxed) & fault as u8 != 0
    }

    /// Takes it out of use. Returns whether it was not for this reason already.
    pub(crate) fn fail(&self, fault: Fault) -> bool {
        let before = self.faults.fetch_or(fault as u8, Ordering::AcqRel);
        let is_new = before & fault as u8 == 0;
        if is_new {
            self.changes.tell();
        }
        is_new
    }

    /// Ends what [`fail`](Self::fail) said; other reasons stay. Returns whether it was said.
    pub(crate) fn recover(&self, fault: Fault, now: Nanos) -> bool {
        let before = self.faults.fetch_and(!(fault as u8), Ordering::AcqRel);
        let was_said = before & fault as u8 != 0;
        if was_said {
            if before == fault as u8 {
                self.since.store(now.0, Ordering::Release);
            }
            self.changes.tell();
        }
        was_said
    }

    /// Since when it is there, or available again.
    pub(crate) fn since(&self) -> Nanos {
        Nanos(self.since.load(Ordering::Acquire))
    }

    /// Requests that it serves, of all workers.
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts a failure, and returns how many follow each other.
    pub(crate) fn count(&self, errors: Errors) -> u32 {
        let before = self.errors[errors as usize].fetch_add(1, Ordering::Relaxed);
        before.wrapping_add(1)
    }

    /// No failure follows another.
    pub(crate) fn forget(&self, errors: Errors) {
        let count = &self.errors[errors as usize];
        if count.load(Ordering::Relaxed) != 0 {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a request.
    pub(crate) fn serve(self: Arc<Self>) -> Serving {
        self.active.fetch_add(1, Ordering::Relaxed);
        Serving(self)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Serving {
    /// Which endpoint serves it.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Changes {
    /// Notes a change.
    pub(crate) fn tell(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The endpoints of some addresses: those that are among `before`, and new ones.
pub(crate) fn carried(
    addresses: &[SocketAddr],
    before: &[Arc<Endpoint>],
    now: Nanos,
    changes: &Arc<Changes>,
) -> Vec<Arc<Endpoint>> {
    let known: FastMap<_, _> = before.iter().map(|one| (one.address, one)).collect();
    let endpoint = |&address| match known.get(&address) {
        Some(&known) => Arc::clone(known),
        None => Arc::new(Endpoint::new(address, now, Arc::clone(changes))),
    };
    addresses.iter().map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_endpoint_is_available_when_no_reason_is_left() {
        let changes = Arc::<Changes>::default();
        let one = Endpoint::new(address("10.0.0.1:80"), Nanos(5), Arc::clone(&changes));
        assert!(one.is_available());
        assert!(one.fail(Fault::Ejected) && !one.fail(Fault::Ejected));
        assert!(one.fail(Fault::Unhealthy));
        assert_eq!(changes.count(), 2);
        assert!(one.recover(Fault::Ejected, Nanos(7)) && !one.recover(Fault::Ejected, Nanos(8)));
        assert!(!one.is_available() && one.has(Fault::Unhealthy) && !one.has(Fault::Ejected));
        assert_eq!(one.since(), Nanos(5));
        assert!(one.recover(Fault::Unhealthy, Nanos(9)));
        assert!(one.is_available());
        assert_eq!(one.since(), Nanos(9));
        assert_eq!(changes.count(), 4);
    }

    #[test]
    fn requests_are_counted_while_they_are_served() {
        let changes = Arc::<Changes>::default();
        let one = Arc::new(Endpoint::new(address("10.0.0.1:80"), Nanos(0), changes));
        let (first, second) = (Arc::clone(&one).serve(), Arc::clone(&one).serve());
        assert_eq!(one.active(), 2);
        assert!(Arc::ptr_eq(first.endpoint(), &one));
        drop(first);
        assert_eq!(one.active(), 1);
        drop(second);
        assert_eq!(one.active(), 0);
    }

    #[test]
    fn what_stays_is_the_same() {
        let changes = Arc::<Changes>::default();
        let (a, b, c) = (
            address("10.0.0.1:80"),
            address("10.0.0.2:80"),
            address("[::1]:80"),
        );
        let before = carried(&[a, b], &[], Nanos(1), &changes);
        let after = carried(&[c, b], &before, Nanos(2), &changes);
        assert!(Arc::ptr_eq(&before[1], &after[1]));
        assert_eq!((after[0].address, after[0].since()), (c, Nanos(2)));
    }
}
