"""A stage: manifests as text, a real backend behind each Service, a proxy with a clock by hand."""

from __future__ import annotations

import contextlib
import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.engine.harness import WAIT, Peer, Response, Upstream, eventually, ok

import kgw
from kgw.proxy import ManualClock

if TYPE_CHECKING:
    import socket as socket_module
    from collections.abc import Iterable

    from tests.engine.harness import Script

EXAMPLES = Path(__file__).parents[2] / "examples" / "waypoint"

CLIENT = kgw.MeshIdentity("cluster.local", "default", "client")

WAYPOINT = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way}
spec:
  gatewayClassName: kgateway-waypoint
  listeners: [{name: proxy, port: 15088, protocol: istio.io/PROXY}]
"""

MESH_NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio.io/use-waypoint: way}}
"""

EDGE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 8080, protocol: HTTP}]
"""


def named(name: str) -> Script:
    """A backend that says who it is and what it was asked."""

    def script(peer: Peer) -> None:
        while True:
            line, headers, body = peer.read_request()
            seen = {"backend": name, "line": line, "headers": headers, "body": body.decode()}
            peer.send(ok(json.dumps(seen).encode(), "content-type: application/json"))

    return script


@dataclass
class Answer:
    """What a client got, and what the backend had seen."""

    response: Response

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def body(self) -> bytes:
        return self.response.body

    @property
    def backend(self) -> str:
        """The Service that answered."""
        return str(self._seen["backend"])

    @property
    def outcome(self) -> str | int:
        """The Service that answered, else the status of the proxy's own answer."""
        return self.backend if self.status == 200 else self.status

    @property
    def line(self) -> str:
        """The request line that reached the backend."""
        return str(self._seen["line"])

    @property
    def target(self) -> str:
        """The request target that reached the backend."""
        return self.line.split(" ")[1]

    def received(self, name: str) -> list[str]:
        """The values of a request field that reached the backend."""
        return [value for key, value in self._seen["headers"] if key.lower() == name.lower()]

    def sent(self, name: str) -> list[str]:
        """The values of a response field that reached the client."""
        return [value for key, value in self.response.headers if key.lower() == name.lower()]

    @property
    def _seen(self) -> dict[str, Any]:
        assert self.status == 200, (self.status, self.body)
        seen = json.loads(self.body)
        assert isinstance(seen, dict)
        return seen


def request(path: str = "/", *fields: str, host: str = "example.org", method: str = "GET") -> bytes:
    """The bytes of a request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"host: {host}", *fields, "", ""]).encode()


def ask(
    peer: Peer,
    path: str = "/",
    *fields: str,
    host: str = "example.org",
    method: str = "GET",
) -> Answer:
    """Sends one request on a connection that stays open, and reads the answer."""
    peer.send(request(path, *fields, host=host, method=method))
    return Answer(peer.read_response(head=method == "HEAD"))


class Scene:
    """A running proxy, its clock, and ways to talk to it."""

    def __init__(self, stage: Stage, proxy: kgw.BlockingProxy, clock: ManualClock) -> None:
        self.stage = stage
        self.proxy = proxy
        self.clock = clock
        self._peers: list[Peer] = []

    # === Talking ===

    def connect(self, listener: str = "default/edge/http") -> Peer:
        """A connection to a listener."""
        return self._adopt(self._socket(listener))

    def mesh(
        self,
        to: str,
        port: int = 80,
        *,
        identity: kgw.MeshIdentity | None = CLIENT,
        listener: str = "default/way/proxy",
    ) -> Peer:
        """A connection as ztunnel makes it: the header first."""
        peer = self.connect(listener)
        header = kgw.ProxyHeader(("10.244.0.24", 46238), (to, port), identity=identity)
        peer.send(header.encode())
        return peer

    def get(
        self,
        path: str = "/",
        *fields: str,
        host: str = "example.org",
        method: str = "GET",
        listener: str = "default/edge/http",
    ) -> Answer:
        """The answer to one request on a connection of its own, to a plain listener."""
        peer = self.connect(listener)
        answer = ask(peer, path, *fields, host=host, method=method)
        peer.close()
        return answer

    def call(
        self, to: str, path: str = "/", *fields: str, port: int = 80, host: str = "example.org"
    ) -> Answer:
        """The answer to one request on a mesh connection of its own."""
        peer = self.mesh(to, port)
        answer = ask(peer, path, *fields, host=host)
        peer.close()
        return answer

    def statuses(self, count: int, path: str = "/") -> list[int]:
        """The statuses of several requests to the plain listener."""
        return [self.get(path).status for _ in range(count)]

    # === The proxy ===

    def stat(self, name: str) -> int:
        """A counter."""
        value = dict(self.proxy.stats())[name]
        assert isinstance(value, int)
        return value

    def reaches(self, name: str, value: int) -> None:
        """Waits for the value of a counter: a client may have its answer before it is counted."""
        eventually(lambda: self.stat(name) == value, f"{name} == {value}")

    def apply(self, *manifests: str, strict: bool = True) -> None:
        """Serves other manifests; those of the stage's Services stay."""
        config = self.stage.config(*manifests)
        if strict:
            config.raise_for_errors()
        self.proxy.apply(config)

    def settle(self, listener: str = "default/edge/http") -> None:
        """Returns when the worker has done what it had to do before.

        It may take a turn to notice, one to act, and one to write.
        """
        for _ in range(3):
            peer = self.connect(listener)
            peer.send(b"not a request\r\n\r\n")
            peer.read_to_end()

    def close(self) -> None:
        for peer in self._peers:
            peer.close()
        self.proxy.kill()

    def _adopt(self, sock: socket_module.socket) -> Peer:
        peer = Peer(sock)
        self._peers.append(peer)
        return peer

    def _socket(self, listener: str) -> socket_module.socket:
        import socket

        return socket.create_connection(self.proxy.addresses[listener][0], WAIT)


