//! Answers that the proxy makes itself: one table from failure to status, body, flag and details.
//!
//! The spellings are Envoy's, as recorded from Envoy 1.40 under kgateway's configuration.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use kgw_h1::{BodyError, Headers, RequestError};

use crate::bridge::{Answer, Failure as FilterFailure};
use crate::conn::message::Lost;
use crate::filter::ext_proc::{self, Immediate};
use crate::pipeline::retry::Failure;
use crate::telemetry::flags::ResponseFlag;
use crate::telemetry::grpc::DEADLINE_EXCEEDED;

/// An answer made by the proxy.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Cow<'static, str>,
    pub(crate) details: Cow<'static, str>,
    pub(crate) flag: Option<ResponseFlag>,
    /// The rest of the connection's bytes cannot be trusted or will not come.
    pub(crate) close: bool,
    pub(crate) extra: Extra,
    /// Another attempt may succeed: the endpoint has failed, and the client has seen nothing.
    pub(crate) is_retriable: bool,
    /// How the attempt failed, if it did.
    pub(crate) failure: Failure,
    /// The status for gRPC clients, where it is not the one that `status` stands for.
    pub(crate) grpc_status: Option<u8>,
}

/// A header field that some replies have.
#[derive(Debug)]
pub(crate) enum Extra {
    None,
    Location(Vec<u8>),
    RetryAfter(u64),
    /// There is too much to do (Envoy `x-envoy-overloaded`).
    Overloaded,
    /// All of an answer that a filter made: fields, and a body of bytes.
    Answer(Box<Answer>),
}

const CONNECT_ERROR: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: ";

impl Reply {
    /// An answer with a body of text.
    pub(crate) fn new(
        status: u16,
        body: impl Into<Cow<'static, str>>,
        details: impl Into<Cow<'static, str>>,
        flag: Option<ResponseFlag>,
    ) -> Self {
        Self {
            status,
            body: body.into(),
            details: details.into(),
            flag,
            close: false,
            extra: Extra::None,
            is_retriable: false,
            failure: Failure::Reset,
            grpc_status: None,
        }
    }

    fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    fn reset(reason: &str, details: String, flag: ResponseFlag) -> Self {
        Self {
            is_retriable: true,
            failure: match flag {
                ResponseFlag::UpstreamConnectionFailure => Failure::Connect,
                _ => Failure::Reset,
            },
            ..Self::new(503, format!("{CONNECT_ERROR}{reason}"), details, Some(flag))
        }
    }

    /// The same after other attempts have failed, too.
    pub(crate) fn retried(mut self) -> Self {
        let reason = self.body.strip_prefix(CONNECT_ERROR);
        if let Some(reason) = reason {
            let (before, _) = CONNECT_ERROR.split_at(CONNECT_ERROR.len() - "reset reason: ".len());
            self.body = format!("{before}retried and the latest reset reason: {reason}").into();
        }
        self
    }

    /// The attempt failed, and its service's budget allows no other (GEP-3388: 503).
    pub(crate) fn retry_overflow() -> Self {
        let details = "upstream_reset_before_response_started{overflow}".to_owned();
        Self {
            is_retriable: false,
            ..Self::reset("overflow", details, ResponseFlag::UpstreamOverflow)
        }
    }

    /// As much as may be is under way to the cluster, or waits for it. It is not retried (Envoy).
    pub(crate) fn overflow() -> Self {
        Self {
            extra: Extra::Overloaded,
            ..Self::retry_overflow()
        }
    }

    /// The request and its answer took longer than the cluster allows.
    pub(crate) fn stream_took_too_long() -> Self {
        let flag = Some(ResponseFlag::UpstreamMaxStreamDurationReached);
        let body = "upstream max stream duration reached";
        let details = "upstream_max_stream_duration_reached";
        Self {
            is_retriable: true,
            ..Self::new(408, body, details, flag)
        }
    }

    /// No host or rule matches.
    pub(crate) fn no_route() -> Self {
        Self::new(404, "", "route_not_found", Some(ResponseFlag::NoRouteFound))
    }

    /// The rule has no backend to go to, or the chosen one does not exist (Gateway API: 500, for calls
    /// UNAVAILABLE).
    pub(crate) fn no_backend(status: u16) -> Self {
        Self::new(
            status,
            "",
            "cluster_not_found",
            Some(ResponseFlag::NoClusterFound),
        )
    }

