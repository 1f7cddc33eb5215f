//! What proxies count with by themselves while a server that they share limits through is away.

use std::sync::Arc;

use hashbrown::HashMap;
use kgw_limit::{DEFAULT_MAX_KEYS, KeyedBuckets, Limit, Tick};

use crate::filter::global_rate_limit::redis::LocalBuckets;

/// Buckets by their identity, so that a change elsewhere does not refill them. They are forgotten once they
/// are out of use and full.
#[derive(Debug, Default)]
pub(super) struct Fallbacks {
    known: HashMap<String, LocalBuckets>,
    /// How many were left when unused ones were looked for last.
    kept: usize,
}

impl Fallbacks {
    pub(super) fn buckets(&mut self, id: String, limit: Limit) -> Result<LocalBuckets, String> {
        if let Some(buckets) = self.known.get(&id) {
            return Ok(Arc::clone(buckets));
        }
        let buckets = KeyedBuckets::new(limit, DEFAULT_MAX_KEYS);
        let buckets = Arc::new(buckets.map_err(|error| error.to_string())?);
        self.known.insert(id, Arc::clone(&buckets));
        Ok(buckets)
    }

    /// Forgets what can be forgotten, once there is twice as much as last time.
    pub(super) fn forget_unused(&mut self, now: Tick) {
        if self.known.len() > 2 * self.kept + 64 {
            self.known.retain(|_, buckets| {
                buckets.expire(now);
                Arc::strong_count(buckets) > 1 || !buckets.is_empty()
            });
            self.kept = self.known.len();
        }
    }
}
