//! What is said about a session of datagrams when it is over: the same operators as for connections.

use std::cell::Cell;
use std::net::SocketAddr;

use super::connection_log::Origin;
use crate::clock::Nanos;
use crate::runtime::Worker;
use crate::telemetry::access_log::{
    Downstream, Point, Record, Subject, Timings, Upstream, WireBytes,
};
use crate::telemetry::flags::{ResponseFlag, ResponseFlags};

/// Bytes that went one way.
#[derive(Debug, Default)]
pub(crate) struct Count(Cell<u64>);

impl Count {
    /// Counts a datagram.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes as u64);
    }
}

/// A session that is over.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) connection_id: u64,
    pub(crate) opened: Nanos,
    pub(crate) client: SocketAddr,
    /// What the client sent to.
    pub(crate) local: SocketAddr,
    pub(crate) route: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) endpoint: SocketAddr,
    /// Where the endpoint sent its answers.
    pub(crate) endpoint_sees: Option<SocketAddr>,
    pub(crate) flag: Option<ResponseFlag>,
    /// Why the session ended.
    pub(crate) close_reason: &'static str,
    pub(crate) from_client: &'a Count,
    pub(crate) to_client: &'a Count,
    pub(crate) to_endpoint: &'a Count,
    pub(crate) from_endpoint: &'a Count,
}

impl Session<'_> {
    /// Writes the access log lines.
    pub(crate) fn log(&self, worker: &Worker, origin: &Origin) {
        let taps = worker.taps();
        if origin.logs.is_empty() && taps.is_empty() {
            return;
        }
        let record = self.record(worker, origin);
        for log in &*origin.logs {
            log.log(worker.index(), &record);
        }
        taps.log(worker.index(), &record);
    }

    fn record<'r>(&'r self, worker: &Worker, origin: &'r Origin) -> Record<'r> {
        let (clock, now) = (worker.clock(), worker.now());
        let mut timings = Timings::new();
        timings.set(Point::DownstreamRxBegin, self.opened.0);
        timings.set(Point::StreamEnd, now.0);
        let mut record = Record::new();
        record.subject = Subject::Datagrams;
        record.start_unix_ns = clock.wall_nanos(self.opened).cast_signed();
        record.emit_unix_ns = clock.wall_nanos(now).cast_signed();
        record.timings = timings;
        record.request.body_bytes = self.from_client.0.get();
        record.response.body_bytes = self.to_client.0.get();
        record.flags = ResponseFlags::NONE;
        if let Some(flag) = self.flag {
            record.flags.set(flag);
        }
        record.listener_name = Some(&origin.listener);
        record.filter_chain_name = Some(&origin.chain);
        record.route_name = Some(self.route);
        record.cluster = Some(self.cluster);
        record.downstream = Downstream {
            connection_id: Some(self.connection_id),
            remote: Some(self.client),
            local: Some(self.local),
            direct_remote: Some(self.client),
            direct_local: Some(self.local),
            wire: wire(self.to_client, self.from_client),
            local_close_reason: Some(self.close_reason),
            ..record.downstream
        };
        record.upstream = Upstream {
            host: Some(self.endpoint),
            hosts_attempted: std::slice::from_ref(&self.endpoint),
            attempts: 1,
            local: self.endpoint_sees,
            wire: wire(self.to_endpoint, self.from_endpoint),
            ..Upstream::default()
        };
        record
    }
}

fn wire(sent: &Count, received: &Count) -> WireBytes {
    WireBytes {
        sent: sent.0.get(),
        received: received.0.get(),
        ..WireBytes::default()
    }
}
