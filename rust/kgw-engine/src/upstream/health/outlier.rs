//! Outlier detection: endpoints whose requests fail one after the other are out of use for a while.
//!
//! Rules, which are Envoy's:
//! 1. An endpoint counts failures that follow each other: answers of 500 and above and, on their own if
//!    the two are split, connections that are not there or break and answers that do not come. As many as
//!    the threshold says eject it.
//! 2. No more than a share of the endpoints is ejected, which of few endpoints may be none.
//! 3. An endpoint stays ejected for its base time, as many times as it was ejected, up to
//!    [`MAX_EJECTION_MS`]. In each interval that it is in use one of those times is forgotten.
//! 4. Whoever notes a failure ejects; one task looks at each interval what comes back.
//!
//! Ejections outlive changes of the configuration as the endpoints themselves do. Without a policy all of
//! them end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::clock::Nanos;
use crate::config::ir::OutlierDetection;
use crate::config::snapshot::{Cluster, FastSet};
use crate::upstream::endpoint::{Endpoint, Errors, Fault};

/// The longest ejection, unless the base time is longer. Milliseconds. As Envoy.
const MAX_EJECTION_MS: u64 = 300_000;

/// What endpoints of a cluster are ejected for, and which are.
#[derive(Debug)]
pub(crate) struct Outliers {
    settings: OutlierDetection,
    pub(super) state: Arc<State>,
}

/// What is known of outliers, whatever the settings.
#[derive(Debug, Default)]
pub(super) struct State {
    seen: Mutex<Vec<Seen>>,
    counts: Counts,
    is_tended: AtomicBool,
}

/// An endpoint that was ejected.
#[derive(Debug)]
struct Seen {
    endpoint: Arc<Endpoint>,
    /// How often, as far as that is not forgotten.
    times: u32,
    /// When, if it still is.
    ejected_at: Option<Nanos>,
}

#[derive(Debug, Default)]
struct Counts {
    ejections: AtomicU64,
    overflow: AtomicU64,
    /// By [`Errors`].
    detected: [AtomicU64; 2],
    enforced: [AtomicU64; 2],
}

/// What a request to an endpoint came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// It has a connection; what it is worth shows later.
    Connected,
    /// It has a connection, and nothing more will show.
    Reached,
    /// An answer of this status.
    Answered(u16),
    /// No connection, or one that was lost.
    Lost,
    /// No answer in time.
    TimedOut,
}

// === impl Outliers ===

impl Outliers {
    /// Those of settings. What is known of the endpoints comes from `before`.
    pub(crate) fn new(settings: &OutlierDetection, before: Option<&Arc<Self>>) -> Arc<Self> {
        match before {
            Some(before) if before.settings == *settings => Arc::clone(before),
            before => Arc::new(Self {
                settings: settings.clone(),
                state: before.map_or_else(Arc::default, |before| Arc::clone(&before.state)),
            }),
        }
    }

    /// Notes what a request to an endpoint of the cluster came to.
    pub(crate) fn note(
        &self,
        cluster: &Cluster,
        endpoint: &Arc<Endpoint>,
        outcome: Outcome,
        now: Nanos,
    ) {
        let settings = &self.settings;
        let is_split = settings.split_external_local_origin_errors;
        let local = if is_split {
            Errors::Local
        } else {
            Errors::Server
        };
        let (errors, has_failed) = match outcome {
            Outcome::Answered(status) => (Errors::Server, status >= 500),
            Outcome::Connected if !is_split => return,
            Outcome::Connected | Outcome::Reached => (local, false),
            Outcome::Lost | Outcome::TimedOut => (local, true),
        };
        if !has_failed {
            endpoint.forget(errors);
            return;
        }
        let (most, percentage) = match errors {
            Errors::Server => (settings.consecutive_5xx, settings.enforcing_consecutive_5xx),
            Errors::Local => (
                settings.consecutive_local_origin_failure,
                settings.enforcing_consecutive_local_origin_failure,
            ),
        };
        if endpoint.count(errors) == most {
            self.detected(cluster, endpoint, errors, percentage, now);
        }
    }

