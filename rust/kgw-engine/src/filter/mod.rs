//! Filters: what a policy does to a request or its answer. One file each.
//!
//! A route holds only the filters that apply to it, resolved and merged when the configuration was
//! compiled, in the order that the configuration layer decided. On the way back answers go through
//! those that have to do with them in the opposite order.
//!
//! What decides at once is a [`Decide`] or a [`Respond`]. What waits for something else than a body is a
//! variant of its own, with what waits in `conn`.

pub(crate) mod acl;
pub(crate) mod api_key_auth;
pub(crate) mod basic_auth;
pub(crate) mod buffer;
pub(crate) mod compression;
pub(crate) mod cors;
pub(crate) mod csrf;
pub(crate) mod ext_authz;
pub(crate) mod ext_proc;
pub(crate) mod fault;
pub(crate) mod global_rate_limit;
pub(crate) mod grpc_web;
pub(crate) mod header_mutation;
pub(crate) mod jwt;
pub(crate) mod local_rate_limit;
pub(crate) mod python;
pub(crate) mod rate_limit_headers;
pub(crate) mod rbac;
pub(crate) mod string_match;
pub(crate) mod transformation;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kgw_h1::{Headers, Request};

use crate::cel::Noted;
use crate::clock::Nanos;
use crate::config::snapshot::Cluster;
use crate::conn::Peers;
use crate::pipeline::exchange_log::Exchange;
use crate::pipeline::reply::Reply;
use crate::runtime::Worker;
use crate::telemetry::access_log::Record;
use basic_auth::BasicAuth;
use cors::Cors;
use ext_authz::ExtAuthz;
use ext_proc::ExtProc;
use fault::{Fault, Pace};
use global_rate_limit::GlobalRateLimit;
use header_mutation::HeaderMutation;
use jwt::Jwt;
use local_rate_limit::LocalRateLimit;
use python::PythonFilter;

/// A filter at its place in a chain.
#[derive(Debug)]
pub(crate) struct Slot<F> {
    /// The type of the filter in the IR. A request that changes its route on the way is not shown to
    /// filters of types that it has passed.
    pub(crate) kind: &'static str,
    pub(crate) filter: F,
    /// The policy whose filter is tried out only: what it would have done is counted and noted, and not
    /// done.
    pub(crate) shadow: Option<Box<str>>,
}

/// A filter on the way to the upstream.
#[derive(Debug)]
pub(crate) enum RequestFilter {
    Headers(HeaderMutation),
    /// One that may be waited for: see `conn::queueing`.
    LocalRateLimit(LocalRateLimit),
    /// Of a rule; a backend's own takes its place.
    Cors(Box<Cors>),
    Native(Box<dyn Decide>),
    /// One that is waited for: see `conn::faulting`.
    Fault(Box<Fault>),
    /// One that may be waited for: see `conn::passwords`.
    BasicAuth(Box<BasicAuth>),
    /// One that is waited for: see `conn::authorizing`.
    ExtAuthz(Box<ExtAuthz>),
    /// One that is waited for: see `conn::processing`.
    ExtProc(Arc<ExtProc>),
    /// One that is waited for: see `conn::limiting`.
    GlobalRateLimit(Box<GlobalRateLimit>),
    /// One that may be waited for: see `conn::verifying`.
    Jwt(Box<Jwt>),
    /// One that is waited for: see `conn::filtering`.
    Python(Arc<PythonFilter>),
}

/// A filter on the way back.
#[derive(Clone, Debug)]
pub(crate) enum ResponseFilter {
    Native(Arc<dyn Respond>),
    /// One that is waited for: see `conn::processing`.
    ExtProc(Arc<ExtProc>),
    /// One that is waited for: see `conn::filtering`.
    Python(Arc<PythonFilter>),
}

/// A filter that decides about a request as soon as it has what it needs of it.
pub(crate) trait Decide: fmt::Debug + Send + Sync {
    /// Looks at the head, which it may change.
    ///
    /// # Errors
    /// What the client gets instead.
    fn on_request(&self, view: &mut RequestView<'_, '_>) -> Result<Step, Reply>;

    /// Looks at the body that it asked for, empty where there is none, together with the head. Returns
    /// what takes its place, if anything does.
    ///
    /// # Errors
    /// What the client gets instead.
    fn on_body(
        &self,
        _view: &mut RequestView<'_, '_>,
        _body: Bytes,
    ) -> Result<Option<Bytes>, Reply> {
        Ok(None)
    }

    /// The cluster of the service that it asks, if it asks one.
    fn cluster(&self) -> Option<&Cluster> {
        None
    }
}

/// A filter that decides about an answer, the upstream's or the proxy's own, as soon as it has what it
/// needs of it.
pub(crate) trait Respond: fmt::Debug + Send + Sync {
    /// Looks at the head, which it may change.
    ///
    /// # Errors
    /// What the client gets instead.
    fn on_response(&self, view: &mut ResponseView<'_, '_>) -> Result<Step, Reply>;

