//! Filters: what a policy does to a request or its answer. One file each.
//!
//! A route holds only the filters that apply to it, resolved and merged when the configuration was
//! compiled, in the order that the configuration layer decided.

pub(crate) mod cors;
pub(crate) mod ext_authz;
pub(crate) mod grpc_web;
pub(crate) mod header_mutation;
pub(crate) mod local_rate_limit;
pub(crate) mod python;

use std::sync::Arc;

use kgw_h1::Request;

use crate::clock::Nanos;
use crate::config::snapshot::Cluster;
use crate::pipeline::reply::Reply;
use ext_authz::ExtAuthz;
use header_mutation::HeaderMutation;
use local_rate_limit::LocalRateLimit;
use python::PythonFilter;

/// A filter on the way to the upstream.
#[derive(Debug)]
pub(crate) enum RequestFilter {
    Headers(HeaderMutation),
    LocalRateLimit(LocalRateLimit),
    /// One that is waited for: see `conn::authorizing`.
    ExtAuthz(Box<ExtAuthz>),
    /// One that is waited for: see `conn::filtering`.
    Python(Arc<PythonFilter>),
}

impl RequestFilter {
    /// The cluster of the service that it asks, if it asks one.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::ExtAuthz(filter) => filter.cluster.as_deref(),
            Self::Headers(_) | Self::LocalRateLimit(_) | Self::Python(_) => None,
        }
    }

    /// Lets the request pass, possibly changed, or answers it. Its rate is counted by `key`, if there is
    /// one.
    pub(crate) fn on_request(
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
            Self::LocalRateLimit(limit) => limit.on_request(now, key),
            Self::ExtAuthz(_) | Self::Python(_) => Ok(()),
        }
    }
}
