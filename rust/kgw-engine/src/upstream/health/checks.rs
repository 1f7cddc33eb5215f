//! Active health checks: a request to each endpoint again and again, and what the answers say.
//!
//! Rules, which are Envoy's:
//! 1. The first result counts at once. After it, an endpoint is out of use behind as many failures in a row
//!    as the threshold says, and back behind as many successes.
//! 2. An answer that says that the endpoint is not in order needs no threshold; no answer does.
//! 3. An endpoint that joins others which are checked is out of use until its first success. Those that a
//!    cluster begins with are in use: there is nothing better.
//! 4. A success ends an ejection, too.
//!
//! Each check has a connection of its own, with the TLS of the cluster, and none of its limits.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use kgw_h1::{Headers, Limits, Request, RequestParts};
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinSet};

use super::{Pausing, cluster};
use crate::clock::Nanos;
use crate::config::ir::{HealthCheck, HealthChecker};
use crate::config::snapshot::{Cluster, FastMap};
use crate::conn::Peers;
use crate::protobuf::unary;
use crate::protobuf::wire::{Writer, read};
use crate::runtime::Worker;
use crate::upstream::call::{Call, CallError, call_endpoint};
use crate::upstream::endpoint::{Endpoint, Fault};

/// Checks of a cluster that are under way at once.
const MAX_RUNNING: usize = 64;

/// Most bytes that the answer to a check may have.
const MAX_ANSWER: usize = 64 * 1024;

/// How much longer an interval may be, at random: one in so many parts of it.
const JITTER: u64 = 20;

/// How long new addresses of a name may go unnoticed. Milliseconds.
const LOOK_MS: u64 = 1_000;

/// Who asks, as Envoy's own checks say: backends know it.
const USER_AGENT: &[u8] = b"Envoy/HC";

const GRPC_PATH: &[u8] = b"/grpc.health.v1.Health/Check";

/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i64 = 1;

/// How the endpoints of a cluster are checked.
#[derive(Debug)]
pub(crate) struct Checks {
    settings: HealthCheck,
    head: Request,
    body: Bytes,
    is_grpc: bool,
    pub(super) state: Arc<State>,
}

/// What is known of checks, whatever the settings.
#[derive(Debug, Default)]
pub(super) struct State {
    attempt: AtomicU64,
    success: AtomicU64,
    failure: AtomicU64,
    network_failure: AtomicU64,
    is_tended: AtomicBool,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Healthy,
    /// It says that it is not.
    Unhealthy,
    /// It says nothing.
    Silent,
}

/// An endpoint that is checked.
#[derive(Debug)]
struct Session {
    endpoint: Arc<Endpoint>,
    successes: u32,
    failures: u32,
    is_first: bool,
    due: Nanos,
    /// The check under way.
    running: Option<AbortHandle>,
}

// === impl Checks ===

impl Checks {
    /// Those of a cluster. What was counted comes from `before`.
    ///
    /// # Errors
    /// The settings make no request.
    pub(crate) fn new(
        id: &str,
        is_secure: bool,
        settings: &HealthCheck,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, String> {
        // Without a host of its own a check asks for the cluster, as in Envoy, or rather its service.
        let name = id.split_once('@').map_or(id, |(name, _)| name);
        let authority = |given: &str| if given.is_empty() { name } else { given }.to_owned();
        let scheme: &[u8] = if is_secure { b"https" } else { b"http" };
        let (method, authority, path, fields, body) = match &settings.checker {
            HealthChecker::Http { host, path, method } => {
                let mut fields = Headers::new();
                fields.append(b"user-agent", USER_AGENT);
                let path = path.as_bytes();
                (
                    method.as_bytes(),
                    authority(host),
                    path,
                    fields,
                    Bytes::new(),
                )
            }
            HealthChecker::Grpc {
                service,
                authority: given,
            } => {
                let mut message = Writer::default();
                message.bytes(1, service.as_bytes());
                let body = unary::framed(&message.into_bytes());
                let body = body.ok_or_else(|| "the name of the service is too long".to_owned())?;
                let mut fields = unary::fields(settings.timeout_ms);
                fields.append(b"user-agent", USER_AGENT);
                (&b"POST"[..], authority(given), GRPC_PATH, fields, body)
            }
        };
        let parts = RequestParts {
            method,
            scheme: Some(scheme),
            authority: Some(authority.as_bytes()),
            path: Some(path),
            protocol: None,
            end_stream: body.is_empty(),
        };
        let mut head = Request::new();
        head.assemble(&parts, &fields, &Limits::REQUEST)
            .map_err(|_| "host, method and path make no request".to_owned())?;
        Ok(Arc::new(Self {
            settings: settings.clone(),
            head,
            body,
            is_grpc: matches!(settings.checker, HealthChecker::Grpc { .. }),
            state: before.map_or_else(Arc::default, |before| Arc::clone(&before.state)),
        }))
    }

    /// Whether nobody makes them yet; from now on somebody does.
    pub(super) fn begin(&self) -> bool {
        !self.state.is_tended.swap(true, Ordering::AcqRel)
    }

    /// Its state, by Envoy's names.
    pub(crate) fn stats(&self, cluster: &Cluster) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let endpoints = cluster.endpoints();
        let healthy = endpoints.iter().filter(|one| !one.has(Fault::Unhealthy));
        json!({
            "attempt": count(&self.state.attempt),
            "success": count(&self.state.success),
            "failure": count(&self.state.failure),
            "network_failure": count(&self.state.network_failure),
            "healthy": healthy.count(),
        })
    }

