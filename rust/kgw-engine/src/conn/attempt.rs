//! Passing a request on: choosing the endpoint, getting a connection, and what its failures mean.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use kgw_h1::{Framing, Known, Method, Request};
use kgw_limit::{Slot, Slots, Tick};

use super::exchange::Next;
use super::message::{Downstream, Lost, Upstream};
use super::pipe::Pipe;
use super::relay::{Answer, End, Quiet, Relay};
use super::retry::{self, After};
use super::tunnel;
use super::{Conn, Target, local};
use crate::clock::Nanos;
use crate::pipeline::edge;
use crate::pipeline::exchange_log::{Dispatch, Exchange};
use crate::pipeline::reply::{Reply, transport_failure};
use crate::pipeline::retry::Retrying;
use crate::pipeline::rewrite::name_by_endpoint;
use crate::runtime::Pressure;
use crate::telemetry::access_log::{Point, WireBytes};
use crate::telemetry::flags::ResponseFlag;
use crate::upstream::acquire::{Acquired, Unavailable, Until, acquire, resolved};
use crate::upstream::connect::ConnectError;
use crate::upstream::endpoint::{Endpoint, Serving};
use crate::upstream::health::outlier::Outcome;

/// Time for the client to take what there is of an answer that was cut short. Milliseconds.
const TRUNCATED_WRITE_MS: u64 = 1_000;

/// Time without a byte after which a tunnel ends, unless the listener's is shorter. Milliseconds.
const TUNNEL_IDLE_MS: u64 = 3_600_000;

/// How an attempt ended.
struct Attempted {
    end: End,
    /// Nothing of the request was sent.
    untouched: bool,
    /// What becomes of the client's connection if it ended as a tunnel.
    after_tunnel: Next,
}

