//! Token buckets by their identity.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use kgw_limit::Tick;

use crate::filter::local_rate_limit::{Bucket, Size};

/// Token buckets by id and rate: an unrelated change must not refill them, nor may taking a limit away
/// and putting it back. A bucket is forgotten once it is out of use and full, since it then equals a new
/// one.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    known: HashMap<Key, Arc<Bucket>>,
    /// How many were left when unused ones were looked for last.
    kept: usize,
}

type Key = (String, Size);

impl Buckets {
    pub(super) fn bucket(
        &mut self,
        id: &str,
        size: &Size,
    ) -> Result<Arc<Bucket>, kgw_limit::Error> {
        let key = (id.to_owned(), *size);
        if let Some(bucket) = self.known.get(&key) {
            return Ok(Arc::clone(bucket));
        }
        let bucket = Bucket::new(
            size.max_tokens,
            size.tokens_per_fill,
            Duration::from_nanos(size.fill_interval_ns),
            size.max_keys,
        );
        let bucket = Arc::new(bucket?);
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
