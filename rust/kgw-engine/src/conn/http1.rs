//! HTTP/1.1 on a downstream connection: request after request, answered in order.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::exchange::{self, Next};
use super::h1_side::Http1;
use super::head::{self, Head};
use super::message::Lost;
use super::{Addressed, Conn, Session, Target, local, waypoint};
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::runtime::Phase;

/// How much a peer may still send after the last answer, before the connection is reset on it. Bytes.
const LINGER_BYTES: usize = 64 * 1024;

/// How long a peer may still send after the last answer. Milliseconds.
const LINGER_MS: u64 = 1_000;

/// Serves requests until the connection ends.
pub(crate) async fn serve(session: &mut Session) {
    let worker = Rc::clone(&session.conn.worker);
    loop {
        let head = head::read(session).await;
        let Session {
            conn,
            listener,
            target,
            requests,
            ..
        } = session;
        if matches!(head, Head::Complete(_)) && conn.peers.addressed == Addressed::Nothing {
            // Envoy closes such connections; the host of a request can say what their PROXY header
            // could not.
            let Some(address) = waypoint::named_address(&conn.request, &target.listener) else {
                worker.stats().proxy_header_no_destination.increment();
                return;
            };
            let peers = Rc::make_mut(&mut conn.peers);
            peers.state(peers.remote, address);
            peers.addressed = Addressed::ByHost;
            match Target::find(&worker.snapshot(), listener, &conn.peers) {
                Some(found) => *target = found,
                None => return,
            }
        }
        // A request whose service went away is still answered as it would have been when the client
        // sent it; the connection then ends.
        let served = target.refresh(&worker, listener, &conn.peers);
        let next = match head {
            Head::Closed => return,
            Head::Complete(began) => {
                *requests += 1;
                let most = target.listener.http.max_requests_per_connection;
                let last = most > 0 && *requests >= most || is_too_old(conn, target);
                Box::pin(exchange::serve(conn, target, began, served && !last)).await
            }
            Head::Abandoned(began) => {
                let mut exchange = Exchange::without_request(conn, target, began);
                exchange.client_gone(Lost::Closed, 0);
                exchange.finish(conn, target);
                return;
            }
            Head::Malformed(began, error) => {
                Box::pin(exchange::refuse(conn, target, began, &error)).await
            }
            Head::TimedOut(began) => {
                let exchange = Exchange::without_request(conn, target, began);
                let options = &target.listener.http;
                // The one of both that is shorter; 0 is none.
                let reply = if began.after_ms(options.request_timeout_ms)
                    < began.after_ms(options.request_head_timeout_ms)
                {
                    Reply::request_took_too_long()
                } else {
                    Reply::head_timed_out()
                };
                Box::pin(local::reply(conn, target, exchange, reply, &[])).await
            }
        };
        match next {
            Next::KeepAlive => {}
            Next::Close if conn.down.aborted => return,
            Next::Close => return Box::pin(linger(conn)).await,
            Next::Abort => return,
        }
    }
}

/// Whether a connection has lived as long as it may.
fn is_too_old(conn: &Conn<Http1>, target: &Target) -> bool {
    let age = target.listener.http.max_connection_duration_ms;
    conn.worker.now() >= conn.peers.opened.after_ms(age)
}

/// Tells the peer that nothing more comes, and waits for it to be done: closing with bytes unread
/// would reset the connection and could take the answer with it (RFC 9112 9.6).
async fn linger(conn: &mut Conn<Http1>) {
    let deadline = conn.worker.now().after_ms(LINGER_MS);
    let mut discarded = 0;
    let mut shut = false;
    let worker = Rc::clone(&conn.worker);
    poll_fn(|cx| {
        conn.registration.update(cx);
        if !shut {
            match conn.down.stream.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        loop {
            let waiting = conn.down.stream.input().len();
            discarded += waiting;
            conn.down.stream.consume(waiting);
            if conn.down.stream.eof || discarded > LINGER_BYTES || worker.phase() == Phase::Closing
            {
                return Poll::Ready(());
            }
            match conn.down.stream.poll_fill(cx, LINGER_BYTES) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return conn.timer.poll(cx, deadline),
            }
        }
    })
    .await;
}
