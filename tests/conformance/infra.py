"""The cluster of a conformance test: files that are served, echo servers as pods, and clients.

Manifests are files in a directory, as a user of ``kgw run`` has them; `Infra.apply` writes one
and serves the directory again, as ``kubectl apply`` would. Gateways have their literal listener
ports in manifests, and are bound to free ports of loopback: `Infra.connect` knows which. With a
pool of addresses each Gateway has its own, and its ports are moved to where no privilege is needed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import textwrap
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from tests.conformance import statuses
from tests.engine.harness import WAIT, Peer, Response, Upstream, ok

import kgw
from kgw.api import ResourceKey
from kgw.api.duration import milliseconds
from kgw.translate.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from tests.engine.harness import Script

    from kgw.proxy import ManualClock
    from kgw.translate import AddressPool

INFRA: Final = "gateway-conformance-infra"
"""The namespace of most objects."""
APP: Final = "gateway-conformance-app-backend"
"""A namespace of backends."""
WEB: Final = "gateway-conformance-web-backend"
"""A namespace whose backends have routes of their own."""
MESH: Final = "gateway-conformance-mesh"
"""The namespace of the mesh's services."""
CONSUMER: Final = "gateway-conformance-mesh-consumer"
"""A namespace of the mesh's clients."""

OFFSET: Final = 20_000
"""What is added to ports on addresses of a pool, so that none below 1024 is bound."""

GROUP: Final = "gateway.networking.k8s.io"
"""The Gateway API's group."""

BACKENDS: Final = (
    (INFRA, "infra-backend-v1"),
    (INFRA, "infra-backend-v2"),
    (INFRA, "infra-backend-v3"),
    (APP, "app-backend-v1"),
    (APP, "app-backend-v2"),
    (WEB, "web-backend"),
)
"""The Services that are always there, on port 8080."""

_BASE: Final = """
apiVersion: v1
kind: Namespace
metadata: {name: gateway-conformance-infra, labels: {gateway-conformance: infra}}
---
apiVersion: v1
kind: Namespace
metadata: {name: gateway-conformance-app-backend, labels: {gateway-conformance: backend}}
---
apiVersion: v1
kind: Namespace
metadata: {name: gateway-conformance-web-backend, labels: {gateway-conformance: backend}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: same-namespace, namespace: gateway-conformance-infra}
spec:
  gatewayClassName: kgateway
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Same}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: all-namespaces, namespace: gateway-conformance-infra}
spec:
  gatewayClassName: kgateway
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: backend-namespaces, namespace: gateway-conformance-infra}
spec:
  gatewayClassName: kgateway
  listeners:
  - name: http
    port: 80
    protocol: HTTP
    allowedRoutes:
      namespaces: {from: Selector, selector: {matchLabels: {gateway-conformance: backend}}}
"""


@dataclass
class Reply:
    """What a client got, and what the backend says that it saw."""

    response: Response

    @property
    def status(self) -> int:
        """The status code."""
        return self.response.status

    @property
    def body(self) -> bytes:
        """The body as it came."""
        return self.response.body

    def header(self, name: str) -> str | None:
        """A response field, its lines joined by a comma; `None` if there is none."""
        found = [value for key, value in self.response.headers if key.lower() == name.lower()]
        return ",".join(found) if found else None

    @cached_property
    def seen(self) -> dict[str, Any]:
        """What the backend saw: ``backend``, ``namespace``, ``method``, ``path`` (with its query),
        ``host``, ``headers`` (by lower-case name, a list of values), ``body``, ``sni``."""
        assert self.status == 200, (self.status, self.body)
        seen = json.loads(self.body)
        assert isinstance(seen, dict)
        return seen

    @property
    def backend(self) -> str:
        """The Service that answered."""
        return str(self.seen["backend"])

    def passed(self, path: str, host: str, method: str = "GET") -> None:
        """Checks that a backend, if any answered, saw what was asked: nothing is rewritten."""
        if self.status != 200:
            return
        found = [self.seen[one] for one in ("method", "host", "path")]
        assert found == [method, host, path]

    @property
    def outcome(self) -> str | int:
        """The Service that answered, else the status of the gateway's own answer."""
        return self.backend if self.status == 200 else self.status

    def received(self, name: str) -> str | None:
        """A request field as the backend saw it, its lines joined by a comma; `None` if absent."""
        values = self.seen["headers"].get(name.lower())
        return ",".join(values) if values is not None else None


