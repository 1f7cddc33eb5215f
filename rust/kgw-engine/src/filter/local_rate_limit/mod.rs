//! The local rate limit: token buckets in the process (Envoy `local_ratelimit`).
//!
//! A request takes tokens of the buckets of all descriptors that it has, the slowest first, and then of the
//! bucket that all requests share, and is refused by the first that has too few. As in Envoy, what it has
//! taken until then is gone. Only where requests wait instead, one that is refused after all has taken
//! nothing.

mod bucket;
mod entry;
mod ticket;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kgw_h1::{Headers, Request};
use kgw_limit::{DEFAULT_MAX_KEYS, Tick};
use smallvec::SmallVec;

pub(crate) use self::bucket::Bucket;
use self::bucket::Key;
use self::entry::{Entry, Subject};
pub(crate) use self::ticket::Ticket;
use super::RequestView;
use super::header_mutation::check as check_field;
use super::rate_limit_headers::{Quota, is_name, rate_limit, seconds, x_rate_limit};
use crate::bridge::Answer;
use crate::clock::Nanos;
use crate::config::ir;
use crate::config::ir::{RateLimitCost, RateLimitHeaders, RateLimitQueue};
use crate::config::snapshot::Action;
use crate::pipeline::reply::{Extra, Reply};

/// Buckets that each request takes tokens of.
#[derive(Debug)]
pub(crate) struct LocalRateLimit {
    /// What all requests share.
    of_all: Option<Arc<Bucket>>,
    /// What only few limits have.
    more: Option<Box<More>>,
}

/// What is not simply a token of one bucket.
#[derive(Debug)]
struct More {
    /// The slowest first.
    descriptors: Box<[Descriptor]>,
    only_unmatched: bool,
    cost: Cost,
    percent_enabled: u8,
    percent_enforced: u8,
    headers: Box<[RateLimitHeaders]>,
    refusal: Refusal,
    not_enforced: Box<[(Box<str>, Box<str>)]>,
    queue: Option<RateLimitQueue>,
}

/// Requests that have buckets of their own.
#[derive(Debug)]
struct Descriptor {
    name: Box<str>,
    bucket: Arc<Bucket>,
    entries: Box<[Entry]>,
    cost: Option<Cost>,
}

/// How many tokens a request takes.
#[derive(Debug)]
struct Cost {
    least: u64,
    most: u64,
    header: Option<Box<str>>,
}

/// What the client of a request over the limit gets.
#[derive(Debug)]
struct Refusal {
    status: u16,
    body: Option<Box<str>>,
    headers: Headers,
    retry_after: bool,
}

/// Tokens that a request is to take.
#[derive(Clone, Copy, Debug)]
struct Take<'f> {
    name: &'f str,
    bucket: &'f Bucket,
    key: Option<Key>,
    n: u64,
}

/// What the bucket is called that all requests share.
const OF_ALL: &str = "default";

/// Where JWT filters note what verified tokens say.
const TOKENS: &str = "envoy.filters.http.jwt_authn";

impl LocalRateLimit {
    /// Makes the filter with the buckets that `bucket` finds: those of an identity, or new ones.
    pub(crate) fn compile(
        limit: &ir::LocalRateLimit,
        mut bucket: impl FnMut(&str, &Size) -> Result<Arc<Bucket>, String>,
    ) -> Result<Self, String> {
        let of_all = limit.max_tokens.map(|max_tokens| {
            let size = Size {
                max_tokens,
                tokens_per_fill: limit.tokens_per_fill,
                fill_interval_ns: limit.fill_interval_ns,
                max_keys: DEFAULT_MAX_KEYS,
            };
            bucket(&limit.bucket, &size)
        });
        let of_all = of_all.transpose()?;
        if of_all.is_none() && limit.descriptors.is_empty() {
            return Err("a rate limit has a bucket or a descriptor".to_owned());
        }
        let plain = ir::LocalRateLimit {
            bucket: limit.bucket.clone(),
            max_tokens: limit.max_tokens,
            tokens_per_fill: limit.tokens_per_fill,
            fill_interval_ns: limit.fill_interval_ns,
            ..ir::LocalRateLimit::default()
        };
        let more = (*limit != plain).then(|| More::compile(limit, bucket));
        Ok(Self {
            of_all,
            more: more.transpose()?.map(Box::new),
        })
    }

