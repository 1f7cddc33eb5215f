//! Answers that the proxy makes itself.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::Poll;

use kgw_h1::{Framing, Headers, Known, Method, connection_option, has_no_body};

use super::exchange::Next;
use super::filtering::{self, Asked};
use super::message::{Downstream, Lost};
use super::{Conn, Target};
use crate::filter::header_mutation::HeaderMutation;
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::local_reply::{Fit, LocalReplies};
use crate::pipeline::reply::{Extra, Reply};
use crate::pipeline::{edge, grpc};
use crate::telemetry::access_log::Point;

/// Sends `reply` and ends the exchange.
pub(crate) async fn reply<D: Downstream>(
    conn: &mut Conn<D>,
    target: &Target,
    mut exchange: Exchange<'_>,
    mut reply: Reply,
    response_headers: &[&[HeaderMutation]],
) -> Next {
    let has_request = exchange.has_request();
    let head_request = has_request && conn.request.method_kind() == Method::Head;
    let body_taken = has_request
        && (exchange.request_complete || !reply.close && discard_body(conn, &mut exchange));
    let keep_alive = exchange.keep_alive && body_taken && !reply.close && !conn.is_draining();

    let now = conn.worker.now();
    let headers = conn.response.headers_mut();
    headers.clear();
    let mut number = itoa::Buffer::new();
    headers.append(
        b"content-length",
        number.format(reply.body_bytes().len()).as_bytes(),
    );
    let typed =
        matches!(&reply.extra, Extra::Answer(answer) if answer.headers.contains(b"content-type"));
    if !reply.body_bytes().is_empty() && !typed {
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
        Extra::Overloaded => {
            headers.append(b"x-envoy-overloaded", b"true");
        }
        Extra::Answer(answer) => {
            for (name, value) in &answer.headers {
                headers.append(name, value);
            }
        }
    }
    for mutation in response_headers.iter().copied().flatten() {
        mutation.apply(headers);
    }
    if let Some(sharing) = &exchange.sharing {
        sharing.apply(headers);
    }
    exchange.edit_response(headers);
    if let Some(replies) = &target.listener.local_replies
        && reply.is_formed()
    {
        form(conn, target, &exchange, replies, &mut reply);
    }
    if exchange.awaits_response_filters() {
        match Box::pin(filtering::on_reply(conn, &mut exchange, &mut reply)).await {
            Asked::Passed => {
                let length = number.format(reply.body_bytes().len()).as_bytes();
                let headers = conn.response.headers_mut();
                headers.set(b"content-length", length);
            }
            Asked::Answered(instead) => {
                let answered = self::reply(conn, target, exchange, instead, response_headers);
                return Box::pin(answered).await;
            }
            Asked::ClientGone(lost) => {
                exchange.client_gone(lost, 0);
                exchange.finish(conn, target);
                return Next::Abort;
            }
        }
    }
    let headers = conn.response.headers_mut();
    if headers.get_known(Known::Date).is_none() {
        conn.worker
            .with_date(now, |date| headers.append_known(Known::Date, date));
    }
    let request_id = conn.request.headers().get_known(Known::XRequestId);
    let request_id = request_id.filter(|_| has_request);
    edge::finish_response(headers, &target.listener.http, request_id);
    if D::CONNECTION_FIELD
        && let Some(option) = connection_option(conn.request.version(), keep_alive)
    {
        headers.append(b"connection", option);
    }
    let (status, body) = spoken(&mut exchange, &reply, conn.response.headers_mut());
    // A configured answer may be one that has no body (RFC 9110 6.4.1).
    let bodyless = head_request || has_no_body(status);
    let length = body.len() as u64;
    let framing = if bodyless {
        Framing::None
    } else {
        Framing::Length(length)
    };
    // HTTP/2 need not say that nothing follows.
    let advertised = (length > 0 || D::CONNECTION_FIELD).then_some(length);
    exchange.answer_head_bytes = conn.down.send_head(
        &conn.request,
        &mut conn.response,
        status,
        framing,
        advertised,
    );
    let body = if bodyless { b"" } else { &*body };
    // The head has said how long the body is.
    let _ = conn.down.send_data(body);
    let _ = conn.down.send_end(None);

    let body_sent = body.len() as u64;
    exchange.answered_locally(reply, status, body_sent);
    exchange.timings.set(Point::DownstreamTxBegin, now.0);
    let sent = flush(conn, exchange.write_timeout_ms).await;
    exchange
        .timings
        .set(Point::DownstreamTxEnd, conn.worker.now().0);
    if !sent {
        exchange.client_gone(Lost::Closed, conn.down.unsent() as u64);
    }
    exchange.finish(conn, target);
    match (sent, keep_alive) {
        (false, _) => Next::Abort,
        (true, true) => Next::KeepAlive,
        (true, false) => Next::Close,
    }
}

