//! The local rate limit: a token bucket in the process (Envoy `local_ratelimit`).

use std::sync::Arc;

use kgw_limit::{Tick, TokenBucket};

use crate::clock::Nanos;
use crate::pipeline::reply::Reply;

/// A bucket that each request takes one token of.
#[derive(Debug)]
pub(crate) struct LocalRateLimit {
    pub(crate) bucket: Arc<TokenBucket>,
}

impl LocalRateLimit {
    pub(crate) fn on_request(&self, now: Nanos) -> Result<(), Reply> {
        match self.bucket.take(Tick::from_nanos(now.0), 1) {
            Ok(_) => Ok(()),
            Err(denied) => Err(Reply::rate_limited(denied.retry_after)),
        }
    }
}
