//! Access logs that are services: what is logged is sent to them over gRPC.
//!
//! ```text
//! worker 0 ─ queue ─ task ─> the worker's own connections ─┐
//! worker 1 ─ queue ─ task ─> the worker's own connections ─┼─> service
//! ```
//! A request writes its entry, in the form of protobuf, into a queue of its worker and goes on. A task of
//! the worker sends what is queued when that is [`BATCH_BYTES`], or [`INTERVAL_MS`] after the first of it,
//! as Envoy does. A service that is not there or does not keep up costs memory up to a bound; further
//! entries are dropped and counted.

mod envoy;
mod opentelemetry;
mod rpc;
mod task;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kgw_h1::{Headers, Limits, Request, RequestParts};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

pub(crate) use self::task::follow;
use super::error::FormatError;
use super::filter::{Filter, FilterError};
use super::queue::{Lines, Queue};
use super::record::{Record, Subject};
use crate::config::ir::{self, AccessLogProtocol};
use crate::config::snapshot::Cluster;
use crate::filter::header_mutation::is_reserved;
use crate::protobuf::in_place::varint;

/// Most bytes that one worker may have waiting for one service, of each kind of entry.
const QUEUE_BYTES: usize = 1024 * 1024;
/// Bytes in a queue that are sent at once (Envoy's `buffer_size_bytes`).
const BATCH_BYTES: usize = 16 * 1024;
/// Time from the first entry in a queue until it is sent (Envoy's `buffer_flush_interval`). Milliseconds.
const INTERVAL_MS: u64 = 1_000;
/// What one message has no more bytes of than it has to: receivers take 4 MiB unless they are told.
const MESSAGE_BYTES: usize = 256 * 1024;

const ENVOY_PATH: &[u8] = b"/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
const OPEN_TELEMETRY_PATH: &[u8] = b"/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const TRACES_PATH: &[u8] = b"/opentelemetry.proto.collector.trace.v1.TraceService/Export";

const LIMITS: Limits = Limits {
    max_head_bytes: 64 * 1024,
    max_fields: 200,
};

/// One access log of a listener that is a service.
#[derive(Debug)]
pub(crate) struct ServiceLog {
    filter: Option<Filter>,
    form: Form,
    owner: Arc<Owner>,
}

/// A log that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("the filter of an access log cannot be used: {0}")]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("{0:?} is not a host")]
    Authority(String),
    #[error("{0:?} is no header field that a call can have")]
    Metadata(String),
    #[error("access logs have other protocols than traces")]
    Protocol,
    #[error("an access log service has no time to take anything")]
    Time,
}

/// What is written of a request.
#[derive(Debug)]
enum Form {
    Envoy(envoy::Entries),
    OpenTelemetry(opentelemetry::Records),
}

/// The services that are open, by what is said to them.
#[derive(Debug)]
pub(crate) struct Services {
    workers: usize,
    open: Mutex<HashMap<String, Weak<Owner>>>,
    progress: Arc<Progress>,
}

/// Tells who waits that entries were sent, or lost.
#[derive(Debug, Default)]
struct Progress {
    lock: Mutex<()>,
    changed: Condvar,
}

/// Keeps a service open: listeners and long connections have it.
#[derive(Debug)]
pub(crate) struct Owner(Arc<Service>);

/// What listeners and tasks share.
#[derive(Debug)]
pub(crate) struct Service {
    cluster: Mutex<Arc<Cluster>>,
    /// Of calls.
    authority: Box<[u8]>,
    fields: Headers,
    skip_envoy_headers: bool,
    timeout_ms: u64,
    retry: ir::AccessLogRetry,
    max_answer: usize,
    /// What the first message of a stream begins with, or each call's resource.
    preamble: Box<[u8]>,
    path: &'static [u8],
    is_stream: bool,
    /// What it is told are spans, and not entries of access logs.
    pub(super) has_spans: bool,
    /// One for each worker.
    feeds: Box<[Feed]>,
    progress: Arc<Progress>,
    /// Nobody writes any longer.
    is_closed: AtomicBool,
}

/// What one worker has for a service.
#[derive(Debug, Default)]
struct Feed {
    requests: Queue,
    connections: Queue,
    /// Entries that were written, dropped ones included, and those of them that are through.
    written: AtomicU64,
    done: AtomicU64,
    /// One of [`IDLE`], [`WAITING`], [`URGENT`].
    state: AtomicU8,
    wake: Notify,
}