/// Sends the request to one of the cluster's endpoints and its answer to the client. With
/// `switching`, the request asks for another protocol, and may.
pub(crate) async fn forward<D: Downstream>(
    conn: &mut Conn<D>,
    target: &Target,
    mut exchange: Exchange<'_>,
    dispatch: &Dispatch<'_>,
    switching: bool,
) -> Next {
    exchange.attempts = 1;
    begin_retrying(conn, &mut exchange, dispatch, switching);
    state_time(conn, &exchange, dispatch);
    let early = target.listener.early.as_deref();
    let passes_on = early.is_some_and(|early| early.proxy_100_continue);
    let mut asks_to_continue = conn.request.expects_continue() && !passes_on;
    if asks_to_continue {
        conn.request.headers_mut().remove(b"expect");
    }
    let worker = Rc::clone(&conn.worker);
    let mut retried = false;
    // An idle connection that was lost says nothing of the next.
    let mut fresh = false;
    let mut pinned = dispatch.pinned;
    loop {
        // What the request takes of those that its cluster may have, until it is over.
        let (acquired, _slot) = match connection(conn, &mut exchange, dispatch, fresh, pinned).await
        {
            Ok(acquired) => acquired,
            Err(Failed::ClientGone(lost)) => {
                exchange.client_gone(lost, 0);
                exchange.finish(conn, target);
                return Next::Abort;
            }
            // Nobody is there any longer: the session goes on elsewhere.
            Err(Failed::Answer(reply))
                if pinned.is_some() && reply.is_retriable && !exchange.is_retried_by_policy() =>
            {
                pinned = None;
                worker.stats().upstream_rq_retry.increment();
                exchange.try_again();
                continue;
            }
            Err(Failed::Answer(reply)) => {
                exchange.serving = None;
                match retry::after_failure(conn, &mut exchange, dispatch, reply).await {
                    After::Again => {
                        state_time(conn, &exchange, dispatch);
                        continue;
                    }
                    after => return end(conn, target, exchange, dispatch, after).await,
                }
            }
        };
        if asks_to_continue && !exchange.request_complete && !exchange.is_continued() {
            conn.down.send_continue();
        }
        asks_to_continue = false;
        worker.stats().upstream_rq_total.increment();
        let mut attempt = Attempt {
            conn: &mut *conn,
            target,
            exchange: &mut exchange,
            dispatch,
            switching,
        };
        let (attempted, reused) = match acquired {
            Acquired::Http1(mut upstream, reused) => {
                attempt.exchange.upstream_tls.clone_from(&upstream.tls);
                attempt.note_connection::<super::h1_side::Http1>(upstream.local, upstream.id);
                let attempted = attempt.run(&mut upstream.http1).await;
                upstream.requests += 1;
                let most = dispatch.cluster.max_requests_per_connection;
                let is_worn = most > 0 && upstream.requests >= most;
                if matches!(attempted.end, End::Complete { reusable: true })
                    && !is_worn
                    && dispatch.cluster.proxy_protocol.is_none()
                {
                    worker.pools.borrow_mut().put(&worker, upstream);
                }
                (attempted, reused)
            }
            Acquired::Http2(connection, reused) => {
                attempt.exchange.upstream_tls.clone_from(&connection.tls);
                attempt
                    .note_connection::<super::http2::ServerStream>(connection.local, connection.id);
                let sent = worker.now();
                let mut stream = super::http2::ServerStream::new(Rc::clone(&connection));
                let attempted = Box::pin(attempt.run(&mut stream)).await;
                if let End::Refused(reply) = &attempted.end
                    && reply.flag == Some(ResponseFlag::UpstreamRequestTimeout)
                {
                    connection.timed_out(sent);
                }
                (attempted, reused)
            }
        };
        if reused {
            worker.stats().upstream_rq_reused.increment();
        }
        let serving = exchange.serving.take();
        return match attempted.end {
            End::Switched => {
                exchange.finish(conn, target);
                attempted.after_tunnel
            }
            End::Complete { .. } => {
                let next = match (exchange.keep_alive, exchange.request_complete) {
                    (true, true) => Next::KeepAlive,
                    _ => Next::Close,
                };
                exchange.finish(conn, target);
                next
            }
            End::ClientGone(lost) => {
                let unsent = conn.down.unsent() as u64;
                exchange.client_gone(lost, unsent);
                exchange.finish(conn, target);
                Next::Abort
            }
            End::UpstreamClosed(lost)
                if !retried
                    && !exchange.is_retried_by_policy()
                    && can_send_again(conn, &mut exchange, lost, reused, attempted.untouched) =>
            {
                worker.stats().upstream_rq_retry_reused.increment();
                retried = true;
                fresh = true;
                exchange.try_again();
                continue;
            }
            failed @ (End::UpstreamClosed(_) | End::Refused(_) | End::Retriable) => {
                note(conn, dispatch, serving, failure(&failed));
                fresh = reused && matches!(failed, End::UpstreamClosed(Lost::Closed));
                let after = match failed {
                    End::UpstreamClosed(lost) => {
                        let reply = Reply::upstream_lost(lost);
                        retry::after_failure(conn, &mut exchange, dispatch, reply).await
                    }
                    End::Refused(reply) => {
                        let is_timeout = reply.flag == Some(ResponseFlag::UpstreamRequestTimeout);
                        if is_timeout && !reply.is_retriable {
                            worker.stats().upstream_rq_timeout.increment();
                        }
                        retry::after_failure(conn, &mut exchange, dispatch, reply).await
                    }
                    _ => Box::pin(retry::wait(conn, &mut exchange, dispatch)).await,
                };
                match after {
                    After::Again => {
                        state_time(conn, &exchange, dispatch);
                        continue;
                    }
                    after => end(conn, target, exchange, dispatch, after).await,
                }
            }
            End::Truncated(flag, details) => {
                // What came in time is no time-out.
                let lost = flag
                    .and_then(failure_of)
                    .filter(|one| *one == Outcome::Lost);
                note(conn, dispatch, serving, lost);
                if flag == Some(ResponseFlag::UpstreamRequestTimeout) {
                    worker.stats().upstream_rq_timeout.increment();
                }
                exchange.truncated(flag, details);
                // What came before the cut is still the client's.
                let sent = local::flush(conn, TRUNCATED_WRITE_MS).await;
                if !sent {
                    let unsent = conn.down.unsent() as u64;
                    exchange.bytes_sent = exchange.bytes_sent.saturating_sub(unsent);
                }
                conn.down.abort();
                exchange.finish(conn, target);
                if sent { Next::Close } else { Next::Abort }
            }
        };
    }
}

