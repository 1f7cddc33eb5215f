//! Getting a connection for a request: one that is there already, or a new one.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use kgw_limit::Slots;

use super::breaker::{Held, Overflow, Queue, Turn};
use super::connect::{ConnectError, Opened, Waiting, connect, secure};
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
pub(crate) enum Acquired {
    /// One of its own, and whether it carried others before.
    Http1(Box<UpstreamConnection>, bool),
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
    /// As many requests wait as may.
    Overflow,
}

impl From<Overflow> for Unavailable {
    fn from(_: Overflow) -> Self {
        Self::Overflow
    }
}

/// Until when there has to be a connection.
#[derive(Debug)]
pub(crate) struct Until {
    /// The time to connect.
    pub(crate) connect: Nanos,
    /// All other time.
    pub(crate) rest: Nanos,
}

impl Until {
    pub(crate) fn first(&self) -> Nanos {
        self.connect.min(self.rest)
    }
}

/// Gets a connection to `endpoint` in time. With `fresh`, an HTTP/1.1 connection that
/// carried other requests will not do.
pub(crate) async fn acquire<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    cluster: &Cluster,
    endpoint: SocketAddr,
    until: &mut Until,
    fresh: bool,
) -> Result<Acquired, Unavailable> {
    let acquired = take_or_open(conn, exchange, cluster, endpoint, until, fresh).await?;
    if let Acquired::Http2(connection, _) = &acquired
        && conn.request.upgrade().is_some()
        && conn.request.headers().contains(b"upgrade")
    {
        // Whether the endpoint lets streams switch is among its first words (RFC 8441 3).
        while let Some(greeting) = connection.awaited_greeting() {
            Box::pin(wait(conn, exchange, greeting.notified(), until.first())).await?;
        }
    }
    Ok(acquired)
}

async fn take_or_open<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    cluster: &Cluster,
    endpoint: SocketAddr,
    until: &mut Until,
    fresh: bool,
) -> Result<Acquired, Unavailable> {
    let worker = Rc::clone(&conn.worker);
    let key = cluster.pool_key(endpoint);
    // Its connections start with the client's addresses.
    let is_private = cluster.proxy_protocol.is_some();
    let asks = cluster.protocol == UpstreamProtocol::Auto && cluster.tls.is_some();
    let mut queue = Queue::new(&worker, cluster, &key);
    loop {
        if queue.is_behind() {
            wait_in(conn, exchange, cluster, &mut queue, until).await?;
        }
        let http2 = match cluster.protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::Auto if asks => !worker.pools.borrow().agreed_on_http1(&key),
            UpstreamProtocol::Auto => conn.request.version() == kgw_h1::Version::Http2,
        };
        if (!http2 || asks) && !is_private && (!fresh || queue.has_waited()) {
            let pooled = worker.pools.borrow_mut().take(&worker, &key);
            if let Some(pooled) = pooled {
                return Ok(Acquired::Http1(pooled, true));
            }
        }
        if !http2 || is_private {
            match queue.turn(worker.stats())? {
                Turn::Open(held) => {
                    return establish(conn, exchange, cluster, key, until, http2, held).await;
                }
                Turn::Wait => wait_in(conn, exchange, cluster, &mut queue, until).await?,
            }
            continue;
        }
        let take = worker.pools.borrow_mut().take_http2(&worker, &key);
        match take {
            Http2Take::Connection(connection) => return Ok(Acquired::Http2(connection, true)),
            Http2Take::Wait(notify) => {
                queue.enter(worker.stats())?;
                wait(conn, exchange, notify.notified(), until.first()).await?;
            }
            Http2Take::Open(opening) => match queue.turn(worker.stats())? {
                Turn::Open(held) => {
                    let acquired =
                        establish(conn, exchange, cluster, key, until, true, held).await?;
                    if let Acquired::Http2(connection, _) = &acquired {
                        worker.pools.borrow_mut().share_http2(&worker, connection);
                    }
                    drop(opening);
                    return Ok(acquired);
                }
                Turn::Wait => {
                    drop(opening);
                    wait_in(conn, exchange, cluster, &mut queue, until).await?;
                }
            },
        }
    }
}

/// Waits until a connection is free, or may be opened. That takes as long as it takes: the time to connect
/// begins behind it.
async fn wait_in<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &Exchange<'_>,
    cluster: &Cluster,
    queue: &mut Queue<'_>,
    until: &mut Until,
) -> Result<(), Unavailable> {
    queue.enter(conn.worker.stats())?;
    until.connect = Nanos::NEVER;
    let told = queue.wait(conn.worker.stats());
    Box::pin(wait(conn, exchange, told, until.first())).await?;
    let connect_ms = cluster.connect_timeout.as_millis() as u64;
    until.connect = conn.worker.now().after_ms(connect_ms);
    Ok(())
}

