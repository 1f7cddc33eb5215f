//! Token buckets by their identity.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use kgw_limit::Tick;

use crate::filter::local_rate_limit::Bucket;

/// Token buckets by id and rate: an unrelated change must not refill them, nor may taking a limit away
/// and putting it back. A bucket is forgotten once it is out of use and full, since it then equals a new
/// one.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    known: HashMap<Key, Arc<Bucket>>,
    /// How many were left when unused ones were looked for last.
    kept: usize,
}

type Key = (String, u64, u64, u64);

impl Buckets {
    pub(super) fn bucket(
        &mut self,
        id: &str,
        max_tokens: u64,
        tokens_per_fill: u64,
        fill_interval_ns: u64,
    ) -> Result<Arc<Bucket>, kgw_limit::Error> {
        let key = (id.to_owned(), max_tokens, tokens_per_fill, fill_interval_ns);
        if let Some(bucket) = self.known.get(&key) {
            return Ok(Arc::clone(bucket));
        }
        let interval = Duration::from_nanos(fill_interval_ns);
        let bucket = Arc::new(Bucket::new(max_tokens, tokens_per_fill, interval)?);
        self.known.insert(key, Arc::clone(&bucket));
        Ok(bucket)
    }

    /// Forgets what can be forgotten, once there is twice as much as last time.
    pub(super) fn forget_unused(&mut self, now: Tick) {
        if self.known.len() > 2 * self.kept + 64 {
            self.known
                .retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
            self.kept = self.known.len();
        }
    }
}
