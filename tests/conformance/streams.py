"""Pods of connections and datagrams that say who they are, and Gateways to reach them through."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from tests.conformance.infra import GROUP, INFRA, WEB
from tests.engine.harness import WAIT, Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.conformance.infra import Infra

REJECTED: Final = (ssl.SSLEOFError, ConnectionResetError)
"""How a TLS client sees that its connection was closed; an alert is something else."""


class Datagrams:
    """A pod that answers each datagram with who it is."""

    def __init__(self, name: str, namespace: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.socket.getsockname())
        self._identity = {"backend": name, "namespace": namespace}
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, client = self.socket.recvfrom(65536)
            if self._ends.is_set():
                return
            self.socket.sendto(
                json.dumps({**self._identity, "said": data.decode()}).encode(), client
            )

    def close(self) -> None:
        """Ends the pod."""
        self._ends.set()
        self.socket.sendto(b"", self.socket.getsockname())
        self._thread.join(WAIT)
        self.socket.close()


@contextlib.contextmanager
def datagrams(
    infra: Infra, *names: str, namespace: str = INFRA, port: int = 8080
) -> Iterator[None]:
    """Services of datagrams, each with a pod."""
    with contextlib.ExitStack() as stack:
        for name in names:
            pod = Datagrams(name, namespace)
            stack.callback(pod.close)
            infra.endpoints(name, namespace, [pod.address], port=port, protocol="UDP")
        yield


def says_who(name: str, namespace: str = INFRA) -> Callable[[Peer], None]:
    """A pod that answers each line with who it is, and what it sees of the connection."""

    def script(peer: Peer) -> None:
        secure = isinstance(peer.sock, ssl.SSLSocket)
        identity = {"backend": name, "namespace": namespace, "tls": secure}
        identity["sni"] = getattr(peer.sock, "asked_name", None)
        while True:
            said = peer.read_until(b"\n").decode().strip()
            peer.send(json.dumps({**identity, "said": said}).encode() + b"\n")

    return script


def lines(infra: Infra, *names: str, namespace: str = INFRA, port: int = 3000, **more: Any) -> None:
    """Services of connections, each with a pod that answers lines."""
    for name in names:
        infra.service(name, namespace, port=port, script=says_who(name, namespace), **more)


def ask(peer: Peer, said: str = "hello") -> Any:
    """What the pod at the other end of a connection answers."""
    with contextlib.closing(peer):
        peer.send(said.encode() + b"\n")
        return json.loads(peer.read_until(b"\n"))


def is_closed(peer: Peer) -> bool:
    """Whether a connection is closed, and nothing else."""
    with contextlib.closing(peer):
        return peer.is_closed()


def ask_datagrams(infra: Infra, gateway: str, port: int, said: str = "hello") -> Any:
    """What a pod answers to one datagram through a Gateway."""
    return ask_at(infra.address(gateway, port), said)


def ask_at(address: tuple[str, int], said: str = "hello") -> Any:
    """What a pod answers to one datagram, from a socket of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(WAIT)
        client.connect(address)
        client.send(said.encode())
        return json.loads(client.recv(65536))


def within(shares: Counter[str], **expected: float) -> bool:
    """Whether each got its share, give or take five points, and nobody else anything."""
    total = sum(shares.values())
    wanted = {name.replace("_", "-"): share for name, share in expected.items()}
    return set(shares) <= {name for name, share in wanted.items() if share} and all(
        abs(shares[name] / total - share) <= 0.05 for name, share in wanted.items()
    )


def gateway(name: str, listeners: Iterable[str], *, more: str = "", generation: int = 1) -> str:
    """A Gateway's manifest; its listeners are flow mappings."""
    return f"""apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: {name}, namespace: {INFRA}, generation: {generation}}}
spec:
  gatewayClassName: kgateway
  listeners: [{", ".join(listeners)}]
{more}"""


def listener(name: str, port: int, protocol: str, *, more: str = "") -> str:
    """A listener that allows the routes of its protocol only."""
    kinds = f"allowedRoutes: {{kinds: [{{kind: {protocol}Route}}]}}"
    return f"{{name: {name}, port: {port}, protocol: {protocol}, {kinds}{more}}}"


def grant(kind: str, service: str, namespace: str = WEB) -> str:
    """What permits routes of the infra namespace to refer to a Service elsewhere."""
    return f"""apiVersion: {GROUP}/v1
kind: ReferenceGrant
metadata: {{name: grant, namespace: {namespace}}}
spec:
  from: [{{group: {GROUP}, kind: {kind}, namespace: {INFRA}}}]
  to: [{{group: "", kind: Service, name: {service}}}]
"""


def created(manifest: str, at: str) -> str:
    """The manifest of an object that was made at a time."""
    return manifest.replace("metadata: {", f"metadata: {{creationTimestamp: '{at}', ", 1)


def shares(one: Callable[[], str], count: int = 500) -> Counter[str]:
    """How often each answer came."""
    return Counter(one() for _ in range(count))