    /// Looks at the body that it asked for, empty where there is none, together with the head. Returns
    /// what takes its place, if anything does.
    ///
    /// # Errors
    /// What the client gets instead.
    fn on_body(
        &self,
        _view: &mut ResponseView<'_, '_>,
        _body: Bytes,
    ) -> Result<Option<Bytes>, Reply> {
        Ok(None)
    }
}

/// What a filter wants of a body.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing.
    Pass,
    /// All of it, before the message goes on, up to so many bytes. A longer request is answered 413, and
    /// a longer answer becomes a 500.
    Whole(usize),
    /// To see it piece by piece.
    Stage(Box<dyn BodyFilter>),
    /// That it goes on no faster than this. Of answers only.
    Pace(Pace),
}

/// A body on its way through a filter, piece by piece.
pub(crate) trait BodyFilter: fmt::Debug {
    /// Takes the next piece, and the end with the last one, and appends what it makes of it to `out`. It
    /// takes part of a piece only where the output would become much longer than the piece.
    ///
    /// # Errors
    /// What the client gets instead, or, of an answer that has begun, why it is cut short.
    fn push(&mut self, data: &[u8], end: bool, out: &mut BytesMut) -> Result<Taken, Reply>;
}

/// How much of a piece was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Taken {
    All,
    /// So many bytes. The rest is to be given again, even if it is empty.
    Part(usize),
}

/// A request, and what a filter may know of it.
#[derive(Debug)]
pub(crate) struct RequestView<'v, 'x> {
    pub(crate) request: &'v mut Request,
    pub(crate) exchange: &'v mut Exchange<'x>,
    pub(crate) peers: &'v Peers,
    pub(crate) worker: &'v Rc<Worker>,
    pub(crate) now: Nanos,
    /// What follows the head is no body, but a tunnel or another protocol.
    pub(crate) is_tunnel: bool,
}

/// An answer, and what a filter may know of it.
#[derive(Debug)]
pub(crate) struct ResponseView<'v, 'x> {
    pub(crate) request: &'v Request,
    pub(crate) exchange: &'v mut Exchange<'x>,
    pub(crate) peers: &'v Peers,
    pub(crate) worker: &'v Rc<Worker>,
    pub(crate) now: Nanos,
    pub(crate) status: &'v mut u16,
    pub(crate) headers: &'v mut Headers,
    /// Whether a body follows.
    pub(crate) has_body: bool,
}

impl RequestFilter {
    /// The cluster of the service that it asks, if it asks one.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::ExtAuthz(filter) => filter.cluster.as_deref(),
            Self::ExtProc(filter) => filter.cluster.as_deref(),
            Self::GlobalRateLimit(filter) => filter.cluster(),
            Self::Native(filter) => filter.cluster(),
            Self::Headers(_)
            | Self::LocalRateLimit(_)
            | Self::Cors(_)
            | Self::Fault(_)
            | Self::Jwt(_)
            | Self::BasicAuth(_)
            | Self::Python(_) => None,
        }
    }

    /// The clusters of the servers that it fetches keys from.
    pub(crate) fn key_clusters(&self) -> impl Iterator<Item = &Cluster> {
        let jwt = match self {
            Self::Jwt(filter) => Some(filter),
            _ => None,
        };
        jwt.into_iter().flat_map(|filter| filter.clusters())
    }

    /// Whether requests go through it behind the router.
    pub(crate) fn is_after_router(&self) -> bool {
        matches!(self, Self::ExtProc(filter) if filter.after_router)
    }

    /// Lets the request pass, possibly changed, or answers it. Its rate is counted by `key`, if there is
    /// one. For the filters that need no more of an exchange than this.
    pub(crate) fn on_head(
        &self,
        request: &mut Request,
        now: Nanos,
        key: Option<&str>,
    ) -> Result<(), Reply> {
        match self {
            Self::Headers(mutation) => {
                mutation.apply(request.headers_mut());
                Ok(())
            }
            Self::LocalRateLimit(limit) => limit.on_head(now, key),
            Self::Cors(_)
            | Self::Native(_)
            | Self::Fault(_)
            | Self::BasicAuth(_)
            | Self::ExtAuthz(_)
            | Self::ExtProc(_)
            | Self::GlobalRateLimit(_)
            | Self::Jwt(_)
            | Self::Python(_) => Ok(()),
        }
    }
}

impl RequestView<'_, '_> {
    /// The request as conditions see it.
    pub(crate) fn record(&self) -> Record<'_> {
        let clock = self.worker.clock();
        self.exchange.live_record(self.request, self.peers, clock)
    }

    /// What filters have noted so far.
    pub(crate) fn noted(&self) -> Noted<'_> {
        Noted::Live(self.exchange.filtered.as_deref())
    }
}
