//! Waiting for the keys of tokens, and fetching them.
//!
//! A fetch is a task of a worker's own: a client that goes away does not end it, since others may wait
//! for it. It is bounded in time by the attempts of its configuration.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::Poll;

use bytes::Bytes;
use kgw_h1::{Headers, Limits, Request, RequestParts};
use kgw_jwt::KeySet;

use super::filtering::{Asked, while_client_waits};
use super::message::Downstream;
use super::{Conn, Peers, request_filters};
use crate::clock::{Nanos, Timer};
use crate::config::ir;
use crate::config::snapshot::Cluster;
use crate::filter::jwt::remote::{Fetch, RemoteKeys};
use crate::filter::jwt::{Decision, Jwt, Remote, Waited};
use crate::pipeline::exchange_log::Exchange;
use crate::runtime::{Phase, Registration, Worker};
use crate::upstream::call::{Call, call};

/// The longest set of keys. Bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Decides about a request's tokens, and waits for keys where they are not there.
pub(super) async fn on_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &Jwt,
) -> Asked {
    let mut waited = Waited::default();
    loop {
        let mut view = request_filters::view(conn, exchange);
        match filter.decide(&mut view, waited) {
            Decision::Passed => return Asked::Passed,
            Decision::Refused(reply) => return Asked::Answered(reply),
            Decision::Waits(provider, remote) => {
                waited.add(provider);
                refresh(&conn.worker, remote);
                let deadline = exchange.call_deadline;
                let mut fetched = pin!(fetched(&remote.keys));
                let waiting =
                    while_client_waits(conn, exchange, deadline, |cx| fetched.as_mut().poll(cx));
                // When the client's own time is over, there are no keys either.
                if let Err(lost) = waiting.await {
                    return Asked::ClientGone(lost);
                }
            }
        }
    }
}

/// Waits until nobody fetches keys.
async fn fetched(keys: &RemoteKeys) {
    loop {
        let mut told = pin!(keys.told.notified());
        told.as_mut().enable();
        if !keys.is_fetching() {
            return;
        }
        told.await;
    }
}

/// Fetches keys, unless somebody does.
pub(crate) fn refresh(worker: &Rc<Worker>, remote: &Remote) {
    let Some(fetch) = remote.keys.begin() else {
        return;
    };
    let Some(cluster) = &remote.cluster else {
        fetch.failed(worker.now());
        return;
    };
    let (worker, cluster) = (Rc::clone(worker), Arc::clone(cluster));
    tokio::task::spawn_local(async move { fetch_keys(&worker, &cluster, fetch).await });
}

/// Keeps the keys of servers fresh that are to be fetched in the background.
pub(crate) fn tend<'k>(worker: &Rc<Worker>, every: impl Iterator<Item = &'k Weak<RemoteKeys>>) {
    for weak in every {
        let Some(keys) = weak.upgrade() else {
            continue;
        };
        if keys.tend(worker.now()) {
            tokio::task::spawn_local(keep_fresh(Rc::clone(worker), Weak::clone(weak)));
        }
    }
}

/// Fetches keys again and again, as long as a configuration has them.
async fn keep_fresh(worker: Rc<Worker>, keys: Weak<RemoteKeys>) {
    let mut pausing = Pausing::new(&worker, Phase::Draining);
    loop {
        let (due, keys, cluster) = {
            let Some(keys) = keys.upgrade() else {
                return;
            };
            // The cluster is the one of the newest configuration.
            let cluster = worker.snapshot().cluster_of(&keys);
            let Some(cluster) = cluster.filter(|_| keys.is_used(worker.now())) else {
                keys.leave();
                return;
            };
            (keys.due(), keys, cluster)
        };
        if worker.now() < due {
            drop((keys, cluster));
            if !pausing.until(due).await {
                return;
            }
            continue;
        }
        match keys.begin() {
            Some(fetch) => fetch_keys(&worker, &cluster, fetch).await,
            None => fetched(&keys).await,
        }
    }
}

/// Fetches keys: as many attempts as the configuration allows, with pauses between them.
async fn fetch_keys(worker: &Rc<Worker>, cluster: &Cluster, fetch: Fetch) {
    let keys = Arc::clone(&fetch.keys);
    let settings = &keys.settings;
    let mut pausing = Pausing::new(worker, Phase::Closing);
    let mut attempt = 0;
    loop {
        if let Some(found) = ask(worker, cluster, settings).await {
            worker.stats().jwks_fetch_success.increment();
            fetch.succeeded(found, worker.now());
            return;
        }
        let at = worker.now().after_ms(pause(settings, attempt));
        if attempt >= settings.retries || !pausing.until(at).await {
            worker.stats().jwks_fetch_failed.increment();
            fetch.failed(worker.now());
            return;
        }
        attempt += 1;
    }
}

/// Lets time go by, until the worker has come so far with its end.
struct Pausing {
    worker: Rc<Worker>,
    registration: Registration,
    timer: Timer,
    end: Phase,
}

impl Pausing {
    fn new(worker: &Rc<Worker>, end: Phase) -> Self {
        Self {
            worker: Rc::clone(worker),
            registration: worker.register(),
            timer: Timer::new(worker.clock().clone()),
            end,
        }
    }

    /// Waits until then. False if the worker ends first.
    async fn until(&mut self, moment: Nanos) -> bool {
        poll_fn(|cx| {
            self.registration.update(cx);
            if self.worker.phase() >= self.end {
                return Poll::Ready(false);
            }
            self.timer.poll(cx, moment).map(|()| true)
        })
        .await
    }
}

/// The pause behind an attempt: up to twice as long each time, and never none.
fn pause(settings: &ir::RemoteKeys, attempt: u32) -> u64 {
    let doubled = 1_u64.checked_shl(attempt.min(32)).unwrap_or(u64::MAX);
    let most = settings.retry_base_ms.saturating_mul(doubled);
    let most = most.min(settings.retry_max_ms.max(settings.retry_base_ms));
    fastrand::u64(..=most).max(1)
}

/// Asks for keys once.
async fn ask(worker: &Rc<Worker>, cluster: &Cluster, settings: &ir::RemoteKeys) -> Option<KeySet> {
    let head = question(settings)?;
    let peers = Peers::of_proxy(worker.now());
    let asked = Call {
        cluster,
        peers: &peers,
        head: &head,
        body: Bytes::new(),
        deadline: worker.now().after_ms(settings.timeout_ms),
        max_answer: MAX_ANSWER,
    };
    let answer = call(worker, &asked).await.ok()?;
    if answer.head.status() != 200 {
        return None;
    }
    KeySet::parse(std::str::from_utf8(&answer.body).ok()?).ok()
}

/// The request for keys; none if host and path are not of one.
fn question(settings: &ir::RemoteKeys) -> Option<Request> {
    let parts = RequestParts {
        method: b"GET",
        scheme: Some(b"http"),
        authority: Some(settings.authority.as_bytes()),
        path: Some(settings.path.as_bytes()),
        protocol: None,
        end_stream: true,
    };
    let mut fields = Headers::new();
    fields.append(b"accept", b"application/json");
    let mut head = Request::new();
    let assembled = head.assemble(&parts, &fields, &Limits::REQUEST);
    assembled.ok().map(|()| head)
}