/// Notes what an attempt says of the endpoint that served it.
fn note<D>(
    conn: &Conn<D>,
    dispatch: &Dispatch<'_>,
    serving: Option<Serving>,
    outcome: Option<Outcome>,
) {
    if let (Some(outcome), Some(serving)) = (outcome, serving) {
        let now = conn.worker.now();
        dispatch.cluster.note(serving.endpoint(), outcome, now);
    }
}

/// What an attempt without an answer says of its endpoint.
fn failure(end: &End) -> Option<Outcome> {
    match end {
        End::UpstreamClosed(_) => Some(Outcome::Lost),
        End::Refused(reply) => reply.flag.and_then(failure_of),
        _ => None,
    }
}

/// What a failure says of the endpoint.
fn failure_of(flag: ResponseFlag) -> Option<Outcome> {
    match flag {
        ResponseFlag::UpstreamConnectionTermination
        | ResponseFlag::UpstreamProtocolError
        | ResponseFlag::UpstreamRemoteReset => Some(Outcome::Lost),
        ResponseFlag::UpstreamRequestTimeout => Some(Outcome::TimedOut),
        _ => None,
    }
}

/// Ends an exchange that no other attempt follows.
async fn end<D: Downstream>(
    conn: &mut Conn<D>,
    target: &Target,
    mut exchange: Exchange<'_>,
    dispatch: &Dispatch<'_>,
    after: After,
) -> Next {
    // What was kept for another attempt does not wait for the client to take its answer.
    exchange.retrying = None;
    match after {
        After::Answer(mut reply) => {
            // Part of the body is consumed: nobody could tell where the next request starts.
            let was_sent = !exchange.upstream_connection_ids.is_empty();
            reply.close |= D::CONNECTION_FIELD && was_sent && !exchange.request_complete;
            local::reply(conn, target, exchange, reply, dispatch.response_headers).await
        }
        After::ClientGone(lost) => {
            exchange.client_gone(lost, 0);
            exchange.finish(conn, target);
            Next::Abort
        }
        // It is handled where the attempts are made.
        After::Again => Next::Abort,
    }
}

/// Turns the connection or stream of a CONNECT request into a connection to an endpoint.
pub(crate) async fn tunnel<D: Downstream>(
    conn: &mut Conn<D>,
    target: &Target,
    mut exchange: Exchange<'_>,
    dispatch: &Dispatch<'_>,
) -> Next {
    exchange.attempts = 1;
    let opened = match open(conn, &mut exchange, dispatch).await {
        Ok(opened) => opened,
        Err(Failed::ClientGone(lost)) => {
            exchange.client_gone(lost, 0);
            exchange.finish(conn, target);
            return Next::Abort;
        }
        Err(Failed::Answer(reply)) => {
            let fields = dispatch.response_headers;
            return local::reply(conn, target, exchange, reply, fields).await;
        }
    };
    note_reached(conn, &exchange, dispatch, Outcome::Reached);
    // Until it ends, it is among those that its cluster may have.
    let _held = opened.held;
    let mut up = opened.stream;
    exchange.upstream_local = opened.local;
    exchange.upstream_tls = opened.tls;
    exchange.upstream_connection_ids.push(opened.id);
    let headers = conn.response.headers_mut();
    headers.clear();
    for mutation in dispatch.response_headers.iter().copied().flatten() {
        mutation.apply(headers);
    }
    exchange.edit_response(headers);
    if headers.get_known(Known::Date).is_none() {
        let now = conn.worker.now();
        conn.worker
            .with_date(now, |date| headers.append_known(Known::Date, date));
    }
    let request_id = conn.request.headers().get_known(Known::XRequestId);
    edge::finish_response(headers, &target.listener.http, request_id);
    let written = conn
        .down
        .send_head(&conn.request, &mut conn.response, 200, Framing::None, None);
    exchange.answer_head_bytes = written;
    exchange.code = 200;
    exchange.details = Some(std::borrow::Cow::Borrowed("via_upstream"));
    let next = run_tunnel(conn, &mut exchange, &mut up).await;
    exchange.finish(conn, target);
    next
}

