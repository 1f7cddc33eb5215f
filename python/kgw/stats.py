"""The counters of a running proxy."""

from __future__ import annotations

from typing import NotRequired, TypedDict

__all__ = [
    "AccessLogStats",
    "CircuitBreakerStats",
    "ExtAuthzStats",
    "HealthCheckStats",
    "OutlierDetectionStats",
    "Stats",
]


class AccessLogStats(TypedDict):
    """The lines of one access log file."""

    path: str
    written: int
    """Lines written in full."""
    dropped: int
    """Lines that were lost: the file took no more, and the queue was full."""
    bytes: int
    errors: int
    """Failed writes and failed reopenings."""


class ExtAuthzStats(TypedDict):
    """What the authorization services of one name decided."""

    ok: int
    """Requests that they let pass."""
    denied: int
    """Requests that they refused."""
    error: int
    """Requests that they did not decide about."""
    timeout: int
    """Those of them that they took too long for."""
    failure_mode_allowed: int
    """Those of them that went on nevertheless."""


class CircuitBreakerStats(TypedDict):
    """The circuit breakers of a cluster. All of it is a state."""

    cx_open: int
    """1 if there are as many connections as may be, else 0."""
    rq_pending_open: int
    """1 if as many requests wait for a connection as may, else 0."""
    rq_open: int
    """1 if as many requests are under way as may be, else 0."""
    rq_retry_open: int
    """1 if as many retries are under way as may be, else 0."""
    remaining_cx: NotRequired[int]
    """Connections that may still be opened, if ``trackRemaining`` is set; so are the others."""
    remaining_pending: NotRequired[int]
    """Requests that may still wait for a connection."""
    remaining_rq: NotRequired[int]
    """Requests that may still begin."""
    remaining_retries: NotRequired[int]
    """Retries that may still begin."""


class OutlierDetectionStats(TypedDict):
    """The ejections of a cluster. What is not called a state only grows."""

    ejections_active: int
    """Endpoints that are ejected. A state."""
    ejections_enforced_total: int
    """Ejections."""
    ejections_overflow: int
    """Ejections that were not made, since as many endpoints as may be are ejected."""
    ejections_detected_consecutive_5xx: int
    """Failures in a row that were to lead to an ejection."""
    ejections_enforced_consecutive_5xx: int
    """Those of them that did."""
    ejections_detected_consecutive_local_origin_failure: int
    """Failures in a row to have an answer that were to lead to an ejection."""
    ejections_enforced_consecutive_local_origin_failure: int
    """Those of them that did."""


class HealthCheckStats(TypedDict):
    """The checks of a cluster. What is not called a state only grows."""

    attempt: int
    """Checks that began."""
    success: int
    """Those that said that an endpoint is in order."""
    failure: int
    """Those that did not."""
    network_failure: int
    """Those of them that have no answer."""
    healthy: int
    """Endpoints that are in order. A state."""


