//! The start of a waypoint's connection: the PROXY header that ztunnel sends.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use kgw_h1::Request;
use kgw_proxyproto::{Command, Error, Options, parse};

use super::head::DRAIN_IDLE_MS;
use super::{Addressed, Conn};
use crate::config::snapshot::{Listener, Traffic};
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
    let mut deadline = conn.worker.now().after_ms(timeout_ms);
    let mut draining = false;
    let worker = std::rc::Rc::clone(&conn.worker);
    let stats = worker.stats();
    poll_fn(|cx| {
        conn.registration.update(cx);
        loop {
            match parse(conn.down.input(), &options) {
                Ok(header) => {
                    let (source, destination) = match header.tcp() {
                        Ok(Some(addresses)) => addresses,
                        // ztunnel sends this when client and service have addresses of different
                        // families: it knows who the client is, but cannot say where it goes.
                        Ok(None) if header.command == Command::Proxy => {
                            conn.peers.addressed = Addressed::Nothing;
                            (conn.peers.remote, conn.peers.local)
                        }
                        // LOCAL: a health check of whoever is in front, for no service.
                        Ok(None) => {
                            stats.proxy_header_local.increment();
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
                    if worker.phase() == Phase::Draining && !draining {
                        draining = true;
                        deadline = deadline.min(worker.now().after_ms(DRAIN_IDLE_MS));
                    }
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

/// The service address that a request's host names, if it names exactly one.
pub(crate) fn named_address(request: &Request, listener: &Listener) -> Option<SocketAddr> {
    let Traffic::Waypoint { names, .. } = &listener.traffic else {
        return None;
    };
    let (host, port) = split_port(request.authority());
    let host = host.strip_suffix(b".").unwrap_or(host);
    *names.get(&(host.to_ascii_lowercase().into_boxed_slice(), port))?
}

/// Host and port of an authority; 80 if it names none.
fn split_port(authority: &[u8]) -> (&[u8], u16) {
    let split = memchr::memrchr(b':', authority).and_then(|at| {
        let port = std::str::from_utf8(&authority[at + 1..])
            .ok()?
            .parse()
            .ok()?;
        Some((&authority[..at], port))
    });
    split.unwrap_or((authority, 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_without_port_means_80() {
        assert_eq!(split_port(b"ollama"), (&b"ollama"[..], 80));
        assert_eq!(split_port(b"ollama:8080"), (&b"ollama"[..], 8080));
        assert_eq!(split_port(b"ollama:"), (&b"ollama:"[..], 80));
    }
}
