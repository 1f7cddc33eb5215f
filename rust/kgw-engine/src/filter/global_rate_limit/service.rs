//! Asking a rate limit service with a call of `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`.
//!
//! The call is one message each way. A call that fails, or whose answer cannot be read, is no decision.

use std::sync::Arc;

use bytes::Bytes;
use kgw_h1::{Headers, Limits, Request, RequestParts};

use super::message::{OVER_LIMIT, RateLimitResponse, encode};
use super::{Decision, Question};
use crate::config::ir::RateLimitRetry;
use crate::config::snapshot::Cluster;
use crate::filter::ext_authz::Edit;
use crate::filter::header_mutation::is_reserved;
use crate::protobuf::{Malformed, header::HeaderValue, unary};
use crate::upstream::call::Called;

/// Most bytes that an answer's body may have.
pub(crate) const MAX_ANSWER: usize = 1024 * 1024;

const PATH: &[u8] = b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// What a call's head may have: it is made of the configuration.
const LIMITS: Limits = Limits {
    max_head_bytes: 64 * 1024,
    max_fields: 100,
};

/// A service that is asked.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) cluster: Arc<Cluster>,
    /// Milliseconds; 0 is no time of its own.
    pub(crate) request_timeout_ms: u64,
    pub(crate) retry: Option<RateLimitRetry>,
    authority: Box<[u8]>,
    domain: Box<str>,
}

/// What it is sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) head: Request,
    pub(crate) body: Bytes,
}

impl Service {
    pub(super) fn compile(
        cluster: Arc<Cluster>,
        authority: &str,
        domain: &str,
    ) -> Result<Self, String> {
        if !kgw_h1::is_valid_authority(authority.as_bytes()) {
            return Err(format!("{authority:?} is not a host"));
        }
        Ok(Self {
            cluster,
            request_timeout_ms: 0,
            retry: None,
            authority: authority.as_bytes().into(),
            domain: domain.into(),
        })
    }

    /// What it is sent, if that can be said in its protocol.
    pub(crate) fn message(&self, question: &Question<'_>, timeout_ms: u64) -> Option<Message> {
        let parts = RequestParts {
            method: b"POST",
            scheme: Some(b"http"),
            authority: Some(&self.authority),
            path: Some(PATH),
            protocol: None,
            end_stream: false,
        };
        let mut head = Request::new();
        let fields = unary::fields(timeout_ms);
        head.assemble(&parts, &fields, &LIMITS).ok()?;
        let body = unary::framed(&encode(&self.domain, question))?;
        Some(Message { head, body })
    }
}

/// What the answer to a call says.
pub(crate) fn decision(answer: &Called) -> Result<Decision, Malformed> {
    let response = RateLimitResponse::decode(unary::message(answer)?)?;
    let mut decision = Decision {
        // Envoy: what is not that is "OK".
        is_over_limit: response.overall_code == OVER_LIMIT,
        statuses: response.statuses,
        body: Bytes::copy_from_slice(response.raw_body),
        metadata: response.metadata,
        ..Decision::default()
    };
    for HeaderValue { name, value } in response.request_headers {
        let edit = Edit::added(&name.to_ascii_lowercase(), value).map_err(|_| Malformed)?;
        decision.request.extend(edit);
    }
    for HeaderValue { name, value } in response.response_headers {
        add(&mut decision.response, name, value)?;
    }
    Ok(decision)
}

/// Whether a call has failed because the service was not there (gRPC `UNAVAILABLE`): another may succeed.
pub(crate) fn is_unavailable(answer: &Called) -> bool {
    let head = answer.head.headers();
    let trailers = answer.trailers.as_ref().unwrap_or(head);
    answer.head.status() == 503 || trailers.get(b"grpc-status") == Some(b"14")
}

/// Adds a field that the proxy leaves to others.
fn add(headers: &mut Headers, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    if !kgw_h1::is_valid_name(name) || !kgw_h1::is_valid_value(value) {
        return Err(Malformed);
    }
    let name = name.to_ascii_lowercase();
    if !is_reserved(&name) {
        headers.append(&name, value);
    }
    Ok(())
}