    /// A policy about access refuses the request. The policy's name is the one that kgateway gives to
    /// both of its refusals: what matches a denial, and what matches no allowance.
    pub(crate) fn access_denied() -> Self {
        let details = "rbac_access_denied_matched_policy[deny-request]";
        Self::new(403, "RBAC: access denied", details, None)
    }

    /// The target is not a path (`OPTIONS *`).
    pub(crate) fn no_path() -> Self {
        Self::new(404, "", "absolute_path_rejected", None)
    }

    /// A protocol switch that no route allows.
    pub(crate) fn upgrade_refused() -> Self {
        Self::new(403, "", "upgrade_failed", None).closing()
    }

    /// The connection leads to another service than the one the request names (RFC 9110 15.5.20).
    pub(crate) fn misdirected() -> Self {
        Self::new(421, "", "misdirected_request", None)
    }

    /// A fixed answer of the configuration.
    pub(crate) fn direct(status: u16, body: String) -> Self {
        Self::new(status, body, "direct_response", None)
    }

    /// A redirect to `location`.
    pub(crate) fn redirect(status: u16, location: Vec<u8>) -> Self {
        Self {
            extra: Extra::Location(location),
            ..Self::new(status, "", "direct_response", None)
        }
    }

    /// The path has escaped slashes, and is to be asked for with slashes (Envoy
    /// `UNESCAPE_AND_REDIRECT`).
    pub(crate) fn redirect_to_path(path: Vec<u8>) -> Self {
        Self {
            extra: Extra::Location(path),
            ..Self::new(307, "", "path_normalization_failed", None)
        }
    }

    /// A token bucket is empty; `retry_after` is the time until it is not, if it ever fills.
    /// Envoy does not send `retry-after`; RFC 6585 4 and RFC 9110 10.2.3 ask for it.
    pub(crate) fn rate_limited(retry_after: Option<Duration>) -> Self {
        let reply = Self::new(
            429,
            "local_rate_limited",
            "local_rate_limited",
            Some(ResponseFlag::RateLimited),
        );
        match retry_after {
            Some(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Self {
                    extra: Extra::RetryAfter(seconds.max(1)),
                    ..reply
                }
            }
            None => reply,
        }
    }

    /// A global rate limit is used up; the answer is as who keeps it says (Envoy `ratelimit`).
    pub(crate) fn over_limit(answer: Answer) -> Self {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let flag = Some(ResponseFlag::RateLimited);
        let reply = Self::new(answer.status, body, "request_rate_limited", flag);
        Self {
            extra: Extra::Answer(Box::new(answer)),
            ..reply
        }
    }

    /// Who keeps a global rate limit did not decide (Envoy `ratelimit` with `failure_mode_deny`).
    pub(crate) fn limit_unknown() -> Self {
        let flag = Some(ResponseFlag::RateLimitServiceError);
        Self::new(500, "", "rate_limiter_error", flag)
    }

    /// Memory runs out. Envoy's overload manager answers the same, with `envoy overloaded`.
    pub(crate) fn overloaded() -> Self {
        let flag = Some(ResponseFlag::OverloadManager);
        Self::new(503, "overload", "overload", flag).closing()
    }

    /// The proxy's own health.
    pub(crate) fn health(is_draining: bool) -> Self {
        if !is_draining {
            return Self::new(200, "", "health_check_ok", None);
        }
        let mut headers = Headers::new();
        headers.append(b"x-envoy-immediate-health-check-fail", b"true");
        let answer = Answer {
            status: 503,
            headers,
            body: Bytes::new(),
        };
        Self {
            extra: Extra::Answer(Box::new(answer)),
            ..Self::new(503, "", "health_check_failed", None)
        }
    }

    /// A fault that was made on purpose.
    pub(crate) fn aborted(status: u16, grpc_status: Option<u8>) -> Self {
        let flag = Some(ResponseFlag::FaultInjected);
        Self {
            grpc_status,
            ..Self::new(status, "fault filter abort", "fault_filter_abort", flag)
        }
    }

    /// A filter wants the answer's body as a whole, and it is longer than it may be.
    pub(crate) fn response_too_large() -> Self {
        Self::new(
            500,
            "Internal Server Error",
            "response_payload_too_large",
            None,
        )
    }

    /// The cluster has no endpoint.
    pub(crate) fn no_healthy_upstream() -> Self {
        let flag = Some(ResponseFlag::NoHealthyUpstream);
        Self::new(503, "no healthy upstream", "no_healthy_upstream", flag)
    }