/// There is nothing to send.
const IDLE: u8 = 0;
/// There is, and the task knows.
const WAITING: u8 = 1;
/// It is to be sent at once.
const URGENT: u8 = 2;

// === impl ServiceLog ===

impl ServiceLog {
    /// Compiles a log, of which the service may be open already.
    ///
    /// # Errors
    /// What cannot be used of it.
    pub(crate) fn new(
        config: &ir::AccessLogService,
        cluster: Arc<Cluster>,
        services: &Services,
    ) -> Result<Self, ServiceError> {
        if matches!(config.protocol, AccessLogProtocol::Traces { .. }) {
            return Err(ServiceError::Protocol);
        }
        Ok(Self {
            filter: config.filter.as_ref().map(Filter::compile).transpose()?,
            form: Form::compile(&config.protocol)?,
            owner: services.open(config, cluster)?,
        })
    }

    /// Queues the entry of `record`, if it is to be logged; never waits, and drops it when the queue is
    /// full.
    pub(crate) fn log(&self, worker: usize, record: &Record<'_>) {
        if !self
            .filter
            .as_ref()
            .is_none_or(|filter| filter.holds(record))
        {
            return;
        }
        match &self.form {
            Form::OpenTelemetry(records) => {
                self.owner.queue(worker, |out| records.write(out, record));
            }
            Form::Envoy(entries) if record.subject == Subject::Request => {
                self.owner
                    .queue(worker, |out| entries.write_request(out, record));
            }
            Form::Envoy(_) => self.owner.queue_into(
                worker,
                |feed| &feed.connections,
                |out| envoy::write_connection(out, record),
            ),
        }
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        self.owner.service()
    }
}

// === impl Owner ===

impl Owner {
    /// Queues what `write` appends, of a request; never waits, and drops it when the queue is full.
    pub(crate) fn queue(&self, worker: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.queue_into(worker, |feed| &feed.requests, write);
    }

    fn queue_into(
        &self,
        worker: usize,
        queue: impl FnOnce(&Feed) -> &Queue,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(feed) = self.0.feeds.get(worker) else {
            return;
        };
        feed.written.fetch_add(1, Ordering::Release);
        let queued = queue(feed).push(QUEUE_BYTES, write);
        let state = if queued < BATCH_BYTES {
            WAITING
        } else {
            URGENT
        };
        if feed.state.fetch_max(state, Ordering::AcqRel) < state {
            feed.wake.notify_one();
        }
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.0
    }
}

impl Form {
    fn compile(protocol: &AccessLogProtocol) -> Result<Self, FormatError> {
        let names = |names: &[String]| {
            let names = names.iter().map(|name| name.to_ascii_lowercase().into());
            names.collect()
        };
        Ok(match protocol {
            AccessLogProtocol::Envoy {
                request_headers,
                response_headers,
                response_trailers,
            } => Self::Envoy(envoy::Entries {
                request_headers: names(request_headers),
                response_headers: names(response_headers),
                response_trailers: names(response_trailers),
            }),
            AccessLogProtocol::OpenTelemetry {
                body, attributes, ..
            } => Self::OpenTelemetry(opentelemetry::Records::compile(body.as_ref(), attributes)?),
            // No access log has it.
            AccessLogProtocol::Traces { .. } => {
                Self::OpenTelemetry(opentelemetry::Records::compile(None, &[])?)
            }
        })
    }
}

// === impl Services ===

