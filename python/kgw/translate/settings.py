"""From the settings of listener policies and annotations to the fields of a listener.

Each setting has one place in the representation, and the two tables are disjoint but for one: an
annotation is for what kgateway has no field for, or had none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kgw.api.gateway.options import OPTIONS
from kgw.attach import access_logs, local_replies, native
from kgw.translate import tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kgw.api.gateway.filters import HeaderModifier
    from kgw.api.kgateway.access_log import AccessLog
    from kgw.api.kgateway.early import ForwardClientCertDetails, HealthCheck, TCPKeepalive
    from kgw.api.kgateway.http_settings import Http2ProtocolOptions, UpgradeConfig
    from kgw.api.kgateway.listener_policy import ProxyProtocol


def _access_logs(logs: Iterable[AccessLog]) -> list[dict[str, Any]]:
    """The access logs of a policy that is valid, as far as they are files."""
    found = []
    for log in logs:
        if log.file_sink is not None:
            one = {"path": log.file_sink.path, "format": native.log_format(log.file_sink)}
            if log.filter is not None:
                one["filter"] = access_logs.filter_ir(log.filter)
            found.append(one)
    return found


def _http2(options: Http2ProtocolOptions) -> dict[str, Any]:
    given = {
        "max_concurrent_streams": options.max_concurrent_streams,
        "initial_stream_window_size": options.initial_stream_window_size,
        "initial_connection_window_size": options.initial_connection_window_size,
        "allow_connect": False if options.allow_connect is False else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _upgrades(config: UpgradeConfig) -> list[str]:
    return sorted({one.lower() for one in config.enabled_upgrades or ()})


def _proxy_protocol(header: ProxyProtocol) -> dict[str, Any]:
    # Envoy takes both versions; an annotation narrows it.
    return {"optional": header.allow_requests_without_proxy_protocol, "accept_v1": True}


def _buffer(limit: int) -> int:
    """A limit of what waits: Envoy takes nothing for none, and the engine has a most."""
    return min(limit or _MOST_BUFFER, _MOST_BUFFER)


_MOST_BUFFER: Final = 16 * 1024 * 1024


def _headers(modifier: HeaderModifier) -> dict[str, Any]:
    return {
        "set": [[one.name, one.value] for one in modifier.set],
        "add": [[one.name, one.value] for one in modifier.add],
        "remove": list(modifier.remove),
    }


def _client_certificate(given: ForwardClientCertDetails) -> dict[str, Any]:
    details = given.details
    mode = given.mode or ("Sanitize" if details is None else "SanitizeSet")
    found: dict[str, Any] = {"mode": re.sub(r"(?<!^)(?=[A-Z])", "_", mode).lower()}
    for name in ("cert", "chain", "dns", "subject", "uri"):
        found[name] = bool(details is not None and getattr(details, name))
    return found


def _health_check(given: HealthCheck) -> str:
    return given.path


def keepalive(given: TCPKeepalive) -> dict[str, Any]:
    """Probes of connections, in the IR."""
    time, interval = given.keep_alive_time, given.keep_alive_interval
    return {
        "probes": given.keep_alive_probes,
        "time_s": None if time is None else time // 1000,
        "interval_s": None if interval is None else interval // 1000,
    }


def _kilobytes(number: int) -> int:
    return number * 1024


_SERVER_HEADER: Final = {
    "Overwrite": "overwrite",
    "AppendIfAbsent": "append_if_absent",
    "PassThrough": "pass_through",
}

_STRIP_PORT: Final = {"MatchingPort": "matching", "AnyPort": "any"}

#: Settings of listener policies: their fields in the representation, and how values get there.
POLICY: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "accept_http10": ("http.accept_http_10", bool),
    "access_log": ("access_logs", _access_logs),
    "default_host_for_http10": ("http.default_host_for_http_10", str),
    "early_request_header_modifier": ("http.early.headers", _headers),
    "forward_client_cert_details": ("http.early.client_certificate", _client_certificate),
    "generate_request_id": ("http.request_id.generate", bool),
    "health_check": ("http.early.health_check_path", _health_check),
    "http2_protocol_options": ("http.http2", _http2),
    "idle_timeout": ("http.idle_timeout_ms", int),
    "local_replies": ("local_replies", local_replies.ir),
    "max_headers_count": ("http.max_fields", int),
    "max_request_headers_kb": ("http.max_head_bytes", _kilobytes),
    "max_requests_per_connection": ("http.max_requests_per_connection", int),
    "per_connection_buffer_limit_bytes": ("http.buffer_bytes", _buffer),
    "preserve_external_request_id": ("http.request_id.preserve_external", bool),
    "proxy100_continue": ("http.early.proxy_100_continue", bool),
    "proxy_protocol": ("proxy_protocol", _proxy_protocol),
    "server_header_transformation": ("http.server_header", _SERVER_HEADER.__getitem__),
    "server_name": ("http.server_name", str),
    "skip_xff_append": ("http.skip_xff_append", bool),
    "stream_idle_timeout": ("http.stream_idle_timeout_ms", int),
    "strip_host_port_mode": ("http.early.strip_host_port", _STRIP_PORT.__getitem__),
    "strip_trailing_host_dot": ("http.early.strip_trailing_host_dot", bool),
    "tcp_keepalive": ("tcp_keepalive", keepalive),
    "transport_socket_connect_timeout": ("traffic.handshake_timeout_ms", int),
    "upgrade_config": ("http.upgrades", _upgrades),
    "use_remote_address": ("http.use_remote_address", bool),
    "uuid_request_id_config": ("http.request_id", tracing.request_id),
    "xff_num_trusted_hops": ("http.xff_trusted_hops", int),
    "xff_trusted_cidrs": ("http.xff_trusted_cidrs", list),
}

#: Settings that are not made of their values alone: what always holds, what is a part of TLS, and
#: what needs clusters.
APART: Final = frozenset({"client_certificate_validation", "preserve_http1_header_case", "tracing"})

#: Options of Gateways: their fields in the representation.
ANNOTATED: Final = {one.name: one.field for one in OPTIONS if one.field}


def displaced(name: str, http: dict[str, Any]) -> bool:
    """Whether a setting may not stand beside those that a listener has by now.

    One policy cannot say both (the CRD forbids it), but two that are merged can.
    """
    match name:
        case "xff_num_trusted_hops":
            return "xff_trusted_cidrs" in http
        case "xff_trusted_cidrs":
            return "xff_trusted_hops" in http or http.get("use_remote_address") is not False
        case _:
            return False


def forwards(traffic: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All forwarding of bytes that a listener's traffic holds."""
    if "forward" in traffic and traffic["type"] != "udp":
        yield traffic["forward"]
    for chain in traffic.get("chains", ()):
        if "forward" in chain["action"]:
            yield chain["action"]["forward"]
    for destination in traffic.get("destinations", ()):
        if "tcp" in destination:
            yield destination["tcp"]


def put(listener: dict[str, Any], field: str, value: Any) -> None:
    """Writes a value at a field, given as ``http.request_id.generate``."""
    *parents, last = field.split(".")
    for one in parents:
        listener = listener.setdefault(one, {})
    if isinstance(value, dict):
        listener[last] = {**listener.get(last, {}), **value}
    else:
        listener[last] = value
