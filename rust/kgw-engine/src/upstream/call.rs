//! Requests that the proxy itself makes, to services that help it to decide: one message out, one back,
//! each of them whole and bounded.
//!
//! A call takes its connection from the worker's pools and gives it back. It is cancelled by dropping it:
//! its connection is then closed, or its stream reset.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use kgw_h1::{Framing, Headers, Method, Request, RequestContext, Response};
use kgw_limit::Slots;

use super::acquire::Acquired;
use super::breaker::{Held, Overflow, Queue, Turn};
use super::connect::{ConnectError, Opened, Waiting, connect, secure};
use super::endpoint::Serving;
use super::health::outlier::Outcome;
use super::http2::Http2Connection;
use super::pool::{Http2Take, PoolKey, UpstreamConnection};
use crate::clock::{Nanos, Timer};
use crate::config::ir::UpstreamProtocol;
use crate::config::snapshot::Cluster;
use crate::conn::Peers;
use crate::conn::http2::ServerStream;
use crate::conn::message::{Lost, Piece, Upstream};
use crate::runtime::{Phase, Registration, Worker};

/// What is asked, and whom.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) cluster: &'a Cluster,
    /// Whom it is asked for: the subject of a PROXY header, where the cluster wants one.
    pub(crate) peers: &'a Peers,
    pub(crate) head: &'a Request,
    pub(crate) body: Bytes,
    /// Until when the answer has to be there.
    pub(crate) deadline: Nanos,
    /// Most bytes that the answer's body may have.
    pub(crate) max_answer: usize,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) head: Response,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<Headers>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CallError {
    /// The cluster has no endpoint.
    NoEndpoint,
    /// None of it could be connected to.
    NotConnected,
    /// The endpoint does not speak the protocol, or its answer is malformed.
    Protocol,
    /// The connection ended, or the stream was reset, before the answer was there.
    Lost,
    /// The answer took too long.
    TimedOut,
    /// The answer is longer than it may be.
    TooLarge,
    /// As much as may be is under way to the cluster, or waits for it.
    Overflow,
    /// The engine closes.
    Closing,
}

impl From<Overflow> for CallError {
    fn from(_: Overflow) -> Self {
        Self::Overflow
    }
}

/// Makes a call from the worker's own thread.
///
/// An endpoint may close a connection while it is idle, and a call cross with that. A call is a question,
/// which may be asked twice, so it is then asked once more on a new connection.
///
/// # Errors
/// There is no whole answer.
pub(crate) async fn call(worker: &Rc<Worker>, call: &Call<'_>) -> Result<Called, CallError> {
    let mut caller = Caller {
        worker,
        registration: worker.register(),
        timer: Timer::new(worker.clock().clone()),
        call,
    };
    let mut fresh = false;
    loop {
        if let Some(told) = call.cluster.awaited() {
            // What is asked a moment after it was configured is no error.
            let mut told = pin!(told);
            caller.wait(|cx| told.as_mut().poll(cx)).await?;
        }
        let endpoint = call.cluster.next_endpoint(worker.index());
        let serving = endpoint.ok_or(CallError::NoEndpoint)?.serve();
        let key = call.cluster.pool_key(serving.endpoint().address);
        let acquired = Box::pin(caller.acquire(key, fresh)).await;
        caller.note(&serving, acquired.as_ref().map(|_| Outcome::Connected));
        let acquired = acquired?;
        let _slot = match &call.cluster.breaker {
            None => None,
            Some(breaker) => {
                let slot = Slots::take(&breaker.requests);
                if slot.is_none() {
                    worker.stats().upstream_rq_pending_overflow.increment();
                    return Err(CallError::Overflow);
                }
                slot
            }
        };
        worker.stats().upstream_rq_total.increment();
        let (answered, reused) = match acquired {
            Acquired::Http1(mut connection, reused) => {
                let answered = caller.exchange(&mut connection.http1).await;
                connection.requests += 1;
                if answered.is_ok() && caller.may_keep(&connection) {
                    worker.pools.borrow_mut().put(worker, connection);
                }
                (answered, reused)
            }
            Acquired::Http2(connection, reused) => {
                let sent = worker.now();
                let mut stream = ServerStream::new(Rc::clone(&connection));
                let answered = caller.exchange(&mut stream).await;
                if answered.as_ref().is_err_and(|failed| failed.is_time_out()) {
                    connection.timed_out(sent);
                }
                (answered, reused)
            }
        };
        if reused {
            worker.stats().upstream_rq_reused.increment();
        }
        match answered {
            Ok(called) => {
                let status = called.head.status();
                caller.note(&serving, Ok(Outcome::Answered(status)));
                return Ok(called);
            }
            Err(Failed::Early(lost)) if !fresh && (reused || is_unseen(lost)) => {
                worker.stats().upstream_rq_retry_reused.increment();
                fresh = true;
            }
            Err(failed) => {
                let error = failed.into();
                caller.note(&serving, Err(&error));
                return Err(error);
            }
        }
    }
}

