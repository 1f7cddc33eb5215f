//! What is known of one exchange, and what is said about it when it is over.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use kgw_h1::{Headers, Known};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use crate::clock::{Clock, Nanos};
use crate::config::snapshot::{Cluster, Forward, Route};
use crate::conn::filtering::Filtered;
use crate::conn::io::Traffic;
use crate::conn::message::{Lost, Side};
use crate::conn::mirror::Feeds;
use crate::conn::{Conn, Peers, Target};
use crate::filter::cors::Sharing;
use crate::filter::grpc_web::GrpcWeb;
use crate::filter::header_mutation::HeaderMutation;
use crate::pipeline::reply::Reply;
use crate::pipeline::retry::Retrying;
use crate::pipeline::session::Session;
use crate::room::Room;
use crate::runtime::Worker;
use crate::telemetry::access_log::{
    Downstream, HeaderLookup, Point, Record, Request, Response, Timings, Upstream, WireBytes,
};
use crate::telemetry::flags::{ResponseFlag, ResponseFlags};
use crate::telemetry::tracing::Span;
use crate::tls::TlsInfo;
use crate::upstream::endpoint::{Endpoint, Serving};

/// What to do upstream for a request.
#[derive(Debug)]
pub(crate) struct Dispatch<'a> {
    pub(crate) forward: &'a Forward,
    pub(crate) cluster: &'a Cluster,
    /// The backend's changes first, then the route's.
    pub(crate) response_headers: &'a [&'a [HeaderMutation]],
    /// The sessions that requests to the backend are of.
    pub(crate) session: Option<&'a Session>,
    /// The endpoint that the request's session leads to.
    pub(crate) pinned: Option<SocketAddr>,
    /// The request gets the name of the endpoint that it goes to.
    pub(crate) named_by_endpoint: bool,
}

impl<'a> Dispatch<'a> {
    /// The same to a host that the request names, if it goes there.
    pub(crate) fn to<'b>(&self, of_host: Option<&'b Cluster>) -> Dispatch<'b>
    where
        'a: 'b,
    {
        Dispatch {
            cluster: of_host.unwrap_or(self.cluster),
            ..*self
        }
    }
}

/// One request and its answer.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Exchange<'a> {
    pub(crate) began: Nanos,
    pub(crate) timings: Timings,
    pub(crate) route: Option<&'a Route>,
    pub(crate) cluster: Option<&'a Cluster>,
    /// Client and proxy both want the connection to go on.
    pub(crate) keep_alive: bool,
    /// The client's address, as far as it can be trusted.
    pub(crate) client: IpAddr,
    /// A filter changed what routes look at: the route is to be found anew.
    pub(crate) is_route_cleared: bool,
    /// The request is a gRPC call: failures are answered in its terms.
    pub(crate) is_grpc: bool,
    /// When the call has to be over, by what the client says.
    pub(crate) call_deadline: Nanos,
    /// The client speaks gRPC-Web.
    pub(crate) grpc_web: Option<GrpcWeb>,
    /// What the answer is to say about origins.
    pub(crate) sharing: Option<Sharing<'a>>,
    /// What the body is copied to.
    pub(crate) feeds: Option<Box<Feeds>>,
    /// How far the request is with its route's retries, if it has any.
    pub(crate) retrying: Option<Box<Retrying>>,
    /// The request's, if it has one.
    pub(crate) span: Option<Box<Span>>,
    /// What filters that were waited for left here.
    pub(crate) filtered: Option<Box<Filtered>>,
    /// The answer's trailer fields.
    pub(crate) trailers: Option<Headers>,
    /// The last byte of the request has arrived.
    pub(crate) request_complete: bool,
    /// When it had.
    received_at: Option<Nanos>,
    pub(crate) write_timeout_ms: u64,
    /// Time that may pass without a byte. Milliseconds; 0 is none.
    pub(crate) idle_timeout_ms: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) code: u16,
    pub(crate) details: Option<Cow<'static, str>>,
    pub(crate) flags: ResponseFlags,
    /// The endpoints of all attempts, in order.
    pub(crate) endpoints: SmallVec<[SocketAddr; 2]>,
    /// The last of them, while it is at work.
    pub(crate) serving: Option<Serving>,
    /// The numbers of the connections to them, of those there were.
    pub(crate) upstream_connection_ids: SmallVec<[u64; 2]>,
    pub(crate) upstream_local: Option<SocketAddr>,
    /// The TLS session with the endpoint.
    pub(crate) upstream_tls: Option<Rc<TlsInfo>>,
    /// What is spoken with the endpoint.
    pub(crate) upstream_protocol: &'static str,
    /// From the choice of the endpoint to a usable connection. Nanoseconds.
    pub(crate) pool_ready_ns: Option<u64>,
    pub(crate) attempts: u32,
    pub(crate) transport_failure: Option<String>,
    /// How the endpoint closed its connection, in Envoy's words; `Normal` also while it is open.
    pub(crate) upstream_close_type: Option<&'static str>,
    /// Bytes of the answer's head, as sent to the client.
    pub(crate) answer_head_bytes: u64,
    pub(crate) upstream_wire: WireBytes,
    /// What had gone through the client's connection before this exchange.
    before: Traffic,
    has_request: bool,
    local_body: Cow<'static, str>,
    /// None of a copy, which is not logged.
    active: Option<Active>,
}