    /// Whether requests may have to wait.
    pub(crate) fn queues(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.queue.is_some())
    }

    /// Counts a request by a key, if it has one, and by nothing else.
    pub(crate) fn on_head(&self, now: Nanos, key: Option<&str>) -> Result<(), Reply> {
        let Some(take) = self.take_of_all(key, 1) else {
            return Ok(());
        };
        let taken = take.bucket.take(Tick::from_nanos(now.0), take.key, 1);
        match taken {
            Ok(_) => Ok(()),
            Err(denied) => Err(Reply::rate_limited(denied.retry_after)),
        }
    }

    /// Counts a request. What it is to wait with, if it is to wait.
    ///
    /// # Errors
    /// What the client of a request over the limit gets.
    pub(crate) fn on_request(
        &self,
        view: &mut RequestView<'_, '_>,
    ) -> Result<Option<Ticket<'_>>, Reply> {
        let Some(more) = &self.more else {
            let key = view.exchange.rate_limit_key();
            return self.on_head(view.now, key).map(|()| None);
        };
        if !happens(more.percent_enabled) {
            return Ok(None);
        }
        let takes = self.takes(more, view);
        let now = Tick::from_nanos(view.now.0);
        let refused = takes.iter().enumerate().find_map(|(place, take)| {
            let taken = take.bucket.take(now, take.key, take.n);
            Some((place, taken.err()?))
        });
        let Some((place, denied)) = refused else {
            // Envoy tells of the slowest descriptor, whatever is left of the others.
            more.announce(view, &takes, 0);
            return Ok(None);
        };
        if !happens(more.percent_enforced) {
            view.worker.stats().rate_limit_not_enforced.increment();
            for (name, value) in &more.not_enforced {
                let headers = view.request.headers_mut();
                headers.append(name.as_bytes(), value.as_bytes());
            }
            more.announce(view, &takes, place);
            return Ok(None);
        }
        let retry_after = match &more.queue {
            None => denied.retry_after,
            Some(queue) => {
                for take in &takes[..place] {
                    take.give_back();
                }
                match enter(view, queue, &takes) {
                    Ok(ticket) => {
                        more.announce(view, &takes, place);
                        return Ok(Some(ticket));
                    }
                    Err(wait) => wait,
                }
            }
        };
        more.announce(view, &takes, place);
        Err(more.refusal.reply(retry_after))
    }

    /// What a request has to take, in the order in which it takes it.
    fn takes<'f>(&'f self, more: &'f More, view: &RequestView<'_, '_>) -> SmallVec<[Take<'f>; 4]> {
        let subject = Subject {
            request: view.request,
            client: view.exchange.client,
            principal: view.peers.principal.as_deref(),
            tokens: view.exchange.noted(TOKENS),
        };
        let cost = more.cost.of(view.request);
        let of_descriptors = more.descriptors.iter();
        let mut takes: SmallVec<[Take<'f>; 4]> = of_descriptors
            .filter_map(|descriptor| descriptor.take(&subject, cost))
            .collect();
        if takes.is_empty() || !more.only_unmatched {
            takes.extend(self.take_of_all(view.exchange.rate_limit_key(), cost));
        }
        takes
    }

    fn take_of_all(&self, key: Option<&str>, n: u64) -> Option<Take<'_>> {
        let bucket = self.of_all.as_deref()?;
        let key = key.map(|value| {
            let mut key = bucket.key();
            key.add(value.as_bytes());
            key.finish()
        });
        Some(Take {
            name: OF_ALL,
            bucket,
            key,
            n,
        })
    }
}

/// How large a bucket is, and how many there may be of it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Size {
    pub(crate) max_tokens: u64,
    pub(crate) tokens_per_fill: u64,
    pub(crate) fill_interval_ns: u64,
    pub(crate) max_keys: usize,
}

// === impl More ===

