//! HTTP/2 connections to endpoints, shared by the exchanges of one worker.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use tokio::sync::Notify;

use super::breaker::Held;
use super::connect::Opened;
use super::keepalive::{Doubt, Keepalive};
use super::options::Options;
use super::pool::PoolKey;
use crate::clock::{Clock, Nanos, Timer};
use crate::conn::http2::guard::budget::Role;
use crate::conn::http2::guard::settings::{MAX_UPSTREAM_HEAD_BYTES, client_builder};
use crate::conn::http2::guard::{GuardState, Guarded};
use crate::runtime::{Phase, Worker};
use crate::tls::TlsInfo;

/// How long a peer may say nothing while a request waits for it, before a time-out of the request is
/// taken for its own. Milliseconds.
const SILENCE_MS: u64 = 5_000;

/// How long a peer may take nothing of what is to be sent. Milliseconds.
const STALL_MS: u64 = 60_000;

/// A connection.
#[derive(Debug)]
pub(crate) struct Http2Connection {
    pub(crate) key: PoolKey,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) id: u64,
    /// The TLS session.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    /// How it behaves.
    pub(crate) options: Arc<Options>,
    held: Option<Held>,
    doubt: Doubt,
    clock: Clock,
    sender: SendRequest<Bytes>,
    closed: Rc<Cell<bool>>,
    greeting: Rc<Greeting>,
    guard: Rc<GuardState>,
    /// Streams open on it.
    pub(crate) active: Cell<usize>,
    used_at: Cell<Nanos>,
    /// Requests that it may still carry.
    requests_left: Cell<u64>,
}

/// Whether the peer has said what it offers.
#[derive(Debug, Default)]
struct Greeting {
    /// It has, or never will.
    over: Cell<bool>,
    notify: Notify,
}

impl Greeting {
    fn end(&self) {
        if !self.over.replace(true) {
            self.notify.notify_waiters();
        }
    }
}

impl Http2Connection {
    /// Starts HTTP/2 on a connection. A task of its own moves its frames from then on.
    ///
    /// # Errors
    /// The connection broke at once.
    pub(crate) async fn start(
        worker: &Rc<Worker>,
        opened: Opened,
        key: PoolKey,
        max_requests: u64,
    ) -> Result<Rc<Self>, h2::Error> {
        let builder = client_builder(&opened.options.http2);
        let clock = worker.clock().clone();
        let (role, most) = (Role::Client, MAX_UPSTREAM_HEAD_BYTES);
        let io = Guarded::new(opened.stream, role, most, clock.clone());
        let guard = io.state();
        let state = Rc::clone(&guard);
        let (sender, mut connection) = builder.handshake::<_, Bytes>(io).await?;
        let closed = Rc::new(Cell::new(false));
        let is_over = Rc::clone(&closed);
        let greeting = Rc::new(Greeting::default());
        let greeted = Rc::clone(&greeting);
        let doubt = Doubt::default();
        let mut keepalive = opened.options.http2_keepalive.as_ref().and_then(|options| {
            let ping = connection.ping_pong()?;
            Some(Keepalive::new(options, ping, doubt.clone(), clock.now()))
        });
        let mut timer = Timer::new(clock.clone());
        let worker_of_task = Rc::clone(worker);
        // Only where time matters: nobody waits for other connections.
        let registration = keepalive.as_ref().map(|_| worker.register_in_background());
        tokio::task::spawn_local(async move {
            let mut connection = pin!(connection);
            // Its streams are told of an error. A flood, or a peer that takes nothing, ends it too.
            poll_fn(|cx| {
                if let Some(registration) = &registration {
                    registration.update(cx);
                    if worker_of_task.phase() == Phase::Closing {
                        return Poll::Ready(());
                    }
                }
                guard.begin_turn();
                let polled = connection.as_mut().poll(cx);
                if guard.has_settings() {
                    greeted.end();
                }
                if polled.is_ready() || guard.flood().is_some() {
                    return Poll::Ready(());
                }
                let mut deadline = guard.deadline(STALL_MS);
                if let Some(keepalive) = &mut keepalive {
                    if keepalive.poll(cx, clock.now()).is_err() {
                        worker_of_task
                            .stats()
                            .upstream_http2_keepalive_timeout
                            .increment();
                        return Poll::Ready(());
                    }
                    deadline = deadline.min(keepalive.deadline());
                }
                timer.poll(cx, deadline)
            })
            .await;
            is_over.set(true);
            greeted.end();
        });
        Ok(Rc::new(Self {
            key,
            local: opened.local,
            id: opened.id,
            tls: opened.tls,
            options: opened.options,
            held: opened.held,
            doubt,
            clock: worker.clock().clone(),
            sender,
            closed,
            greeting,
            guard: state,
            active: Cell::new(0),
            used_at: Cell::new(worker.now()),
            requests_left: Cell::new(if max_requests == 0 {
                u64::MAX
            } else {
                max_requests
            }),
        }))
    }

    /// Whether new streams can be opened on it, now or later: it is open and its peer has not told
    /// it to go away.
    pub(crate) fn is_usable(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.closed.get()
            && self.requests_left.get() > 0
            && !matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Opens no more streams if its peer has said nothing since `sent`, when a request went out that has
    /// timed out: a peer that is gone without a word would take every request with it, for as long as
    /// TCP goes on trying. Streams under way go on.
    pub(crate) fn timed_out(&self, sent: Nanos) {
        let heard = self.guard.heard();
        if heard <= sent && self.clock.now() >= sent.after_ms(SILENCE_MS) {
            self.requests_left.set(0);
        }
    }

    /// Whether another stream can be opened on it now.
    pub(crate) fn has_room(&self) -> bool {
        self.active.get()
            < self
                .sender
                .current_max_send_streams()
                .min(self.options.max_streams)
    }

    /// Whether it carries no stream.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    /// Says that a stream has ended, to who waits for one.
    pub(crate) fn free_stream(&self) {
        if let Some(held) = &self.held {
            held.free();
        }
    }

    /// When it was last given a stream.
    pub(crate) fn used_at(&self) -> Nanos {
        self.used_at.get()
    }

    /// What tells when the peer has said what it offers, if it has not yet.
    pub(crate) fn awaited_greeting(&self) -> Option<&Notify> {
        (!self.greeting.over.get()).then_some(&self.greeting.notify)
    }

    /// Whether the peer offers to switch protocols on a stream (RFC 8441).
    pub(crate) fn takes_extended_connect(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Opens a stream with a request's head.
    pub(crate) fn send(
        &self,
        head: http::Request<()>,
        is_whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let now = self.clock.now();
        if let Some(keepalive) = &self.options.http2_keepalive
            && now >= self.guard.heard().after_ms(keepalive.idle_interval_ms)
        {
            self.doubt.raise();
        }
        self.used_at.set(now);
        self.requests_left
            .set(self.requests_left.get().saturating_sub(1));
        self.sender.clone().send_request(head, is_whole)
    }
}
