//! The task of one listening socket: takes what clients send, and passes it on to their sessions.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::datagram::{self, Received};
use super::session::{self, End, Session};
use super::sessions::{Flow, Place, Sessions};
use super::{AT_ONCE, BUFFER, own};
use crate::clock::Nanos;
use crate::config::snapshot::{Cluster, Traffic, UdpForward};
use crate::listen::accept::{Orders, Slots};
use crate::pipeline::connection_log::Origin;
use crate::runtime::{ListenerCounts, Phase, Pressure, Registration, Worker};

/// Endpoints tried for a session, each once.
const MAX_ATTEMPTS: usize = 5;

/// A listening socket and its sessions.
#[derive(Debug)]
pub(super) struct Listening {
    worker: Rc<Worker>,
    orders: Rc<Orders>,
    socket: UdpSocket,
    local: SocketAddr,
    sessions: RefCell<Sessions<Rc<Session>>>,
    /// For the datagram at hand, from whichever side.
    buffer: RefCell<Box<[u8]>>,
    /// The proxy's own addresses, as of a generation.
    own: RefCell<(u64, Box<[SocketAddr]>)>,
    /// The task that takes what clients send.
    waker: RefCell<Option<Waker>>,
    /// The socket is open as long as there are sessions.
    _lease: Arc<()>,
}

/// Serves what comes to a socket that is bound to `local`, until it is given up or the worker has
/// drained. Holds the address's lease as long. The registration is the caller's, so that a worker that
/// drains before this task has run knows of it.
pub(crate) async fn run(
    worker: Rc<Worker>,
    orders: Rc<Orders>,
    socket: UdpSocket,
    local: SocketAddr,
    lease: Arc<()>,
    registration: Registration,
) {
    let listening = Rc::new(Listening {
        worker,
        orders,
        socket,
        local,
        sessions: RefCell::default(),
        buffer: RefCell::new(vec![0; BUFFER].into_boxed_slice()),
        own: RefCell::default(),
        waker: RefCell::default(),
        _lease: lease,
    });
    let mut control = datagram::control();
    let end = poll_fn(|cx| listening.poll(cx, &registration, &mut control)).await;
    let left: Vec<_> = listening.sessions.borrow().iter().cloned().collect();
    for session in left {
        listening.end(&session, end);
    }
}

impl Listening {
    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    pub(super) fn port(&self) -> u16 {
        self.local.port()
    }

    pub(super) fn buffer(&self) -> &RefCell<Box<[u8]>> {
        &self.buffer
    }