    /// Requests name as many hosts as may be known at once (Envoy).
    pub(crate) fn too_many_hosts() -> Self {
        let flag = Some(ResponseFlag::UpstreamOverflow);
        Self::new(503, "DNS cache overflow", "dns_cache_overflow", flag)
    }

    /// The request was here before (RFC 8586).
    pub(crate) fn loop_detected() -> Self {
        Self::new(508, "loop detected", "loop_detected", None)
    }

    /// The endpoint cannot be connected to.
    pub(crate) fn connect_failed(error: &io::Error) -> Self {
        Self::reset(
            "remote connection failure",
            format!(
                "upstream_reset_before_response_started{{remote_connection_failure|{}}}",
                transport_failure(error).replace(' ', "_")
            ),
            ResponseFlag::UpstreamConnectionFailure,
        )
    }

    /// There is no TLS session with the endpoint.
    pub(crate) fn tls_failed(reason: &str) -> Self {
        Self::reset(
            "remote connection failure",
            format!("upstream_reset_before_response_started{{remote_connection_failure|{reason}}}"),
            ResponseFlag::UpstreamConnectionFailure,
        )
    }

    /// The endpoint did not take the connection in time.
    pub(crate) fn connect_timed_out() -> Self {
        Self::reset(
            "connection timeout",
            "upstream_reset_before_response_started{connection_timeout}".to_owned(),
            ResponseFlag::UpstreamConnectionFailure,
        )
    }

    /// The upstream was lost before it answered.
    pub(crate) fn upstream_lost(lost: Lost) -> Self {
        let (reason, flag) = match lost {
            Lost::Closed | Lost::Unprocessed => (
                "connection termination",
                ResponseFlag::UpstreamConnectionTermination,
            ),
            Lost::Reset(_) => ("remote reset", ResponseFlag::UpstreamRemoteReset),
            Lost::Refused => (
                "remote refused stream reset",
                ResponseFlag::UpstreamRemoteReset,
            ),
            Lost::Malformed => return Self::upstream_protocol_error(),
        };
        let token = reason.replace(' ', "_");
        let details = format!("upstream_reset_before_response_started{{{token}}}");
        Self {
            failure: match lost {
                Lost::Refused | Lost::Unprocessed => Failure::Refused,
                _ => Failure::Reset,
            },
            ..Self::reset(reason, details, flag)
        }
    }

    /// The upstream's answer is not one that can be passed on.
    pub(crate) fn upstream_protocol_error() -> Self {
        Self {
            status: 502,
            ..Self::reset(
                "protocol error",
                "upstream_reset_before_response_started{protocol_error}".to_owned(),
                ResponseFlag::UpstreamProtocolError,
            )
        }
    }

    /// The route's time ran out before the answer began.
    pub(crate) fn request_timed_out() -> Self {
        let flag = Some(ResponseFlag::UpstreamRequestTimeout);
        Self::new(504, "upstream request timeout", "response_timeout", flag)
    }

    /// The time of one attempt ran out before its answer began.
    pub(crate) fn attempt_timed_out() -> Self {
        Self {
            details: Cow::Borrowed("upstream_per_try_timeout"),
            is_retriable: true,
            failure: Failure::TimedOut,
            ..Self::request_timed_out()
        }
    }

    /// The client's own time for a gRPC call ran out.
    pub(crate) fn duration_timed_out() -> Self {
        let details = "max_duration_timeout";
        Self {
            grpc_status: Some(DEADLINE_EXCEEDED),
            ..Self::new(504, "downstream duration timeout", details, None)
        }
    }

    /// The request took too long to arrive.
    pub(crate) fn request_took_too_long() -> Self {
        Self::new(408, "request timeout", "request_overall_timeout", None).closing()
    }

    /// An answer that the filter of this name made.
    pub(crate) fn by_filter(filter: &str, answer: Answer) -> Self {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let details = format!("python_filter_response{{{filter}}}");
        let reply = Self::new(answer.status, body, details, None);
        Self {
            extra: Extra::Answer(Box::new(answer)),
            ..reply
        }
    }

    /// A preflight request, answered.
    pub(crate) fn cors(answer: Answer) -> Self {
        Self {
            extra: Extra::Answer(Box::new(answer)),
            ..Self::new(200, "", "cors_response", None)
        }
    }