def echo(name: str, namespace: str, requests: Callable[[dict[str, Any]], object]) -> Script:
    """A pod that answers with what it was asked, as the suite's does.

    ``?delay=1s`` makes it wait, and ``X-Echo-Set-Header: name:value`` sets a field of the answer.
    """

    def script(peer: Peer) -> None:
        while True:
            line, pairs, body = peer.read_request()
            method, target, _ = line.split(" ", 2)
            headers: dict[str, list[str]] = {}
            for key, value in pairs:
                headers.setdefault(key.lower(), []).append(value)
            sock = peer.sock
            seen = {
                "backend": name,
                "namespace": namespace,
                "method": method,
                "path": target,
                "host": headers.get("host", [""])[0],
                "headers": headers,
                "body": body.decode("latin-1"),
                "sni": getattr(sock, "asked_name", None),
                "certificate": sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None,
            }
            requests(seen)
            delay = parse_qs(urlsplit(target).query).get("delay")
            if delay is not None:
                # What the suite asks of the pod: an answer that comes too late.
                threading.Event().wait(milliseconds(delay[0]) / 1000)
            fields = [
                one.replace(":", ": ", 1)
                for value in headers.get("x-echo-set-header", ())
                for one in value.split(",")
                if one
            ]
            answer = ok(json.dumps(seen).encode(), "content-type: application/json", *fields)
            peer.send(
                answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else answer
            )

    return script


