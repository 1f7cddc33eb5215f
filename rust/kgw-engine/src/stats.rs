//! Counters: one shard per worker, written by its worker alone, summed by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

/// A counter with one writer: no locked instruction on the hot path.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn decrement(&self) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_sub(1),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A worker's counters; names follow Envoy's where it has the same one.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct Stats {
            $($(#[$doc])* pub(crate) $name: Counter,)*
        }

        /// Sums the shards into one object, a member per counter.
        pub(crate) fn sum(shards: &[Stats]) -> Map<String, Value> {
            let mut totals = Map::new();
            $(
                let total: u64 = shards.iter().map(|shard| shard.$name.value()).fold(0, u64::wrapping_add);
                totals.insert(stringify!($name).to_owned(), total.into());
            )*
            totals
        }
    };
}

stats! {
    /// Connections accepted.
    downstream_cx_total,
    /// Connections open.
    downstream_cx_active,
    /// Connections closed unserved because no file descriptor was free for a while.
    downstream_cx_overflow,
    /// HTTP/2 connections ended for a flood of frames.
    downstream_http2_flood,
    /// Connections ended by a panic in their task.
    downstream_cx_panicked,
    /// `accept` failures, for want of file descriptors mostly.
    downstream_accept_error,
    /// Times that accepting paused, for a connection limit or for want of memory.
    downstream_accept_paused,
    /// Connections that a worker accepted and handed to one that had fewer of their listener's.
    downstream_cx_handed_over,
    /// Requests answered with 503 for want of memory.
    downstream_rq_overloaded,
    /// Requests that ended, with or without an answer.
    downstream_rq_total,
    /// Requests being served.
    downstream_rq_active,
    /// Answers by class.
    downstream_rq_2xx,
    /// Answers by class.
    downstream_rq_3xx,
    /// Answers by class.
    downstream_rq_4xx,
    /// Answers by class.
    downstream_rq_5xx,
    /// Requests whose bytes were refused.
    downstream_rq_malformed,
    /// Body bytes received from clients.
    downstream_rx_body_bytes,
    /// Body bytes sent to clients.
    downstream_tx_body_bytes,
    /// Bytes that went from socket to socket inside the kernel.
    splice_bytes,
    /// Times that such bytes were copied after all: no pipe was to be had, or the kernel does not do it.
    splice_refused,
    /// Questions to filters in Python.
    python_filter_total,
    /// Questions that were not asked, since the filter's predicate does not hold.
    python_filter_skipped,
    /// Questions that a filter answered with a response of its own.
    python_filter_responded,
    /// Questions that a filter failed to answer: it raised an exception or returned something else.
    python_filter_error,
    /// Questions that were not answered in time.
    python_filter_timeout,
    /// Questions that were not asked, since as many as may be were waiting or being answered.
    python_filter_overflow,
    /// Bodies that were longer than a filter takes as a whole.
    python_filter_too_large,
    /// Questions that nobody was there to answer.
    python_filter_closed,
    /// Questions that were given up because the client was gone.
    python_filter_abandoned,
    /// Questions without an answer whose filter lets the message pass then.
    python_filter_failure_allowed,
    /// Copies of requests that were sent to mirrors, or were to be.
    mirror_rq_total,
    /// Copies of requests under way.
    mirror_rq_active,
    /// Copies of requests that were not made, since as many as may be were under way.
    mirror_rq_overflow,
    /// Copies of requests that were cut off: their mirror took the body too slowly, or the request itself
    /// was given up.
    mirror_rq_cut,
    /// Copies of requests that a mirror gave no whole answer to.
    mirror_rq_failed,
    /// Preflight requests that were answered.
    cors_preflight,
    /// Answers that were compressed.
    compressed,
    /// Requests that were decompressed.
    decompressed,
    /// Requests that were delayed on purpose.
    fault_delayed,
    /// Requests that were answered with an error on purpose.
    fault_aborted,
    /// Requests that were spared a fault since there were too many.
    fault_overflow,
    /// Requests that policies in shadow would have refused.
    shadow_denied,
    /// Templates of transformations that were not rendered: what they are for was removed or left out.
    transformation_template_failed,
    /// Events that were too long to be transformed, where the message was cut short.
    transformation_event_too_long,
    /// Requests of clients that an access list denied.
    acl_blocked,
    /// Requests with a password that was right.
    basic_auth_allowed,
    /// Requests without one.
    basic_auth_denied,
    /// Passwords that threads were asked to check.
    basic_auth_checked,
    /// Requests whose passwords were not checked, since too many were.
    basic_auth_overflow,
    /// Requests with an API key that is a client's.
    api_key_auth_allowed,
    /// Requests without any.
    api_key_auth_unauthorized,
    /// Requests with one that is nobody's.
    api_key_auth_forbidden,
    /// Requests that change something and do not say where they come from.
    csrf_missing_source_origin,
    /// Requests that change something and come from pages of other hosts.
    csrf_request_invalid,
    /// Requests that change something and may.
    csrf_request_valid,
    /// Requests that an authorization service let pass.
    ext_authz_ok,
    /// Requests that an authorization service refused.
    ext_authz_denied,
    /// Requests that an authorization service was not there for, or did not decide about.
    ext_authz_error,
    /// Those of them that it took too long for.
    ext_authz_timeout,
    /// Those of them that went on nevertheless.
    ext_authz_failure_mode_allowed,
    /// Requests with a body that is longer than an authorization service is told.
    ext_authz_too_large,
    /// Streams to services that process messages.
    ext_proc_streams_started,
    /// Those of them that failed.
    ext_proc_streams_failed,
    /// Messages sent in such streams.
    ext_proc_stream_msgs_sent,
    /// Messages received in such streams.
    ext_proc_stream_msgs_received,
    /// Those of them that were no answer to what was asked.
    ext_proc_spurious_msgs_received,
    /// Messages that such a service did not answer in time.
    ext_proc_message_timeouts,
    /// Answers of such services for clients.
    ext_proc_immediate_responses,
    /// Changes by such services that no message can have.
    ext_proc_rejected_mutations,
    /// Failures of such services after which messages went on nevertheless.
    ext_proc_failure_mode_allowed,
    /// Requests that a global rate limit let pass.
    ratelimit_ok,
    /// Requests that a global rate limit refused.
    ratelimit_over_limit,
    /// Requests that whoever keeps a global rate limit was not there for, or did not decide about.
    ratelimit_error,
    /// Those of them that it took too long for.
    ratelimit_timeout,
    /// Those of them that went on nevertheless.
    ratelimit_failure_mode_allowed,
    /// Those of them that the proxy decided about by itself.
    ratelimit_local_fallback,
    /// Connections to Redis servers that were not opened, broke, or were given up for want of an answer.
    redis_failed,
    /// Entries of access logs that were sent to their services.
    access_log_service_written,
    /// Entries of access logs that are lost: their service was not there, did not want them or did not keep
    /// up.
    access_log_service_dropped,
    /// Attempts to send entries of access logs that failed.
    access_log_service_failed,
    /// Streams of access logs that their services ended.
    access_log_service_stream_lost,
    /// Spans of traces that were sent to their collectors.
    trace_spans_sent,
    /// Spans of traces that are lost: their collector was not there, did not want them or did not keep up.
    trace_spans_dropped,
    /// Attempts to send spans of traces that failed.
    trace_service_failed,
    /// Times that an authorization service was asked once more.
    ext_authz_retry,
    /// Requests about which a decision of an authorization service was remembered.
    ext_authz_cached,
    /// Requests that a token bucket refused.
    rate_limited,
    /// Requests over a local rate limit that were let pass, as so many percent are.
    rate_limit_not_enforced,
    /// Requests that waited for tokens of a local rate limit.
    rate_limit_queued,
    /// Requests that wait for them.
    rate_limit_queue_active,
    /// Requests that waited for them until their client was gone.
    rate_limit_abandoned,
    /// Requests without a route.
    no_route,
    /// PROXY headers accepted.
    proxy_header_accepted,
    /// Connections closed for a PROXY header that is malformed or not of a TCP connection.
    proxy_header_malformed,
    /// Connections closed because no whole PROXY header came in time.
    proxy_header_timeout,
    /// Connections closed by the peer before a whole PROXY header.
    proxy_header_absent,
    /// Connections closed because their PROXY header is for no service (LOCAL).
    proxy_header_local,
    /// Connections closed because no service has the PROXY header's destination, or the host of the first request
    /// where the header names none.
    proxy_header_no_destination,
    /// TLS handshakes of clients that were completed.
    downstream_tls_handshake,
    /// TLS handshakes of clients that failed, for want of trust or agreement, or of a connection.
    downstream_tls_fail,
    /// TLS handshakes of clients that took too long.
    downstream_tls_timeout,
    /// Connections closed because no chain is for their server name.
    downstream_tls_no_chain,
    /// TLS handshakes with endpoints that were completed.
    upstream_tls_handshake,
    /// TLS handshakes with endpoints that failed.
    upstream_tls_fail,
    /// TLS handshakes with endpoints that took too long.
    upstream_tls_timeout,
    /// Connections served without a PROXY header where one may be left out.
    proxy_header_left_out,
    /// Connections that did not say in time what they carry, and were connected before they did.
    detect_timeout,
    /// Connections that were passed on as bytes and ended.
    tcp_cx_total,
    /// Connections being passed on as bytes.
    tcp_cx_active,
    /// Connections closed because no backend is configured for them.
    tcp_cx_no_route,
    /// Connections closed because nothing moved for too long.
    tcp_cx_idle_timeout,
    /// Connections closed because no endpoint could be connected to.
    tcp_cx_connect_attempts_exceeded,
    /// Bytes received from clients of connections that are passed on as bytes.
    tcp_cx_rx_bytes,
    /// Bytes sent to clients of connections that are passed on as bytes.
    tcp_cx_tx_bytes,
    /// Sessions of datagrams that were opened.
    udp_sess_total,
    /// Sessions of datagrams that are open.
    udp_sess_active,
    /// Sessions that ended because no datagram came for too long.
    udp_sess_idle_timeout,
    /// Sessions that ended to make room for newer ones.
    udp_sess_evicted,
    /// Sessions that ended because their endpoint does not take datagrams on its port.
    udp_sess_refused,
    /// Sessions that ended because the configuration has their endpoint no longer.
    udp_sess_backend_gone,
    /// Datagrams dropped because no backend is configured for them.
    udp_sess_no_route,
    /// Datagrams dropped because their backend has no endpoint that a session can be opened to.
    udp_sess_no_endpoint,
    /// Datagrams dropped because as many sessions as may be are open, or no resources are left for more.
    udp_sess_overflow,
    /// Datagrams dropped because the proxy would send them, or the answers, to itself.
    udp_sess_loop,
    /// Datagrams dropped because the proxy opens no sessions while it drains.
    udp_sess_draining,
    /// Datagrams received from clients of sessions.
    udp_sess_rx_datagrams,
    /// Bytes of datagrams received from clients of sessions.
    udp_sess_rx_bytes,
    /// Failures to receive from clients.
    udp_sess_rx_errors,
    /// Datagrams sent to clients.
    udp_sess_tx_datagrams,
    /// Bytes of datagrams sent to clients.
    udp_sess_tx_bytes,
    /// Datagrams for clients that could not be sent and were dropped.
    udp_sess_tx_errors,
    /// Datagrams for endpoints that could not be sent and were dropped.
    udp_upstream_tx_errors,
    /// Requests whose tokens, or whose lack of one, policies allowed.
    jwt_allowed,
    /// Requests whose tokens, or whose lack of one, policies refused.
    jwt_denied,
    /// Tokens that had been verified before.
    jwt_cache_hit,
    /// Tokens that had not.
    jwt_cache_miss,
    /// Sets of keys that were fetched.
    jwks_fetch_success,
    /// Sets of keys that were to be fetched and were not.
    jwks_fetch_failed,
    /// Requests that conditions of policies allowed.
    rbac_allowed,
    /// Requests that conditions of policies refused.
    rbac_denied,
    /// Requests that conditions of policies in shadow would have allowed.
    rbac_shadow_allowed,
    /// Requests that conditions of policies in shadow would have refused.
    rbac_shadow_denied,
    /// Upstream connections opened.
    upstream_cx_total,
    /// Upstream connections that failed to open.
    upstream_cx_connect_fail,
    /// Upstream connections that took too long to open.
    upstream_cx_connect_timeout,
    /// Upstream connections in the pools.
    upstream_cx_idle,
    /// Attempts sent upstream.
    upstream_rq_total,
    /// Attempts sent on a pooled connection.
    upstream_rq_reused,
    /// Attempts repeated because a pooled connection had died.
    upstream_rq_retry_reused,
    /// Attempts repeated because the one before failed, as a route's retry policy says, or because a
    /// session's endpoint cannot be connected to.
    upstream_rq_retry,
    /// Such attempts whose answer was passed on, and is none that is retried.
    upstream_rq_retry_success,
    /// Requests that failed as often as their route's retry policy allows attempts.
    upstream_rq_retry_limit_exceeded,
    /// Retries that their service's budget did not allow.
    upstream_rq_retry_overflow,
    /// Attempts that took longer than their route allows one.
    upstream_rq_per_try_timeout,
    /// Requests that took longer than their route allows.
    upstream_rq_timeout,
    /// Requests that took longer than their cluster allows.
    upstream_rq_max_duration_reached,
    /// Requests that were refused since as many as may be were under way to their cluster, or waited for a
    /// connection.
    upstream_rq_pending_overflow,
    /// Connections that were wanted while their cluster had as many as it may.
    upstream_cx_overflow,
    /// HTTP/2 connections that were closed since their peer did not answer a PING.
    upstream_http2_keepalive_timeout,
}
