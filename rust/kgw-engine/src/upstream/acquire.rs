//! Getting a connection for a request: one that is there already, or a new one.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::connect::{ConnectError, Opened, Waiting, connect};
use super::http2::Http2Connection;
use super::pool::{Http2Take, PoolKey, UpstreamConnection};
use crate::clock::Nanos;
use crate::config::ir::UpstreamProtocol;
use crate::config::snapshot::Cluster;
use crate::conn::Conn;
use crate::conn::message::{Downstream, Lost};
use crate::pipeline::exchange_log::Exchange;
use crate::runtime::Phase;
use crate::telemetry::access_log::Point;

/// A connection that can carry the request.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is moved once; a box would be an allocation a request"
)]
pub(crate) enum Acquired {
    /// One of its own, and whether it carried others before.
    Http1(UpstreamConnection, bool),
    /// A shared one, and whether it carried others before.
    Http2(Rc<Http2Connection>, bool),
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Unavailable {
    /// The client is gone, so nobody waits for it.
    ClientGone(Lost),
    /// None could be opened.
    NotConnected(ConnectError),
    /// The endpoint does not speak the protocol.
    Protocol,
}

/// Gets a connection to `endpoint` before `deadline`. With `fresh`, an HTTP/1.1 connection that
/// carried other requests will not do.
pub(crate) async fn acquire<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    cluster: &Cluster,
    endpoint: SocketAddr,
    deadline: Nanos,
    fresh: bool,
) -> Result<Acquired, Unavailable> {
    let worker = Rc::clone(&conn.worker);
    let key = cluster.pool_key(endpoint);
    // Its connections start with the client's addresses.
    let is_private = cluster.proxy_protocol.is_some();
    let http2 = match cluster.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Auto => conn.request.version() == kgw_h1::Version::Http2,
    };
    if !http2 {
        let pooled = if fresh || is_private {
            None
        } else {
            worker.pools.borrow_mut().take(&worker, &key)
        };
        if let Some(pooled) = pooled {
            return Ok(Acquired::Http1(pooled, true));
        }
        let opened = open(conn, exchange, cluster, endpoint, deadline).await?;
        let connection = UpstreamConnection::new(opened, key);
        return Ok(Acquired::Http1(connection, false));
    }
    if is_private {
        let connection = Box::pin(open_http2(conn, exchange, cluster, key, deadline)).await?;
        return Ok(Acquired::Http2(connection, false));
    }
    loop {
        let take = worker.pools.borrow_mut().take_http2(&worker, &key);
        match take {
            Http2Take::Connection(connection) => return Ok(Acquired::Http2(connection, true)),
            Http2Take::Wait(notify) => wait(conn, exchange, &notify, deadline).await?,
            Http2Take::Open(opening) => {
                let connection =
                    Box::pin(open_http2(conn, exchange, cluster, key, deadline)).await?;
                worker.pools.borrow_mut().share_http2(&worker, &connection);
                drop(opening);
                return Ok(Acquired::Http2(connection, false));
            }
        }
    }
}

/// Opens a connection to `endpoint` before `deadline`.
pub(crate) async fn open<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    cluster: &Cluster,
    endpoint: SocketAddr,
    deadline: Nanos,
) -> Result<Opened, Unavailable> {
    let now = conn.worker.now();
    exchange.timings.set(Point::UpstreamConnectBegin, now.0);
    let request_complete = exchange.request_complete;
    let down = &mut conn.down;
    let mut gone = None;
    let waiting = Waiting {
        worker: &conn.worker,
        registration: &conn.registration,
        timer: &mut conn.timer,
    };
    let opened = connect(waiting, endpoint, deadline, |cx| {
        gone = poll_client_gone(down, request_complete, cx);
        gone.is_some()
    })
    .await;
    match opened {
        Ok(mut opened) => {
            if let Some(proxy_protocol) = &cluster.proxy_protocol {
                let preamble = proxy_protocol
                    .preamble(&conn.peers)
                    .map_err(|error| failed(std::io::Error::other(error)))?;
                opened
                    .stream
                    .output()
                    .extend_from_slice(preamble.as_bytes());
            }
            let now = conn.worker.now();
            exchange.timings.set(Point::UpstreamConnectEnd, now.0);
            Ok(opened)
        }
        Err(ConnectError::ClientGone) => Err(Unavailable::ClientGone(gone.unwrap_or(Lost::Closed))),
        Err(error) => Err(Unavailable::NotConnected(error)),
    }
}

fn failed(error: std::io::Error) -> Unavailable {
    Unavailable::NotConnected(ConnectError::Failed(error))
}

async fn open_http2<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    cluster: &Cluster,
    key: PoolKey,
    deadline: Nanos,
) -> Result<Rc<Http2Connection>, Unavailable> {
    let opened = open(conn, exchange, cluster, key.endpoint, deadline).await?;
    let max_requests = cluster.max_requests_per_connection;
    Http2Connection::start(&conn.worker, opened, key, false, max_requests)
        .await
        .map_err(|_| Unavailable::Protocol)
}

/// Waits until somebody else's connection is there, or is not.
async fn wait<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &Exchange<'_>,
    notify: &tokio::sync::Notify,
    deadline: Nanos,
) -> Result<(), Unavailable> {
    let mut told = std::pin::pin!(notify.notified());
    let worker = Rc::clone(&conn.worker);
    std::future::poll_fn(|cx| {
        conn.registration.update(cx);
        if told.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if let Some(lost) = poll_client_gone(&mut conn.down, exchange.request_complete, cx) {
            return Poll::Ready(Err(Unavailable::ClientGone(lost)));
        }
        if worker.phase() == Phase::Closing {
            return Poll::Ready(Err(Unavailable::ClientGone(Lost::Closed)));
        }
        conn.timer
            .poll(cx, deadline)
            .map(|()| Err(Unavailable::NotConnected(ConnectError::TimedOut)))
    })
    .await
}

/// Looks whether the client is gone, while something else is waited for.
fn poll_client_gone<D: Downstream>(
    down: &mut D,
    request_complete: bool,
    cx: &mut Context<'_>,
) -> Option<Lost> {
    loop {
        let arrived = if request_complete {
            down.poll_gone(cx)
        } else {
            down.poll_receive(cx)
        };
        match arrived {
            Poll::Ready(Ok(count)) if count > 0 => {}
            // The client may have finished sending and still wait for the answer. Whether it has
            // sent all of its request shows when that is taken.
            Poll::Ready(Ok(_)) if request_complete || down.has_input() => return None,
            Poll::Ready(Ok(_)) => return Some(Lost::Closed),
            Poll::Ready(Err(lost)) => return Some(lost),
            Poll::Pending => return None,
        }
    }
}