/// Makes of an answer what the listener's policy wants.
fn form<D: Downstream>(
    conn: &mut Conn<D>,
    target: &Target,
    exchange: &Exchange<'_>,
    replies: &LocalReplies,
    reply: &mut Reply,
) {
    let metadata = exchange.metadata();
    let record = exchange.reply_record(conn, target, reply, metadata.as_ref());
    let mapper = replies.mapper(&record);
    let content_type = conn.response.headers().get_known(Known::ContentType);
    let content_type = content_type.map(<[u8]>::to_vec);
    let mut is_new = false;
    if let Some(mapper) = mapper {
        // The fields see the answer's old status, and its new body is for the form alone (Envoy).
        let fields = mapper.fields(&record);
        let headers = conn.response.headers_mut();
        for field in &fields {
            field.apply(headers);
        }
        is_new = mapper.change(reply);
    }
    let record = exchange.reply_record(conn, target, reply, metadata.as_ref());
    let is_call = exchange.is_grpc || exchange.grpc_web.is_some();
    if let Some(body) = replies.body(mapper, &record, is_call) {
        is_new |= body != reply.body_bytes();
        reply.set_body(body);
    }
    let fit = Fit {
        length: reply.body_bytes().len(),
        is_new,
        content_type_before: content_type.as_deref(),
    };
    replies.describe(mapper, conn.response.headers_mut(), fit);
}

/// Status and body of an answer as the client understands it, to which `headers` are fitted: a gRPC
/// call has failures in fields, gRPC-Web has the fields in the body.
fn spoken<'r>(
    exchange: &mut Exchange<'_>,
    reply: &'r Reply,
    headers: &mut Headers,
) -> (u16, Cow<'r, [u8]>) {
    if let Some(web) = &mut exchange.grpc_web {
        grpc::state_failure(headers, reply);
        let status = web.on_response_head(200, headers);
        let mut body = Vec::new();
        web.response_end(None, &mut body);
        return (status, Cow::Owned(body));
    }
    if exchange.is_grpc {
        grpc::state_failure(headers, reply);
        return (200, Cow::Borrowed(b""));
    }
    (reply.status, Cow::Borrowed(reply.body_bytes()))
}

/// Does without the rest of the request's body, if the connection can.
fn discard_body<D: Downstream>(conn: &mut Conn<D>, exchange: &mut Exchange<'_>) -> bool {
    let mut data = 0;
    let discarded = conn
        .down
        .discard_request(|piece| data += piece.len() as u64);
    if discarded {
        exchange.bytes_received += data;
        exchange.request_received(conn.worker.now());
    }
    discarded
}

/// Writes the output within `timeout_ms`. Returns whether it was written.
pub(crate) async fn flush<D: Downstream>(conn: &mut Conn<D>, timeout_ms: u64) -> bool {
    let deadline = conn.worker.now().after_ms(timeout_ms);
    poll_fn(|cx| {
        conn.registration.update(cx);
        match conn.down.poll_send(cx) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending if conn.worker.phase() == crate::runtime::Phase::Closing => {
                Poll::Ready(false)
            }
            Poll::Pending => conn.timer.poll(cx, deadline).map(|()| false),
        }
    })
    .await
}
