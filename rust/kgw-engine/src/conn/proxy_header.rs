//! The PROXY header at the start of a connection: read, believed, and taken out of the way.
//!
//! What follows the header stays in the buffer: it is the start of what the client says.

use std::future::poll_fn;
use std::task::Poll;

use kgw_proxyproto::{Command, Error, Header, Options, kind, parse};

use super::head::DRAIN_IDLE_MS;
use super::pipe::Pipe;
use super::{Addressed, Peers};
use crate::clock::Timer;
use crate::config::snapshot::{Listener, Traffic};
use crate::runtime::{Phase, Registration, Worker};

/// The connection is of no use and must be closed, without an answer: nobody knows its protocol yet.
#[derive(Debug)]
pub(crate) struct Unusable;

/// What is expected of a connection's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// A connection without a header is served with its own addresses.
    optional: bool,
    /// Version 1 is accepted.
    accept_v1: bool,
    /// Time for the header. Milliseconds.
    timeout_ms: u64,
    /// Largest header. Bytes.
    max_bytes: usize,
    /// The header comes from ztunnel: it names the service and vouches for the client's identity.
    waypoint: bool,
}

impl Expected {
    /// What `listener` expects, if anything.
    pub(crate) fn of(listener: &Listener) -> Option<Self> {
        if let Traffic::Waypoint {
            header_timeout_ms,
            max_header_bytes,
            accept_v1,
            ..
        } = listener.traffic
        {
            return Some(Self {
                optional: false,
                accept_v1,
                timeout_ms: header_timeout_ms,
                max_bytes: max_header_bytes,
                waypoint: true,
            });
        }
        listener.proxy_protocol.as_ref().map(|options| Self {
            optional: options.optional,
            accept_v1: options.accept_v1,
            timeout_ms: options.header_timeout_ms,
            max_bytes: options.max_header_bytes,
            waypoint: false,
        })
    }

    fn options(&self) -> Options {
        Options {
            max_header: self.max_bytes,
            v1: self.accept_v1,
            v2: true,
        }
    }
}

/// Reads the header and takes addresses, TLVs and, on a waypoint, the identity from it into `peers`.
///
/// A header that may be left out is missing as soon as a byte differs from those that headers start
/// with. Where a client says less than that, its time or its FIN decides.
///
/// # Errors
///
/// [`Unusable`] if the header is missing, malformed, late, or for no service.
///
/// Dropping the future consumes nothing.
pub(crate) async fn read<D: Pipe>(
    down: &mut D,
    timer: &mut Timer,
    registration: &Registration,
    worker: &Worker,
    peers: &mut Peers,
    expected: &Expected,
) -> Result<(), Unusable> {
    let options = expected.options();
    let mut deadline = worker.now().after_ms(expected.timeout_ms);
    let mut draining = false;
    let stats = worker.stats();
    poll_fn(|cx| {
        registration.update(cx);
        loop {
            // Whether the connection can still turn out to have no header.
            let undecided = match parse(down.input(), &options) {
                Ok(header) => {
                    let length = header.len();
                    let taken = take(&header, worker, peers, expected);
                    if taken.is_ok() {
                        down.consume(length);
                        stats.proxy_header_accepted.increment();
                    }
                    return Poll::Ready(taken);
                }
                Err(Error::Incomplete { .. }) => is_ambiguous(down.input(), &options),
                Err(Error::NoHeader { .. }) if expected.optional => {
                    stats.proxy_header_left_out.increment();
                    return Poll::Ready(Ok(()));
                }
                Err(_) => {
                    stats.proxy_header_malformed.increment();
                    return Poll::Ready(Err(Unusable));
                }
            };
            let may_be_left_out = expected.optional && undecided;
            match down.poll_fill(cx, expected.max_bytes + 1) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(Ok(_)) if may_be_left_out => {
                    stats.proxy_header_left_out.increment();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(_) => {
                    stats.proxy_header_absent.increment();
                    return Poll::Ready(Err(Unusable));
                }
                Poll::Pending => {
                    if worker.phase() == Phase::Draining && !draining {
                        draining = true;
                        deadline = deadline.min(worker.now().after_ms(DRAIN_IDLE_MS));
                    }
                    if timer.poll(cx, deadline).is_ready() {
                        if may_be_left_out {
                            stats.proxy_header_left_out.increment();
                            return Poll::Ready(Ok(()));
                        }
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

/// Takes over what a header says.
fn take(
    header: &Header<'_>,
    worker: &Worker,
    peers: &mut Peers,
    expected: &Expected,
) -> Result<(), Unusable> {
    match header.tcp() {
        Ok(Some((source, destination))) => {
            peers.state(source, destination);
        }
        // ztunnel sends this when client and service have addresses of different families: it knows
        // who the client is, but cannot say where it goes.
        Ok(None) if expected.waypoint && header.command == Command::Proxy => {
            peers.addressed = Addressed::Nothing;
            peers.is_remote_known = false;
        }
        // LOCAL: a health check of whoever is in front, for no service.
        Ok(None) if expected.waypoint => {
            worker.stats().proxy_header_local.increment();
            return Err(Unusable);
        }
        // Elsewhere the connection is served with its own addresses (clause 2.2), which are a client's
        // only if whoever is in front is one itself.
        Ok(None) => peers.is_remote_known = header.command == Command::Local,
        Err(_) => {
            worker.stats().proxy_header_malformed.increment();
            return Err(Unusable);
        }
    }
    if expected.waypoint {
        peers.principal = header
            .identity()
            .map(|identity| identity.uri().into_boxed_str());
    }
    // The checksum is of this header alone, padding says nothing, and an identity is believed only
    // where ztunnel vouches for it.
    peers.tlvs = header
        .tlvs
        .iter()
        .filter(|tlv| !matches!(tlv.kind, kind::CRC32C | kind::NOOP | kind::MESH_IDENTITY))
        .map(|tlv| (tlv.kind, Box::from(tlv.value)))
        .collect();
    Ok(())
}

/// Whether bytes that are no whole header may also be no header at all: fewer than a signature has.
fn is_ambiguous(bytes: &[u8], options: &Options) -> bool {
    match bytes.first() {
        None => true,
        Some(b'P') => options.v1 && bytes.len() < b"PROXY ".len(),
        Some(_) => bytes.len() < b"\r\n\r\n\0\r\nQUIT\n".len(),
    }
}