/// Makes a call to one endpoint, on a connection of its own, whatever is under way to its cluster. With
/// `http2` it speaks that.
///
/// # Errors
/// There is no whole answer.
pub(crate) async fn call_endpoint(
    worker: &Rc<Worker>,
    call: &Call<'_>,
    endpoint: SocketAddr,
    http2: bool,
) -> Result<Called, CallError> {
    let mut caller = Caller {
        worker,
        registration: worker.register(),
        timer: Timer::new(worker.clock().clone()),
        call,
    };
    let key = call.cluster.pool_key(endpoint);
    let speaks_http2 = http2 || call.cluster.protocol == UpstreamProtocol::Http2;
    let answered = match Box::pin(caller.establish(key, speaks_http2, None)).await? {
        Acquired::Http1(..) if http2 => return Err(CallError::Protocol),
        Acquired::Http1(mut connection, _) => caller.exchange(&mut connection.http1).await,
        Acquired::Http2(connection, _) => {
            let mut stream = ServerStream::new(connection);
            caller.exchange(&mut stream).await
        }
    };
    answered.map_err(CallError::from)
}

/// Gets an HTTP/2 connection to an endpoint of a cluster, for a stream, which the endpoint serves as long
/// as its [`Serving`] is kept.
///
/// # Errors
/// There is none by the `deadline`.
pub(crate) async fn http2_connection(
    worker: Rc<Worker>,
    cluster: Arc<Cluster>,
    peers: Rc<Peers>,
    deadline: Nanos,
) -> Result<(Rc<Http2Connection>, Serving), CallError> {
    let call = Call {
        cluster: &cluster,
        peers: &peers,
        head: &Request::new(),
        body: Bytes::new(),
        deadline,
        max_answer: 0,
    };
    let mut caller = Caller {
        worker: &worker,
        registration: worker.register(),
        timer: Timer::new(worker.clock().clone()),
        call: &call,
    };
    if let Some(told) = cluster.awaited() {
        let mut told = pin!(told);
        caller.wait(|cx| told.as_mut().poll(cx)).await?;
    }
    let endpoint = cluster.next_endpoint(worker.index());
    let serving = endpoint.ok_or(CallError::NoEndpoint)?.serve();
    let key = cluster.pool_key(serving.endpoint().address);
    let acquired = Box::pin(caller.acquire(key, true)).await;
    caller.note(&serving, acquired.as_ref().map(|_| Outcome::Connected));
    match acquired? {
        Acquired::Http2(connection, _) => Ok((connection, serving)),
        Acquired::Http1(..) => Err(CallError::Protocol),
    }
}

/// Whether the endpoint said that it has not looked at the message.
fn is_unseen(lost: Lost) -> bool {
    matches!(lost, Lost::Refused | Lost::Unprocessed)
}

/// Why an exchange has no answer.
#[derive(Clone, Copy, Debug)]
enum Failed {
    /// Nothing of an answer had come.
    Early(Lost),
    For(CallError),
}

impl Failed {
    fn is_time_out(self) -> bool {
        matches!(self, Self::For(CallError::TimedOut))
    }
}

impl From<Failed> for CallError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Early(lost) => of(lost),
            Failed::For(error) => error,
        }
    }
}

fn of(lost: Lost) -> CallError {
    match lost {
        Lost::Malformed => CallError::Protocol,
        _ => CallError::Lost,
    }
}

/// Who waits for an answer.
struct Caller<'a> {
    worker: &'a Rc<Worker>,
    registration: Registration,
    timer: Timer,
    call: &'a Call<'a>,
}

