//! Opening upstream connections.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use crate::clock::{Nanos, Timer};
use crate::config::snapshot::Cluster;
use crate::conn::io::Stream;
use crate::conn::keep_alive;
use crate::runtime::{Phase, Registration, Worker};
use crate::tls::{self, Interrupt, TlsError, TlsInfo};
use crate::upstream::breaker::Held;
use crate::upstream::options::Options;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The client is gone, so nobody waits for the connection.
    ClientGone,
    /// The endpoint refused, or cannot be reached.
    Failed(io::Error),
    /// There is no TLS session with the endpoint.
    Tls(TlsError),
    /// The endpoint did not answer in time.
    TimedOut,
}

/// A connection that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    /// The TLS session.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    /// Its own address.
    pub(crate) local: Option<SocketAddr>,
    /// Its number, unique in the engine.
    pub(crate) id: u64,
    /// How it behaves.
    pub(crate) options: Arc<Options>,
    /// What it takes of what its cluster may have.
    pub(crate) held: Option<Held>,
}

/// The task that waits for a connection.
pub(crate) struct Waiting<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) registration: &'a Registration,
    pub(crate) timer: &'a mut Timer,
}

async fn dial(endpoint: SocketAddr, cluster: &Cluster) -> io::Result<TcpStream> {
    if let Some(backend) = &cluster.in_process {
        // Boxed: few backends are of this process.
        return Box::pin(backend.dial()).await;
    }
    let socket = TcpStream::connect(endpoint).await?;
    socket.set_nodelay(true)?;
    if let Some(wanted) = &cluster.options.tcp_keepalive {
        keep_alive(&socket, wanted);
    }
    Ok(socket)
}

/// Opens a connection of `cluster` to `endpoint`, or to its backend of this process, before `deadline`,
/// unless `is_client_gone` says meanwhile that nobody waits for it.
pub(crate) async fn connect(
    waiting: Waiting<'_>,
    endpoint: SocketAddr,
    cluster: &Cluster,
    deadline: Nanos,
    mut is_client_gone: impl FnMut(&mut Context<'_>) -> bool,
) -> Result<Opened, ConnectError> {
    let worker = waiting.worker;
    let mut connecting = pin!(dial(endpoint, cluster));
    let connected = poll_fn(|cx| {
        waiting.registration.update(cx);
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(connected.map_err(ConnectError::Failed));
        }
        if is_client_gone(cx) || worker.phase() == Phase::Closing {
            return Poll::Ready(Err(ConnectError::ClientGone));
        }
        waiting
            .timer
            .poll(cx, deadline)
            .map(|()| Err(ConnectError::TimedOut))
    })
    .await;
    match connected {
        Err(error) => {
            if let ConnectError::Failed(_) = error {
                worker.stats().upstream_cx_connect_fail.increment();
            }
            Err(error)
        }
        Ok(socket) => {
            worker.stats().upstream_cx_total.increment();
            Ok(Opened {
                local: socket.local_addr().ok(),
                stream: Stream::new(socket),
                tls: None,
                id: worker.next_connection_id(),
                options: Arc::clone(&cluster.options),
                held: None,
            })
        }
    }
}

/// Begins TLS on a connection before `deadline`, unless `is_client_gone` says meanwhile that nobody
/// waits for it. What is in its output, a PROXY header, is sent first.
pub(crate) async fn secure(
    waiting: Waiting<'_>,
    opened: Opened,
    tls: &tls::Client,
    deadline: Nanos,
    mut is_client_gone: impl FnMut(&mut Context<'_>) -> bool,
) -> Result<Opened, ConnectError> {
    let worker = waiting.worker;
    let mut interrupt = |cx: &mut Context<'_>| {
        waiting.registration.update(cx);
        if is_client_gone(cx) || worker.phase() == Phase::Closing {
            return Poll::Ready(Interrupt::ClientGone);
        }
        let timer = &mut *waiting.timer;
        timer.poll(cx, deadline).map(|()| Interrupt::TimedOut)
    };
    match tls::connect(opened.stream, tls, &mut interrupt).await {
        Ok((stream, info)) => {
            worker.stats().upstream_tls_handshake.increment();
            Ok(Opened {
                stream,
                tls: Some(Rc::new(info)),
                local: opened.local,
                id: opened.id,
                options: opened.options,
                held: opened.held,
            })
        }
        Err(error) => {
            error.count_upstream(worker.stats());
            Err(match error {
                TlsError::Interrupted(Interrupt::TimedOut) => ConnectError::TimedOut,
                TlsError::Interrupted(_) => ConnectError::ClientGone,
                error => {
                    worker.stats().upstream_cx_connect_fail.increment();
                    ConnectError::Tls(error)
                }
            })
        }
    }
}
