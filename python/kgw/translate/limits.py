"""How connections of a cluster behave, and how much it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.translate.settings import keepalive

if TYPE_CHECKING:
    from kgw.api.kgateway.backend_config_policy import Http2ProtocolOptions
    from kgw.api.kgateway.backend_limits import CircuitBreakers, Dns, HealthCheck, OutlierDetection
    from kgw.attach.upstream import Upstream


def settings(upstream: Upstream) -> dict[str, Any]:
    """The fields of a cluster; what policies leave open is left out."""
    found: dict[str, Any] = {}
    connections: dict[str, Any] = {}
    common = upstream.common
    if common is not None:
        if common.max_requests_per_connection is not None:
            found["max_requests_per_connection"] = common.max_requests_per_connection
        if common.max_stream_duration is not None:
            found["max_stream_duration_ms"] = int(common.max_stream_duration)
        connections["idle_timeout_ms"] = _milliseconds(common.idle_timeout)
        connections["max_fields"] = common.max_headers_count
    connections["buffer_bytes"] = upstream.buffer_bytes
    if upstream.tcp_keepalive is not None:
        connections["tcp_keepalive"] = keepalive(upstream.tcp_keepalive)
    if upstream.http2 is not None:
        connections["http2"] = _http2(upstream.http2) or None
    connections = {name: value for name, value in connections.items() if value is not None}
    if connections:
        found["connections"] = connections
    if upstream.circuit_breakers is not None:
        found["circuit_breakers"] = _circuit_breakers(upstream.circuit_breakers)
    if upstream.outlier_detection is not None:
        found["outlier_detection"] = _outlier_detection(upstream.outlier_detection)
    if upstream.health_check is not None:
        found["health_check"] = _health_check(upstream.health_check)
    if upstream.dns is not None:
        found["dns"] = _dns(upstream.dns)
    return found


def _milliseconds(duration: int | None) -> int | None:
    return None if duration is None else int(duration)


def _http2(given: Http2ProtocolOptions) -> dict[str, Any]:
    found: dict[str, Any] = {
        "initial_stream_window_size": given.initial_stream_window_size,
        "initial_connection_window_size": given.initial_connection_window_size,
        "max_concurrent_streams": given.max_concurrent_streams,
    }
    keepalive = given.connection_keepalive
    if keepalive is not None:
        found["keepalive"] = {
            "interval_ms": int(keepalive.interval or 0),
            "timeout_ms": int(keepalive.timeout),
            "idle_interval_ms": int(keepalive.connection_idle_interval or 0),
        }
    return {name: value for name, value in found.items() if value is not None}


def _circuit_breakers(given: CircuitBreakers) -> dict[str, Any]:
    found = {
        name: getattr(given, name)
        for name in ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    }
    found = {name: value for name, value in found.items() if value is not None}
    return {**found, **({"track_remaining": True} if given.track_remaining else {})}


def _outlier_detection(given: OutlierDetection) -> dict[str, Any]:
    found = {
        "consecutive_5xx": given.consecutive_5xx,
        "enforcing_consecutive_5xx": given.enforcing_consecutive_5xx,
        "split_external_local_origin_errors": given.split_external_local_origin_errors,
        "consecutive_local_origin_failure": given.consecutive_local_origin_failure,
        "enforcing_consecutive_local_origin_failure": (
            given.enforcing_consecutive_local_origin_failure
        ),
        "interval_ms": int(given.interval),
        "base_ejection_time_ms": int(given.base_ejection_time),
        "max_ejection_percent": given.max_ejection_percent,
    }
    return {name: value for name, value in found.items() if value is not None}


def _health_check(given: HealthCheck) -> dict[str, Any]:
    checker: dict[str, Any] = {"type": "grpc"}
    if given.http is not None:
        checker = {"type": "http", "path": given.http.path, "method": given.http.method}
        if given.http.host:
            checker["host"] = given.http.host
    elif given.grpc is not None:
        named = {"service": given.grpc.service_name, "authority": given.grpc.authority}
        checker |= {name: value for name, value in named.items() if value}
    return {
        "timeout_ms": int(given.timeout),
        "interval_ms": int(given.interval),
        "unhealthy_threshold": given.unhealthy_threshold,
        "healthy_threshold": given.healthy_threshold,
        "checker": checker,
    }


def _dns(given: Dns) -> dict[str, Any]:
    found = {
        "refresh_ms": _milliseconds(given.refresh_rate),
        "jitter_ms": _milliseconds(given.jitter),
    }
    return {name: value for name, value in found.items() if value is not None}
