//! A request's body for filters that want it as a whole, or the beginning of it: received before the
//! request goes anywhere, within the listener's time for requests.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use kgw_h1::Method;

use super::Conn;
use super::filtered_body::FilteredBody;
use super::filtering::Way;
use super::message::{Downstream, Lost, Piece};
use crate::bridge::Failure;
use crate::clock::Nanos;
use crate::config::ir::HttpOptions;
use crate::filter::python::PythonFilter;
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::room::Held;
use crate::runtime::Phase;
use crate::upstream::acquire::poll_client_gone;

/// Why there is no whole body.
pub(super) enum Uncollected {
    Failed(Failure),
    Answered(Reply),
    ClientGone(Lost),
}

/// What is wanted of a body.
pub(super) struct Wanted {
    /// The longest that is taken. Bytes.
    pub(super) most: usize,
    /// Where it is counted.
    pub(super) held: Held,
    /// Of a longer one the beginning is wanted.
    pub(super) beginning_will_do: bool,
}

/// A body that is there.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) bytes: Bytes,
    /// There is more of it.
    pub(super) is_beginning: bool,
}

/// Waits for the request's body, if the filter wants it as a whole. None if it does not, or if what
/// follows the head is no body.
pub(super) async fn whole_body<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    filter: &PythonFilter,
    http: &HttpOptions,
) -> Result<Option<Bytes>, Uncollected> {
    if !filter.request_body {
        return Ok(None);
    }
    let wanted = Wanted {
        most: filter.max_body,
        held: filter.bridge.hold(),
        beginning_will_do: false,
    };
    let collected = collect(conn, exchange, wanted, http).await?;
    Ok(collected.map(|collected| collected.bytes))
}

/// Waits for the request's body, which stays there for whom the request goes to. None if what follows
/// the head is no body.
pub(super) async fn collect<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    wanted: Wanted,
    http: &HttpOptions,
) -> Result<Option<Collected>, Uncollected> {
    if is_tunnel(conn) {
        return Ok(None);
    }
    if !has_request_body(conn, exchange) {
        return Ok(Some(Collected::default()));
    }
    let Wanted {
        most,
        held,
        beginning_will_do,
    } = wanted;
    let stated = conn.request.framing().length().unwrap_or(0);
    let filtered = exchange.filtered.get_or_insert_default();
    if filtered.request_body.is_none() && stated > most as u64 && !beginning_will_do {
        return Err(Uncollected::Failed(Failure::TooLarge));
    }
    let mut body = filtered.request_body.take().unwrap_or_default();
    body.collect(most, held);
    if conn.request.expects_continue() && !exchange.request_complete && !filtered.is_continued {
        filtered.is_continued = true;
        conn.down.send_continue();
    }
    let collected = receive_until(conn, exchange, &mut body, http, |_, _, body| {
        let collected = body.poll_collected();
        collected.map_err(Uncollected::Failed)
    })
    .await;
    let collected = match collected {
        Err(Uncollected::Failed(Failure::TooLarge)) if beginning_will_do => Ok(Collected {
            bytes: body.beginning(most),
            is_beginning: true,
        }),
        collected => collected.map(|bytes| Collected {
            bytes,
            is_beginning: false,
        }),
    };
    let filtered = exchange.filtered.get_or_insert_default();
    filtered.request_body = Some(body);
    collected.map(Some)
}

/// Receives a request's body, which filters let through, and waits for something else meanwhile.
pub(super) async fn while_receiving<D: Downstream, T>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    body: &mut FilteredBody,
    http: &HttpOptions,
    mut poll: impl FnMut(&mut Context<'_>, &mut Exchange<'_>) -> Poll<T>,
) -> Result<T, Uncollected> {
    receive_until(conn, exchange, body, http, |cx, exchange, _| {
        poll(cx, exchange).map(Ok)
    })
    .await
}

/// Receives a request's body until something is there.
async fn receive_until<D: Downstream, T>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    body: &mut FilteredBody,
    http: &HttpOptions,
    mut ready: impl FnMut(
        &mut Context<'_>,
        &mut Exchange<'_>,
        &mut FilteredBody,
    ) -> Poll<Result<T, Uncollected>>,
) -> Result<T, Uncollected> {
    let mut moved_at = conn.worker.now();
    poll_fn(|cx| {
        conn.registration.update(cx);
        poll_until(cx, conn, exchange, body, http, &mut moved_at, &mut ready)
    })
    .await
}