class Stats(TypedDict):
    """The counters of a proxy, summed over its workers. What is not called a state only grows."""

    generation: int
    """The number of the configuration that is served. A state."""
    workers: int
    """Data plane threads. A state."""
    memory_pressure: int
    """0: memory suffices. 1: idle connections are closed. 2: requests are refused too. A state."""
    memory_used: NotRequired[int]
    """Bytes of memory in use, if there is a limit. A state."""
    access_logs: list[AccessLogStats]
    """Of each file that is open."""
    ext_authz: dict[str, ExtAuthzStats]
    """What authorization services decided, by the ``statPrefix`` of those that have one."""
    circuit_breakers: dict[str, CircuitBreakerStats]
    """Of each cluster that has some, by its id."""
    health_check: dict[str, HealthCheckStats]
    """Of each cluster that has them, by its id."""
    outlier_detection: dict[str, OutlierDetectionStats]
    """Of each cluster that has it, by its id."""
    python_filter_active: int
    """Questions to filters in Python that wait or are being answered. A state."""
    forward_proxy_hosts: int
    """Hosts that are known because requests name them. A state."""
    dns_lookup_total: int
    """Look-ups of names of backends."""
    dns_lookup_fail: int
    """Those of them that found no address."""
    downstream_cx_total: int
    """Connections accepted."""
    downstream_cx_active: int
    """Connections open. A state."""
    downstream_cx_overflow: int
    """Connections closed unserved because no file descriptor was free for a while."""
    downstream_http2_flood: int
    """HTTP/2 connections ended for a flood of frames."""
    downstream_cx_panicked: int
    """Connections ended by a panic in their task."""
    downstream_accept_error: int
    """`accept` failures, for want of file descriptors mostly."""
    downstream_accept_paused: int
    """Times that accepting paused, for a connection limit or for want of memory."""
    downstream_cx_handed_over: int
    """Connections that a worker accepted and handed to one that had fewer of their listener's."""
    downstream_rq_overloaded: int
    """Requests answered with 503 for want of memory."""
    downstream_rq_total: int
    """Requests that ended, with or without an answer."""
    downstream_rq_active: int
    """Requests being served. A state."""
    downstream_rq_2xx: int
    """Answers by class."""
    downstream_rq_3xx: int
    """Answers by class."""
    downstream_rq_4xx: int
    """Answers by class."""
    downstream_rq_5xx: int
    """Answers by class."""
    downstream_rq_malformed: int
    """Requests whose bytes were refused."""
    downstream_rx_body_bytes: int
    """Body bytes received from clients."""
    downstream_tx_body_bytes: int
    """Body bytes sent to clients."""
    splice_bytes: int
    """Bytes that went from socket to socket inside the kernel."""
    splice_refused: int
    """Times that such bytes were copied after all: no pipe was to be had, or the kernel does not
    do it.
    """
    python_filter_total: int
    """Questions to filters in Python."""
    python_filter_skipped: int
    """Questions that were not asked, since the filter's predicate does not hold."""
    python_filter_responded: int
    """Questions that a filter answered with a response of its own."""
    python_filter_error: int
    """Questions that a filter failed to answer: it raised an exception or returned something
    else.
    """
    python_filter_timeout: int
    """Questions that were not answered in time."""
    python_filter_overflow: int
    """Questions that were not asked, since as many as may be were waiting or being answered."""
    python_filter_too_large: int
    """Bodies that were longer than a filter takes as a whole."""
    python_filter_closed: int
    """Questions that nobody was there to answer."""
    python_filter_abandoned: int
    """Questions that were given up because the client was gone."""
    python_filter_failure_allowed: int
    """Questions without an answer whose filter lets the message pass then."""
    mirror_rq_total: int
    """Copies of requests that were sent to mirrors, or were to be."""
    mirror_rq_active: int
    """Copies of requests under way."""
    mirror_rq_overflow: int
    """Copies of requests that were not made, since as many as may be were under way."""
    mirror_rq_cut: int
    """Copies of requests that were cut off: their mirror took the body too slowly, or the request
    itself was given up.
    """
    mirror_rq_failed: int
    """Copies of requests that a mirror gave no whole answer to."""
    cors_preflight: int
    """Preflight requests that were answered."""
    compressed: int
    """Answers that were compressed."""
    decompressed: int
    """Requests that were decompressed."""
    fault_delayed: int
    """Requests that were delayed on purpose."""
    fault_aborted: int
    """Requests that were answered with an error on purpose."""
    fault_overflow: int
    """Requests that were spared a fault since there were too many."""
    shadow_denied: int
    """Requests that policies in shadow would have refused."""
    transformation_template_failed: int
    """Templates of transformations that were not rendered: what they are for was removed or left
    out."""
    transformation_event_too_long: int
    """Events that were too long to be transformed, where the message was cut short."""
    jwt_allowed: int
    """Requests whose tokens, or whose lack of one, policies allowed."""
    jwt_denied: int
    """Requests whose tokens, or whose lack of one, policies refused."""
    jwt_cache_hit: int
    """Tokens that had been verified before."""
    jwt_cache_miss: int
    """Tokens that had not."""
    jwks_fetch_success: int
    """Sets of keys that were fetched."""
    jwks_fetch_failed: int
    """Sets of keys that were to be fetched and were not."""
    rbac_allowed: int
    """Requests that conditions of policies allowed."""
    rbac_denied: int
    """Requests that conditions of policies refused."""
    rbac_shadow_allowed: int
    """Requests that conditions of policies in shadow would have allowed."""
    rbac_shadow_denied: int
    """Requests that conditions of policies in shadow would have refused."""
    acl_blocked: int
    """Requests of clients that an access list denied."""
    basic_auth_allowed: int
    """Requests with a password that was right."""
    basic_auth_denied: int
    """Requests without one."""
    basic_auth_checked: int
    """Passwords that threads were asked to check."""
    basic_auth_overflow: int
    """Requests whose passwords were not checked, since too many were."""
    api_key_auth_allowed: int
    """Requests with an API key that is a client's."""
    api_key_auth_unauthorized: int
    """Requests without any."""
    api_key_auth_forbidden: int
    """Requests with one that is nobody's."""
    csrf_missing_source_origin: int
    """Requests that change something and do not say where they come from."""
    csrf_request_invalid: int
    """Requests that change something and come from pages of other hosts."""
    csrf_request_valid: int
    """Requests that change something and may."""
    ext_authz_ok: int
    """Requests that an authorization service let pass."""
    ext_authz_denied: int
    """Requests that an authorization service refused."""
    ext_authz_error: int
    """Requests that an authorization service was not there for, or did not decide about."""
    ext_authz_timeout: int
    """Those of them that it took too long for."""
    ext_authz_failure_mode_allowed: int
    """Those of them that went on nevertheless."""
    ext_authz_too_large: int
    """Requests with a body that is longer than an authorization service is told."""
    ext_proc_streams_started: int
    """Streams to services that process messages."""
    ext_proc_streams_failed: int
    """Those of them that failed."""
    ext_proc_stream_msgs_sent: int
    """Messages sent in such streams."""
    ext_proc_stream_msgs_received: int
    """Messages received in such streams."""
    ext_proc_spurious_msgs_received: int
    """Those of them that were no answer to what was asked."""
    ext_proc_message_timeouts: int
    """Messages that such a service did not answer in time."""
    ext_proc_immediate_responses: int
    """Answers of such services for clients."""
    ext_proc_rejected_mutations: int
    """Changes by such services that no message can have."""
    ext_proc_failure_mode_allowed: int
    """Failures of such services after which messages went on nevertheless."""
    ratelimit_ok: int
    """Requests that a global rate limit let pass."""
    ratelimit_over_limit: int
    """Requests that a global rate limit refused."""
    ratelimit_error: int
    """Requests that nobody decided about though they have a global rate limit."""
    ratelimit_timeout: int
    """Those of them that it took too long for."""
    ratelimit_failure_mode_allowed: int
    """Those of them that went on nevertheless."""
    ratelimit_local_fallback: int
    """Those of them that the proxy decided about by itself."""
    redis_failed: int
    """Connections to Redis servers that were not opened, broke, or were given up."""
    access_log_service_written: int
    """Entries of access logs that were sent to their services."""
    access_log_service_dropped: int
    """Entries of access logs that are lost: their service was not there, or did not keep up."""
    access_log_service_failed: int
    """Attempts to send entries of access logs that failed."""
    access_log_service_stream_lost: int
    """Streams of access logs that their services ended."""
    trace_spans_sent: int
    """Spans of traces that were sent to their collectors."""
    trace_spans_dropped: int
    """Spans of traces that are lost: their collector was not there, or did not keep up."""
    trace_service_failed: int
    """Attempts to send spans of traces that failed."""
    ext_authz_retry: int
    """Times that an authorization service was asked once more."""
    ext_authz_cached: int
    """Requests about which a decision of an authorization service was remembered."""
    rate_limited: int
    """Requests that a token bucket refused."""
    rate_limit_not_enforced: int
    """Requests over a local rate limit that were let pass, as so many percent are."""
    rate_limit_queued: int
    """Requests that waited for tokens of a local rate limit."""
    rate_limit_queue_active: int
    """Requests that wait for them."""
    rate_limit_abandoned: int
    """Requests that waited for them until their client was gone."""
    no_route: int
    """Requests without a route."""
    proxy_header_accepted: int
    """PROXY headers accepted."""
    proxy_header_malformed: int
    """Connections closed for a PROXY header that is malformed or not of a TCP connection."""
    proxy_header_timeout: int
    """Connections closed because no whole PROXY header came in time."""
    proxy_header_absent: int
    """Connections closed by the peer before a whole PROXY header."""
    proxy_header_local: int
    """Connections closed because their PROXY header is for no service (LOCAL)."""
    proxy_header_no_destination: int
    """Connections closed because no service has the PROXY header's destination, or the host of
    the first request where the header names none.
    """
    downstream_tls_handshake: int
    """TLS handshakes of clients that were completed."""
    downstream_tls_fail: int
    """TLS handshakes of clients that failed, for want of trust or agreement, or of a connection."""
    downstream_tls_timeout: int
    """TLS handshakes of clients that took too long."""
    downstream_tls_no_chain: int
    """Connections closed because no chain is for their server name."""
    upstream_tls_handshake: int
    """TLS handshakes with endpoints that were completed."""
    upstream_tls_fail: int
    """TLS handshakes with endpoints that failed."""
    upstream_tls_timeout: int
    """TLS handshakes with endpoints that took too long."""
    proxy_header_left_out: int
    """Connections served without a PROXY header where one may be left out."""
    detect_timeout: int
    """Connections that did not say in time what they carry, and were connected before they did."""
    tcp_cx_total: int
    """Connections that were passed on as bytes and ended."""
    tcp_cx_active: int
    """Connections being passed on as bytes. A state."""
    tcp_cx_no_route: int
    """Connections closed because no backend is configured for them."""
    tcp_cx_idle_timeout: int
    """Connections closed because nothing moved for too long."""
    tcp_cx_connect_attempts_exceeded: int
    """Connections closed because no endpoint could be connected to."""
    tcp_cx_rx_bytes: int
    """Bytes received from clients of connections that are passed on as bytes."""
    tcp_cx_tx_bytes: int
    """Bytes sent to clients of connections that are passed on as bytes."""
    udp_sess_total: int
    """Sessions of datagrams that were opened."""
    udp_sess_active: int
    """Sessions of datagrams that are open. A state."""
    udp_sess_idle_timeout: int
    """Sessions that ended because no datagram came for too long."""
    udp_sess_evicted: int
    """Sessions that ended to make room for newer ones."""
    udp_sess_refused: int
    """Sessions that ended because their endpoint does not take datagrams on its port."""
    udp_sess_backend_gone: int
    """Sessions that ended because the configuration has their endpoint no longer."""
    udp_sess_no_route: int
    """Datagrams dropped because no backend is configured for them."""
    udp_sess_no_endpoint: int
    """Datagrams dropped because their backend has no endpoint that a session can be opened to."""
    udp_sess_overflow: int
    """Datagrams dropped because as many sessions as may be are open, or no resources are left."""
    udp_sess_loop: int
    """Datagrams dropped because the proxy would send them, or the answers, to itself."""
    udp_sess_draining: int
    """Datagrams dropped because the proxy opens no sessions while it drains."""
    udp_sess_rx_datagrams: int
    """Datagrams received from clients of sessions."""
    udp_sess_rx_bytes: int
    """Bytes of datagrams received from clients of sessions."""
    udp_sess_rx_errors: int
    """Failures to receive from clients."""
    udp_sess_tx_datagrams: int
    """Datagrams sent to clients."""
    udp_sess_tx_bytes: int
    """Bytes of datagrams sent to clients."""
    udp_sess_tx_errors: int
    """Datagrams for clients that could not be sent and were dropped."""
    udp_upstream_tx_errors: int
    """Datagrams for endpoints that could not be sent and were dropped."""
    upstream_cx_total: int
    """Upstream connections opened."""
    upstream_cx_connect_fail: int
    """Upstream connections that failed to open."""
    upstream_cx_connect_timeout: int
    """Upstream connections that took too long to open."""
    upstream_cx_idle: int
    """Upstream connections in the pools. A state."""
    upstream_rq_total: int
    """Attempts sent upstream."""
    upstream_rq_reused: int
    """Attempts sent on a pooled connection."""
    upstream_rq_retry_reused: int
    """Attempts repeated because a pooled connection had died."""
    upstream_rq_retry: int
    """Attempts repeated because the one before failed, as a route's retry policy says, or because
    a session's endpoint cannot be connected to."""
    upstream_rq_retry_success: int
    """Such attempts whose answer was passed on, and is none that is retried."""
    upstream_rq_retry_limit_exceeded: int
    """Requests that failed as often as their route's retry policy allows attempts."""
    upstream_rq_retry_overflow: int
    """Retries that their service's budget did not allow."""
    upstream_rq_per_try_timeout: int
    """Attempts that took longer than their route allows one."""
    upstream_rq_timeout: int
    """Requests that took longer than their route allows."""
    upstream_rq_max_duration_reached: int
    """Requests that took longer than their backend's policy allows."""
    upstream_rq_pending_overflow: int
    """Requests that were refused: as many as may be were under way to their backend, or waited."""
    upstream_cx_overflow: int
    """Connections that were wanted while their backend had as many as it may."""
    upstream_http2_keepalive_timeout: int
    """HTTP/2 connections that were closed since their peer did not answer a PING."""