    fn detected(
        &self,
        cluster: &Cluster,
        endpoint: &Arc<Endpoint>,
        errors: Errors,
        percentage: u32,
        now: Nanos,
    ) {
        let State { seen, counts, .. } = &*self.state;
        let mut seen = seen.lock();
        if endpoint.has(Fault::Ejected) {
            return;
        }
        let increment = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        increment(&counts.detected[errors as usize]);
        endpoint.forget(errors);
        let endpoints = cluster.endpoints();
        keep_present(&mut seen, &endpoints);
        let ejected = seen.iter().filter(|one| one.ejected_at.is_some()).count();
        let most = endpoints.len() * self.settings.max_ejection_percent as usize;
        if (ejected + 1) * 100 > most {
            increment(&counts.overflow);
            return;
        }
        if fastrand::u32(..100) >= percentage {
            return;
        }
        increment(&counts.ejections);
        increment(&counts.enforced[errors as usize]);
        let place = seen
            .iter()
            .position(|one| Arc::ptr_eq(&one.endpoint, endpoint));
        let place = place.unwrap_or_else(|| {
            seen.push(Seen {
                endpoint: Arc::clone(endpoint),
                times: 0,
                ejected_at: None,
            });
            seen.len() - 1
        });
        let one = &mut seen[place];
        one.ejected_at = Some(now);
        let base_ms = self.settings.base_ejection_time_ms;
        let longest_ms = base_ms.max(MAX_EJECTION_MS);
        if base_ms.saturating_mul(one.times.into()) < longest_ms.saturating_add(base_ms) {
            one.times += 1;
        }
        endpoint.fail(Fault::Ejected);
    }

    /// Looks what has been ejected for long enough.
    pub(super) fn sweep(&self, cluster: &Cluster, now: Nanos) {
        let base_ms = self.settings.base_ejection_time_ms;
        let longest_ms = base_ms.max(MAX_EJECTION_MS);
        let mut seen = self.state.seen.lock();
        if seen.is_empty() {
            return;
        }
        keep_present(&mut seen, &cluster.endpoints());
        for one in &mut *seen {
            let Some(ejected_at) = one.ejected_at else {
                one.times = one.times.saturating_sub(1);
                continue;
            };
            let time_ms = base_ms.saturating_mul(one.times.into()).min(longest_ms);
            if now >= ejected_at.after_ms(time_ms.max(1)) {
                one.take_back(now);
            }
        }
        seen.retain(|one| one.times > 0 || one.ejected_at.is_some());
    }

    /// Ends the ejection of an endpoint that was found to be in order.
    pub(super) fn take_back(&self, endpoint: &Arc<Endpoint>, now: Nanos) {
        if !endpoint.has(Fault::Ejected) {
            return;
        }
        let mut seen = self.state.seen.lock();
        for one in &mut *seen {
            if Arc::ptr_eq(&one.endpoint, endpoint) && one.ejected_at.is_some() {
                one.take_back(now);
            }
        }
    }

    /// Time between two looks. Milliseconds.
    pub(super) fn interval_ms(&self) -> u64 {
        self.settings.interval_ms.max(1)
    }

    /// Whether nobody looks at them yet; from now on somebody does.
    pub(super) fn begin(&self) -> bool {
        !self.state.is_tended.swap(true, Ordering::AcqRel)
    }

    /// Its state, by Envoy's names.
    pub(crate) fn stats(&self) -> Value {
        let State { seen, counts, .. } = &*self.state;
        let seen = seen.lock();
        let active = seen.iter().filter(|one| one.ejected_at.is_some()).count();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [server, local] = [Errors::Server as usize, Errors::Local as usize];
        json!({
            "ejections_active": active,
            "ejections_enforced_total": count(&counts.ejections),
            "ejections_overflow": count(&counts.overflow),
            "ejections_detected_consecutive_5xx": count(&counts.detected[server]),
            "ejections_enforced_consecutive_5xx": count(&counts.enforced[server]),
            "ejections_detected_consecutive_local_origin_failure": count(&counts.detected[local]),
            "ejections_enforced_consecutive_local_origin_failure": count(&counts.enforced[local]),
        })
    }
}

// === impl State ===

impl State {
    /// Nothing of it is wanted any longer: what is ejected comes back.
    pub(super) fn end(&self, now: Nanos) {
        for mut one in self.seen.lock().drain(..) {
            one.take_back(now);
        }
        self.is_tended.store(false, Ordering::Release);
    }
}