    /// What a service that decides about requests says instead of letting one pass (Envoy `ext_authz`).
    pub(crate) fn unauthorized(answer: Answer) -> Self {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let flag = Some(ResponseFlag::UnauthorizedExternalService);
        let reply = Self::new(answer.status, body, "ext_authz_denied", flag);
        Self {
            extra: Extra::Answer(Box::new(answer)),
            ..reply
        }
    }

    /// A service did not decide about the request (Envoy `ext_authz`).
    pub(crate) fn authorization_failed(status: u16) -> Self {
        let flag = Some(ResponseFlag::UnauthorizedExternalService);
        Self::new(status, "", "ext_authz_error", flag)
    }

    /// The client's address is denied (kgateway `acl`).
    pub(crate) fn denied_by_acl(answer: Answer) -> Self {
        let reply = Self::new(answer.status, "", "http-acl: denied by policy", None);
        Self {
            extra: Extra::Answer(Box::new(answer)),
            ..reply
        }
    }

    /// Who asks is not known (Envoy `basic_auth` and `api_key_auth`).
    pub(crate) fn unauthenticated(
        body: &'static str,
        details: &'static str,
        answer: Answer,
    ) -> Self {
        let reply = Self::new(answer.status, body, details, None);
        Self {
            extra: Extra::Answer(Box::new(answer)),
            ..reply
        }
    }

    /// A password cannot be checked in time: too many are.
    pub(crate) fn passwords_overloaded() -> Self {
        let flag = Some(ResponseFlag::OverloadManager);
        Self::new(503, "", "basic_auth_overloaded", flag)
    }

    /// A page of another origin asks (Envoy `csrf`).
    pub(crate) fn invalid_origin() -> Self {
        Self::new(403, "Invalid origin", "csrf_origin_mismatch", None)
    }

    /// There is no such service as is to decide about the request (Gateway API: a filter that cannot be
    /// resolved is not skipped).
    pub(crate) fn no_authorizer() -> Self {
        let flag = Some(ResponseFlag::UnauthorizedExternalService);
        Self::new(500, "", "ext_authz_unresolved", flag)
    }

    /// What a service that processes messages has for the client (Envoy `ext_proc`): a status below 200 is
    /// 200, and so is none. One above 599 is no status that clients know, and becomes a 500.
    pub(crate) fn processed(immediate: &Immediate) -> Self {
        let status = match u16::try_from(immediate.status) {
            Ok(status @ 200..600) => status,
            Ok(..200) => 200,
            _ => 500,
        };
        let mut headers = ext_proc::of_immediate(&immediate.headers);
        headers.remove(b"content-length");
        let details = String::from_utf8_lossy(&immediate.details).replace(char::is_whitespace, "_");
        let body = String::from_utf8_lossy(&immediate.body).into_owned();
        let grpc_status = immediate.grpc_status.and_then(|code| code.try_into().ok());
        let answer = Answer {
            status,
            headers,
            body: Bytes::copy_from_slice(&immediate.body),
        };
        Self {
            extra: Extra::Answer(Box::new(answer)),
            grpc_status,
            ..Self::new(status, body, details, None)
        }
    }

    /// A service that processes messages has failed (Envoy `ext_proc`).
    pub(crate) fn unprocessed(status: u16, details: &str) -> Self {
        Self::new(status, "", details.replace(char::is_whitespace, "_"), None)
    }

    /// The request's body is longer than a filter may hold (Envoy: any filter that buffers).
    pub(crate) fn payload_too_large() -> Self {
        let details = "request_payload_too_large";
        Self::new(413, "Payload Too Large", details, None).closing()
    }

    /// The filter of this name did not decide. Envoy's `ext_proc` answers in the same way, with
    /// `ext_proc_error_...`.
    pub(crate) fn filter_failed(filter: &str, failure: FilterFailure, is_of_request: bool) -> Self {
        let flag = Some(ResponseFlag::PythonFilterError);
        let details = format!("python_filter_error_{}{{{filter}}}", failure.word());
        Self::new(failure.status(is_of_request), "", details, flag)
    }

    /// Replaces the body.
    pub(crate) fn set_body(&mut self, body: Bytes) {
        self.body = String::from_utf8_lossy(&body).into_owned().into();
        let answer = Answer {
            status: self.status,
            headers: Headers::new(),
            body,
        };
        self.extra = Extra::Answer(Box::new(answer));
    }

