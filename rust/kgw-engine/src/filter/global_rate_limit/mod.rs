//! Rate limits that several proxies share: what a request is counted by, whom that is asked, and what the
//! answer means.
//!
//! Nothing here waits: `conn::limiting` asks, and does as the answer says. [`descriptor`] makes what a
//! request is counted by. [`service`] asks a rate limit service as Envoy's `ratelimit` filter does;
//! [`redis`] turns limits into buckets of a Redis server.

pub(crate) mod descriptor;
mod message;
pub(crate) mod redis;
pub(crate) mod service;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kgw_h1::Headers;
use kgw_limit::Limit;
use serde_json::{Map, Value};

use self::descriptor::{CompiledDescriptor, Descriptor, Hits, Subject};
use self::redis::{LocalBuckets, Redis};
use self::service::Service;
use crate::config::ir;
use crate::config::snapshot::Cluster;
use crate::filter::ext_authz::Edit;
use crate::filter::rate_limit_headers::Quota;

/// Under which name access logs have what services noted: `%DYNAMIC_METADATA(NAMESPACE:KEY)%`.
pub(crate) const NAMESPACE: &str = "envoy.filters.http.ratelimit";

/// Most descriptors of a filter, and of a request: one of a list of values is many.
pub(crate) const MAX_DESCRIPTORS: usize = 64;

/// A rate limit that is kept elsewhere.
#[derive(Debug)]
pub(crate) struct GlobalRateLimit {
    pub(crate) counter: Counter,
    /// Milliseconds.
    pub(crate) timeout_ms: u64,
    pub(crate) failure_mode_deny: bool,
    pub(crate) x_ratelimit_headers: bool,
    descriptors: Box<[CompiledDescriptor]>,
    hits: Option<Hits>,
}

/// Who counts.
#[derive(Debug)]
pub(crate) enum Counter {
    Service(Service),
    Redis(Box<Redis>),
    /// There is none: an unresolved reference.
    Nobody,
}

/// What is asked about a request.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) descriptors: Vec<Descriptor<'a>>,
    /// What it counts for those that say nothing else, where something does.
    pub(crate) hits: Option<u32>,
}

/// What was decided.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub(crate) is_over_limit: bool,
    pub(crate) statuses: Vec<Status>,
    /// What becomes of the request, if it passes.
    pub(crate) request: Vec<Edit>,
    /// Fields of the answer, whoever makes it.
    pub(crate) response: Headers,
    /// The body of the answer, if the request does not pass.
    pub(crate) body: Bytes,
    pub(crate) metadata: Map<String, Value>,
    /// Seconds until a request like this one passes, where that is known.
    pub(crate) retry_after: Option<u64>,
}

/// How far a limit is used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Status {
    /// Requests in each of so many seconds; 0 seconds is that it is not known how many.
    pub(crate) requests: u64,
    pub(crate) window: u64,
    /// What it is called, if anything.
    pub(crate) name: String,
    pub(crate) remaining: u64,
    /// Seconds until all of it is there again.
    pub(crate) reset: u64,
}

impl Decision {
    /// What is done to the answer if the request passes.
    pub(crate) fn response_edits(&self) -> impl Iterator<Item = Edit> {
        let fields = self.response.iter();
        fields.map(|(name, value)| Edit::append(name, value))
    }
}

impl Status {
    /// The same, for the fields of answers.
    pub(crate) fn quota(&self) -> Quota<'_> {
        Quota {
            name: &self.name,
            limit: self.requests,
            window: (self.window > 0).then(|| Duration::from_secs(self.window)),
            remaining: self.remaining,
            reset: Duration::from_secs(self.reset),
        }
    }
}

impl GlobalRateLimit {
    /// Compiles a filter, or says what cannot be used of it. `buckets` has those of an identity, which
    /// count while a Redis server is away.
    pub(crate) fn compile(
        filter: &ir::GlobalRateLimit,
        cluster: Option<Arc<Cluster>>,
        buckets: impl FnMut(String, Limit) -> Result<LocalBuckets, String>,
    ) -> Result<Self, String> {
        if filter.timeout_ms == 0 {
            return Err("a rate limit service has no time to decide".to_owned());
        }
        if filter.domain.is_empty() {
            return Err("a rate limit has no domain".to_owned());
        }
        if filter.descriptors.len() > MAX_DESCRIPTORS {
            return Err(format!(
                "a rate limit has more than {MAX_DESCRIPTORS} descriptors"
            ));
        }
        let descriptors = filter.descriptors.iter();
        let descriptors = descriptors
            .map(CompiledDescriptor::compile)
            .collect::<Result<Box<[_]>, _>>()?;
        let counter = match (&filter.service, cluster) {
            (_, None) => Counter::Nobody,
            (
                ir::RateLimitService::Grpc {
                    authority,
                    request_timeout_ms,
                    retry,
                    ..
                },
                Some(cluster),
            ) => {
                let mut service = Service::compile(cluster, authority, &filter.domain)?;
                service.request_timeout_ms = request_timeout_ms.unwrap_or(0);
                service.retry = *retry;
                Counter::Service(service)
            }
            (ir::RateLimitService::Redis(server), Some(cluster)) => {
                let limits = filter.descriptors.iter();
                let limits = limits.filter_map(|descriptor| descriptor.limit.as_ref());
                let redis = Redis::compile(server, cluster, &filter.domain, limits, buckets)?;
                Counter::Redis(Box::new(redis))
            }
        };
        Ok(Self {
            counter,
            timeout_ms: filter.timeout_ms,
            failure_mode_deny: filter.failure_mode_deny,
            x_ratelimit_headers: filter.x_ratelimit_headers,
            descriptors,
            hits: filter.hits.as_ref().map(Hits::compile).transpose()?,
        })
    }

    /// The cluster of the service that it asks.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        match &self.counter {
            Counter::Service(service) => Some(&service.cluster),
            Counter::Redis(redis) => Some(&redis.server.cluster),
            Counter::Nobody => None,
        }
    }

    /// What is asked about a request; none if it is not counted.
    pub(crate) fn question(&self, subject: &Subject<'_>) -> Option<Question<'_>> {
        let hits = self.hits.as_ref().map(|hits| hits.of(subject.request));
        let mut descriptors = Vec::new();
        for descriptor in &self.descriptors {
            descriptor.add(subject, &mut descriptors);
        }
        // What counts nothing is not asked about.
        descriptors.retain(|descriptor| descriptor.hits.or(hits) != Some(0));
        (!descriptors.is_empty()).then_some(Question { descriptors, hits })
    }
}