// === impl Seen ===

impl Seen {
    fn take_back(&mut self, now: Nanos) {
        self.ejected_at = None;
        self.endpoint.forget(Errors::Server);
        self.endpoint.forget(Errors::Local);
        self.endpoint.recover(Fault::Ejected, now);
    }
}

/// Forgets endpoints that are gone.
fn keep_present(seen: &mut Vec<Seen>, endpoints: &[Arc<Endpoint>]) {
    if !seen.is_empty() {
        let present: FastSet<_> = endpoints.iter().map(Arc::as_ptr).collect();
        seen.retain(|one| present.contains(&Arc::as_ptr(&one.endpoint)));
    }
}

/// The status that stands for a gRPC status in an answer's head, as Envoy maps them.
pub(crate) fn status_of_grpc(code: &[u8]) -> u16 {
    match code {
        b"0" => 200,
        b"1" => 499,
        b"3" | b"9" | b"11" => 400,
        b"4" => 504,
        b"5" => 404,
        b"6" | b"10" => 409,
        b"7" => 403,
        b"8" => 429,
        b"12" => 501,
        b"14" => 503,
        b"16" => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cluster(count: usize) -> Cluster {
        let changes = Arc::default();
        let endpoint = |number| {
            let address = format!("10.0.0.{number}:80").parse().unwrap();
            Arc::new(Endpoint::new(address, Nanos(0), Arc::clone(&changes)))
        };
        Cluster {
            endpoints: (0..count).map(endpoint).collect(),
            ..Cluster::named("web")
        }
    }

    fn settings(text: &str) -> OutlierDetection {
        serde_json::from_str(text).unwrap()
    }

    fn outliers(text: &str) -> Arc<Outliers> {
        Outliers::new(&settings(text), None)
    }

    fn fail(outliers: &Outliers, cluster: &Cluster, place: usize, times: u32, now: Nanos) {
        for _ in 0..times {
            let endpoint = &cluster.endpoints[place];
            outliers.note(cluster, endpoint, Outcome::Answered(500), now);
        }
    }

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn failures_in_a_row_eject_an_endpoint() {
        let cluster = cluster(2);
        let one = &cluster.endpoints[0];
        let outliers = outliers(r#"{"consecutive_5xx": 3, "max_ejection_percent": 50}"#);
        let note = |outcome| outliers.note(&cluster, one, outcome, at(0));
        for outcome in [
            Outcome::Answered(500),
            Outcome::Lost,
            Outcome::Answered(404),
            Outcome::TimedOut,
            Outcome::Answered(503),
            // It says nothing of the request.
            Outcome::Connected,
        ] {
            note(outcome);
        }
        assert!(one.is_available());
        note(Outcome::Lost);
        assert!(one.has(Fault::Ejected));
        let stats = outliers.stats();
        assert_eq!(stats["ejections_active"], 1);
        assert_eq!(stats["ejections_enforced_consecutive_5xx"], 1);
    }

    #[test]
    fn failures_to_reach_it_count_on_their_own_if_they_are_split() {
        let cluster = cluster(2);
        let one = &cluster.endpoints[0];
        let outliers = outliers(
            r#"{"consecutive_5xx": 3, "consecutive_local_origin_failure": 2,
                "split_external_local_origin_errors": true, "max_ejection_percent": 100}"#,
        );
        let note = |outcome| outliers.note(&cluster, one, outcome, at(0));
        for outcome in [
            Outcome::Answered(500),
            Outcome::Answered(500),
            Outcome::Lost,
            Outcome::Connected,
            Outcome::TimedOut,
        ] {
            note(outcome);
        }
        assert!(one.is_available());
        note(Outcome::Lost);
        assert!(!one.is_available());
        let stats = outliers.stats();
        assert_eq!(
            stats["ejections_enforced_consecutive_local_origin_failure"],
            1
        );
        assert_eq!(stats["ejections_detected_consecutive_5xx"], 0);
    }

    #[test]
    fn an_ejection_takes_longer_each_time_and_that_is_forgotten() {
        let cluster = cluster(1);
        let one = &cluster.endpoints[0];
        let outliers =
            outliers(r#"{"max_ejection_percent": 100, "base_ejection_time_ms": 100000}"#);
        let mut now = at(0);
        for seconds in [100, 200, 300, 300, 300] {
            fail(&outliers, &cluster, 0, 5, now);
            assert!(!one.is_available());
            let back = Nanos(now.0 + at(seconds).0);
            outliers.sweep(&cluster, Nanos(back.0 - 1));
            assert!(!one.is_available(), "{seconds}");
            outliers.sweep(&cluster, back);
            assert!(one.is_available(), "{seconds}");
            now = back;
        }
        for _ in 0..10 {
            outliers.sweep(&cluster, now);
        }
        fail(&outliers, &cluster, 0, 5, now);
        outliers.sweep(&cluster, Nanos(now.0 + at(100).0));
        assert!(one.is_available());
    }

    #[test]
    fn a_share_of_few_endpoints_may_be_none() {
        let few = cluster(9);
        let outliers = outliers("{}");
        fail(&outliers, &few, 0, 5, at(0));
        assert!(few.endpoints[0].is_available());
        assert_eq!(outliers.stats()["ejections_overflow"], 1);
        let enough = cluster(10);
        fail(&outliers, &enough, 0, 5, at(0));
        assert!(!enough.endpoints[0].is_available());
    }

    #[test]
    fn chance_decides_and_never_is_never() {
        let cluster = cluster(1);
        let outliers = outliers(r#"{"max_ejection_percent": 100, "enforcing_consecutive_5xx": 0}"#);
        fail(&outliers, &cluster, 0, 50, at(0));
        assert!(cluster.endpoints[0].is_available());
        let stats = outliers.stats();
        assert_eq!(stats["ejections_detected_consecutive_5xx"], 10);
        assert_eq!(stats["ejections_enforced_total"], 0);
        let off = self::outliers(r#"{"max_ejection_percent": 100, "consecutive_5xx": 0}"#);
        fail(&off, &cluster, 0, 50, at(0));
        assert!(cluster.endpoints[0].is_available());
    }

    #[test]
    fn what_is_known_outlives_other_settings_and_ends_with_them() {
        let cluster = cluster(1);
        let one = &cluster.endpoints[0];
        let before = outliers(r#"{"max_ejection_percent": 100}"#);
        assert!(before.begin() && !before.begin());
        fail(&before, &cluster, 0, 5, at(0));
        let after = Outliers::new(
            &settings(r#"{"base_ejection_time_ms": 1000}"#),
            Some(&before),
        );
        assert_eq!(after.stats()["ejections_active"], 1);
        after.take_back(one, at(0));
        assert!(one.is_available());
        fail(&before, &cluster, 0, 5, at(0));
        assert!(!one.is_available());
        after.state.end(at(1));
        assert!(one.is_available() && after.begin());
    }

    proptest! {
        /// However requests end, no more than the share is ejected, and everything comes back.
        #[test]
        fn never_more_than_the_share(
            count in 1_usize..12,
            percent in 0_u32..=100,
            steps in prop::collection::vec((0_usize..12, 0_u8..4), 0..300),
        ) {
            let cluster = cluster(count);
            let outliers = outliers(&format!(
                r#"{{"consecutive_5xx": 2, "max_ejection_percent": {percent}}}"#
            ));
            let mut now = at(0);
            for (place, step) in steps {
                let endpoint = &cluster.endpoints[place % count];
                match step {
                    0 | 1 => outliers.note(&cluster, endpoint, Outcome::Answered(500), now),
                    2 => outliers.note(&cluster, endpoint, Outcome::Answered(200), now),
                    _ => {
                        now = now.after_ms(10_000);
                        outliers.sweep(&cluster, now);
                    }
                }
                let ejected = cluster.endpoints.iter().filter(|one| !one.is_available()).count();
                prop_assert!(ejected * 100 <= count * percent as usize);
                prop_assert_eq!(&outliers.stats()["ejections_active"], ejected);
            }
            outliers.sweep(&cluster, now.after_ms(MAX_EJECTION_MS));
            prop_assert!(cluster.endpoints.iter().all(|one| one.is_available()));
        }
    }
}
