//! Tracing: requests are parts of traces (W3C Trace Context), of which a collector is told.
//!
//! A listener with a [`Tracer`] gives each request a [`Span`] and says so in `traceparent`. When the
//! request is over and the span is sampled, it goes to an OpenTelemetry collector on the way that access
//! logs go (`access_log::service`): a bounded queue of the worker, and its task. What is done is what
//! Envoy's OpenTelemetry tracer does.

mod attributes;
mod context;
mod sampling;
mod span;

use std::sync::Arc;

use kgw_h1::Request;

use self::attributes::Attributes;
pub(crate) use self::context::TraceParent;
use self::sampling::Sampling;
pub(crate) use self::span::Span;
use self::span::{Style, new_id};
use crate::clock::Clock;
use crate::config::ir::{self, AccessLogProtocol, HttpOptions};
use crate::config::snapshot::{Cluster, Route};
use crate::telemetry::access_log::Record;
use crate::telemetry::access_log::service::{Owner, Service, ServiceError, Services, node};

/// What traces the requests of a listener.
#[derive(Debug)]
pub(crate) struct Tracer {
    owner: Arc<Owner>,
    sampling: Sampling,
    is_always_on: bool,
    max_path_bytes: usize,
    is_verbose: bool,
    has_upstream_spans: bool,
    attributes: Attributes,
    node: Box<str>,
}

/// What a route says about the tracing of its requests.
#[derive(Debug)]
pub(crate) struct RouteTracing {
    is_disabled: bool,
    sampling: Sampling,
    attributes: Attributes,
}

impl RouteTracing {
    pub(crate) fn compile(given: &ir::RouteTracing) -> Self {
        Self {
            is_disabled: given.disabled,
            sampling: Sampling::of_route(given.sampling),
            attributes: Attributes::compile(&given.attributes),
        }
    }
}

impl Tracer {
    /// Compiles the tracing of a listener. The collector may be open already.
    ///
    /// # Errors
    /// What cannot be used of it.
    pub(crate) fn compile(
        given: &ir::Tracing,
        cluster: Arc<Cluster>,
        services: &Services,
    ) -> Result<Self, ServiceError> {
        if !matches!(given.service.protocol, AccessLogProtocol::Traces { .. }) {
            return Err(ServiceError::Protocol);
        }
        Ok(Self {
            owner: services.open(&given.service, cluster)?,
            sampling: Sampling::of_listener(given.sampling),
            is_always_on: given.always_on,
            max_path_bytes: given.max_path_bytes,
            is_verbose: given.verbose,
            has_upstream_spans: given.upstream_spans,
            attributes: Attributes::compile(&given.attributes),
            node: node().into(),
        })
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        self.owner.service()
    }

    /// Begins the span of a request and says so in it. None if it is not to have one: its route wants
    /// none, or what it says itself cannot be read, as in Envoy.
    pub(crate) fn begin(
        &self,
        route: Option<&Route>,
        request: &mut Request,
        options: &HttpOptions,
    ) -> Option<Box<Span>> {
        let of_route = route.and_then(|route| route.tracing.as_deref());
        if of_route.is_some_and(|own| own.is_disabled) {
            return None;
        }
        let headers = request.headers_mut();
        let sampling = of_route.map_or(&self.sampling, |own| &own.sampling);
        let reason = sampling.decide(headers, &options.request_id, options.use_remote_address);
        let mut span = Span {
            trace: fastrand::u128(1..).to_be_bytes(),
            id: new_id(),
            parent: None,
            is_sampled: reason != sampling::Reason::NotTraceable,
            reason,
            has_attempts: self.has_upstream_spans,
            attempt: None,
        };
        if let Some(value) = headers.get(b"traceparent") {
            let parent = TraceParent::parse(value)?;
            span.trace = parent.trace;
            span.parent = Some(parent.span);
            // Both have to want it.
            span.is_sampled &= parent.is_sampled;
        }
        span.is_sampled |= self.is_always_on;
        span.state(headers);
        Some(Box::new(span))
    }

    /// Queues the span of the attempt that ends, if it has one. `code` is the status of its answer; 0 if
    /// there was none.
    pub(crate) fn end_attempt(
        &self,
        span: &mut Span,
        route: Option<&Route>,
        worker: usize,
        record: &Record<'_>,
        code: u16,
        clock: &Clock,
    ) {
        if span.is_sampled && span.has_attempts {
            let style = self.style(route);
            self.owner.queue(worker, |out| {
                span.write_attempt(out, &style, record, code, clock);
            });
        }
    }

    /// Queues the span of a request that is over.
    pub(crate) fn end(
        &self,
        span: &Span,
        route: Option<&Route>,
        worker: usize,
        record: &Record<'_>,
    ) {
        if span.is_sampled {
            let style = self.style(route);
            self.owner
                .queue(worker, |out| span.write(out, &style, record));
        }
    }

    fn style<'s>(&'s self, route: Option<&'s Route>) -> Style<'s> {
        let of_route = route.and_then(|route| route.tracing.as_deref());
        Style {
            node: &self.node,
            max_path_bytes: self.max_path_bytes,
            is_verbose: self.is_verbose,
            attributes: &self.attributes,
            of_route: of_route.map(|own| &own.attributes),
        }
    }
}