impl Caller<'_> {
    /// Notes what the call says of the endpoint.
    fn note(&self, serving: &Serving, outcome: Result<Outcome, &CallError>) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(CallError::NotConnected | CallError::Protocol | CallError::Lost) => Outcome::Lost,
            Err(CallError::TimedOut) => Outcome::TimedOut,
            Err(_) => return,
        };
        let now = self.worker.now();
        self.call.cluster.note(serving.endpoint(), outcome, now);
    }

    // === The connection ===

    /// Gets a connection. With `fresh`, an HTTP/1.1 connection that carried other requests will not do.
    async fn acquire(&mut self, key: PoolKey, fresh: bool) -> Result<Acquired, CallError> {
        let (worker, cluster) = (self.worker, self.call.cluster);
        // Its connections start with the client's addresses.
        let is_private = cluster.proxy_protocol.is_some();
        let asks = cluster.protocol == UpstreamProtocol::Auto && cluster.tls.is_some();
        let mut queue = Queue::new(worker, cluster, &key);
        loop {
            if queue.is_behind() {
                self.wait_in(&mut queue).await?;
            }
            let http2 = match cluster.protocol {
                UpstreamProtocol::Http1 => false,
                UpstreamProtocol::Http2 => true,
                UpstreamProtocol::Auto => asks && !worker.pools.borrow().agreed_on_http1(&key),
            };
            if (!http2 || asks) && !is_private && (!fresh || queue.has_waited()) {
                let pooled = worker.pools.borrow_mut().take(worker, &key);
                if let Some(pooled) = pooled {
                    return Ok(Acquired::Http1(pooled, true));
                }
            }
            if !http2 || is_private {
                match queue.turn(worker.stats())? {
                    Turn::Open(held) => return self.establish(key, http2, held).await,
                    Turn::Wait => self.wait_in(&mut queue).await?,
                }
                continue;
            }
            let take = worker.pools.borrow_mut().take_http2(worker, &key);
            match take {
                Http2Take::Connection(connection) => return Ok(Acquired::Http2(connection, true)),
                Http2Take::Wait(notify) => {
                    queue.enter(worker.stats())?;
                    let mut told = pin!(notify.notified());
                    self.wait(|cx| told.as_mut().poll(cx)).await?;
                }
                Http2Take::Open(opening) => match queue.turn(worker.stats())? {
                    Turn::Open(held) => {
                        let acquired = self.establish(key, true, held).await?;
                        if let Acquired::Http2(connection, _) = &acquired {
                            worker.pools.borrow_mut().share_http2(worker, connection);
                        }
                        drop(opening);
                        return Ok(acquired);
                    }
                    Turn::Wait => {
                        drop(opening);
                        self.wait_in(&mut queue).await?;
                    }
                },
            }
        }
    }

    /// Waits until a connection is free, or may be opened.
    async fn wait_in(&mut self, queue: &mut Queue<'_>) -> Result<(), CallError> {
        queue.enter(self.worker.stats())?;
        let mut told = pin!(queue.wait(self.worker.stats()));
        self.wait(|cx| told.as_mut().poll(cx)).await
    }

    /// Opens a connection and starts what is spoken on it: what was agreed on where that was asked, else
    /// HTTP/2 if `http2` says so.
    async fn establish(
        &mut self,
        key: PoolKey,
        mut http2: bool,
        held: Option<Held>,
    ) -> Result<Acquired, CallError> {
        let cluster = self.call.cluster;
        let mut opened = self.open(key).await?;
        opened.held = held;
        if let (UpstreamProtocol::Auto, Some(tls)) = (cluster.protocol, &opened.tls) {
            http2 = tls.alpn() == Some(b"h2");
            let mut pools = self.worker.pools.borrow_mut();
            pools.agreed(self.worker, key, http2);
        }
        if !http2 {
            let connection = Box::new(UpstreamConnection::new(opened, key));
            return Ok(Acquired::Http1(connection, false));
        }
        let max_requests = cluster.max_requests_per_connection;
        Http2Connection::start(self.worker, opened, key, max_requests)
            .await
            .map(|connection| Acquired::Http2(connection, false))
            .map_err(|_| CallError::Protocol)
    }

    async fn open(&mut self, key: PoolKey) -> Result<Opened, CallError> {
        let Call { cluster, peers, .. } = *self.call;
        let now = self.worker.now();
        let connect_ms = cluster.connect_timeout.as_millis() as u64;
        let deadline = now.after_ms(connect_ms).min(self.call.deadline);
        let refused = |error| match error {
            ConnectError::ClientGone => CallError::Closing,
            ConnectError::Failed(_) | ConnectError::Tls(_) => CallError::NotConnected,
            ConnectError::TimedOut => CallError::TimedOut,
        };
        let opening = connect(self.waiting(), key.endpoint, cluster, deadline, |_| false);
        let mut opened = opening.await.map_err(refused)?;
        if let Some(proxy_protocol) = &cluster.proxy_protocol {
            let preamble = proxy_protocol.preamble(peers);
            let preamble = preamble.map_err(|_| CallError::NotConnected)?;
            let output = opened.stream.output();
            output.extend_from_slice(preamble.as_bytes());
        }
        match &cluster.tls {
            None => Ok(opened),
            Some(tls) => secure(self.waiting(), opened, tls, deadline, |_| false)
                .await
                .map_err(refused),
        }
    }

    fn waiting(&mut self) -> Waiting<'_> {
        Waiting {
            worker: self.worker,
            registration: &self.registration,
            timer: &mut self.timer,
        }
    }

    /// Whether another request can follow on a connection.
    fn may_keep(&self, connection: &UpstreamConnection) -> bool {
        let cluster = self.call.cluster;
        let most = cluster.max_requests_per_connection;
        connection.http1.is_reusable()
            && cluster.proxy_protocol.is_none()
            && (most == 0 || connection.requests < most)
    }

    // === The messages ===

    /// Sends the message and receives the answer.
    async fn exchange<U: Upstream>(&mut self, up: &mut U) -> Result<Called, Failed> {
        let Call {
            head,
            ref body,
            max_answer,
            ..
        } = *self.call;
        up.send_head(head, Framing::Length(body.len() as u64));
        // The head has said how long the body is.
        let _ = up.send_data(body);
        let _ = up.send_end(None);
        let context = RequestContext {
            head: head.method_kind() == Method::Head,
            ..RequestContext::default()
        };
        let mut answer = Response::new();
        self.wait(|cx| poll_head(cx, up, &mut answer, context))
            .await
            .map_err(Failed::For)?
            .map_err(Failed::Early)?;
        let mut received = BytesMut::new();
        let trailers = self
            .wait(|cx| poll_body(cx, up, &mut received, max_answer))
            .await;
        let trailers = trailers.and_then(|end| end).map_err(Failed::For)?;
        Ok(Called {
            head: answer,
            body: received.freeze(),
            trailers,
        })
    }

    /// Waits for something until the call's time is over.
    async fn wait<T>(
        &mut self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, CallError> {
        poll_fn(|cx| {
            self.registration.update(cx);
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if self.worker.phase() == Phase::Closing {
                return Poll::Ready(Err(CallError::Closing));
            }
            let late = self.timer.poll(cx, self.call.deadline);
            late.map(|()| Err(CallError::TimedOut))
        })
        .await
    }
}