impl More {
    fn compile(
        limit: &ir::LocalRateLimit,
        mut bucket: impl FnMut(&str, &Size) -> Result<Arc<Bucket>, String>,
    ) -> Result<Self, String> {
        if limit.percent_enabled > 100 || limit.percent_enforced > 100 {
            return Err("a share of requests is at most 100 percent".to_owned());
        }
        let queue = limit.queue;
        if queue.is_some_and(|queue| queue.max_wait_ms == 0 || queue.max_waiting == 0) {
            return Err("a queue has room for a request, and time".to_owned());
        }
        let descriptors = limit.descriptors.iter();
        let descriptors = descriptors.map(|one| Descriptor::compile(one, &mut bucket));
        let mut descriptors = descriptors.collect::<Result<Box<[_]>, _>>()?;
        // Envoy's order; a bucket that refuses leaves those behind it alone.
        descriptors.sort_by_key(|one| Reverse(one.bucket.limit().token_time()));
        let not_enforced = limit.not_enforced_headers.iter().map(|(name, value)| {
            check_field(name, value)?;
            Ok((name.as_str().into(), value.as_str().into()))
        });
        Ok(Self {
            descriptors,
            only_unmatched: limit.only_unmatched,
            cost: Cost::compile(&limit.cost)?,
            percent_enabled: limit.percent_enabled,
            percent_enforced: limit.percent_enforced,
            headers: limit.headers.clone().into(),
            refusal: Refusal::compile(limit)?,
            not_enforced: not_enforced.collect::<Result<_, String>>()?,
            queue,
        })
    }

