//! HTTP/2 on a downstream connection: a task for the connection, which moves frames, and [one for
//! each stream](super::tasks).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::request;
use kgw_h1::{Limits, Request, RequestError, RequestParts};

use super::downstream::ClientStream;
use super::fields;
use super::guard::budget::Role;
use super::guard::settings::server_builder;
use super::guard::{GuardState, Guarded};
use super::tasks::Opened;
use crate::clock::{Nanos, Timer};
use crate::config::ir::HttpOptions;
use crate::conn::exchange::{self, Next};
use crate::conn::head::DRAIN_IDLE_MS;
use crate::conn::io::Stream;
use crate::conn::message::Downstream;
use crate::conn::{Accepted, Addressed, Conn, Newer, Peers, Target, waypoint};
use crate::runtime::{Phase, Registration, Worker};

/// Time for the last frames to leave, once a connection is over. Milliseconds.
const LINGER_MS: u64 = 1_000;

/// A connection.
struct Serving {
    worker: Rc<Worker>,
    connection: Connection<Guarded<Stream>, Bytes>,
    guard: Rc<GuardState>,
    timer: Timer,
    registration: Registration,
    peers: Rc<Peers>,
    listener: Rc<str>,
    target: Rc<Target>,
    /// Requests so far.
    requests: u64,
    /// There were streams at the last look.
    has_streams: bool,
    /// When the last stream ended, as far as was seen.
    idle_since: Nanos,
    /// When the client was told to open no more streams.
    ending_since: Option<Nanos>,
    /// When the connection was given up.
    over_since: Option<Nanos>,
}

/// Serves a connection to its end.
pub(crate) async fn serve(accepted: Accepted, listener: &str, target: Target) {
    let Accepted {
        worker,
        stream,
        mut timer,
        registration,
        peers,
    } = accepted;
    let began = worker.now();
    let deadline = began.after_ms(target.listener.http.request_head_timeout_ms);
    let options = &target.listener.http;
    let builder = server_builder(&options.http2, options);
    let clock = worker.clock().clone();
    let stream = Guarded::new(stream, Role::Server, options.max_head_bytes, clock);
    let guard = stream.state();
    let connection = {
        let mut handshake = pin!(builder.handshake::<_, Bytes>(stream));
        poll_fn(|cx| {
            registration.update(cx);
            if worker.phase() == Phase::Closing {
                return Poll::Ready(None);
            }
            match handshake.as_mut().poll(cx) {
                Poll::Ready(connection) => Poll::Ready(connection.ok()),
                Poll::Pending => timer.poll(cx, deadline).map(|()| None),
            }
        })
        .await
    };
    let Some(connection) = connection else {
        return;
    };
    let mut serving = Serving {
        connection,
        guard,
        timer,
        registration,
        peers: Rc::new(peers),
        listener: Rc::from(listener),
        target: Rc::new(target),
        requests: 0,
        has_streams: false,
        idle_since: began,
        ending_since: None,
        over_since: None,
        worker,
    };
    poll_fn(|cx| serving.poll(cx)).await;
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.update(cx);
        let now = self.worker.now();
        self.follow(now);
        self.guard.begin_turn();
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.open(request, respond, now),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let had_streams = std::mem::replace(&mut self.has_streams, self.connection.has_streams());
        if had_streams || self.has_streams {
            self.idle_since = now;
        }
        if self.over_since.is_none() && self.guard.flood().is_some() {
            self.over_since = Some(now);
            self.worker.stats().downstream_http2_flood.increment();
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            cx.waker().wake_by_ref();
        }
        self.poll_deadlines(cx, now)
    }

    /// Follows the configuration, and tells the client to go when the connection has to end.
    fn follow(&mut self, now: Nanos) {
        let options = &self.target.listener.http;
        let most = options.max_requests_per_connection;
        let is_worn = most > 0 && self.requests >= most
            || now
                >= self
                    .peers
                    .opened
                    .after_ms(options.max_connection_duration_ms);
        let newer = self.target.newer(&self.worker, &self.listener, &self.peers);
        let served = !matches!(newer, Newer::Gone);
        if let Newer::Changed(newer) = newer {
            self.target = Rc::new(newer);
        }
        let is_spared = self.worker.must_shrink() && !self.connection.has_streams();
        if (!served || is_worn || is_spared || self.worker.phase() != Phase::Running)
            && self.ending_since.is_none()
        {
            self.ending_since = Some(now);
            self.connection.graceful_shutdown();
        }
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>, now: Nanos) -> Poll<()> {
        if self.worker.phase() == Phase::Closing {
            self.connection.abrupt_shutdown(Reason::NO_ERROR);
            // What the socket takes of it at once.
            let _ = self.connection.poll_accept(cx);
            return Poll::Ready(());
        }
        let options = &self.target.listener.http;
        let has_streams = self.has_streams;
        let age = match self.ending_since {
            None => self
                .peers
                .opened
                .after_ms(options.max_connection_duration_ms),
            Some(_) => Nanos::NEVER,
        };
        let deadline = match (self.over_since, self.ending_since) {
            (Some(over), _) => over.after_ms(LINGER_MS),
            (None, Some(ending)) if !has_streams => {
                Nanos::after_ms(ending.max(self.idle_since), DRAIN_IDLE_MS)
            }
            (None, None) if !has_streams => self.idle_since.after_ms(options.idle_timeout_ms),
            // Streams have time-outs of their own.
            (None, _) => Nanos::NEVER,
        };
        // A peer that takes nothing, or was told to go and did not.
        let dropped = self.guard.deadline(options.stream_idle_timeout_ms);
        if self
            .timer
            .poll(cx, deadline.min(age).min(dropped))
            .is_pending()
        {
            return Poll::Pending;
        }
        if now >= dropped || self.over_since.is_some() || self.ending_since.is_some() {
            return Poll::Ready(());
        }
        if deadline <= age {
            self.ending_since = Some(now);
            self.connection.graceful_shutdown();
        }
        // The next look tells the client, and names the next deadline.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Starts to serve a stream.
    fn open(
        &mut self,
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
        now: Nanos,
    ) {
        self.requests += 1;
        self.follow(now);
        let (head, receive) = request.into_parts();
        let opened = Opened {
            head,
            receive,
            respond,
            listener: Rc::clone(&self.listener),
            target: Rc::clone(&self.target),
            peers: Rc::clone(&self.peers),
            guard: Rc::clone(&self.guard),
            began: now,
        };
        self.worker.stream_tasks.serve(&self.worker, opened);
    }
}

