//! What is known of one connection that is passed on as bytes, and what is said about it when it is
//! over: the same operators as for requests, of which those about requests have no value.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::clock::Nanos;
use crate::config::snapshot::{Cluster, Listener};
use crate::conn::Peers;
use crate::conn::io::Traffic;
use crate::runtime::Worker;
use crate::telemetry::access_log::{
    AccessLog, Downstream, Point, Record, Subject, Timings, Upstream, WireBytes,
};
use crate::telemetry::flags::{ResponseFlag, ResponseFlags};
use crate::tls::TlsInfo;

/// A listener's part of the line. A long connection keeps this much of its configuration and no more.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) listener: Arc<str>,
    /// `%FILTER_CHAIN_NAME%`: the service on a waypoint, the chain under TLS, else the listener.
    pub(crate) chain: Arc<str>,
    pub(crate) logs: Arc<[AccessLog]>,
}

impl Origin {
    pub(crate) fn new(listener: &Listener, chain: Option<&Arc<str>>) -> Self {
        Self {
            listener: Arc::clone(&listener.id),
            chain: Arc::clone(chain.unwrap_or(&listener.id)),
            logs: Arc::clone(&listener.logs),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    began: Nanos,
    peers: &'a Peers,
    server_name: Option<&'a [u8]>,
    route: &'a str,
    pub(crate) timings: Timings,
    pub(crate) cluster: Option<&'a Cluster>,
    pub(crate) flags: ResponseFlags,
    /// The endpoints of all attempts, in order.
    endpoints: SmallVec<[SocketAddr; 2]>,
    /// The numbers of the connections to them, of those there were.
    upstream_connection_ids: SmallVec<[u64; 2]>,
    upstream_local: Option<SocketAddr>,
    pool_ready_ns: Option<u64>,
    pub(crate) transport_failure: Option<String>,
    /// The TLS session with the endpoint.
    pub(crate) upstream_tls: Option<Rc<TlsInfo>>,
    /// Why the proxy closed the connection, in Envoy's words.
    close_reason: Option<&'static str>,
    /// Why the proxy closed the connection to the endpoint.
    pub(crate) up_close_reason: Option<&'static str>,
    /// The proxy has reset the client's connection.
    pub(crate) reset_down: bool,
    /// How the endpoint closed its connection, in Envoy's words.
    pub(crate) up_close_type: &'static str,
    /// What went through the client's side.
    pub(crate) down: Traffic,
    /// What went through the upstream's side.
    pub(crate) up: Traffic,
    active: Active,
}

/// Counts a connection while it is served.
#[derive(Debug)]
struct Active(Rc<Worker>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.stats().tcp_cx_active.decrement();
    }
}

impl<'a> Connection<'a> {
    /// A connection that began at `began` and is served by `route`.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        peers: &'a Peers,
        server_name: Option<&'a [u8]>,
        route: &'a str,
        began: Nanos,
    ) -> Self {
        worker.stats().tcp_cx_active.increment();
        let mut timings = Timings::new();
        timings.set(Point::DownstreamRxBegin, began.0);
        Self {
            began,
            peers,
            server_name,
            route,
            timings,
            cluster: None,
            flags: ResponseFlags::NONE,
            endpoints: SmallVec::new(),
            upstream_connection_ids: SmallVec::new(),
            upstream_local: None,
            pool_ready_ns: None,
            transport_failure: None,
            upstream_tls: None,
            close_reason: None,
            up_close_reason: None,
            reset_down: false,
            up_close_type: "Normal",
            down: Traffic::default(),
            up: Traffic::default(),
            active: Active(Rc::clone(worker)),
        }
    }

    /// Notes that an attempt to connect to `endpoint` begins.
    pub(crate) fn attempt(&mut self, endpoint: SocketAddr, now: Nanos) {
        self.endpoints.push(endpoint);
        self.timings.set(Point::UpstreamConnectBegin, now.0);
    }

    /// Notes that the attempt under way led to a connection.
    pub(crate) fn connected(&mut self, id: u64, local: Option<SocketAddr>, now: Nanos) {
        self.upstream_connection_ids.push(id);
        self.upstream_local = local;
        self.transport_failure = None;
        self.timings.set(Point::UpstreamConnectEnd, now.0);
        self.pool_ready_ns = self
            .timings
            .between(Point::UpstreamConnectBegin, Point::UpstreamConnectEnd);
    }

    /// Notes why the proxy ends the connection.
    pub(crate) fn closed_locally(&mut self, flags: &[ResponseFlag], reason: &'static str) {
        for &flag in flags {
            self.flags.set(flag);
        }
        self.close_reason = Some(reason);
    }

    /// Counts the connection, which the client closed in the way of `close_type`, and writes its
    /// access log lines.
    pub(crate) fn finish(mut self, origin: &Origin, close_type: &'static str) {
        let worker = &self.active.0;
        let now = worker.now();
        self.timings.set(Point::StreamEnd, now.0);
        worker.stats().tcp_cx_total.increment();
        worker.stats().tcp_cx_rx_bytes.add(self.down.consumed);
        worker.stats().tcp_cx_tx_bytes.add(self.down.sent);
        let taps = worker.taps();
        if origin.logs.is_empty() && taps.is_empty() {
            return;
        }
        let mut record = self.record(origin, now);
        record.downstream.detected_close_type = Some(if self.reset_down {
            "LocalReset"
        } else {
            close_type
        });
        for log in &*origin.logs {
            log.log(worker.index(), &record);
        }
        taps.log(worker.index(), &record);
    }

    fn record<'r>(&'r self, origin: &'r Origin, now: Nanos) -> Record<'r> {
        let clock = self.active.0.clock();
        let mut record = Record::new();
        record.subject = Subject::Connection;
        record.start_unix_ns = clock.wall_nanos(self.began).cast_signed();
        record.emit_unix_ns = clock.wall_nanos(now).cast_signed();
        record.timings = self.timings;
        record.pool_ready_ns = self.pool_ready_ns;
        record.request.body_bytes = self.down.consumed;
        record.response.body_bytes = self.down.sent;
        record.flags = self.flags;
        record.listener_name = Some(&origin.listener);
        record.filter_chain_name = Some(&origin.chain);
        record.route_name = Some(self.route);
        record.cluster = self.cluster.map(|cluster| cluster.name.as_str());
        record.downstream = Downstream {
            connection_id: Some(self.peers.connection_id),
            remote: Some(self.peers.remote),
            local: Some(self.peers.local),
            direct_remote: Some(self.peers.direct_remote()),
            direct_local: Some(self.peers.direct_local()),
            server_name: self.server_name,
            tls: self.peers.tls.as_deref(),
            wire: wire(self.down),
            local_close_reason: self.close_reason,
            ..record.downstream
        };
        record.upstream = Upstream {
            host: self.endpoints.last().copied(),
            hosts_attempted: &self.endpoints,
            attempts: u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX),
            connection_id: self.upstream_connection_ids.last().copied().unwrap_or(0),
            connection_ids_attempted: &self.upstream_connection_ids,
            local: self.upstream_local,
            tls: self.upstream_tls.as_deref(),
            wire: wire(self.up),
            transport_failure_reason: self.transport_failure.as_deref(),
            local_close_reason: self.up_close_reason,
            detected_close_type: Some(self.up_close_type),
            ..Upstream::default()
        };
        record.peer_principal = self.peers.principal.as_deref().map(str::as_bytes);
        record
    }
}

fn wire(traffic: Traffic) -> WireBytes {
    WireBytes {
        sent: traffic.sent,
        received: traffic.consumed,
        ..WireBytes::default()
    }
}