    /// Tells the client about the buckets of its request, of which the one at `place` counts most.
    fn announce(&self, view: &mut RequestView<'_, '_>, takes: &[Take<'_>], place: usize) {
        let Some(counting) = takes.get(place) else {
            return;
        };
        let now = Tick::from_nanos(view.now.0);
        for form in &self.headers {
            match form {
                RateLimitHeaders::Draft03 => {
                    // As Envoy: when there is a token again, at once if there is one.
                    let quota = counting.quota(now, 1);
                    for edit in x_rate_limit(&quota, &[]) {
                        view.exchange.add_response_edit(edit);
                    }
                }
                RateLimitHeaders::Structured => {
                    let quotas: SmallVec<[Quota<'_>; 4]> = takes
                        .iter()
                        .map(|take| take.quota(now, take.bucket.limit().max_tokens()))
                        .collect();
                    for edit in rate_limit(&quotas) {
                        view.exchange.add_response_edit(edit);
                    }
                }
            }
        }
    }
}

// === impl Descriptor ===

impl Descriptor {
    fn compile(
        descriptor: &ir::RateLimitDescriptor,
        bucket: &mut impl FnMut(&str, &Size) -> Result<Arc<Bucket>, String>,
    ) -> Result<Self, String> {
        if descriptor.entries.is_empty() {
            return Err("a descriptor has an entry".to_owned());
        }
        if !is_name(&descriptor.name) {
            let name = &descriptor.name;
            return Err(format!("{name:?} is not printable ASCII"));
        }
        let size = Size {
            max_tokens: descriptor.max_tokens,
            tokens_per_fill: descriptor.tokens_per_fill,
            fill_interval_ns: descriptor.fill_interval_ns,
            max_keys: descriptor.max_keys,
        };
        let entries = descriptor.entries.iter().map(Entry::compile);
        Ok(Self {
            name: descriptor.name.as_str().into(),
            bucket: bucket(&descriptor.bucket, &size)?,
            entries: entries.collect::<Result<_, _>>()?,
            cost: descriptor.cost.as_ref().map(Cost::compile).transpose()?,
        })
    }

    /// What a request takes, if it is of the descriptor.
    fn take(&self, subject: &Subject<'_>, cost: u64) -> Option<Take<'_>> {
        let mut key = self.bucket.key();
        let is_matched = self
            .entries
            .iter()
            .all(|entry| entry.add(&mut key, subject));
        is_matched.then(|| Take {
            name: &self.name,
            bucket: &self.bucket,
            key: self
                .entries
                .iter()
                .any(Entry::is_keyed)
                .then(|| key.finish()),
            n: self
                .cost
                .as_ref()
                .map_or(cost, |own| own.of(subject.request)),
        })
    }
}

// === impl Cost ===

impl Cost {
    fn compile(cost: &RateLimitCost) -> Result<Self, String> {
        if let Some(name) = &cost.header
            && !kgw_h1::is_valid_name(name.as_bytes())
        {
            return Err(format!("{name:?} is not the name of a header field"));
        }
        Ok(Self {
            least: cost.tokens,
            most: cost.max_tokens.max(cost.tokens),
            header: cost.header.as_deref().map(Box::from),
        })
    }

    /// What a request takes. What is no number in its field counts as none.
    fn of(&self, request: &Request) -> u64 {
        let said = self.header.as_ref().and_then(|name| {
            let value = request.headers().get(name.as_bytes())?;
            let digits = value.iter().all(u8::is_ascii_digit) && !value.is_empty();
            // More digits than a number has are a large number.
            digits.then(|| {
                std::str::from_utf8(value).map_or(u64::MAX, |text| text.parse().unwrap_or(u64::MAX))
            })
        });
        said.unwrap_or(self.least).clamp(self.least, self.most)
    }
}

// === impl Refusal ===

impl Refusal {
    fn compile(limit: &ir::LocalRateLimit) -> Result<Self, String> {
        if !(400..600).contains(&limit.status) {
            return Err(format!("{} is not the status of an error", limit.status));
        }
        let mut headers = Headers::new();
        for (name, value) in &limit.response_headers {
            check_field(name, value)?;
            headers.append(name.as_bytes(), value.as_bytes());
        }
        Ok(Self {
            status: limit.status,
            body: limit.body.as_deref().map(Box::from),
            headers,
            retry_after: limit.retry_after,
        })
    }

    fn reply(&self, retry_after: Option<Duration>) -> Reply {
        let retry_after = retry_after.filter(|_| self.retry_after);
        let mut reply = Reply::rate_limited(retry_after);
        reply.status = self.status;
        if let Some(body) = &self.body {
            reply.body = Cow::Owned(body.to_string());
        }
        if !self.headers.is_empty() {
            let mut headers = self.headers.clone();
            if let Some(wait) = retry_after {
                let seconds = seconds(wait).max(1).to_string();
                headers.append(b"retry-after", seconds.as_bytes());
            }
            reply.extra = Extra::Answer(Box::new(Answer {
                status: self.status,
                headers,
                body: Bytes::copy_from_slice(reply.body.as_bytes()),
            }));
        }
        reply
    }
}

// === impl Take ===

impl<'f> Take<'f> {
    /// What is left of a bucket, which is reset when it has `n` tokens.
    fn quota(&self, now: Tick, n: u64) -> Quota<'f> {
        let limit = self.bucket.limit();
        let reset = self.bucket.retry_after(now, self.key, n);
        Quota {
            name: self.name,
            limit: limit.max_tokens(),
            window: Some(limit.fill_time()),
            remaining: self.bucket.remaining(now, self.key),
            reset: reset.unwrap_or_default(),
        }
    }

    fn give_back(&self) {
        self.bucket.with_line(self.key, |lines, bucket| {
            lines.give_back(bucket, &self.key, self.n);
        });
    }
}

/// Gets in line for all tokens, or takes them.
///
/// # Errors
/// How long the request would have to wait; none if for ever.
fn enter<'f>(
    view: &RequestView<'_, '_>,
    queue: &RateLimitQueue,
    takes: &[Take<'f>],
) -> Result<Ticket<'f>, Option<Duration>> {
    // Nobody waits for what would come too late: the route's time counts meanwhile, and the client's.
    let of_route = match view.exchange.route.map(|route| &route.action) {
        Some(Action::Forward(forward)) => view.now.after_ms(forward.timeout_ms),
        _ => Nanos::NEVER,
    };
    let left = view.exchange.call_deadline.min(of_route).since(view.now);
    let longest = Duration::from_millis(queue.max_wait_ms).min(Duration::from_nanos(left));
    let mut ticket = Ticket::default();
    for take in takes {
        let entered = ticket.enter(view.now, take, longest, queue.max_waiting);
        entered.map_err(ticket::wait_of)?;
    }
    Ok(ticket)
}

/// Whether something happens to a request that happens to so many percent of them.
fn happens(percent: u8) -> bool {
    percent >= 100 || percent > 0 && fastrand::u8(..100) < percent
}

#[cfg(test)]
mod tests;