    /// Asks an endpoint.
    async fn ask(&self, worker: &Rc<Worker>, cluster: &Cluster, endpoint: SocketAddr) -> Verdict {
        let now = worker.now();
        let peers = Peers::of_proxy(now);
        let call = Call {
            cluster,
            peers: &peers,
            head: &self.head,
            body: self.body.clone(),
            deadline: now.after_ms(self.settings.timeout_ms.max(1)),
            max_answer: MAX_ANSWER,
        };
        let answer = match call_endpoint(worker, &call, endpoint, self.is_grpc).await {
            Ok(answer) => answer,
            // It has answered, and not what was asked for.
            Err(CallError::TooLarge) => return Verdict::Unhealthy,
            Err(_) => return Verdict::Silent,
        };
        let is_healthy = if self.is_grpc {
            unary::message(&answer).is_ok_and(is_serving)
        } else {
            answer.head.status() == 200
        };
        if is_healthy {
            Verdict::Healthy
        } else {
            Verdict::Unhealthy
        }
    }

    fn interval_ms(&self) -> u64 {
        let interval = self.settings.interval_ms.max(1);
        interval + fastrand::u64(..=interval / JITTER)
    }

    /// Counts the result of a check, and does what follows from it.
    fn judge(&self, session: &mut Session, verdict: Verdict, now: Nanos) {
        let endpoint = &session.endpoint;
        let was_healthy = !endpoint.has(Fault::Unhealthy);
        let counter = match verdict {
            Verdict::Healthy => &self.state.success,
            Verdict::Unhealthy | Verdict::Silent => &self.state.failure,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if verdict == Verdict::Silent {
            self.state.network_failure.fetch_add(1, Ordering::Relaxed);
        }
        if verdict == Verdict::Healthy {
            session.failures = 0;
            session.successes += 1;
            let is_enough = session.successes >= self.settings.healthy_threshold;
            if !was_healthy && (session.is_first || is_enough) {
                endpoint.recover(Fault::Unhealthy, now);
            }
            if endpoint.has(Fault::Unhealthy) {
                session.is_first = false;
                return;
            }
            session.successes = 0;
        } else {
            session.successes = 0;
            session.failures += 1;
            let is_enough = session.failures >= self.settings.unhealthy_threshold;
            let says_so = verdict == Verdict::Unhealthy;
            if was_healthy && (session.is_first || says_so || is_enough) {
                endpoint.fail(Fault::Unhealthy);
            }
            if endpoint.has(Fault::Unhealthy) {
                session.failures = 0;
            }
        }
        session.is_first = false;
    }
}

fn is_serving(message: &[u8]) -> bool {
    let mut status = 0;
    let read = read(message, |field| {
        if field.number == 1 {
            status = field.value.int();
        }
        Ok(())
    });
    read.is_ok() && status == SERVING
}

/// Checks the endpoints of a cluster as long as a configuration says so.
pub(super) async fn run(worker: Rc<Worker>, id: String, state: Arc<State>) {
    let mut pausing = Pausing::new(&worker);
    let mut sessions = FastMap::<SocketAddr, Session>::default();
    let mut queue = BTreeSet::new();
    let mut running = JoinSet::new();
    let mut seen = None;
    loop {
        let due = {
            let cluster = cluster(&worker, &id);
            let checks = cluster.as_ref().and_then(|one| one.checks.as_ref());
            let checks = checks.filter(|one| Arc::ptr_eq(&one.state, &state));
            let (Some(cluster), Some(checks)) = (&cluster, checks) else {
                let is_checked = cluster.is_some_and(|one| one.checks.is_some());
                end(&worker, sessions, is_checked, &state);
                return;
            };
            let now = worker.now();
            let changes = (Arc::as_ptr(cluster), cluster.changes.count());
            if seen != Some(changes) {
                seen = Some(changes);
                follow(cluster, checks, &mut sessions, &mut queue, now);
            }
            while running.len() < MAX_RUNNING
                && let Some(&(due, address)) = queue.first()
                && due <= now
            {
                queue.pop_first();
                let Some(session) = sessions.get_mut(&address) else {
                    continue;
                };
                state.attempt.fetch_add(1, Ordering::Relaxed);
                let (worker, cluster) = (Rc::clone(&worker), Arc::clone(cluster));
                let checks = Arc::clone(checks);
                let check = async move {
                    let verdict = checks.ask(&worker, &cluster, address).await;
                    (address, verdict)
                };
                session.running = Some(running.spawn_local(check));
            }
            let due = match queue.first() {
                Some(&(due, _)) if running.len() < MAX_RUNNING => due,
                _ => Nanos::NEVER,
            };
            match cluster.host {
                Some(_) => due.min(now.after_ms(LOOK_MS)),
                None => due,
            }
        };
        let done = tokio::select! {
            Some(done) = running.join_next() => Some(done),
            goes_on = pausing.until(due) => {
                if !goes_on {
                    return;
                }
                None
            }
        };
        let Some(done) = done else {
            continue;
        };
        let cluster = cluster(&worker, &id);
        let checks = cluster.as_ref().and_then(|one| one.checks.as_ref());
        let (Some(cluster), Some(checks)) = (&cluster, checks) else {
            continue;
        };
        let over: Vec<_> = match done {
            Ok((address, verdict)) => vec![(address, verdict)],
            // A panic is no answer.
            Err(_) => sessions
                .iter()
                .filter(|(_, one)| one.running.as_ref().is_some_and(AbortHandle::is_finished))
                .map(|(address, _)| (*address, Verdict::Silent))
                .collect(),
        };
        for (address, verdict) in over {
            let Some(session) = sessions.get_mut(&address) else {
                continue;
            };
            let now = worker.now();
            session.running = None;
            session.due = now.after_ms(checks.interval_ms());
            queue.insert((session.due, address));
            checks.judge(session, verdict, now);
            let is_healthy = verdict == Verdict::Healthy && !session.endpoint.has(Fault::Unhealthy);
            if let (true, Some(outliers)) = (is_healthy, &cluster.outliers) {
                outliers.take_back(&session.endpoint, now);
            }
        }
    }
}

/// Checks the endpoints that there are, and no others.
fn follow(
    cluster: &Cluster,
    checks: &Checks,
    sessions: &mut FastMap<SocketAddr, Session>,
    queue: &mut BTreeSet<(Nanos, SocketAddr)>,
    now: Nanos,
) {
    let endpoints = cluster.endpoints();
    let mut known = std::mem::take(sessions);
    queue.clear();
    let latest = now.after_ms(checks.interval_ms());
    for endpoint in endpoints.iter() {
        let address = endpoint.address;
        let mut session = known
            .remove(&address)
            .filter(|one| Arc::ptr_eq(&one.endpoint, endpoint))
            .unwrap_or_else(|| Session {
                endpoint: Arc::clone(endpoint),
                successes: 0,
                failures: 0,
                is_first: true,
                due: now,
                running: None,
            });
        session.due = session.due.min(latest);
        if session.running.is_none() {
            queue.insert((session.due, address));
        }
        sessions.insert(address, session);
    }
    for gone in known.into_values() {
        if let Some(running) = gone.running {
            running.abort();
        }
    }
}

/// Ends the checks of a cluster. Its endpoints, if they are not checked otherwise, are in use again.
fn end(worker: &Worker, sessions: FastMap<SocketAddr, Session>, is_checked: bool, state: &State) {
    if !is_checked {
        for session in sessions.into_values() {
            session.endpoint.recover(Fault::Unhealthy, worker.now());
        }
    }
    state.is_tended.store(false, Ordering::Release);
}