impl Services {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            open: Mutex::default(),
            progress: Arc::default(),
        }
    }

    /// Returns the service of a configuration, which may be open for another listener, or of an earlier
    /// configuration: what is queued, and its streams, stay.
    pub(crate) fn open(
        &self,
        config: &ir::AccessLogService,
        cluster: Arc<Cluster>,
    ) -> Result<Arc<Owner>, ServiceError> {
        let unfiltered = ir::AccessLogService {
            filter: None,
            ..config.clone()
        };
        // A map of strings and numbers has a JSON form.
        let key = serde_json::to_string(&unfiltered).unwrap_or_default();
        let mut open = self.open.lock();
        if let Some(owner) = open.get(&key).and_then(Weak::upgrade) {
            *owner.0.cluster.lock() = cluster;
            return Ok(owner);
        }
        let service = Service::new(config, cluster, self)?;
        let owner = Arc::new(Owner(Arc::new(service)));
        open.retain(|_, owner| owner.strong_count() > 0);
        open.insert(key, Arc::downgrade(&owner));
        Ok(owner)
    }

    /// Waits until everything written so far is sent, or lost; returns whether it is, within `timeout`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the caller waits in real time, whatever clock the engine runs by"
    )]
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        let services: Vec<_> = {
            let open = self.open.lock();
            open.values().filter_map(Weak::upgrade).collect()
        };
        let mut wanted = Vec::new();
        for owner in &services {
            for feed in &owner.0.feeds {
                let written = feed.written.load(Ordering::Acquire);
                if !feed.has_done(written) {
                    feed.hurry();
                    wanted.push((feed, written));
                }
            }
        }
        let mut lock = self.progress.lock.lock();
        for (feed, written) in wanted {
            let left = timeout.saturating_sub(start.elapsed());
            let pending = |(): &mut ()| !feed.has_done(written);
            self.progress
                .changed
                .wait_while_for(&mut lock, pending, left);
            if !feed.has_done(written) {
                return false;
            }
        }
        true
    }
}

impl Progress {
    fn tell(&self) {
        // Under the lock, so that nobody misses it between his look and his wait.
        let _lock = self.lock.lock();
        self.changed.notify_all();
    }
}

// === impl Service ===

impl Service {
    fn new(
        config: &ir::AccessLogService,
        cluster: Arc<Cluster>,
        services: &Services,
    ) -> Result<Self, ServiceError> {
        if config.timeout_ms == 0 {
            return Err(ServiceError::Time);
        }
        let path = match config.protocol {
            AccessLogProtocol::Envoy { .. } => ENVOY_PATH,
            AccessLogProtocol::OpenTelemetry { .. } => OPEN_TELEMETRY_PATH,
            AccessLogProtocol::Traces { .. } => TRACES_PATH,
        };
        let is_stream = path == ENVOY_PATH;
        Ok(Self {
            cluster: Mutex::new(cluster),
            authority: config.authority.as_bytes().into(),
            fields: fields(config, is_stream)?,
            skip_envoy_headers: config.skip_envoy_headers,
            timeout_ms: config.timeout_ms,
            retry: config.retry,
            max_answer: config.max_answer_bytes,
            preamble: preamble(config).into(),
            path,
            is_stream,
            has_spans: path == TRACES_PATH,
            feeds: (0..services.workers.max(1))
                .map(|_| Feed::default())
                .collect(),
            progress: Arc::clone(&services.progress),
            is_closed: AtomicBool::new(false),
        })
    }

    /// The head of a call over a connection from this address.
    fn head(&self, own: Option<SocketAddr>) -> Request {
        let mut fields = self.fields.clone();
        if !self.skip_envoy_headers {
            fields.append(b"x-envoy-internal", b"true");
            if let Some(own) = own {
                fields.append(b"x-forwarded-for", own.ip().to_string().as_bytes());
            }
        }
        let parts = RequestParts {
            method: b"POST",
            scheme: Some(b"http"),
            authority: Some(&self.authority),
            path: Some(self.path),
            protocol: None,
            end_stream: false,
        };
        let mut head = Request::new();
        // What it is made of was looked at; if it is none all the same, the connection says so.
        let _ = head.assemble(&parts, &fields, &LIMITS);
        head
    }

    /// A message of these entries: of requests, or of connections. The first one of a stream says whom it
    /// is from, and each call does.
    fn message(&self, batch: &[u8], are_connections: bool, is_first: bool) -> Bytes {
        let mut length = Vec::new();
        varint(&mut length, batch.len() as u64);
        let mut body = Vec::with_capacity(PREFIX + self.preamble.len() + batch.len() + 32);
        body.extend([0; PREFIX]);
        if self.is_stream {
            if is_first {
                body.extend_from_slice(&self.preamble);
            }
            body.push(if are_connections { TCP_LOGS } else { HTTP_LOGS });
            body.extend_from_slice(&length);
        } else {
            // The logs or spans of a resource hold those of a scope, which have the same numbers.
            let logs = self.preamble.len() + 1 + length.len() + batch.len();
            body.push(RESOURCE_LOGS);
            varint(&mut body, logs as u64);
            body.extend_from_slice(&self.preamble);
            body.push(SCOPE_LOGS);
            body.extend_from_slice(&length);
        }
        body.extend_from_slice(batch);
        // A batch is far smaller than the length's range.
        let length = u32::try_from(body.len() - PREFIX).unwrap_or(u32::MAX);
        body[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        body.into()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
        for feed in &self.0.feeds {
            feed.wake.notify_one();
        }
    }
}

impl Feed {
    /// Whether as many entries as were written at some time are through.
    fn has_done(&self, written: u64) -> bool {
        self.done.load(Ordering::Acquire) >= written
    }

