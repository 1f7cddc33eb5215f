//! Copies of requests to other clusters (`RequestMirror`), fire and forget.
//!
//! Each copy is an exchange in a task of its own, on the worker of the request: its client's side is a
//! [`Copied`], which has the request and takes the answer to throw it away. So a copy goes the way of
//! every request, to HTTP/1.1 and HTTP/2, with TLS, pools and time-outs, and is not logged.
//!
//! The request never waits for its copies. What it sends is added to a bounded buffer of each; a copy
//! whose buffer is full is cut off and counted, one too many is not made and counted.
//!
//! A copy is what the request's own backend gets, rewritten and with all changes of header fields, but
//! for three things that Envoy's shadow requests have, too: `-shadow` behind the host's name,
//! `x-envoy-internal: true`, and the proxy's own address at the end of `x-forwarded-for`.

mod copied;
mod feed;

use std::rc::Rc;
use std::sync::Arc;

use kgw_h1::{Framing, Request};

use self::copied::Copied;
use self::feed::Feed;
pub(crate) use self::feed::{Feeds, Load};
use super::attempt;
use super::lent::Lent;
use super::message::Downstream;
use super::named_host;
use super::{Conn, Target};
use crate::clock::Timer;
use crate::config::snapshot::Mirror;
use crate::pipeline::edge;
use crate::pipeline::exchange_log::{Dispatch, Exchange};
use crate::runtime::Worker;

/// Copies under way in one worker: what Envoy allows to a cluster by default.
const MOST_IN_FLIGHT: usize = 1024;

/// Sends copies of the request, whose body is framed by `framing`, to those of `mirrors` that the dice
/// choose. The body follows through the exchange's [`Feeds`].
pub(super) fn start<'m, D: Downstream>(
    conn: &Conn<D>,
    target: &Target,
    exchange: &mut Exchange<'_>,
    framing: Framing,
    mirrors: impl Iterator<Item = &'m Arc<Mirror>>,
) {
    let mut feeds = Feeds::default();
    for mirror in mirrors {
        if fastrand::u32(..mirror.denominator) >= mirror.numerator {
            continue;
        }
        let Some(in_flight) = InFlight::begin(&conn.worker) else {
            conn.worker.stats().mirror_rq_overflow.increment();
            continue;
        };
        let feed = Rc::new(Feed::new(&conn.worker));
        if !framing.is_empty() {
            feeds.add(&feed);
        }
        let copy = Conn {
            worker: Rc::clone(&conn.worker),
            down: Copied::new(feed),
            timer: Timer::new(conn.worker.clock().clone()),
            registration: conn.worker.register(),
            peers: Rc::clone(&conn.peers),
            request: Lent::of(copied(conn, framing, mirror)),
            response: Lent::none(),
        };
        tokio::task::spawn_local(run(copy, target.clone(), Arc::clone(mirror), in_flight));
    }
    if !feeds.is_empty() {
        exchange.feeds = Some(Box::new(feeds));
    }
}

/// The request as a mirror gets it.
fn copied<D>(conn: &Conn<D>, framing: Framing, mirror: &Mirror) -> Request {
    let mut request = (*conn.request).clone();
    request.set_framing(framing);
    match &mirror.hostname {
        Some(hostname) => {
            request.set_authority(hostname.as_bytes());
        }
        None if mirror.append_shadow => {
            let host = shadow(request.authority());
            request.set_authority(&host);
        }
        None => {}
    }
    let headers = request.headers_mut();
    headers.set(b"x-envoy-internal", b"true");
    edge::append_hop(headers, conn.peers.direct_local().ip());
    request
}

/// The host that a mirror is asked for. An address in brackets has no name that could be changed.
fn shadow(authority: &[u8]) -> Vec<u8> {
    if authority.contains(&b'[') {
        return authority.to_vec();
    }
    let port_at = memchr::memrchr(b':', authority).unwrap_or(authority.len());
    let (name, port) = authority.split_at(port_at);
    [name, b"-shadow", port].concat()
}

async fn run(mut conn: Conn<Copied>, target: Target, mirror: Arc<Mirror>, in_flight: InFlight) {
    let now = conn.worker.now();
    let mut exchange = Exchange::of_copy(&conn, &target, now);
    if conn.request.framing().is_empty() {
        exchange.request_received(now);
    }
    let dispatch = Dispatch {
        forward: &mirror.forward,
        cluster: &mirror.cluster,
        response_headers: &[],
        session: None,
        pinned: None,
        named_by_endpoint: false,
    };
    // Nobody waits for the answer.
    let Ok(of_host) = named_host::of_request(&conn, &mirror.cluster) else {
        drop(in_flight);
        return;
    };
    let dispatch = dispatch.to(of_host.as_deref());
    named_host::state(&mut conn, &mirror.cluster);
    attempt::forward(&mut conn, &target, exchange, &dispatch, false).await;
    drop(in_flight);
}

/// One of the copies that a worker has under way.
#[derive(Debug)]
struct InFlight(Rc<Worker>);

impl InFlight {
    fn begin(worker: &Rc<Worker>) -> Option<Self> {
        let in_flight = &worker.mirrors.in_flight;
        if in_flight.get() >= MOST_IN_FLIGHT {
            return None;
        }
        in_flight.set(in_flight.get() + 1);
        worker.stats().mirror_rq_total.increment();
        worker.stats().mirror_rq_active.increment();
        Some(Self(Rc::clone(worker)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let in_flight = &self.0.mirrors.in_flight;
        in_flight.set(in_flight.get() - 1);
        self.0.stats().mirror_rq_active.decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::shadow;

    /// Envoy's own (`ShadowWriterImpl`), but for addresses in brackets, which it makes invalid.
    #[test]
    fn the_host_of_a_copy_says_that_it_is_one() {
        for (host, expected) in [
            ("a.example", "a.example-shadow"),
            ("a.example:8080", "a.example-shadow:8080"),
            ("10.0.0.1:80", "10.0.0.1-shadow:80"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(shadow(host.as_bytes()), expected.as_bytes());
        }
    }
}