/// Moves bytes until the tunnel ends. Nothing follows it on an HTTP/1.1 connection.
async fn run_tunnel<D: Downstream, P: Pipe>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    up: &mut P,
) -> Next {
    let idle_ms = match exchange.idle_timeout_ms {
        0 => TUNNEL_IDLE_MS,
        idle_ms => idle_ms,
    };
    // The head is no part of the tunnel, whether it has left or not.
    let head = conn.down.unsent() as u64;
    let outcome = tunnel::run(
        conn.down.pipe(),
        up,
        &mut conn.timer,
        &conn.registration,
        &conn.worker,
        idle_ms,
    )
    .await;
    exchange.bytes_received = outcome.down.consumed;
    exchange.bytes_sent = outcome.down.sent.saturating_sub(head);
    match outcome.end {
        tunnel::End::Complete => return Next::Close,
        tunnel::End::Closing => {}
        tunnel::End::DownstreamFailed => {
            let lost = conn.down.pipe().lost().unwrap_or(Lost::Closed);
            exchange.client_gone(lost, 0);
        }
        tunnel::End::UpstreamFailed => exchange.truncated(
            Some(ResponseFlag::UpstreamConnectionTermination),
            "upstream_reset_after_response_started{connection_termination}",
        ),
        tunnel::End::Idle => {
            exchange.truncated(Some(ResponseFlag::StreamIdleTimeout), "stream_idle_timeout");
        }
    }
    conn.down.abort();
    Next::Abort
}

/// What an attempt works with.
struct Attempt<'a, 'x, D> {
    conn: &'a mut Conn<D>,
    target: &'a Target,
    exchange: &'a mut Exchange<'x>,
    dispatch: &'a Dispatch<'a>,
    switching: bool,
}

impl<D: Downstream> Attempt<'_, '_, D> {
    fn note_connection<U: Upstream>(&mut self, local: Option<SocketAddr>, id: u64) {
        self.exchange.upstream_local = local;
        self.exchange.upstream_protocol = U::PROTOCOL;
        self.exchange.upstream_connection_ids.push(id);
    }

    async fn run<U: Upstream>(&mut self, up: &mut U) -> Attempted {
        let of_listener = self.target.listener.http.buffer_bytes;
        let of_cluster = self.dispatch.cluster.options.buffer_bytes;
        up.limit_output(of_cluster.unwrap_or(of_listener));
        let before = up.traffic();
        let framing = body_framing(&self.conn.request, self.exchange);
        let framing = match &mut self.exchange.retrying {
            Some(retrying) => retrying.replay.framing(framing),
            None => framing,
        };
        // Copies have what is replayed.
        if !self.exchange.is_replaying()
            && let Some(feeds) = &mut self.exchange.feeds
        {
            feeds.begin_attempt();
        }
        let now = self.conn.worker.now();
        self.exchange
            .begin_attempt_span(self.conn.request.headers_mut(), now);
        self.exchange.upstream_wire = WireBytes {
            header_sent: up.send_head(&self.conn.request, framing),
            ..WireBytes::default()
        };
        let sent_at = self.conn.worker.now();
        // A head that does not wait in the output is on its way.
        let wrote = self.exchange.upstream_wire.header_sent > 0 && up.unsent() == 0;
        if wrote {
            let timings = &mut self.exchange.timings;
            timings.set(Point::UpstreamTxBegin, sent_at.0);
        }
        let mut relay = Relay {
            conn: &mut *self.conn,
            up: &mut *up,
            exchange: &mut *self.exchange,
            dispatch: self.dispatch,
            http: &self.target.listener.http,
            answer: Answer::Head,
            switching: self.switching,
            complete_at: None,
            began: sent_at,
            moved_at: sent_at,
            now: sent_at,
            quiet: Quiet::default(),
            wrote,
            upstream_broken: false,
            filtered_status: None,
        };
        let end = relay.run().await;
        let untouched = !relay.wrote;
        let after_tunnel = match end {
            End::Switched => Box::pin(run_tunnel(self.conn, self.exchange, up.pipe())).await,
            _ => Next::Close,
        };
        let traffic = up.traffic().since(before);
        self.exchange.upstream_wire.sent = traffic.sent;
        self.exchange.upstream_wire.received = traffic.consumed;
        self.exchange.upstream_close_type = Some(up.close_type());
        if self.exchange.span.is_some() {
            let code = match end {
                // Nothing of the answer is passed on.
                End::Retriable => self.conn.response.status(),
                _ => self.exchange.code,
            };
            self.exchange.end_attempt_span(self.conn, self.target, code);
        }
        Attempted {
            end,
            untouched,
            after_tunnel,
        }
    }
}

