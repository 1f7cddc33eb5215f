//! The start of a waypoint's connection: the PROXY header that ztunnel sends.

use std::future::poll_fn;
use std::task::Poll;

use kgw_proxyproto::{Error, Options, parse};

use super::Conn;
use crate::runtime::Phase;

/// The connection is of no use and must be closed, without an answer: nobody knows its protocol yet.
pub(crate) struct Unusable;

/// Reads the header and takes addresses and identity from it. What follows the header stays in the
/// buffer: it is the start of the first request.
pub(crate) async fn read_header(
    conn: &mut Conn,
    timeout_ms: u64,
    max_header_bytes: usize,
) -> Result<(), Unusable> {
    let options = Options {
        max_header: max_header_bytes,
        ..Options::WAYPOINT
    };
    let deadline = conn.worker.now().after_ms(timeout_ms);
    let worker = std::rc::Rc::clone(&conn.worker);
    let stats = worker.stats();
    poll_fn(|cx| {
        conn.registration.update(cx);
        loop {
            match parse(conn.down.input(), &options) {
                Ok(header) => {
                    let (source, destination) = match header.tcp() {
                        Ok(Some(addresses)) => addresses,
                        Ok(None) => {
                            stats.proxy_header_no_address.increment();
                            return Poll::Ready(Err(Unusable));
                        }
                        Err(_) => {
                            stats.proxy_header_malformed.increment();
                            return Poll::Ready(Err(Unusable));
                        }
                    };
                    conn.peers.remote = source;
                    conn.peers.local = destination;
                    conn.peers.principal = header
                        .identity()
                        .map(|identity| identity.uri().into_boxed_str());
                    conn.peers.proxied = true;
                    let length = header.len();
                    conn.down.consume(length);
                    stats.proxy_header_accepted.increment();
                    return Poll::Ready(Ok(()));
                }
                Err(Error::Incomplete { .. }) => {}
                Err(_) => {
                    stats.proxy_header_malformed.increment();
                    return Poll::Ready(Err(Unusable));
                }
            }
            match conn.down.poll_fill(cx, max_header_bytes + 1) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => {
                    stats.proxy_header_absent.increment();
                    return Poll::Ready(Err(Unusable));
                }
                Poll::Pending => {
                    if conn.timer.poll(cx, deadline).is_ready() {
                        stats.proxy_header_timeout.increment();
                        return Poll::Ready(Err(Unusable));
                    }
                    if worker.phase() == Phase::Closing {
                        return Poll::Ready(Err(Unusable));
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}