/// Counts a request while it is served.
#[derive(Debug)]
struct Active(Rc<Worker>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.stats().downstream_rq_active.decrement();
        self.0.stats().downstream_rq_total.increment();
    }
}

impl Exchange<'_> {
    /// An exchange whose request's first byte arrived at `began`.
    pub(crate) fn new<D: Side>(conn: &Conn<D>, target: &Target, began: Nanos) -> Self {
        conn.worker.stats().downstream_rq_active.increment();
        let active = Active(Rc::clone(&conn.worker));
        Self::begin(conn, target, began, Some(active))
    }

    /// An exchange whose request is a copy of another one's.
    pub(crate) fn of_copy<D: Side>(conn: &Conn<D>, target: &Target, began: Nanos) -> Self {
        Self::begin(conn, target, began, None)
    }

    fn begin<D: Side>(
        conn: &Conn<D>,
        target: &Target,
        began: Nanos,
        active: Option<Active>,
    ) -> Self {
        let mut timings = Timings::new();
        timings.set(Point::DownstreamRxBegin, began.0);
        Self {
            began,
            timings,
            route: None,
            cluster: None,
            keep_alive: false,
            client: conn.peers.remote.ip(),
            is_route_cleared: false,
            is_grpc: false,
            call_deadline: Nanos::NEVER,
            grpc_web: None,
            sharing: None,
            feeds: None,
            retrying: None,
            span: None,
            filtered: None,
            trailers: None,
            request_complete: false,
            received_at: None,
            write_timeout_ms: target.listener.http.stream_idle_timeout_ms,
            idle_timeout_ms: target.listener.http.stream_idle_timeout_ms,
            bytes_received: 0,
            bytes_sent: 0,
            code: 0,
            details: None,
            flags: ResponseFlags::NONE,
            endpoints: SmallVec::new(),
            serving: None,
            upstream_connection_ids: SmallVec::new(),
            upstream_local: None,
            upstream_tls: None,
            upstream_protocol: "",
            pool_ready_ns: None,
            attempts: 0,
            transport_failure: None,
            upstream_close_type: None,
            answer_head_bytes: 0,
            upstream_wire: WireBytes::default(),
            before: conn.down.traffic(),
            has_request: true,
            local_body: Cow::Borrowed(""),
            active,
        }
    }

    /// An exchange whose request is not one.
    pub(crate) fn without_request<D: Side>(conn: &Conn<D>, target: &Target, began: Nanos) -> Self {
        Self {
            has_request: false,
            ..Self::new(conn, target, began)
        }
    }

    /// Whether there is a request to look at.
    pub(crate) fn has_request(&self) -> bool {
        self.has_request
    }

    /// Notes that the last byte of the request has arrived.
    pub(crate) fn request_received(&mut self, now: Nanos) {
        self.request_complete = true;
        self.received_at = Some(now);
        self.timings.set(Point::DownstreamRxEnd, now.0);
    }

    /// When the route's time is over. It runs from the end of the request, so it covers connecting
    /// for a request without a body and an endpoint that does not read, as Envoy's does.
    pub(crate) fn route_deadline(&self, timeout_ms: u64) -> Nanos {
        self.received_at
            .map_or(Nanos::NEVER, |at| at.after_ms(timeout_ms))
    }

    /// When the time of the attempt under way is over, if attempts have one of their own.
    pub(crate) fn attempt_deadline(&self) -> Nanos {
        self.retrying
            .as_ref()
            .map_or(Nanos::NEVER, |retrying| retrying.deadline(self.received_at))
    }

    /// Whether a failure is for the route's retries to decide about.
    pub(crate) fn is_retried_by_policy(&self) -> bool {
        self.retrying
            .as_ref()
            .is_some_and(|retrying| retrying.is_possible())
    }

    /// Whether the endpoint is yet to be sent what another was sent of the request's body.
    pub(crate) fn is_replaying(&self) -> bool {
        self.retrying
            .as_ref()
            .is_some_and(|retrying| retrying.replay.is_behind())
    }

    /// What is passed on of the request's body has to be kept, or comes behind what was.
    pub(crate) fn keeps_request(&self) -> bool {
        self.retrying
            .as_ref()
            .is_some_and(|retrying| retrying.replay.is_whole() || retrying.replay.is_behind())
    }

    /// Keeps what is being passed on of the request's body, if it may be sent once more.
    pub(crate) fn keep_request(&mut self, data: &[u8], room: &Arc<Room>) {
        if let Some(retrying) = &mut self.retrying {
            retrying.replay.keep(data, room);
        }
    }

    /// Nothing of the request is needed once more: its answer is there.
    pub(crate) fn let_request_go(&mut self) {
        if let Some(retrying) = &mut self.retrying {
            retrying.replay.no_more();
        }
    }

    /// Keeps the end of the request's body, as [`keep_request`](Self::keep_request).
    pub(crate) fn keep_request_end(&mut self, trailers: Option<&Headers>) {
        if let Some(retrying) = &mut self.retrying {
            retrying.replay.keep_end(trailers);
        }
    }

    /// Notes which endpoint the next attempt is of.
    pub(crate) fn attempt(&mut self, endpoint: Arc<Endpoint>) {
        self.endpoints.push(endpoint.address);
        self.serving = Some(endpoint.serve());
    }

    /// Forgets what happened in an attempt that another one follows.
    pub(crate) fn try_again(&mut self) {
        for point in [
            Point::UpstreamConnectBegin,
            Point::UpstreamConnectEnd,
            Point::UpstreamHandshakeEnd,
            Point::UpstreamTxBegin,
            Point::UpstreamTxEnd,
        ] {
            self.timings.clear(point);
        }
        self.attempts += 1;
        self.upstream_wire = WireBytes::default();
        self.pool_ready_ns = None;
        self.upstream_local = None;
        self.upstream_tls = None;
        self.upstream_close_type = None;
    }

    /// Notes an answer of the proxy's own, of which the client saw this status.
    pub(crate) fn answered_locally(&mut self, reply: Reply, status: u16, body_sent: u64) {
        self.code = status;
        self.bytes_sent = body_sent;
        self.details = Some(reply.details);
        if let Some(flag) = reply.flag {
            self.flags.set(flag);
        }
        self.local_body = reply.body;
    }

    /// Notes that the client went away with `unsent` bytes of its answer unwritten.
    pub(crate) fn client_gone(&mut self, lost: Lost, unsent: u64) {
        let (flag, details) = match lost {
            Lost::Reset(_) | Lost::Refused => {
                (ResponseFlag::DownstreamRemoteReset, "http2.remote_reset")
            }
            _ => (
                ResponseFlag::DownstreamConnectionTermination,
                "downstream_remote_disconnect",
            ),
        };
        self.flags.set(flag);
        self.cancel_processings();
        self.details = Some(Cow::Borrowed(details));
        self.bytes_sent = self.bytes_sent.saturating_sub(unsent);
    }

    /// Notes that an answer was cut short.
    pub(crate) fn truncated(
        &mut self,
        flag: Option<ResponseFlag>,
        details: impl Into<Cow<'static, str>>,
    ) {
        if let Some(flag) = flag {
            self.flags.set(flag);
        }
        self.details = Some(details.into());
    }

    /// Counts the exchange and writes its access log lines.
    pub(crate) fn finish<D: Side>(mut self, conn: &Conn<D>, target: &Target) {
        if self.active.is_none() {
            if self.has_copy_failed() {
                conn.worker.stats().mirror_rq_failed.increment();
            }
            return;
        }
        // Who reads the log finds the request counted.
        self.active = None;
        let now = conn.worker.now();
        self.timings.set(Point::StreamEnd, now.0);
        self.count(conn);
        let taps = conn.worker.taps();
        if target.listener.logs.is_empty() && taps.is_empty() && self.span.is_none() {
            return;
        }
        let metadata = self.metadata();
        let mut record = self.record(conn, target, now);
        record.metadata = metadata.as_ref();
        if let (Some(tracer), Some(span)) = (&target.listener.tracing, &self.span) {
            record.is_trace_forced = span.is_forced();
            tracer.end(span, self.route, conn.worker.index(), &record);
        }
        for log in &*target.listener.logs {
            log.log(conn.worker.index(), &record);
        }
        taps.log(conn.worker.index(), &record);
    }

    /// Begins the span of an attempt, if attempts have one.
    pub(crate) fn begin_attempt_span(&mut self, headers: &mut Headers, now: Nanos) {
        if let Some(span) = &mut self.span {
            span.begin_attempt(headers, now);
        }
    }

    /// Ends the span of an attempt, if there is one. `code` is the status of its answer; 0 if there was
    /// none.
    pub(crate) fn end_attempt_span<D: Side>(&mut self, conn: &Conn<D>, target: &Target, code: u16) {
        let (Some(tracer), Some(mut span)) = (&target.listener.tracing, self.span.take()) else {
            return;
        };
        let metadata = self.metadata();
        let mut record = self.record(conn, target, conn.worker.now());
        record.metadata = metadata.as_ref();
        let (worker, clock) = (conn.worker.index(), conn.worker.clock());
        tracer.end_attempt(&mut span, self.route, worker, &record, code, clock);
        self.span = Some(span);
    }

    /// Whether a copy got no whole answer, though it was not cut off.
    fn has_copy_failed(&self) -> bool {
        let is_cut = self
            .flags
            .contains(ResponseFlag::DownstreamConnectionTermination);
        !is_cut && self.details.as_deref() != Some("via_upstream")
    }

    /// Adds to what is sent to copies of the request, if there are any.
    pub(crate) fn copy_data(&mut self, data: &[u8]) {
        if let Some(feeds) = &mut self.feeds {
            feeds.data(data);
        }
    }

    /// Ends what is sent to copies of the request, if there are any.
    pub(crate) fn copy_end(&mut self, trailers: Option<&Headers>) {
        if let Some(feeds) = &mut self.feeds {
            feeds.end(trailers);
        }
    }

    /// Whether copies of the request want its body.
    pub(crate) fn is_body_copied(&self) -> bool {
        self.feeds.as_ref().is_some_and(|feeds| feeds.is_wanted())
    }

    fn count<D>(&self, conn: &Conn<D>) {
        let stats = conn.worker.stats();
        match self.code {
            200..=299 => stats.downstream_rq_2xx.increment(),
            300..=399 => stats.downstream_rq_3xx.increment(),
            400..=499 => stats.downstream_rq_4xx.increment(),
            500..=599 => stats.downstream_rq_5xx.increment(),
            _ => {}
        }
        if self
            .filtered
            .as_ref()
            .is_some_and(|one| one.is_being_asked())
        {
            stats.python_filter_abandoned.increment();
        }
        stats.downstream_rx_body_bytes.add(self.bytes_received);
        stats.downstream_tx_body_bytes.add(self.bytes_sent);
    }

    fn downstream_wire<D: Side>(&self, conn: &Conn<D>) -> WireBytes {
        // The head was consumed before the exchange began.
        let head = if self.has_request {
            conn.request.head_bytes() as u64
        } else {
            0
        };
        let traffic = conn.down.traffic().since(self.before);
        WireBytes {
            sent: traffic.sent,
            received: head + traffic.consumed,
            header_sent: self.answer_head_bytes,
            header_received: head,
        }
    }

    /// The client's address: its connection's, or the one that proxies in front state, which has no
    /// port.
    pub(crate) fn remote<D>(&self, conn: &Conn<D>) -> SocketAddr {
        self.source(&conn.peers)
    }

    fn source(&self, peers: &Peers) -> SocketAddr {
        let peer = peers.remote;
        if peer.ip() == self.client {
            peer
        } else {
            SocketAddr::new(self.client, 0)
        }
    }

    /// What is known of a request that is on its way.
    pub(crate) fn live_record<'r>(
        &'r self,
        request: &'r kgw_h1::Request,
        peers: &'r Peers,
        clock: &Clock,
    ) -> Record<'r> {
        let mut record = Record::new();
        record.start_unix_ns = clock.wall_nanos(self.began).cast_signed();
        record.timings = self.timings;
        record.request.protocol = Some(request.version().as_str());
        record.request.body_bytes = self.bytes_received;
        if self.has_request {
            record.request = Request {
                method: Some(request.method()),
                // The target of a CONNECT has no path, and a refused request may have no host.
                path: Some(request.path()).filter(|path| !path.is_empty()),
                authority: Some(request.authority()).filter(|host| !host.is_empty()),
                scheme: Some(if peers.is_secure { b"https" } else { b"http" }),
                headers: Some(request.headers()),
                id: request.headers().get_known(Known::XRequestId),
                ..record.request
            };
        }
        record.route_name = self.route.map(Route::name);
        record.cluster = self.cluster.map(|cluster| cluster.name.as_str());
        record.downstream = Downstream {
            connection_id: Some(peers.connection_id),
            remote: Some(self.source(peers)),
            local: Some(peers.local),
            direct_remote: Some(peers.direct_remote()),
            direct_local: Some(peers.direct_local()),
            server_name: peers.server_name.as_deref().map(str::as_bytes),
            tls: peers.tls.as_deref(),
            ..record.downstream
        };
        record.peer_principal = peers.principal.as_deref().map(str::as_bytes);
        record
    }

    /// What is known of an answer of the proxy's own before it is sent.
    pub(crate) fn reply_record<'r, D: Side>(
        &'r self,
        conn: &'r Conn<D>,
        target: &'r Target,
        reply: &'r Reply,
        metadata: Option<&'r Map<String, Value>>,
    ) -> Record<'r> {
        let mut record = self.record(conn, target, conn.worker.now());
        record.response.code = reply.status;
        record.response.details = Some(&reply.details);
        record.response.headers = Some(conn.response.headers());
        record.response.local_reply_body = reply.body_bytes();
        record.metadata = metadata;
        if let Some(flag) = reply.flag {
            record.flags.set(flag);
        }
        record
    }

    /// What is known of an exchange by now.
    pub(crate) fn record<'r, D: Side>(
        &'r self,
        conn: &'r Conn<D>,
        target: &'r Target,
        now: Nanos,
    ) -> Record<'r> {
        let clock = conn.worker.clock();
        let mut record = self.live_record(&conn.request, &conn.peers, clock);
        record.emit_unix_ns = clock.wall_nanos(now).cast_signed();
        record.pool_ready_ns = self.pool_ready_ns;
        record.response = Response {
            code: self.code,
            details: self.details.as_deref(),
            headers: (self.code != 0).then_some(conn.response.headers() as &dyn HeaderLookup),
            trailers: self
                .trailers
                .as_ref()
                .map(|trailers| trailers as &dyn HeaderLookup),
            body_bytes: self.bytes_sent,
            local_reply_body: self.local_body.as_bytes(),
        };
        record.flags = self.flags;
        record.listener_name = Some(&target.listener.id);
        record.filter_chain_name = target.chain.as_deref().or(Some(&target.listener.id));
        record.downstream.wire = self.downstream_wire(conn);
        record.downstream.detected_close_type = Some(conn.down.close_type());
        record.upstream = Upstream {
            host: self.endpoints.last().copied(),
            hosts_attempted: &self.endpoints,
            attempts: self.attempts,
            connection_id: self
                .upstream_local
                .and(self.upstream_connection_ids.last().copied())
                .unwrap_or(0),
            connection_ids_attempted: &self.upstream_connection_ids,
            protocol: self.upstream_local.map(|_| self.upstream_protocol),
            local: self.upstream_local,
            tls: self.upstream_tls.as_deref(),
            wire: self.upstream_wire,
            transport_failure_reason: self.transport_failure.as_deref(),
            detected_close_type: self.upstream_close_type,
            ..Upstream::default()
        };
        record
    }
}

impl HeaderLookup for Headers {
    fn first(&self, name: &[u8]) -> Option<&[u8]> {
        self.get(name)
    }

    fn each(&self, name: &[u8], found: &mut dyn FnMut(&[u8])) {
        self.get_all(name).for_each(found);
    }

    fn total_bytes(&self) -> u64 {
        self.iter()
            .map(|(name, value)| (name.len() + value.len()) as u64)
            .sum()
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, place: usize) -> Option<(&[u8], &[u8])> {
        self.iter().nth(place)
    }
}
