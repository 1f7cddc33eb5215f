//! Answers that the proxy makes itself.

use std::future::poll_fn;
use std::task::Poll;

use kgw_h1::{BodyDecoder, Framing, Method, write_response_head};

use super::http1::Next;
use super::{Conn, Target};
use crate::filter::header_mutation::HeaderMutation;
use crate::pipeline::edge;
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::{Extra, Reply};
use crate::telemetry::access_log::Point;

/// Sends `reply` and ends the exchange.
pub(crate) async fn reply(
    conn: &mut Conn,
    target: &Target,
    mut exchange: Exchange<'_>,
    reply: Reply,
    response_headers: &[&[HeaderMutation]],
) -> Next {
    let has_request = exchange.has_request();
    let head_request = has_request && conn.request.method_kind() == Method::Head;
    let body_taken = has_request
        && (exchange.request_complete || !reply.close && take_small_body(conn, &mut exchange));
    let keep_alive = exchange.keep_alive && body_taken && !reply.close && !conn.is_draining();

    let now = conn.worker.now();
    let headers = conn.response.headers_mut();
    headers.clear();
    let mut number = itoa::Buffer::new();
    headers.append(
        b"content-length",
        number.format(reply.body.len()).as_bytes(),
    );
    if !reply.body.is_empty() {
        headers.append(b"content-type", b"text/plain");
    }
    match &reply.extra {
        Extra::None => {}
        Extra::Location(location) => {
            headers.append(b"location", location);
        }
        Extra::RetryAfter(seconds) => {
            headers.append(b"retry-after", number.format(*seconds).as_bytes());
        }
    }
    for mutation in response_headers.iter().copied().flatten() {
        mutation.apply(headers);
    }
    if !headers.contains(b"date") {
        conn.worker
            .with_date(now, |date| headers.append(b"date", date));
    }
    let request_id = conn.request.headers().get(b"x-request-id");
    let request_id = request_id.filter(|_| has_request);
    edge::finish_response(headers, &target.listener.http, request_id);
    if !keep_alive {
        headers.append(b"connection", b"close");
    }
    let framing = Framing::Length(reply.body.len() as u64);
    let headers = conn.response.headers();
    let before = conn.down.output().len();
    write_response_head(conn.down.output(), reply.status, headers, framing, None);
    exchange.answer_head_bytes = (conn.down.output().len() - before) as u64;
    // A configured answer may be one that has no body (RFC 9110 6.4.1).
    let bodyless = head_request || matches!(reply.status, 204 | 304);
    let body = if bodyless { "" } else { &*reply.body };
    conn.down.output().extend_from_slice(body.as_bytes());

    let body_sent = body.len() as u64;
    exchange.answered_locally(reply, body_sent);
    exchange.timings.set(Point::DownstreamTxBegin, now.0);
    let sent = flush(conn, exchange.write_timeout_ms).await;
    exchange
        .timings
        .set(Point::DownstreamTxEnd, conn.worker.now().0);
    if !sent {
        exchange.client_gone(conn.down.unsent() as u64);
    }
    exchange.finish(conn, target);
    match (sent, keep_alive) {
        (false, _) => Next::Abort,
        (true, true) => Next::KeepAlive,
        (true, false) => Next::Close,
    }
}

/// Consumes the request's body if it is all there already. The connection can then be kept, which
/// Envoy does not do.
fn take_small_body(conn: &mut Conn, exchange: &mut Exchange<'_>) -> bool {
    let framing = conn.request.framing();
    let mut decoder = BodyDecoder::new(framing);
    let mut consumed = 0;
    let mut data = 0;
    loop {
        match decoder.decode(&conn.down.input()[consumed..]) {
            Ok(step) => {
                consumed += step.consumed;
                data += step.data.len() as u64;
                if step.done {
                    conn.down.consume(consumed);
                    exchange.bytes_received += data;
                    exchange.request_received(conn.worker.now());
                    return true;
                }
                if step.consumed == 0 {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

/// Writes the output within `timeout_ms`. Returns whether it was written.
pub(crate) async fn flush(conn: &mut Conn, timeout_ms: u64) -> bool {
    let deadline = conn.worker.now().after_ms(timeout_ms);
    poll_fn(|cx| {
        conn.registration.update(cx);
        match conn.down.poll_flush(cx) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending if conn.worker.phase() == crate::runtime::Phase::Closing => {
                Poll::Ready(false)
            }
            Poll::Pending => conn.timer.poll(cx, deadline).map(|()| false),
        }
    })
    .await
}
