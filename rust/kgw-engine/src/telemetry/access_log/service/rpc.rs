//! Calls of a log's service, over the connections of the worker.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use kgw_h1::{Framing, Request, RequestContext, Response};

use crate::clock::{Nanos, Timer};
use crate::config::snapshot::Cluster;
use crate::conn::http2::ServerStream;
use crate::conn::message::{Side as _, Upstream as _};
use crate::pipeline::grpc::is_grpc;
use crate::runtime::{Registration, Worker};
use crate::upstream::breaker::Lane;
use crate::upstream::call::{CallError, poll_body, poll_head};
use crate::upstream::connect::{Waiting, connect, secure};
use crate::upstream::endpoint::Serving;
use crate::upstream::http2::Http2Connection;
use crate::upstream::pool::{Http2Take, PoolKey};

/// Who waits for a service.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) worker: Rc<Worker>,
    pub(super) registration: Registration,
    pub(super) timer: Timer,
}

/// Why a message is not delivered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failed {
    /// Another attempt may succeed.
    ForNow,
    /// The service does not want it.
    ForGood,
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Rpc {
    stream: ServerStream,
    _serving: Serving,
    key: PoolKey,
    answer: Response,
    /// The head of the answer has come.
    is_answered: bool,
}

/// What a call came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The status of gRPC; none if the service does not speak it.
    pub(super) status: Option<u32>,
    pub(super) body: BytesMut,
}

// === impl Caller ===

