"""TCPRoutes through a running `kgw.Proxy`."""

from __future__ import annotations

import socket
from typing import Any

import anyio.to_thread
import pytest
from tests.embed.upstream import TIMEOUT, Upstream, fetch, resources

import kgw

LISTENER = "default/web/http"

pytestmark = pytest.mark.anyio


def tcp(upstream: Upstream, *, port: int = 80) -> list[dict[str, Any]]:
    """A listener of protocol TCP, and a route of it to a port of the upstream's Service."""
    gateway, _, *backend = resources(upstream)
    gateway["spec"]["listeners"][0]["protocol"] = "TCP"
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "TCPRoute",
        "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [{"name": "web"}],
            "rules": [{"backendRefs": [{"name": "app", "port": port}]}],
        },
    }
    return [gateway, route, *backend]


def read(address: tuple[str, int], sent: bytes) -> bytes:
    """Sends bytes and the end of them, and returns all that comes back."""
    with socket.create_connection(address, TIMEOUT) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


async def test_a_tcp_route_passes_bytes_on(upstream: Upstream) -> None:
    async with kgw.Proxy(tcp(upstream), workers=1, bind="127.0.0.1:0") as proxy:
        address = proxy.addresses[LISTENER][0]
        assert await anyio.to_thread.run_sync(fetch, address, "/a") == (200, b"/a")
        # No field of a proxy is in the answer, and what is no request gets the server's own words.
        answer = await anyio.to_thread.run_sync(read, address, b"GET /b HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n/b")
        assert b"x-envoy" not in answer.lower()
        assert b"400" in await anyio.to_thread.run_sync(read, address, b"no request\r\n\r\n")


async def test_a_connection_without_a_backend_is_closed(upstream: Upstream) -> None:
    proxy = kgw.Proxy(tcp(upstream, port=81), workers=1, bind="127.0.0.1:0", strict=False)
    async with proxy:
        address = proxy.addresses[LISTENER][0]
        assert await anyio.to_thread.run_sync(read, address, b"") == b""