    /// Wakes the task.
    fn hurry(&self) {
        self.state.store(URGENT, Ordering::Release);
        self.wake.notify_one();
    }

    /// Takes what is queued.
    fn take(&self, requests: &mut Lines, connections: &mut Lines) {
        self.state.store(IDLE, Ordering::Release);
        self.requests.drain(requests);
        self.connections.drain(connections);
    }

    fn dropped(&self) -> u64 {
        self.requests.dropped() + self.connections.dropped()
    }
}

/// The header fields of calls.
fn fields(config: &ir::AccessLogService, is_stream: bool) -> Result<Headers, ServiceError> {
    if !kgw_h1::is_valid_authority(config.authority.as_bytes()) {
        return Err(ServiceError::Authority(config.authority.clone()));
    }
    let mut fields = Headers::new();
    fields.append(b"content-type", b"application/grpc");
    fields.append(b"te", b"trailers");
    if !is_stream {
        // The unit has room for eight digits, which are more than a day.
        let timeout = format!("{}m", config.timeout_ms.min(99_999_999));
        fields.append(b"grpc-timeout", timeout.as_bytes());
    }
    for (name, value) in &config.metadata {
        let is_fit = kgw_h1::is_valid_name(name.as_bytes())
            && kgw_h1::is_valid_value(value.as_bytes())
            && !is_reserved(name.as_bytes());
        if !is_fit {
            return Err(ServiceError::Metadata(name.clone()));
        }
        fields.append(name.to_ascii_lowercase().as_bytes(), value.as_bytes());
    }
    Ok(fields)
}

/// The attributes that a variable of the environment states (`team=a,zone=b`); what is none is left out.
fn of_environment(given: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = given.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.trim(), value.trim()))
        .filter(|(key, _)| !key.is_empty())
}

/// The name of this machine.
pub(crate) fn node() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

/// What says whom messages are from.
fn preamble(config: &ir::AccessLogService) -> Vec<u8> {
    let mut out = Vec::new();
    let node = &*node();
    match &config.protocol {
        AccessLogProtocol::Envoy { .. } => {
            envoy::write_identifier(&mut out, node, &config.node_cluster, &config.log_name);
        }
        AccessLogProtocol::OpenTelemetry {
            resource_attributes,
            builtin_labels,
            ..
        } => {
            let labels = [
                ("log_name", &*config.log_name),
                ("zone_name", ""),
                ("cluster_name", &config.node_cluster),
                ("node_name", node),
            ];
            let labels = labels.into_iter().filter(|_| *builtin_labels);
            opentelemetry::write_resource(&mut out, labels, resource_attributes);
        }
        AccessLogProtocol::Traces {
            resource_attributes,
            environment,
        } => {
            let given = std::env::var("OTEL_RESOURCE_ATTRIBUTES");
            let given = given.ok().filter(|_| *environment).unwrap_or_default();
            let usual = [
                ("telemetry.sdk.language", "rust"),
                ("telemetry.sdk.name", "kgw"),
                ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
            ];
            let of_environment: Vec<_> = of_environment(&given).collect();
            let is_given = |key: &str| of_environment.iter().any(|(name, _)| *name == key);
            let mut others = resource_attributes.clone();
            others.retain(|(key, _)| !is_given(key));
            let labels = usual.into_iter().filter(|(key, _)| !is_given(key));
            let labels = labels.chain(of_environment.iter().copied());
            opentelemetry::write_resource(&mut out, labels, &others);
        }
    }
    out
}

/// What is in front of a message: whether it is compressed, and its length. Bytes.
const PREFIX: usize = 5;
/// Tags of parts that are messages: numbers, times eight, and two.
const HTTP_LOGS: u8 = 2 << 3 | 2;
const TCP_LOGS: u8 = 3 << 3 | 2;
const RESOURCE_LOGS: u8 = 1 << 3 | 2;
const SCOPE_LOGS: u8 = 2 << 3 | 2;

#[cfg(test)]
mod tests;