def secured(script: Script, context: ssl.SSLContext) -> Script:
    """A pod that ends TLS first. Which name was asked for is in what it says that it saw."""

    class Session(ssl.SSLSocket):
        asked_name: str | None = None

    def ask(sock: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if isinstance(sock, Session):
            sock.asked_name = name

    context.sslsocket_class = Session
    context.sni_callback = ask

    def wrapped(peer: Peer) -> None:
        peer.sock = context.wrap_socket(peer.sock, server_side=True)
        script(peer)

    return wrapped


@dataclass
class Infra:
    """A cluster without Kubernetes. Nothing is served before the first `apply`."""

    directory: Path
    clock: ManualClock | None = None
    """Set it before the first `apply`, and time stands still until it is advanced."""
    workers: int = 1
    pool: AddressPool | None = None
    """Addresses of loopback of which each Gateway gets its own."""
    backends: dict[str, Upstream] = field(default_factory=dict)
    """The servers behind Services, by ``namespace/name``."""
    requests: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What each echo server saw, by ``namespace/name``, the first first."""
    _known: list[dict[str, Any]] | None = None
    """The objects in the files as they are: each request asks where Gateways are."""
    _proxy: kgw.BlockingProxy | None = None
    _config: kgw.Config | None = None
    _exits: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True)
        self.write("00-base", _BASE)
        for namespace, name in BACKENDS:
            self.service(name, namespace)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    # === What there is ===

    def service(
        self,
        name: str,
        namespace: str = INFRA,
        *,
        port: int = 8080,
        script: Script | None = None,
        tls: ssl.SSLContext | None = None,
        app_protocol: str | None = None,
        cluster_ip: str | None = None,
    ) -> Upstream:
        """A Service with one pod. It is served from the next `apply` on.

        Args:
            script: what the pod does; it echoes without one.
            tls: makes the pod end TLS.
            cluster_ip: its address; one is chosen without it. ``None`` as text is a headless one.
        """
        seen = self.requests.setdefault(f"{namespace}/{name}", [])
        script = script or echo(name, namespace, seen.append)
        upstream = Upstream(secured(script, tls) if tls is not None else script)
        self._exits.callback(upstream.close)
        number = len(self.backends)
        self.backends[f"{namespace}/{name}"] = upstream
        self.endpoints(
            name,
            namespace,
            [upstream.address],
            port=port,
            app_protocol=app_protocol,
            cluster_ip=cluster_ip or f"10.96.1.{number}",
        )
        return upstream

    def endpoints(
        self,
        name: str,
        namespace: str,
        addresses: Iterable[str],
        *,
        port: int,
        protocol: str = "TCP",
        app_protocol: str | None = None,
        cluster_ip: str = "10.96.2.1",
    ) -> None:
        """Writes a Service and the addresses behind it, ``host:port`` each."""
        declared = f", appProtocol: {app_protocol}" if app_protocol else ""
        text = f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  clusterIP: {cluster_ip}
  ports: [{{name: main, port: {port}, protocol: {protocol}{declared}}}]
"""
        for count, address in enumerate(addresses):
            host, _, at = address.rpartition(":")
            text += f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{count}
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
endpoints: [{{addresses: [{host}], conditions: {{ready: true}}}}]
ports: [{{name: main, port: {at}, protocol: {protocol}}}]
"""
        self.write(f"service-{namespace}-{name}", text)

    # === What is served ===

    def write(self, name: str, manifest: str) -> None:
        """Writes a file, which the next `apply` serves."""
        (self.directory / f"{name}.yaml").write_text(textwrap.dedent(manifest))
        self._known = None

    def apply(self, *manifests: str, name: str = "test") -> None:
        """Writes manifests as a file and serves all files; a file of that name is replaced."""
        if manifests:
            self.write(name, "\n---\n".join(textwrap.dedent(one) for one in manifests))
        self._serve()

    def delete(self, name: str = "test") -> None:
        """Takes a file away and serves the rest."""
        (self.directory / f"{name}.yaml").unlink()
        self._known = None
        self._serve()

    @property
    def config(self) -> kgw.Config:
        """What is served."""
        assert self._config is not None, "apply something first"
        return self._config

    @property
    def proxy(self) -> kgw.BlockingProxy:
        """The proxy that serves it."""
        assert self._proxy is not None, "apply something first"
        return self._proxy

    def _serve(self) -> None:
        if self.pool is not None:
            options = Options(pool=self.pool, port_offset=OFFSET)
        else:
            # Gateways share ports here: each has an address of its own in a cluster.
            ports = {
                ident: 0
                for kind in ("Gateway", "ListenerSet")
                for named, one in self._objects(kind)
                for ident, _ in _listeners(kind, named, one)
            }
            options = Options(bind=("127.0.0.1",), ports=ports)
        self._config = config = kgw.load(self.directory, options=options)
        statuses.check(config.statuses, self._manifests())
        if self._proxy is not None:
            self._proxy.apply(config)
            return
        proxy = kgw.Proxy(
            config,
            workers=self.workers,
            strict=False,
            drain_timeout=0,
            clock=self.clock,
        )
        self._proxy = running = self._exits.enter_context(proxy)
        self._exits.callback(running.kill)

    # === Statuses ===

    def status(self, kind: str, name: str, namespace: str = INFRA, *, group: str = GROUP) -> Any:
        """The status of an object, as Kubernetes has it in JSON."""
        found = self.config.statuses.get(ResourceKey(group, kind, namespace, name))
        assert found is not None, f"{kind} {namespace}/{name} has no status"
        return found.to_json()

    def listener(self, gateway: str, listener: str, *, kind: str = "Gateway") -> Any:
        """The status of a listener of a Gateway (or ListenerSet) in the infra namespace."""
        listeners = self.status(kind, gateway)["listeners"]
        return next(one for one in listeners if one["name"] == listener)

    def parent(self, kind: str, route: str, where: str = INFRA, /, **ref: object) -> Any:
        """The status of a route of a namespace for the one parentRef that has some members."""
        parents = self.status(kind, route, where)["parents"]
        found = [one for one in parents if ref.items() <= one["parentRef"].items()]
        assert len(found) == 1, parents
        return found[0]

    def accepted(
        self,
        parent: str,
        *routes: str,
        kind: str = "HTTPRoute",
        of: str = "Gateway",
        sections: Iterable[str] = (),
        namespace: str = INFRA,
        at: str = INFRA,
        resolved: bool = True,
    ) -> None:
        """Checks that a Gateway or ListenerSet serves routes, as most tests of the suite begin.

        Args:
            parent: whose listeners all must be accepted, resolved and programmed.
            routes: each must be accepted there.
            kind: that of the routes.
            of: that of the parent.
            sections: the listeners that the routes refer to by name, if they do.
            namespace: that of the routes.
            at: that of the parent.
            resolved: whether the routes have all that they refer to.
        """
        status = self.status(of, parent, at)
        if self.pool is not None and of == "Gateway":
            assert status["addresses"], parent
        assert status["listeners"], parent
        for listener in status["listeners"]:
            found = conditions(listener)
            for one in ("Accepted", "Programmed", "ResolvedRefs"):
                assert found[one][0] == "True", (parent, listener)
        for name in routes:
            for section in sections or (None,):
                ref = {"group": GROUP, "kind": of, "name": parent}
                ref |= {"sectionName": section} if section else {}
                entry = self.parent(kind, name, namespace, **ref)
                assert entry["parentRef"].get("namespace", namespace) == at, entry
                found = conditions(entry)
                assert found["Accepted"] == ("True", "Accepted"), entry
                if resolved:
                    assert found["ResolvedRefs"] == ("True", "ResolvedRefs"), entry

    # === Requests ===

    def address(self, gateway: str, port: int = 80, namespace: str = INFRA) -> tuple[str, int]:
        """Where a Gateway is bound, by the port that its listener (or a ListenerSet's) states."""
        if self.pool is not None:
            address = self.status("Gateway", gateway, namespace)["addresses"][0]
            return (address["value"], port + OFFSET)
        for kind in ("Gateway", "ListenerSet"):
            for named, one in self._objects(kind):
                for ident, stated in _listeners(kind, named, one):
                    of = ident.startswith(f"{namespace}/{gateway}/") and stated == port
                    if of and ident in self.proxy.addresses:
                        return self.proxy.addresses[ident][0]
        raise LookupError(f"{gateway} is not bound for port {port}: {self.proxy.addresses}")

    def _manifests(self) -> list[dict[str, Any]]:
        import yaml

        if self._known is None:
            texts = (path.read_text() for path in sorted(self.directory.glob("*.yaml")))
            self._known = [one for text in texts for one in yaml.safe_load_all(text) if one]
        return self._known

    def _objects(self, kind: str) -> list[tuple[tuple[str, str], dict[str, Any]]]:
        found = [one for one in self._manifests() if one["kind"] == kind]
        metas = [one["metadata"] for one in found]
        named = [(meta.get("namespace", "default"), meta["name"]) for meta in metas]
        return list(zip(named, found, strict=True))

    def connect(
        self,
        gateway: str,
        port: int = 80,
        *,
        namespace: str = INFRA,
        sni: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Peer:
        """A connection to a Gateway, with TLS for a server name if there is a context."""
        sock = socket.create_connection(self.address(gateway, port, namespace), WAIT)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=sni)
        return Peer(sock)

    def request(
        self,
        gateway: str,
        path: str = "/",
        *,
        method: str = "GET",
        host: str = "example.com",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        port: int = 80,
        namespace: str = INFRA,
        sni: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Reply:
        """The answer to one request on a connection of its own, as the suite's client makes it."""
        peer = self.connect(gateway, port, namespace=namespace, sni=sni or host, tls=tls)
        with contextlib.closing(peer):
            pairs = headers.items() if hasattr(headers, "items") else headers
            lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
            lines += [f"{name}: {value}" for name, value in pairs]
            if body or method in ("POST", "PUT", "PATCH"):
                lines.append(f"content-length: {len(body)}")
            peer.send("\r\n".join([*lines, "", ""]).encode() + body)
            return Reply(peer.read_response(head=method == "HEAD"))

    def shares(self, gateway: str, count: int = 500, path: str = "/", **more: Any) -> Counter[str]:
        """How often each Service answered, or a status was given; ten requests at a time."""

        def one(_: int) -> str:
            return str(self.request(gateway, path, **more).outcome)

        with ThreadPoolExecutor(10) as pool:
            return Counter(pool.map(one, range(count)))


def _listeners(kind: str, named: tuple[str, str], one: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The ids and ports of the listeners of an object."""
    prefix: tuple[str, ...] = named
    if kind == "ListenerSet":
        ref = one["spec"]["parentRef"]
        prefix = (ref.get("namespace", named[0]), ref["name"], *named)
    return [
        ("/".join((*prefix, listener["name"])), listener["port"])
        for listener in one["spec"]["listeners"]
    ]


def conditions(status: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The conditions of a status (or of an entry in it) by type: status and reason."""
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


def route(
    rules: str,
    *parents: str,
    name: str = "route",
    namespace: str = INFRA,
    hostnames: Iterable[str] = (),
    kind: str = "HTTPRoute",
    generation: int = 1,
) -> str:
    """A route's manifest: its rules as YAML, its parents as flow mappings or names of Gateways."""
    refs = [one if one.startswith("{") else f"{{name: {one}}}" for one in parents]
    text = f"""apiVersion: {GROUP}/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}, generation: {generation}}}
spec:
  parentRefs: [{", ".join(refs or ["{name: same-namespace}"])}]
"""
    if hostnames:
        text += f"  hostnames: {json.dumps(list(hostnames))}\n"
    return text + "  rules:\n" + textwrap.indent(textwrap.dedent(rules).strip("\n"), "  ") + "\n"
