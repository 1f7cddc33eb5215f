"""A server behind the proxy, resources that route to it, and a client."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 30.0
"""Seconds: a bound on anything that is waited for; nothing is expected to come near it."""


class Upstream(ThreadingHTTPServer):
    """Answers with the path; ``/slow`` says that it arrived and waits to be let go."""

    daemon_threads = True

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.let_go = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def port(self) -> int:
        port = self.server_address[1]
        assert isinstance(port, int)
        return port


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests."""

    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.server.arrived.set()
            self.server.let_go.wait(TIMEOUT)
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.let_go.set()
    server.shutdown()
    thread.join()
    server.server_close()


class HasPort(Protocol):
    """A server on loopback."""

    @property
    def port(self) -> int: ...


def resources(upstream: HasPort, *, prefix: str = "/") -> list[dict[str, Any]]:
    """A Gateway, and a route for *prefix* to the upstream."""
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "web"},
            "spec": {
                "gatewayClassName": "kgateway",
                "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}],
            },
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "web"},
            "spec": {
                "parentRefs": [{"name": "web"}],
                "rules": [
                    {
                        "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
                        "backendRefs": [{"name": "app", "port": 80}],
                    }
                ],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "app"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "app-1", "labels": {"kubernetes.io/service-name": "app"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"name": "http", "port": upstream.port, "protocol": "TCP"}],
        },
    ]


def rate_limit(tokens: int, interval: str) -> dict[str, Any]:
    """A policy that allows the route of `resources` so many requests per interval."""
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "limit"},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}
            ],
            "rateLimit": {
                "local": {
                    "tokenBucket": {
                        "maxTokens": tokens,
                        "tokensPerFill": tokens,
                        "fillInterval": interval,
                    }
                }
            },
        },
    }


def fetch(address: tuple[str, int], path: str = "/") -> tuple[int, bytes]:
    """Gets *path* on a connection of its own; returns status and body."""
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