fn poll_until<D: Downstream, T>(
    cx: &mut Context<'_>,
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    body: &mut FilteredBody,
    http: &HttpOptions,
    moved_at: &mut Nanos,
    ready: &mut impl FnMut(
        &mut Context<'_>,
        &mut Exchange<'_>,
        &mut FilteredBody,
    ) -> Poll<Result<T, Uncollected>>,
) -> Poll<Result<T, Uncollected>> {
    let worker = Rc::clone(&conn.worker);
    loop {
        let taken = take_request(conn, exchange, body);
        let moved = taken.and_then(|taken| {
            let moved = body.poll(cx, conn, exchange, Way::Request)?;
            Ok(taken || moved)
        });
        let moved = match moved {
            Ok(moved) => moved,
            Err(reply) => return Poll::Ready(Err(Uncollected::Answered(reply))),
        };
        if let Poll::Ready(is_there) = ready(cx, exchange, body) {
            return Poll::Ready(is_there);
        }
        if conn.down.unsent() > 0
            && let Poll::Ready(Err(lost)) = conn.down.poll_send(cx)
        {
            return Poll::Ready(Err(Uncollected::ClientGone(lost)));
        }
        if moved {
            // Filters that have just made room may find the end among what is here already.
            *moved_at = worker.now();
            continue;
        }
        if exchange.request_complete || !body.has_room() {
            let complete = exchange.request_complete;
            if let Some(lost) = poll_client_gone(&mut conn.down, complete, cx) {
                return Poll::Ready(Err(Uncollected::lost(lost)));
            }
            break;
        }
        match conn.down.poll_receive(cx) {
            Poll::Ready(Ok(0)) => {
                return Poll::Ready(Err(Uncollected::ClientGone(Lost::Closed)));
            }
            Poll::Ready(Ok(_)) => *moved_at = worker.now(),
            Poll::Ready(Err(lost)) => return Poll::Ready(Err(Uncollected::lost(lost))),
            Poll::Pending => break,
        }
    }
    if worker.phase() == Phase::Closing {
        return Poll::Ready(Err(Uncollected::ClientGone(Lost::Closed)));
    }
    let complete = exchange.request_complete;
    let idle = moved_at.after_ms(exchange.idle_timeout_ms);
    let request = if complete {
        Nanos::NEVER
    } else {
        exchange.began.after_ms(http.request_timeout_ms)
    };
    let call = exchange.call_deadline;
    let first = idle.min(request).min(call);
    conn.timer.poll(cx, first).map(|()| {
        Err(Uncollected::Answered(if call == first {
            Reply::duration_timed_out()
        } else if request == first {
            Reply::request_took_too_long()
        } else {
            Reply::stream_idle(complete)
        }))
    })
}

impl Uncollected {
    fn lost(lost: Lost) -> Self {
        match lost {
            Lost::Malformed => Self::Answered(Reply::malformed_message()),
            lost => Self::ClientGone(lost),
        }
    }
}

/// Moves what has arrived of a request's body in front of the filters. Returns whether anything moved.
pub(crate) fn take_request<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    body: &mut FilteredBody,
) -> Result<bool, Reply> {
    let mut moved = false;
    while !exchange.request_complete && body.has_room() {
        match conn.down.piece() {
            Ok(Piece::Nothing) => break,
            Ok(Piece::Data(data)) => {
                exchange.bytes_received += data.len() as u64;
                match &mut exchange.grpc_web {
                    None => body.push(data),
                    Some(web) => {
                        let mut messages = Vec::with_capacity(data.len());
                        web.request_data(data, &mut messages)
                            .map_err(|_| Reply::bad_grpc_web())?;
                        body.push(&messages);
                    }
                }
            }
            Ok(Piece::End(trailers)) => {
                body.push_end(trailers.cloned());
                exchange.request_received(conn.worker.now());
                let web = exchange.grpc_web.as_ref();
                if web.is_some_and(|web| web.request_end().is_err()) {
                    return Err(Reply::bad_grpc_web());
                }
            }
            Err(error) => return Err(Reply::malformed_body(error)),
        }
        moved = true;
    }
    Ok(moved)
}

/// Whether what follows the head is not a body: a tunnel, or another protocol.
pub(super) fn is_tunnel<D>(conn: &Conn<D>) -> bool {
    conn.request.method_kind() == Method::Connect || conn.request.extended_connect()
}

/// Whether the request has a body, or was given one.
pub(super) fn has_request_body<D>(conn: &Conn<D>, exchange: &Exchange<'_>) -> bool {
    let has_filtered = exchange
        .filtered
        .as_ref()
        .is_some_and(|filtered| filtered.request_body.is_some());
    has_filtered || !conn.request.framing().is_empty() && !is_tunnel(conn)
}
