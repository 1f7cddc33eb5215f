//! One session: the socket that is connected to an endpoint, and the task that takes the answers.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::net::UdpSocket;

use super::listening::Listening;
use super::sessions::{Flow, Place};
use super::{AT_ONCE, DRAIN_IDLE_MS};
use crate::clock::{Nanos, Timer};
use crate::config::snapshot::{Cluster, UdpForward};
use crate::listen::accept::Slots;
use crate::pipeline::connection_log::Origin;
use crate::pipeline::session_log::{self, Count};
use crate::runtime::{Phase, Registration};
use crate::telemetry::flags::ResponseFlag;

/// Why a session is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// No datagram came for the idle time-out.
    Idle,
    /// Another session needed the room.
    Evicted,
    /// The endpoint does not take datagrams on its port.
    Refused,
    /// The configuration has the endpoint no longer, or the listener.
    BackendGone,
    /// The engine ends.
    Closing,
}

impl End {
    fn reason(self) -> &'static str {
        match self {
            Self::Idle => "udp_session_idle_timeout",
            Self::Evicted => "udp_session_evicted",
            Self::Refused => "udp_session_refused",
            Self::BackendGone => "udp_session_backend_gone",
            Self::Closing => "drain",
        }
    }

    fn flag(self) -> Option<ResponseFlag> {
        match self {
            Self::Refused => Some(ResponseFlag::UpstreamConnectionFailure),
            Self::Evicted => Some(ResponseFlag::UpstreamOverflow),
            // Envoy has no flags for these.
            Self::Idle | Self::BackendGone | Self::Closing => None,
        }
    }
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    flow: Flow,
    socket: UdpSocket,
    endpoint: SocketAddr,
    /// The address that the endpoint sees.
    local: Option<SocketAddr>,
    cluster: RefCell<Arc<Cluster>>,
    opened: Nanos,
    /// None once the session has ended.
    place: Cell<Option<Place>>,
    end: Cell<Option<End>>,
    waker: RefCell<Option<Waker>>,
    slots: RefCell<Option<Slots>>,
    from_client: Count,
    to_client: Count,
    to_endpoint: Count,
    from_endpoint: Count,
}

/// Whether an error says that nobody takes datagrams at the endpoint (ICMP says it, after the
/// datagram that it is about).
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

impl Session {
    /// A session over a socket that is connected to the first of `addresses` from the second.
    pub(super) fn new(
        flow: Flow,
        socket: UdpSocket,
        addresses: (SocketAddr, Option<SocketAddr>),
        cluster: &Arc<Cluster>,
        slots: Slots,
        now: Nanos,
    ) -> Self {
        Self {
            flow,
            socket,
            endpoint: addresses.0,
            local: addresses.1,
            cluster: RefCell::new(Arc::clone(cluster)),
            opened: now,
            place: Cell::new(None),
            end: Cell::new(None),
            waker: RefCell::default(),
            slots: RefCell::new(Some(slots)),
            from_client: Count::default(),
            to_client: Count::default(),
            to_endpoint: Count::default(),
            from_endpoint: Count::default(),
        }
    }

    pub(super) fn flow(&self) -> Flow {
        self.flow
    }