/// Sends what is left of the message, and receives the head of its final answer.
pub(crate) fn poll_head<U: Upstream>(
    cx: &mut Context<'_>,
    up: &mut U,
    answer: &mut Response,
    context: RequestContext,
) -> Poll<Result<(), Lost>> {
    let sent = up.poll_send(cx);
    loop {
        match up.poll_head(cx, answer, context) {
            Poll::Ready(Ok(())) if answer.is_interim() => {}
            Poll::Pending => break,
            done @ Poll::Ready(_) => return done,
        }
    }
    match sent {
        // It may have answered before it closed; then that was found.
        Poll::Ready(Err(lost)) => Poll::Ready(Err(lost)),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

/// Receives an answer's body, up to `most` bytes, and its trailer fields.
pub(crate) fn poll_body<U: Upstream>(
    cx: &mut Context<'_>,
    up: &mut U,
    received: &mut BytesMut,
    most: usize,
) -> Poll<Result<Option<Headers>, CallError>> {
    loop {
        match up.piece() {
            Ok(Piece::Data(data)) if received.len() + data.len() > most => {
                return Poll::Ready(Err(CallError::TooLarge));
            }
            Ok(Piece::Data(data)) => {
                received.extend_from_slice(data);
                continue;
            }
            Ok(Piece::End(trailers)) => return Poll::Ready(Ok(trailers.cloned())),
            Ok(Piece::Nothing) => {}
            Err(_) => return Poll::Ready(Err(CallError::Protocol)),
        }
        match up.poll_receive(cx) {
            Poll::Ready(Ok(0)) if up.ends_with_connection() => return Poll::Ready(Ok(None)),
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(CallError::Lost)),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(lost)) => return Poll::Ready(Err(of(lost))),
            Poll::Pending => {
                // What is left of the message may be what the rest of the answer waits for; an endpoint
                // that does not want it says so in what it sends.
                let _ = up.poll_send(cx);
                return Poll::Pending;
            }
        }
    }
}
