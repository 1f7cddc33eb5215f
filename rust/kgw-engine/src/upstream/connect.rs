//! Opening upstream connections.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use tokio::net::TcpStream;

use super::pool::UpstreamConnection;
use crate::clock::{Nanos, Timer};
use crate::conn::io::Stream;
use crate::runtime::Worker;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The endpoint refused, or cannot be reached.
    Failed(io::Error),
    /// The endpoint did not answer in time.
    TimedOut,
}

/// Opens a connection to `endpoint` before `deadline`.
pub(crate) async fn connect(
    worker: &Worker,
    timer: &mut Timer,
    endpoint: SocketAddr,
    deadline: Nanos,
) -> Result<UpstreamConnection, ConnectError> {
    let mut connecting = pin!(TcpStream::connect(endpoint));
    let connected = poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Ready(connected) => Poll::Ready(Some(connected)),
        Poll::Pending => timer.poll(cx, deadline).map(|()| None),
    })
    .await;
    match connected {
        None => Err(ConnectError::TimedOut),
        Some(Err(error)) => {
            worker.stats().upstream_cx_connect_fail.increment();
            Err(ConnectError::Failed(error))
        }
        Some(Ok(socket)) => {
            worker.stats().upstream_cx_total.increment();
            let local = socket.local_addr().ok();
            socket.set_nodelay(true).map_err(ConnectError::Failed)?;
            let id = worker.next_connection_id();
            Ok(UpstreamConnection::new(
                Stream::new(socket),
                endpoint,
                local,
                id,
            ))
        }
    }
}