impl Caller {
    /// Waits for something, until `deadline`.
    pub(super) async fn until<T>(
        &mut self,
        deadline: Nanos,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|cx| {
            self.registration.update(cx);
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(Some(done));
            }
            self.timer.poll(cx, deadline).map(|()| None)
        })
        .await
    }

    /// Begins a call, of which `head` makes the head for a connection from an address.
    pub(super) async fn open(
        &mut self,
        cluster: &Cluster,
        head: impl FnOnce(Option<SocketAddr>) -> Request,
        framing: Framing,
        deadline: Nanos,
    ) -> Result<Rpc, Failed> {
        if let Some(told) = cluster.awaited() {
            let mut told = pin!(told);
            self.until(deadline, |cx| told.as_mut().poll(cx))
                .await
                .ok_or(Failed::ForNow)?;
        }
        let endpoint = cluster.next_endpoint(self.worker.index());
        let serving = endpoint.ok_or(Failed::ForNow)?.serve();
        let key = cluster.pool_key(serving.endpoint().address);
        let connection = Box::pin(self.connection(cluster, key, deadline)).await?;
        self.worker.stats().upstream_rq_total.increment();
        let head = head(connection.local);
        let mut stream = ServerStream::new(connection);
        stream.send_head(&head, framing);
        Ok(Rpc {
            stream,
            _serving: serving,
            key,
            answer: Response::new(),
            is_answered: false,
        })
    }

    /// Gets a connection: one of the worker's, or a new one that others can use too.
    async fn connection(
        &mut self,
        cluster: &Cluster,
        key: PoolKey,
        deadline: Nanos,
    ) -> Result<Rc<Http2Connection>, Failed> {
        // Its connections start with somebody's addresses.
        if cluster.proxy_protocol.is_some() {
            return self.establish(cluster, key, deadline).await;
        }
        let worker = Rc::clone(&self.worker);
        loop {
            let take = worker.pools.borrow_mut().take_http2(&worker, &key);
            match take {
                Http2Take::Connection(connection) => return Ok(connection),
                Http2Take::Wait(notify) => {
                    let mut told = pin!(notify.notified());
                    self.until(deadline, |cx| told.as_mut().poll(cx))
                        .await
                        .ok_or(Failed::ForNow)?;
                }
                Http2Take::Open(opening) => {
                    let connection = self.establish(cluster, key, deadline).await?;
                    worker.pools.borrow_mut().share_http2(&worker, &connection);
                    drop(opening);
                    return Ok(connection);
                }
            }
        }
    }

    async fn establish(
        &mut self,
        cluster: &Cluster,
        key: PoolKey,
        deadline: Nanos,
    ) -> Result<Rc<Http2Connection>, Failed> {
        let now = self.worker.now();
        let connect_ms = cluster.connect_timeout.as_millis() as u64;
        let deadline = now.after_ms(connect_ms).min(deadline);
        let opening = connect(self.waiting(), key.endpoint, cluster, deadline, |_| false);
        let mut opened = opening.await.map_err(|_| Failed::ForNow)?;
        if let Some(breaker) = &cluster.breaker {
            // It counts, and is not refused: without it nothing would be logged.
            let lane = self.worker.pools.borrow_mut().lane(&key);
            opened.held = Some(Lane::force(&lane, breaker));
        }
        if let (Some(proxy_protocol), Some(own)) = (&cluster.proxy_protocol, opened.local) {
            // Nobody else is at the other end.
            let preamble = proxy_protocol.own_preamble(own, key.endpoint);
            let preamble = preamble.map_err(|_| Failed::ForGood)?;
            let output = opened.stream.output();
            output.extend_from_slice(preamble.as_bytes());
        }
        if let Some(tls) = &cluster.tls {
            opened = secure(self.waiting(), opened, tls, deadline, |_| false)
                .await
                .map_err(|_| Failed::ForNow)?;
        }
        let max_requests = cluster.max_requests_per_connection;
        Http2Connection::start(&self.worker, opened, key, max_requests)
            .await
            .map_err(|_| Failed::ForNow)
    }

    fn waiting(&mut self) -> Waiting<'_> {
        Waiting {
            worker: &self.worker,
            registration: &self.registration,
            timer: &mut self.timer,
        }
    }

    /// Hands a message over to the connection.
    pub(super) async fn send(
        &mut self,
        rpc: &mut Rpc,
        message: &[u8],
        deadline: Nanos,
    ) -> Result<(), Failed> {
        // There is no length that it could break.
        let _ = rpc.stream.send_data(message);
        let sent = self.until(deadline, |cx| {
            if rpc.poll_over(cx).is_ready() {
                return Poll::Ready(false);
            }
            rpc.stream.poll_send(cx).map(|sent| sent.is_ok())
        });
        if sent.await == Some(true) {
            Ok(())
        } else {
            Err(Failed::ForNow)
        }
    }

    /// Ends a call, and receives what it comes to: no more than `most` bytes.
    pub(super) async fn finish(
        &mut self,
        rpc: &mut Rpc,
        most: usize,
        deadline: Nanos,
    ) -> Result<Outcome, Failed> {
        let _ = rpc.stream.send_end(None);
        if !rpc.is_answered {
            let (stream, answer) = (&mut rpc.stream, &mut rpc.answer);
            let context = RequestContext::default();
            self.until(deadline, |cx| poll_head(cx, stream, answer, context))
                .await
                .and_then(Result::ok)
                .ok_or(Failed::ForNow)?;
        }
        let mut body = BytesMut::new();
        let received = self
            .until(deadline, |cx| {
                poll_body(cx, &mut rpc.stream, &mut body, most)
            })
            .await;
        let trailers = match received {
            Some(Ok(trailers)) => trailers,
            Some(Err(CallError::TooLarge)) => return Err(Failed::ForGood),
            Some(Err(_)) | None => return Err(Failed::ForNow),
        };
        let head = rpc.answer.headers();
        // A call that fails at once has its status in the head.
        let status = trailers.as_ref().unwrap_or(head).get(b"grpc-status");
        let status = status.filter(|_| rpc.answer.status() == 200 && is_grpc(head));
        let status = status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        Ok(Outcome { status, body })
    }
}

// === impl Rpc ===

impl Rpc {
    /// Ready once the service has ended the call, which it should not.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_answered {
            let context = RequestContext::default();
            match self.stream.poll_head(cx, &mut self.answer, context) {
                Poll::Ready(Ok(())) => self.is_answered = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        // What it says meanwhile is nothing that is asked for.
        let mut said = BytesMut::new();
        poll_body(cx, &mut self.stream, &mut said, MAX_SAID).map(drop)
    }

    /// Whether more can be sent: the service goes on, and the configuration still has its endpoint.
    pub(super) fn is_usable(&mut self, worker: &Worker) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        worker.has_endpoint(&self.key) && self.poll_over(&mut cx).is_pending()
    }
}

/// Most bytes that a service may say in the middle of a stream: it has nothing to say.
const MAX_SAID: usize = 64 * 1024;
