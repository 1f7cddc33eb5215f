//! Opening upstream connections.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::net::TcpStream;

use super::pool::UpstreamConnection;
use crate::clock::Nanos;
use crate::conn::Conn;
use crate::conn::io::{BODY_BUFFER, Stream};
use crate::runtime::Phase;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The client is gone, so nobody waits for the connection.
    ClientGone,
    /// The endpoint refused, or cannot be reached.
    Failed(io::Error),
    /// The endpoint did not answer in time.
    TimedOut,
}

/// Opens a connection to `endpoint` before `deadline`, while somebody waits for it.
pub(crate) async fn connect(
    conn: &mut Conn,
    endpoint: SocketAddr,
    deadline: Nanos,
    request_complete: bool,
) -> Result<UpstreamConnection, ConnectError> {
    let worker = Rc::clone(&conn.worker);
    let mut connecting = pin!(TcpStream::connect(endpoint));
    let connected = poll_fn(|cx| {
        conn.registration.update(cx);
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(connected.map_err(ConnectError::Failed));
        }
        loop {
            match conn.down.poll_fill(cx, BODY_BUFFER) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                // The client may have finished sending and still wait for the answer.
                Poll::Ready(Ok(_)) if request_complete => break,
                Poll::Ready(_) => return Poll::Ready(Err(ConnectError::ClientGone)),
                Poll::Pending => break,
            }
        }
        if worker.phase() == Phase::Closing {
            return Poll::Ready(Err(ConnectError::ClientGone));
        }
        conn.timer
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