/// Serves a stream to its end.
pub(super) async fn serve_stream(conn: &mut Conn<ClientStream>, opened: Opened) {
    let Opened {
        head,
        receive,
        respond,
        listener,
        mut target,
        peers,
        guard,
        began,
    } = opened;
    conn.down.begin(respond, receive);
    conn.peers = peers;
    let is_whole = conn.down.is_whole();
    let taken = take_head(&mut conn.request, &head, is_whole, &target.listener.http);
    drop(head);
    guard.saw_head(taken.is_ok(), began);
    drop(guard);
    if taken.is_ok() && conn.peers.addressed == Addressed::Nothing {
        // The host of a request can say what the connection's PROXY header could not.
        let Some((peers, found)) = find(conn, &listener, &target) else {
            conn.worker.stats().proxy_header_no_destination.increment();
            conn.down.abort();
            conn.down.finish().await;
            return;
        };
        conn.peers = Rc::new(peers);
        target = Rc::new(found);
    }
    drop(listener);
    let next = match taken {
        Ok(()) => exchange::serve(conn, &target, began, true).await,
        Err(error) => {
            let next = exchange::refuse(conn, &target, began, &error).await;
            // It does not tell how much there was of it.
            conn.request.give_back();
            next
        }
    };
    if next == Next::Abort {
        conn.down.abort();
    }
    conn.down.finish().await;
}

fn take_head(
    request: &mut Request,
    parts: &request::Parts,
    end_stream: bool,
    options: &HttpOptions,
) -> Result<(), RequestError> {
    let limits = Limits {
        max_head_bytes: options.max_head_bytes,
        max_fields: options.max_fields,
    };
    let uri = &parts.uri;
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let head = RequestParts {
        method: parts.method.as_str().as_bytes(),
        scheme: uri.scheme_str().map(str::as_bytes),
        authority: uri
            .authority()
            .map(|authority| authority.as_str().as_bytes()),
        path: uri.path_and_query().map(|path| path.as_str().as_bytes()),
        protocol: protocol.map(|protocol| protocol.as_str().as_bytes()),
        end_stream,
    };
    request.set_max_target_bytes(options.max_target_bytes);
    request.assemble(&head, fields::iter(&parts.headers), &limits)?;
    if request.extended_connect()
        && request
            .upgrade()
            .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && !request.headers().contains(b"sec-websocket-key")
    {
        // An endpoint that speaks HTTP/1.1 wants one.
        let key = kgw_h1::websocket_key(fastrand::u128(..).to_ne_bytes());
        request
            .headers_mut()
            .append(b"sec-websocket-key", key.as_bytes());
    }
    Ok(())
}

/// Where a request goes whose connection leads nowhere in particular.
fn find(conn: &Conn<ClientStream>, listener: &str, target: &Target) -> Option<(Peers, Target)> {
    let mut peers = Peers::clone(&conn.peers);
    let address = waypoint::named_address(&conn.request, &target.listener)?;
    peers.state(peers.remote, address);
    peers.addressed = Addressed::ByHost;
    let found = Target::find(&conn.worker.snapshot(), listener, &peers)?;
    Some((peers, found))
}
