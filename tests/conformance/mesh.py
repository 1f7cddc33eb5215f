"""The mesh of conformance tests: a waypoint, its services, and clients as ztunnel makes them.

A client's name of a service is looked up as Kubernetes DNS would; a connection to a service's
virtual IP goes to the waypoint behind a PROXY protocol header with the client's identity, any other
one goes where it leads. ztunnel itself is not here: this is what it puts on the wire.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from tests.conformance.calls import backend, channel
from tests.conformance.infra import CONSUMER, MESH, Infra, Reply, echo
from tests.engine.harness import WAIT, Peer, Upstream
from tests.rpc.calls import Prefixed

import kgw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import grpc

#: The virtual IPs of the services, which are in one namespace.
VIPS: Final = {"echo": "10.97.0.1", "echo-v1": "10.97.0.2", "echo-v2": "10.97.0.3"}

#: Whose pods are behind each service.
_PODS: Final = {
    "echo": ("echo-v1", "echo-v2"),
    "echo-v1": ("echo-v1",),
    "echo-v2": ("echo-v2",),
}

_BASE: Final = f"""
apiVersion: v1
kind: Namespace
metadata:
  name: {MESH}
  labels: {{gateway-conformance: mesh, istio.io/use-waypoint: waypoint}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: {CONSUMER}, labels: {{gateway-conformance: mesh-consumer}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: waypoint, namespace: {MESH}}}
spec:
  gatewayClassName: kgateway-waypoint
  listeners: [{{name: proxy, port: 15088, protocol: istio.io/PROXY}}]
"""


class Mesh:
    """Services echo, echo-v1 and echo-v2 with a pod for each version, served from the next
    `Infra.apply` on."""

    def __init__(self, infra: Infra) -> None:
        self.infra = infra
        self.pods: dict[str, Upstream] = {}
        self._calls: dict[str, str] = {}
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.infra.write("mesh", _BASE)
        for pod in ("echo-v1", "echo-v2"):
            seen = self.infra.requests.setdefault(f"{MESH}/{pod}", [])
            self.pods[pod] = Upstream(echo(pod, MESH, seen.append))
            self._exits.callback(self.pods[pod].close)
            self._calls[pod] = self._exits.enter_context(backend(pod))
        for service in VIPS:
            self._write(service)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _write(self, service: str) -> None:
        declared = ", appProtocol: kubernetes.io/h2c" if service == "echo" else ""
        text = f"""
apiVersion: v1
kind: Service
metadata: {{name: {service}, namespace: {MESH}}}
spec:
  clusterIP: {VIPS[service]}
  ports:
  - {{name: http, port: 80, appProtocol: http}}
  - {{name: http-alt, port: 8080, appProtocol: http}}
  - {{name: https, port: 443}}
  - {{name: tcp, port: 9090}}
  - {{name: grpc, port: 7070{declared}}}
"""
        for pod in _PODS[service]:
            http, calls = (
                one.rpartition(":")[2] for one in (self.pods[pod].address, self._calls[pod])
            )
            text += f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {service}-{pod}
  namespace: {MESH}
  labels: {{kubernetes.io/service-name: {service}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports:
- {{name: http, port: {http}}}
- {{name: http-alt, port: {http}}}
- {{name: grpc, port: {calls}}}
"""
        self.infra.write(f"mesh-{service}", text)

    def client(self, namespace: str = MESH) -> Client:
        """A pod of a namespace."""
        return Client(self, namespace)


class Client:
    """A pod that makes requests."""

    def __init__(self, mesh: Mesh, namespace: str) -> None:
        self.mesh = mesh
        self.identity = kgw.MeshIdentity("cluster.local", namespace, "default")

    def header(self, host: str, port: int) -> bytes:
        """What ztunnel writes first on a connection to a service."""
        name, _, namespace = host.partition(".")
        assert (namespace or self.identity.namespace) == MESH, f"DNS has no {host}"
        destination = (VIPS[name], port)
        source = ("10.244.0.9", 40_000)
        return kgw.ProxyHeader(source, destination, identity=self.identity).encode()

    def connect(self, host: str, port: int = 80) -> Peer:
        """A connection to a service by its name, or to a pod by its address."""
        if host == "127.0.0.1":
            # A waypoint is for services: connections to pods pass none.
            return Peer(socket.create_connection((host, port), WAIT))
        peer = Peer(socket.create_connection(self._waypoint(), WAIT))
        peer.send(self.header(host, port))
        return peer

    def request(
        self,
        path: str = "/",
        *,
        to: str = "echo",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The answer to one request to ``host`` or ``host:port``, on a connection of its own."""
        host, _, port = to.partition(":")
        given = {"host": to, **(headers or {})}
        with contextlib.closing(self.connect(host, int(port or 80))) as peer:
            lines = [
                f"{method} {path} HTTP/1.1",
                *(f"{name}: {one}" for name, one in given.items()),
            ]
            lines += ["content-length: 0"] if method == "POST" else []
            peer.send("\r\n".join([*lines, "", ""]).encode())
            return Reply(peer.read_response())

    def shares(self) -> Counter[str]:
        """How often each pod answered 500 requests, on ten connections at a time."""

        def several(_: int) -> list[str]:
            with contextlib.closing(self.connect("echo")) as peer:
                return [self._ask(peer) for _ in range(50)]

        with ThreadPoolExecutor(10) as pool:
            return Counter(one for found in pool.map(several, range(10)) for one in found)

    @staticmethod
    def _ask(peer: Peer) -> str:
        peer.send(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")
        return str(Reply(peer.read_response()).outcome)

    @contextlib.contextmanager
    def channel(self, to: str) -> Iterator[grpc.Channel]:
        """A gRPC channel to a service, ``host:port``."""
        host, _, port = to.partition(":")
        tunnel = Prefixed(self._waypoint()[1], self.header(host, int(port)))
        try:
            with channel(tunnel.port, to) as opened:
                yield opened
        finally:
            tunnel.close()

    def _waypoint(self) -> tuple[str, int]:
        return self.mesh.infra.address("waypoint", 15088, MESH)


def location(reply: Reply) -> dict[str, Any]:
    """Where a redirect leads: scheme, host, port (`None` if it is the scheme's) and path."""
    found = urlsplit(reply.header("location") or "")
    return {
        "scheme": found.scheme,
        "host": found.hostname,
        "port": found.port,
        "path": found.path,
    }