/// How the body of a request is framed towards its backend.
pub(super) fn body_framing(request: &Request, exchange: &mut Exchange<'_>) -> Framing {
    let framing = match request.framing() {
        // Translation changes the length.
        Framing::Length(1..) if exchange.grpc_web.is_some() => Framing::Chunked,
        framing => framing,
    };
    match exchange.request_body_mut() {
        Some(body) => body.framing(framing, None).0,
        None => framing,
    }
}

/// Why there is no connection.
enum Failed {
    ClientGone(Lost),
    Answer(Reply),
}

/// Gets a connection to the next endpoint: another's, unless `fresh`, or a new one. With `pinned` the first
/// attempt goes there.
async fn connection<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    dispatch: &Dispatch<'_>,
    fresh: bool,
    pinned: Option<SocketAddr>,
) -> Result<(Acquired, Option<Slot>), Failed> {
    let began = conn.worker.now();
    let mut deadlines = Deadlines::new(began, exchange, dispatch);
    if let Err(unavailable) = resolved(conn, exchange, dispatch.cluster, deadlines.first()).await {
        return Err(deadlines.failed(conn, exchange, unavailable));
    }
    let Some(endpoint) = next_endpoint(conn, exchange, dispatch, pinned) else {
        return Err(Failed::Answer(Reply::no_healthy_upstream()));
    };
    let address = endpoint.address;
    if dispatch.named_by_endpoint {
        let first = exchange.endpoints.is_empty();
        name_by_endpoint(&mut conn.request, dispatch.cluster, address, first);
    }
    exchange.attempt(endpoint);
    match acquire(
        conn,
        exchange,
        dispatch.cluster,
        address,
        &mut deadlines.until,
        fresh,
    )
    .await
    {
        Ok(acquired) => {
            note_reached(conn, exchange, dispatch, Outcome::Connected);
            let ready = if exchange.timings.at(Point::UpstreamConnectEnd).is_some() {
                conn.worker.now().since(began)
            } else {
                0
            };
            exchange.pool_ready_ns = Some(ready);
            request_slot(conn, dispatch, acquired)
        }
        Err(unavailable) => {
            if deadlines.is_endpoint_lost(&unavailable) {
                note_reached(conn, exchange, dispatch, Outcome::Lost);
            }
            Err(deadlines.failed(conn, exchange, unavailable))
        }
    }
}

/// Notes whether the endpoint of an attempt has a connection for it.
fn note_reached<D>(
    conn: &Conn<D>,
    exchange: &Exchange<'_>,
    dispatch: &Dispatch<'_>,
    outcome: Outcome,
) {
    if let (Some(_), Some(serving)) = (&dispatch.cluster.outliers, &exchange.serving) {
        let now = conn.worker.now();
        dispatch.cluster.note(serving.endpoint(), outcome, now);
    }
}

/// Counts a request that has a connection, unless as many as may be are under way to its cluster.
fn request_slot<D>(
    conn: &Conn<D>,
    dispatch: &Dispatch<'_>,
    acquired: Acquired,
) -> Result<(Acquired, Option<Slot>), Failed> {
    let Some(breaker) = &dispatch.cluster.breaker else {
        return Ok((acquired, None));
    };
    if let Some(slot) = Slots::take(&breaker.requests) {
        return Ok((acquired, Some(slot)));
    }
    let worker = &conn.worker;
    worker.stats().upstream_rq_pending_overflow.increment();
    match acquired {
        Acquired::Http1(connection, _) if dispatch.cluster.proxy_protocol.is_none() => {
            worker.pools.borrow_mut().put(worker, connection);
        }
        Acquired::Http1(..) => {}
        // Somebody else may have waited for the stream.
        Acquired::Http2(connection, _) => connection.free_stream(),
    }
    Err(Failed::Answer(Reply::overflow()))
}