@dataclass
class Stage:
    """What is set up before a proxy serves it."""

    directory: Path
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    manifests: list[str] = field(default_factory=list)
    _exits: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def service(
        self,
        name: str,
        vip: str = "",
        *,
        namespace: str = "default",
        ports: Iterable[int] = (80,),
        labels: dict[str, str] | None = None,
        script: Script | None = None,
        ready: bool = True,
        protocol: str | None = "http",
    ) -> Upstream:
        """A Service with a backend that runs behind each of its ports.

        The ports declare *protocol*, as ``appProtocol`` if it is not one of the names of ports.
        """
        upstream = self.backend(name, script)
        port = int(upstream.address.rpartition(":")[2])
        declared = {"appProtocol": protocol} if protocol and "/" in protocol else {}
        prefix = "port" if protocol is None or declared else protocol
        self.manifests.append(
            f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, labels: {json.dumps(labels or {})}}}
spec:
  clusterIP: {vip or f"10.96.1.{len(self.upstreams)}"}
  ports: {json.dumps([{"name": f"{prefix}-{one}", "port": one, **declared} for one in ports])}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: {json.dumps(ready)}}}}}]
ports: {json.dumps([{"name": f"{prefix}-{one}", "port": port} for one in ports])}
"""
        )
        return upstream

    def backend(self, name: str, script: Script | None = None) -> Upstream:
        """A server that is no Service yet."""
        upstream = Upstream(script or named(name))
        self._exits.callback(upstream.close)
        self.upstreams[name] = upstream
        return upstream

    def config(self, *manifests: str) -> kgw.Config:
        """The configuration of these manifests and the stage's Services, read from files."""
        self.write(*manifests)
        return kgw.load(self.directory)

    def write(self, *manifests: str) -> None:
        """Puts manifests into the stage's directory instead of those that were there."""
        self.directory.mkdir(exist_ok=True)
        for old in self.directory.iterdir():
            old.unlink()
        for number, text in enumerate([*self.manifests, *manifests]):
            (self.directory / f"{number:02}.yaml").write_text(textwrap.dedent(text))

    def serve(self, *manifests: str, strict: bool = True, workers: int = 1) -> Scene:
        """Serves manifests that are in order; with ``strict=False``, also others."""
        config = self.config(*manifests)
        if strict:
            config.raise_for_errors()
        return self.run(config, workers=workers)

    def run(self, config: kgw.Config, *, workers: int = 1) -> Scene:
        """Serves a configuration on free ports of loopback."""
        clock = ManualClock()
        proxy = kgw.Proxy(
            config,
            bind="127.0.0.1:0",
            clock=clock,
            workers=workers,
            strict=False,
            drain_timeout=0,
        )
        scene = Scene(self, self._exits.enter_context(proxy), clock)
        self._exits.callback(scene.close)
        return scene


def log_lines(path: Path, count: int) -> list[str]:
    """The lines of an access log, once there are so many."""
    eventually(lambda: path.exists() and len(path.read_text().splitlines()) >= count, "log lines")
    lines = path.read_text().splitlines()
    assert len(lines) == count, lines
    return lines


def route(rules: str, *, parent: str = "{name: edge}", name: str = "r", more: str = "") -> str:
    """An HTTPRoute with rules in YAML."""
    head = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{parent}]
"""
    extra = textwrap.indent(textwrap.dedent(more).strip("\n"), "  ")
    body = textwrap.indent(textwrap.dedent(rules).strip("\n"), "  ")
    return f"{head}{extra}\n  rules:\n{body}\n" if extra else f"{head}  rules:\n{body}\n"