    /// Whether policies of local replies hold for it: Envoy answers preflight requests without them.
    pub(crate) fn is_formed(&self) -> bool {
        self.details != "cors_response"
    }

    /// The bytes of the body.
    pub(crate) fn body_bytes(&self) -> &[u8] {
        match &self.extra {
            Extra::Answer(answer) => &answer.body,
            _ => self.body.as_bytes(),
        }
    }

    /// The body of a gRPC-Web request is not base64.
    pub(crate) fn bad_grpc_web() -> Self {
        let body = "Bad gRPC-web request, invalid base64 data.";
        Self::new(400, body, "grpc_base_64_decode_failed", None).closing()
    }

    /// Nothing moved for too long.
    pub(crate) fn stream_idle(request_complete: bool) -> Self {
        let flag = Some(ResponseFlag::StreamIdleTimeout);
        let status = if request_complete { 504 } else { 408 };
        let reply = Self::new(status, "stream timeout", "stream_idle_timeout", flag);
        if request_complete {
            reply
        } else {
            reply.closing()
        }
    }

    /// The request's head took too long to arrive.
    pub(crate) fn head_timed_out() -> Self {
        Self::new(
            408,
            "request header timeout",
            "request_header_timeout",
            None,
        )
        .closing()
    }

    /// The request's head is malformed.
    pub(crate) fn malformed(error: RequestError) -> Self {
        let flag = error
            .flag_protocol_error()
            .then_some(ResponseFlag::DownstreamProtocolError);
        Self::new(error.status(), error.body(), error.details(), flag).closing()
    }

    /// The request breaks the rules for messages of HTTP/2 after its head, as one whose body has
    /// another length than was said does.
    pub(crate) fn malformed_message() -> Self {
        Self {
            details: Cow::Borrowed("http2.violation.of.messaging.rule"),
            ..Self::malformed_body(BodyError::Truncated)
        }
    }

    /// The request's body is malformed.
    pub(crate) fn malformed_body(error: BodyError) -> Self {
        let flag = Some(ResponseFlag::DownstreamProtocolError);
        Self::new(400, "Bad Request", error.details(), flag).closing()
    }
}

/// Why a connection could not be opened, as Envoy's `%UPSTREAM_TRANSPORT_FAILURE_REASON%` says it.
pub(crate) fn transport_failure(error: &io::Error) -> String {
    let text = error.to_string();
    // The standard library adds its own words for the number.
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("delayed_connect_error: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_lengths_recorded_from_envoy() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        for (reply, status, length) in [
            (Reply::rate_limited(None), 429, 18),
            (Reply::connect_failed(&refused), 503, 98),
            (Reply::connect_timed_out(), 503, 91),
            (Reply::no_healthy_upstream(), 503, 19),
            (Reply::upstream_lost(Lost::Closed), 503, 95),
            (
                Reply::upstream_lost(Lost::Reset(h2::Reason::CANCEL)),
                503,
                85,
            ),
            (Reply::upstream_lost(Lost::Refused), 503, 100),
            (Reply::upstream_protocol_error(), 502, 87),
            (Reply::request_timed_out(), 504, 24),
            (Reply::attempt_timed_out(), 504, 24),
            (Reply::retry_overflow(), 503, 81),
            (Reply::overflow(), 503, 81),
            (Reply::stream_took_too_long(), 408, 36),
            (Reply::upstream_lost(Lost::Closed).retried(), 503, 118),
            (Reply::connect_failed(&refused).retried(), 503, 121),
            (Reply::stream_idle(true), 504, 14),
            (Reply::stream_idle(false), 408, 14),
            (Reply::head_timed_out(), 408, 22),
            (Reply::no_route(), 404, 0),
            (Reply::no_backend(500), 500, 0),
        ] {
            assert_eq!(
                (reply.status, reply.body.len()),
                (status, length),
                "{reply:?}"
            );
        }
    }

    #[test]
    fn a_refused_connection_is_named_without_spaces() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(
            Reply::connect_failed(&refused).details,
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        let seconds = |wait| match Reply::rate_limited(Some(wait)).extra {
            Extra::RetryAfter(seconds) => seconds,
            other => panic!("{other:?}"),
        };
        assert_eq!(seconds(Duration::from_secs(20)), 20);
        assert_eq!(seconds(Duration::from_millis(19_001)), 20);
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::ZERO), 1);
    }
}
