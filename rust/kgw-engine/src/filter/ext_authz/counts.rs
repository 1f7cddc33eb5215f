//! What services decided, by the names that configurations give them (Envoy: `stat_prefix`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Map, Value};

/// The decisions of the services of a name.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ok: Count,
    pub(crate) denied: Count,
    pub(crate) error: Count,
    pub(crate) timeout: Count,
    pub(crate) failure_mode_allowed: Count,
}

/// A counter that all workers write: services are not asked so often that it matters.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

/// All names that there have been.
#[derive(Debug, Default)]
pub(crate) struct CountsByName(Mutex<BTreeMap<String, Arc<Counts>>>);

impl Count {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn value(&self) -> Value {
        self.0.load(Ordering::Relaxed).into()
    }
}

impl CountsByName {
    /// The counts of a name, which go on over reloads.
    pub(crate) fn of(&self, name: &str) -> Arc<Counts> {
        let mut known = self.0.lock();
        Arc::clone(known.entry(name.to_owned()).or_default())
    }

    /// All of them, as JSON.
    pub(crate) fn values(&self) -> Value {
        let known = self.0.lock();
        let all: Map<String, Value> = known
            .iter()
            .map(|(name, counts)| (name.clone(), counts.values()))
            .collect();
        all.into()
    }
}

impl Counts {
    fn values(&self) -> Value {
        serde_json::json!({
            "ok": self.ok.value(),
            "denied": self.denied.value(),
            "error": self.error.value(),
            "timeout": self.timeout.value(),
            "failure_mode_allowed": self.failure_mode_allowed.value(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_set_of_counts() {
        let names = CountsByName::default();
        names.of("a").ok.increment();
        names.of("a").ok.increment();
        names.of("b").denied.increment();
        let values = names.values();
        assert_eq!(values["a"]["ok"], 2);
        assert_eq!(values["a"]["denied"], 0);
        assert_eq!(values["b"]["denied"], 1);
    }
}