/// Opens a connection of its own to the next endpoint.
async fn open<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    dispatch: &Dispatch<'_>,
) -> Result<crate::upstream::connect::Opened, Failed> {
    let mut deadlines = Deadlines::new(conn.worker.now(), exchange, dispatch);
    let cluster = dispatch.cluster;
    if let Err(unavailable) = resolved(conn, exchange, cluster, deadlines.first()).await {
        return Err(deadlines.failed(conn, exchange, unavailable));
    }
    let Some(endpoint) = next_endpoint(conn, exchange, dispatch, dispatch.pinned) else {
        return Err(Failed::Answer(Reply::no_healthy_upstream()));
    };
    let address = endpoint.address;
    exchange.attempt(endpoint);
    let until = &mut deadlines.until;
    crate::upstream::acquire::open_own(conn, exchange, cluster, address, until)
        .await
        .map_err(|unavailable| {
            if deadlines.is_endpoint_lost(&unavailable) {
                note_reached(conn, exchange, dispatch, Outcome::Lost);
            }
            deadlines.failed(conn, exchange, unavailable)
        })
}

/// Chooses the endpoint of the next attempt: the session's if that is available, or the one whose turn it is. A retry goes to
/// another than those that failed, if there is one.
fn next_endpoint<D>(
    conn: &Conn<D>,
    exchange: &Exchange<'_>,
    dispatch: &Dispatch<'_>,
    pinned: Option<SocketAddr>,
) -> Option<Arc<Endpoint>> {
    let (cluster, worker) = (dispatch.cluster, conn.worker.index());
    let retrying = exchange.retrying.as_ref();
    let is_retry = retrying.is_some_and(|retrying| retrying.made() > 0);
    if is_retry || pinned != dispatch.pinned {
        return cluster.next_endpoint_but(worker, &exchange.endpoints);
    }
    let pinned = pinned.and_then(|address| cluster.endpoint(address));
    let pinned = pinned.filter(|endpoint| endpoint.is_available());
    pinned.or_else(|| cluster.next_endpoint(worker))
}

/// Until when a connection has to be there.
struct Deadlines {
    until: Until,
    attempt: Nanos,
    answer: Nanos,
    call: Nanos,
}

impl Deadlines {
    fn new(now: Nanos, exchange: &Exchange<'_>, dispatch: &Dispatch<'_>) -> Self {
        let attempt = exchange.attempt_deadline();
        let answer = exchange.route_deadline(dispatch.forward.timeout_ms);
        let call = exchange.call_deadline;
        Self {
            until: Until {
                connect: now.after_ms(dispatch.cluster.connect_timeout.as_millis() as u64),
                rest: attempt.min(answer).min(call),
            },
            attempt,
            answer,
            call,
        }
    }

    fn first(&self) -> Nanos {
        self.until.first()
    }

    /// Whether it is the endpoint's fault that there is no connection.
    fn is_endpoint_lost(&self, unavailable: &Unavailable) -> bool {
        match unavailable {
            Unavailable::NotConnected(ConnectError::Failed(_) | ConnectError::Tls(_))
            | Unavailable::Protocol => true,
            Unavailable::NotConnected(ConnectError::TimedOut) => {
                self.until.connect < self.until.rest
            }
            _ => false,
        }
    }