    /// Ready when the socket is to be read no longer, with what that means for the sessions.
    fn poll(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        registration: &Registration,
        control: &mut [u8],
    ) -> Poll<End> {
        registration.update(cx);
        self.waker.replace(Some(cx.waker().clone()));
        let phase = self.worker.phase();
        if phase == Phase::Closing {
            return Poll::Ready(End::Closing);
        }
        if self.orders.are_to_stop() {
            return Poll::Ready(End::BackendGone);
        }
        if phase >= Phase::Draining {
            if self.sessions.borrow().is_empty() {
                return Poll::Ready(End::Closing);
            }
            if self.worker.shares_sockets() {
                return Poll::Pending;
            }
        }
        for _ in 0..AT_ONCE {
            match self.socket.poll_recv_ready(cx) {
                Poll::Pending => return Poll::Pending,
                // There is no event loop any longer.
                Poll::Ready(Err(_)) => return Poll::Ready(End::Closing),
                Poll::Ready(Ok(())) => {}
            }
            let received = {
                let mut buffer = self.buffer.borrow_mut();
                let receive = || datagram::receive(&self.socket, &mut buffer, control);
                self.socket.try_io(Interest::READABLE, receive)
            };
            match received {
                Ok(received) => self.take(received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.worker.stats().udp_sess_rx_errors.increment(),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Passes on a datagram that is in the buffer.
    fn take(self: &Rc<Self>, received: Received) {
        let flow = Flow {
            client: received.from,
            local: received.to.unwrap_or(self.local.ip()),
        };
        let stats = self.worker.stats();
        let now = self.worker.now();
        // If the endpoint refused what was sent before, this one goes to another.
        let mut refused = None;
        for _ in 0..2 {
            let known = self
                .sessions
                .borrow()
                .find(&flow)
                .map(|(_, known)| Rc::clone(known));
            let Some(session) = known.or_else(|| self.open(flow, refused, now)) else {
                return;
            };
            let sent = session.send(&self.buffer.borrow()[..received.len]);
            if sent.as_ref().is_err_and(session::is_refusal) {
                refused = Some(session.endpoint());
                self.end(&session, End::Refused);
                continue;
            }
            stats.udp_sess_rx_datagrams.increment();
            stats.udp_sess_rx_bytes.add(received.len as u64);
            if sent.is_err() {
                stats.udp_upstream_tx_errors.increment();
            }
            if let Some(place) = session.place() {
                self.sessions.borrow_mut().asked(place, now);
            }
            return;
        }
        stats.udp_upstream_tx_errors.increment();
    }

    /// Sends an endpoint's answer to the client. Returns whether it was sent.
    pub(super) fn answer(&self, session: &Session, data: &[u8]) -> bool {
        let flow = session.flow();
        let from = self.local.ip().is_unspecified().then_some(flow.local);
        let sent = datagram::send(&self.socket, data, from, flow.client).is_ok();
        let stats = self.worker.stats();
        if sent {
            stats.udp_sess_tx_datagrams.increment();
            stats.udp_sess_tx_bytes.add(data.len() as u64);
        } else {
            stats.udp_sess_tx_errors.increment();
        }
        sent
    }

    /// Notes that an endpoint has answered.
    pub(super) fn answered(&self, place: Place) {
        let now = self.worker.now();
        self.sessions.borrow_mut().answered(place, now);
    }

    /// When the last datagram of a session came.
    pub(super) fn moved(&self, place: Place) -> Nanos {
        self.sessions.borrow().moved(place)
    }

    /// Where the newest configuration sends datagrams.
    pub(super) fn forward(&self) -> Option<Arc<UdpForward>> {
        let (id, _) = self.orders.listener();
        let snapshot = self.worker.snapshot();
        match &snapshot.listeners.get(&id)?.traffic {
            Traffic::Udp(forward) => Some(Arc::clone(forward)),
            _ => None,
        }
    }

    /// Ends a session: from here on there is none for its client.
    pub(super) fn end(&self, session: &Session, end: End) {
        if let Some(place) = session.leave(end) {
            let mut sessions = self.sessions.borrow_mut();
            drop(sessions.remove(place));
            if sessions.is_empty()
                && self.worker.phase() >= Phase::Draining
                && let Some(waker) = &*self.waker.borrow()
            {
                waker.wake_by_ref();
            }
        }
    }

    /// Opens a session, to another endpoint than the one that `refused` datagrams if there is another.
    /// If none can be opened, the datagram is dropped, and counted.
    fn open(
        self: &Rc<Self>,
        flow: Flow,
        refused: Option<SocketAddr>,
        now: Nanos,
    ) -> Option<Rc<Session>> {
        let stats = self.worker.stats();
        if self.worker.phase() >= Phase::Draining {
            stats.udp_sess_draining.increment();
            return None;
        }
        if !can_be_answered(flow.client) || self.is_own(flow.client) {
            stats.udp_sess_loop.increment();
            return None;
        }
        let (id, counts) = self.orders.listener();
        let listener = self.worker.snapshot().listeners.get(&id).cloned();
        let forward = listener.as_ref().and_then(|one| match &one.traffic {
            Traffic::Udp(forward) => Some(forward),
            _ => None,
        });
        let backend = forward.and_then(|forward| forward.pick());
        let cluster = backend.and_then(|backend| backend.cluster.as_ref());
        let (Some(listener), Some(forward), Some(cluster)) = (&listener, forward, cluster) else {
            stats.udp_sess_no_route.increment();
            return None;
        };
        let Some(slots) = self.room(flow, &counts, forward.max_sessions_per_client, now) else {
            stats.udp_sess_overflow.increment();
            return None;
        };
        let (socket, endpoint) = self.connect(cluster, refused)?;
        let local = socket.local_addr().ok();
        let session = Session::new(flow, socket, (endpoint, local), cluster, slots, now);
        let session = Rc::new(session);
        let place = self
            .sessions
            .borrow_mut()
            .insert(flow, Rc::clone(&session), now);
        session.enter(place);
        tokio::task::spawn_local(session::run(
            Rc::clone(self),
            Rc::clone(&session),
            Arc::clone(forward),
            Origin::new(listener, None),
            self.worker.register(),
        ));
        Some(session)
    }

    /// Finds room for one session more; another may have to leave for it.
    fn room(
        &self,
        flow: Flow,
        counts: &ListenerCounts,
        max_of_client: u32,
        now: Nanos,
    ) -> Option<Slots> {
        if self.worker.pressure() == Pressure::Overloaded {
            return None;
        }
        if max_of_client != 0 && self.sessions.borrow().of_client(flow.client) >= max_of_client {
            let place = self.sessions.borrow().first_to_leave_of(flow.client)?;
            self.evict(place);
        }
        let slots = || {
            let of_process = self.worker.connection_limit().slot()?;
            Some((of_process, counts.limit.slot()?))
        };
        slots().or_else(|| {
            let place = self.sessions.borrow().first_to_leave(now)?;
            self.evict(place);
            slots()
        })
    }

    fn evict(&self, place: Place) {
        let session = Rc::clone(self.sessions.borrow().at(place));
        self.end(&session, End::Evicted);
    }

    /// Opens a socket for an endpoint of the cluster. None is counted.
    fn connect(
        &self,
        cluster: &Cluster,
        refused: Option<SocketAddr>,
    ) -> Option<(UdpSocket, SocketAddr)> {
        let stats = self.worker.stats();
        let has_others = cluster.endpoints().len() > 1;
        let endpoints = cluster.endpoints_in_turn(self.worker.index());
        let endpoints = endpoints.map(|one| one.address);
        let endpoints = endpoints.filter(|&one| !has_others || Some(one) != refused);
        for endpoint in endpoints.take(MAX_ATTEMPTS) {
            if self.is_own(endpoint) {
                stats.udp_sess_loop.increment();
                return None;
            }
            if let Ok(socket) = connect(endpoint) {
                return Some((socket, endpoint));
            }
        }
        stats.udp_sess_no_endpoint.increment();
        None
    }

    /// Whether the engine itself listens on an address.
    fn is_own(&self, address: SocketAddr) -> bool {
        let generation = self.worker.snapshot().generation;
        if self.own.borrow().0 != generation {
            *self.own.borrow_mut() = (generation, self.worker.datagram_addresses());
        }
        own::includes(self.own.borrow().1.iter().copied(), address)
    }
}

/// Whether one client has this address.
fn can_be_answered(client: SocketAddr) -> bool {
    let ip = client.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    client.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match endpoint {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(endpoint)?;
    UdpSocket::from_std(socket)
}
