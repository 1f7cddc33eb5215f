//! Passing a request on: choosing the endpoint, getting a connection, and what its failures mean.

use kgw_h1::{BodyDecoder, BodyEncoder, Method, Request, write_continue, write_request_head};

use super::http1::Next;
use super::relay::{End, Relay};
use super::{Conn, Target, local};
use crate::pipeline::exchange_log::{Dispatch, Exchange};
use crate::pipeline::reply::{Reply, transport_failure};
use crate::pipeline::rewrite::rewritten_path;
use crate::telemetry::access_log::{Point, WireBytes};
use crate::telemetry::flags::ResponseFlag;
use crate::upstream::connect::{ConnectError, connect};

/// Time for the client to take what there is of an answer that was cut short. Milliseconds.
const TRUNCATED_WRITE_MS: u64 = 1_000;

/// Sends the request to one of the cluster's endpoints and its answer to the client.
pub(crate) async fn forward(
    conn: &mut Conn,
    target: &Target,
    mut exchange: Exchange<'_>,
    dispatch: &Dispatch<'_>,
) -> Next {
    let framing = conn.request.framing();
    address(&mut conn.request, dispatch);
    exchange.attempts = 1;
    let mut asks_to_continue = conn.request.expects_continue();
    if asks_to_continue {
        conn.request.headers_mut().remove(b"expect");
    }
    let mut pooled_connection_died = false;
    loop {
        let Some(endpoint) = dispatch.cluster.next_endpoint(conn.worker.index()) else {
            let reply = Reply::no_healthy_upstream();
            return local::reply(conn, target, exchange, reply, dispatch.response_headers).await;
        };
        exchange.endpoints.push(endpoint);
        let worker = std::rc::Rc::clone(&conn.worker);
        let pooled = if pooled_connection_died {
            None
        } else {
            worker.pools.borrow_mut().take(&worker, endpoint)
        };
        let reused = pooled.is_some();
        let mut upstream = if let Some(upstream) = pooled {
            exchange.pool_ready_ns = Some(0);
            upstream
        } else {
            let began = worker.now();
            exchange.timings.set(Point::UpstreamConnectBegin, began.0);
            let connect_by = began.after_ms(dispatch.cluster.connect_timeout.as_millis() as u64);
            let answer_by = exchange.route_deadline(dispatch.forward.timeout_ms);
            let deadline = connect_by.min(answer_by);
            match connect(conn, endpoint, deadline, exchange.request_complete).await {
                Ok(upstream) => {
                    let timings = &mut exchange.timings;
                    let connected = worker.now();
                    timings.set(Point::UpstreamConnectEnd, connected.0);
                    exchange.pool_ready_ns = Some(connected.since(began));
                    upstream
                }
                Err(error) => {
                    let reply = match &error {
                        ConnectError::ClientGone => {
                            exchange.client_gone(0);
                            exchange.finish(conn, target);
                            return Next::Abort;
                        }
                        ConnectError::Failed(error) => {
                            exchange.transport_failure = Some(transport_failure(error));
                            Reply::connect_failed(error)
                        }
                        ConnectError::TimedOut if answer_by <= connect_by => {
                            worker.stats().upstream_rq_timeout.increment();
                            Reply::request_timed_out()
                        }
                        ConnectError::TimedOut => {
                            worker.stats().upstream_cx_connect_timeout.increment();
                            Reply::connect_timed_out()
                        }
                    };
                    let fields = dispatch.response_headers;
                    return local::reply(conn, target, exchange, reply, fields).await;
                }
            }
        };
        if asks_to_continue && conn.down.input().is_empty() && !framing.is_empty() {
            write_continue(conn.down.output());
        }
        asks_to_continue = false;
        exchange.upstream_local = upstream.local;
        exchange.upstream_connection_ids.push(upstream.id);
        worker.stats().upstream_rq_total.increment();
        if reused {
            worker.stats().upstream_rq_reused.increment();
        }
        let before = upstream.stream.traffic();
        write_request_head(upstream.stream.output(), &conn.request, framing);
        exchange.upstream_wire = WireBytes {
            header_sent: upstream.stream.unsent() as u64,
            ..WireBytes::default()
        };
        let sent_at = worker.now();
        let mut relay = Relay {
            up: &mut upstream.stream,
            request_body: BodyDecoder::new(conn.request.framing()),
            request_out: BodyEncoder::new(framing),
            conn: &mut *conn,
            exchange: &mut exchange,
            dispatch,
            http: &target.listener.http,
            answer: super::relay::Answer::Head,
            complete_at: None,
            moved_at: sent_at,
            now: sent_at,
            wrote: false,
            upstream_broken: false,
        };
        let end = relay.run().await;
        let untouched = !relay.wrote;
        let traffic = upstream.stream.traffic().since(before);
        exchange.upstream_wire.sent = traffic.sent;
        exchange.upstream_wire.received = traffic.consumed;
        exchange.upstream_close_type = Some(upstream.stream.close_type());
        return match end {
            End::Complete { reusable } => {
                if reusable {
                    worker.pools.borrow_mut().put(&worker, upstream);
                }
                let next = match (exchange.keep_alive, exchange.request_complete) {
                    (true, true) => Next::KeepAlive,
                    _ => Next::Close,
                };
                exchange.finish(conn, target);
                next
            }
            End::ClientGone => {
                let unsent = conn.down.unsent() as u64;
                exchange.client_gone(unsent);
                exchange.finish(conn, target);
                Next::Abort
            }
            End::UpstreamClosed
                if reused
                    && framing.is_empty()
                    && (untouched || is_idempotent(conn.request.method_kind())) =>
            {
                // The endpoint closed the connection while it was idle, and the request crossed
                // with that: it was not served, or can be served twice (RFC 9110 9.2.2). A body
                // cannot be sent again: it went out of the client's buffer as it came in.
                worker.stats().upstream_rq_retry_reused.increment();
                pooled_connection_died = true;
                exchange.try_again();
                continue;
            }
            End::UpstreamClosed => {
                let mut reply = Reply::upstream_closed();
                reply.close |= !exchange.request_complete;
                local::reply(conn, target, exchange, reply, dispatch.response_headers).await
            }
            End::Refused(mut reply) => {
                // Part of the body is consumed: nobody could tell where the next request starts.
                reply.close |= !exchange.request_complete;
                if reply.flag == Some(ResponseFlag::UpstreamRequestTimeout) {
                    worker.stats().upstream_rq_timeout.increment();
                }
                local::reply(conn, target, exchange, reply, dispatch.response_headers).await
            }
            End::Truncated(flag, details) => {
                if flag == ResponseFlag::UpstreamRequestTimeout {
                    worker.stats().upstream_rq_timeout.increment();
                }
                exchange.truncated(flag, details);
                // What came before the cut is still the client's.
                let sent = local::flush(conn, TRUNCATED_WRITE_MS).await;
                if !sent {
                    let unsent = conn.down.unsent() as u64;
                    exchange.bytes_sent = exchange.bytes_sent.saturating_sub(unsent);
                }
                exchange.finish(conn, target);
                if sent { Next::Close } else { Next::Abort }
            }
        };
    }
}

/// Whether serving a request twice does no harm (RFC 9110 9.2.2).
fn is_idempotent(method: Method) -> bool {
    matches!(
        method,
        Method::Get | Method::Head | Method::Options | Method::Trace | Method::Put | Method::Delete
    )
}

/// Rewrites host and path, and states the time-out.
fn address(request: &mut Request, dispatch: &Dispatch<'_>) {
    let forward = dispatch.forward;
    if let Some(rewrite) = &forward.path {
        let path = rewritten_path(rewrite, request.path());
        let original = request.path().to_vec();
        request
            .headers_mut()
            .set(b"x-envoy-original-path", &original);
        request.set_path(&path);
    }
    if let Some(hostname) = &forward.hostname {
        let original = request.authority().to_vec();
        request
            .headers_mut()
            .set(b"x-envoy-original-host", &original);
        request.set_authority(hostname.as_bytes());
    }
    if forward.timeout_ms > 0 {
        let mut number = itoa::Buffer::new();
        let text = number.format(forward.timeout_ms).as_bytes();
        request
            .headers_mut()
            .set(b"x-envoy-expected-rq-timeout-ms", text);
    }
}