    /// What there is to say if there is no connection.
    fn failed<D>(
        &self,
        conn: &Conn<D>,
        exchange: &mut Exchange<'_>,
        unavailable: Unavailable,
    ) -> Failed {
        let stats = conn.worker.stats();
        Failed::Answer(match unavailable {
            Unavailable::ClientGone(lost) => return Failed::ClientGone(lost),
            Unavailable::NotConnected(ConnectError::ClientGone) => {
                return Failed::ClientGone(Lost::Closed);
            }
            Unavailable::NotConnected(ConnectError::Failed(error)) => {
                exchange.transport_failure = Some(transport_failure(&error));
                Reply::connect_failed(&error)
            }
            Unavailable::NotConnected(ConnectError::TimedOut) if self.call == self.first() => {
                Reply::duration_timed_out()
            }
            Unavailable::NotConnected(ConnectError::Tls(error)) => {
                let reason = error.reason();
                let reply = Reply::tls_failed(&reason);
                exchange.transport_failure = Some(reason);
                reply
            }
            Unavailable::NotConnected(ConnectError::TimedOut) if self.answer == self.first() => {
                stats.upstream_rq_timeout.increment();
                Reply::request_timed_out()
            }
            Unavailable::NotConnected(ConnectError::TimedOut) if self.attempt == self.first() => {
                stats.upstream_rq_per_try_timeout.increment();
                Reply::attempt_timed_out()
            }
            Unavailable::NotConnected(ConnectError::TimedOut) => {
                stats.upstream_cx_connect_timeout.increment();
                Reply::connect_timed_out()
            }
            Unavailable::Protocol => Reply::upstream_protocol_error(),
            Unavailable::Overflow => Reply::overflow(),
        })
    }
}

/// Whether a request whose connection was lost before an answer can be sent once more: it was not
/// served, or can be served twice, and its body is still there.
///
/// An endpoint may close a connection while it is idle, and the request cross with that (RFC 9110
/// 9.2.2); one that speaks HTTP/2 says which requests it has not looked at (RFC 9113 8.7).
fn can_send_again<D>(
    conn: &Conn<D>,
    exchange: &mut Exchange<'_>,
    lost: Lost,
    reused: bool,
    untouched: bool,
) -> bool {
    let has_body = !conn.request.framing().is_empty();
    // A body cannot be sent again, unless a filter has it as a whole: it went out of the client's buffer
    // as it came in.
    let is_there = match exchange.request_body_mut() {
        Some(body) => body.rewind(),
        None => !has_body || !exchange.request_complete && exchange.bytes_received == 0,
    };
    let is_safe = match lost {
        Lost::Refused | Lost::Unprocessed => true,
        Lost::Closed => {
            reused && !has_body && (untouched || is_idempotent(conn.request.method_kind()))
        }
        Lost::Reset(_) | Lost::Malformed => false,
    };
    is_there && is_safe
}

/// Whether serving a request twice does no harm (RFC 9110 9.2.2).
fn is_idempotent(method: Method) -> bool {
    matches!(
        method,
        Method::Get | Method::Head | Method::Options | Method::Trace | Method::Put | Method::Delete
    )
}

/// Begins to count attempts, if the route has retries: they are for requests that ask for no other
/// protocol, and whose body may be kept.
fn begin_retrying<D>(
    conn: &Conn<D>,
    exchange: &mut Exchange<'_>,
    dispatch: &Dispatch<'_>,
    switching: bool,
) {
    let now = conn.worker.now();
    if let Some(budget) = &dispatch.cluster.retry_budget {
        budget.request(Tick::from_nanos(now.0));
    }
    if let Some(retry) = &dispatch.forward.retry {
        let is_switch = switching || conn.request.extended_connect();
        let has_memory = conn.worker.pressure() == Pressure::Normal;
        let may = !is_switch && (has_memory || conn.request.framing().is_empty());
        exchange.retrying = Some(Box::new(Retrying::new(retry, may, now)));
    }
}

/// States the time that the endpoint has for its answer, as Envoy does: the attempt's, or what is left of
/// the route's if that is less.
fn state_time<D>(conn: &mut Conn<D>, exchange: &Exchange<'_>, dispatch: &Dispatch<'_>) {
    let route_ms = dispatch.forward.timeout_ms;
    let time_ms = match &exchange.retrying {
        None => route_ms,
        Some(retrying) => {
            let deadline = exchange.route_deadline(route_ms);
            let left_ms = match retrying.made() {
                1.. if deadline != Nanos::NEVER => {
                    (deadline.since(conn.worker.now()) / 1_000_000).max(1)
                }
                _ => route_ms,
            };
            retrying.attempt_ms(left_ms)
        }
    };
    if time_ms > 0 {
        let mut number = itoa::Buffer::new();
        let text = number.format(time_ms).as_bytes();
        conn.request
            .headers_mut()
            .set_known(Known::XEnvoyExpectedRqTimeoutMs, text);
    }
}