/// Opens a connection to `endpoint` that nobody else gets.
pub(crate) async fn open_own<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    cluster: &Cluster,
    endpoint: SocketAddr,
    until: &mut Until,
) -> Result<Opened, Unavailable> {
    let worker = Rc::clone(&conn.worker);
    let mut queue = Queue::new(&worker, cluster, &cluster.pool_key(endpoint));
    loop {
        if !queue.is_behind()
            && let Turn::Open(held) = queue.turn(worker.stats())?
        {
            let mut opened = open(conn, exchange, cluster, endpoint, until.first()).await?;
            opened.held = held;
            return Ok(opened);
        }
        wait_in(conn, exchange, cluster, &mut queue, until).await?;
    }
}

/// Opens a connection to `endpoint` before `deadline`.
async fn open<D: Downstream>(
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
    let opened = connect(waiting, endpoint, cluster, deadline, |cx| {
        gone = poll_client_gone(down, request_complete, cx);
        gone.is_some()
    })
    .await;
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(error) => return Err(unavailable(error, gone)),
    };
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
    let Some(tls) = &cluster.tls else {
        return Ok(opened);
    };
    let waiting = Waiting {
        worker: &conn.worker,
        registration: &conn.registration,
        timer: &mut conn.timer,
    };
    let down = &mut conn.down;
    let secured = Box::pin(secure(waiting, opened, tls, deadline, |cx| {
        gone = poll_client_gone(down, request_complete, cx);
        gone.is_some()
    }))
    .await
    .map_err(|error| unavailable(error, gone))?;
    let now = conn.worker.now();
    exchange.timings.set(Point::UpstreamHandshakeEnd, now.0);
    Ok(secured)
}

fn unavailable(error: ConnectError, gone: Option<Lost>) -> Unavailable {
    match error {
        ConnectError::ClientGone => Unavailable::ClientGone(gone.unwrap_or(Lost::Closed)),
        error => Unavailable::NotConnected(error),
    }
}

fn failed(error: std::io::Error) -> Unavailable {
    Unavailable::NotConnected(ConnectError::Failed(error))
}

/// Opens a connection and starts what is spoken on it: what was agreed on where that was asked, else
/// HTTP/2 if `http2` says so.
async fn establish<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &mut Exchange<'_>,
    cluster: &Cluster,
    key: PoolKey,
    until: &Until,
    mut http2: bool,
    held: Option<Held>,
) -> Result<Acquired, Unavailable> {
    let mut opened = open(conn, exchange, cluster, key.endpoint, until.first()).await?;
    opened.held = held;
    if let (UpstreamProtocol::Auto, Some(tls)) = (cluster.protocol, &opened.tls) {
        http2 = tls.alpn() == Some(b"h2");
        let mut pools = conn.worker.pools.borrow_mut();
        pools.agreed(&conn.worker, key, http2);
    }
    if !http2 {
        let connection = Box::new(UpstreamConnection::new(opened, key));
        return Ok(Acquired::Http1(connection, false));
    }
    let max_requests = cluster.max_requests_per_connection;
    let started = Http2Connection::start(&conn.worker, opened, key, max_requests);
    Box::pin(started)
        .await
        .map(|connection| Acquired::Http2(connection, false))
        .map_err(|_| Unavailable::Protocol)
}

/// Waits until the endpoints of a cluster were looked up for the first time, or `deadline`. What is
/// asked for a moment after it was configured is no error.
pub(crate) async fn resolved<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &Exchange<'_>,
    cluster: &Cluster,
    deadline: Nanos,
) -> Result<(), Unavailable> {
    let Some(told) = cluster.awaited() else {
        return Ok(());
    };
    let waiting = cluster.host.as_ref().and_then(|host| host.waiting.as_ref());
    let _slot = match waiting {
        None => None,
        Some(waiting) => Some(Slots::take(waiting).ok_or(Unavailable::Overflow)?),
    };
    match Box::pin(wait(conn, exchange, told, deadline)).await {
        // There are none.
        Err(Unavailable::NotConnected(ConnectError::TimedOut)) => Ok(()),
        waited => waited,
    }
}

/// Waits until somebody tells that something is there, or is not: another's connection, endpoints.
async fn wait<D: Downstream>(
    conn: &mut Conn<D>,
    exchange: &Exchange<'_>,
    told: impl Future<Output = ()>,
    deadline: Nanos,
) -> Result<(), Unavailable> {
    let mut told = std::pin::pin!(told);
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
pub(crate) fn poll_client_gone<D: Downstream>(
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