    pub(super) fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.place.get()
    }

    /// Takes its place among the sessions of the socket.
    pub(super) fn enter(&self, place: Place) {
        self.place.set(Some(place));
    }

    /// Ends, and returns the place that is free now. What it was allowed to have is free as well.
    pub(super) fn leave(&self, end: End) -> Option<Place> {
        let place = self.place.take()?;
        self.end.set(Some(end));
        self.slots.take();
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
        Some(place)
    }

    /// Sends a client's datagram to the endpoint, unless that would take waiting.
    pub(super) fn send(&self, data: &[u8]) -> io::Result<()> {
        self.from_client.add(data.len());
        // Not by the event loop, which knows nothing of a socket that was made a moment ago.
        SockRef::from(&self.socket).send(data)?;
        self.to_endpoint.add(data.len());
        Ok(())
    }

    /// Takes answers; ready when the session has ended.
    fn poll(
        &self,
        cx: &mut Context<'_>,
        listening: &Listening,
        current: &mut Current,
        registration: &Registration,
        timer: &mut Timer,
    ) -> Poll<End> {
        registration.update(cx);
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|own| own.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        let Some(place) = self.place.get() else {
            return Poll::Ready(self.end.get().unwrap_or(End::Closing));
        };
        let phase = listening.worker().phase();
        if phase == Phase::Closing {
            return Poll::Ready(End::Closing);
        }
        match self.poll_answers(cx, listening, place) {
            Poll::Ready(Ok(())) => cx.waker().wake_by_ref(),
            Poll::Ready(Err(_)) => return Poll::Ready(End::Refused),
            Poll::Pending => {}
        }
        if !current.look(self, listening) {
            return Poll::Ready(End::BackendGone);
        }
        let idle_ms = match current.forward.idle_timeout_ms {
            idle if phase < Phase::Draining => idle,
            0 => DRAIN_IDLE_MS,
            idle => idle.min(DRAIN_IDLE_MS),
        };
        let deadline = listening.moved(place).after_ms(idle_ms);
        timer.poll(cx, deadline).map(|()| End::Idle)
    }

    /// Passes answers on. Ready if there are more than others should wait for, or there will be none.
    fn poll_answers(
        &self,
        cx: &mut Context<'_>,
        listening: &Listening,
        place: Place,
    ) -> Poll<io::Result<()>> {
        let mut buffer = listening.buffer().borrow_mut();
        for _ in 0..AT_ONCE {
            match self.socket.poll_recv_ready(cx) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            match self.socket.try_recv(&mut buffer) {
                Ok(len) => {
                    self.from_endpoint.add(len);
                    if listening.answer(self, &buffer[..len]) {
                        self.to_client.add(len);
                    }
                    listening.answered(place);
                }
                Err(error) if is_refusal(&error) => return Poll::Ready(Err(error)),
                // Nothing is there after all, or that one is lost.
                Err(_) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The configuration that a session is served by.
#[derive(Debug)]
struct Current {
    generation: u64,
    forward: Arc<UdpForward>,
}

impl Current {
    /// Follows the configuration. Returns whether the newest one has the session's endpoint.
    fn look(&mut self, session: &Session, listening: &Listening) -> bool {
        let generation = listening.worker().snapshot().generation;
        if generation == self.generation {
            return true;
        }
        self.generation = generation;
        let Some(forward) = listening.forward() else {
            return false;
        };
        if Arc::ptr_eq(&forward, &self.forward) {
            return true;
        }
        let cluster = Arc::clone(&session.cluster.borrow());
        let Some(cluster) = forward.cluster(&cluster.name, session.endpoint) else {
            return false;
        };
        // Nothing of an older configuration is kept.
        session.cluster.replace(Arc::clone(cluster));
        self.forward = forward;
        true
    }
}

/// Serves a session to its end, and logs it.
pub(super) async fn run(
    listening: Rc<Listening>,
    session: Rc<Session>,
    forward: Arc<UdpForward>,
    origin: Origin,
    registration: Registration,
) {
    let worker = Rc::clone(listening.worker());
    let stats = worker.stats();
    // However the task ends, the session does not stay behind.
    let open = Open::new(&listening, &session);
    let mut current = Current {
        // The configuration may have become another before this task ran.
        generation: 0,
        forward,
    };
    let mut timer = Timer::new(worker.clock().clone());
    let poll = |cx: &mut Context<'_>| {
        session.poll(cx, &listening, &mut current, &registration, &mut timer)
    };
    let end = poll_fn(poll).await;
    drop(open);
    match end {
        End::Idle => stats.udp_sess_idle_timeout.increment(),
        End::Evicted => stats.udp_sess_evicted.increment(),
        End::Refused => stats.udp_sess_refused.increment(),
        End::BackendGone => stats.udp_sess_backend_gone.increment(),
        End::Closing => {}
    }
    let ended = session_log::Session {
        connection_id: worker.next_connection_id(),
        opened: session.opened,
        client: session.flow.client,
        local: SocketAddr::new(session.flow.local, listening.port()),
        route: &current.forward.name,
        cluster: &session.cluster.borrow().name,
        endpoint: session.endpoint,
        endpoint_sees: session.local,
        flag: end.flag(),
        close_reason: end.reason(),
        from_client: &session.from_client,
        to_client: &session.to_client,
        to_endpoint: &session.to_endpoint,
        from_endpoint: &session.from_endpoint,
    };
    ended.log(&worker, &origin);
}

/// Counts a session while it is there.
struct Open<'a> {
    listening: &'a Listening,
    session: &'a Session,
}

impl<'a> Open<'a> {
    fn new(listening: &'a Listening, session: &'a Session) -> Self {
        let stats = listening.worker().stats();
        stats.udp_sess_total.increment();
        stats.udp_sess_active.increment();
        Self { listening, session }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.listening.end(self.session, End::Closing);
        self.listening.worker().stats().udp_sess_active.decrement();
    }
}
