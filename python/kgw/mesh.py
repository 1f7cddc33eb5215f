"""The client's side of a waypoint: what Istio's ztunnel puts on the wire, from one machine.

ztunnel opens one TCP connection to the waypoint for each connection of the client, writes a
PROXY protocol v2 header (the client's address, the service's VIP, the client's identity in TLV
0xD0), and copies the client's bytes from then on.
"""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgw.addresses import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.proxyproto import MeshIdentity


@dataclass(frozen=True, slots=True)
class Origin:
    """Who calls what, as a PROXY protocol header says it."""

    destination: Address
    """The service's VIP and port."""
    identity: MeshIdentity | None = None
    """Who calls; none sends a header without TLV 0xD0."""
    source: Address | None = None
    """Where from; by default the connection's own address."""

    def header(self, own: Address) -> bytes:
        """Returns the header for a connection whose own address is *own*."""
        from kgw.proxyproto import ProxyHeader

        return ProxyHeader(
            source=self._source(own), destination=self.destination, identity=self.identity
        ).encode()

    def describe(self, own: Address) -> str:
        """Returns what the header says, for people."""
        identity = self.identity or "none"
        return f"{self._source(own)} -> {self.destination}, identity {identity}"

    def _source(self, own: Address) -> Address:
        if self.source is not None:
            return self.source
        # ztunnel sends no addresses at all when their families differ, and then the waypoint would
        # not know the service: a loopback address of the VIP's family stands in.
        if (":" in own.host) == (":" in self.destination.host):
            return own
        return Address("::1" if ":" in self.destination.host else "127.0.0.1", own.port)


class MeshConnection(http.client.HTTPConnection):
    """An HTTP/1.1 connection through a waypoint.

    Args:
        via: where the waypoint listens.
        origin: what the PROXY protocol header says; ``None`` sends none (a plain HTTP listener).
        timeout: seconds without a byte after which a call fails.
    """

    def __init__(self, via: Address, origin: Origin | None, timeout: float) -> None:
        super().__init__(via.host, via.port, timeout=timeout)
        self.origin = origin
        self.own: Address = Address("", 0)

    def connect(self) -> None:
        """Connects and sends the header. Raises `OSError`."""
        self.sock: socket.socket = socket.create_connection((self.host, self.port), self.timeout)
        self.introduce()

    def introduce(self) -> None:
        """Sends the header on a new connection. Raises `OSError`."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.own = Address(*self.sock.getsockname()[:2])
        if self.origin is not None:
            # One write of its own, as ztunnel does: it usually arrives in a segment of its own.
            self.sock.sendall(self.origin.header(self.own))


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its header fields in the order in which they are sent."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    body: bytes | None = None

    def head(self) -> Iterator[str]:
        """Yields the lines of the head."""
        yield f"{self.method} {self.target} HTTP/1.1"
        for name, value in self.fields:
            yield f"{name}: {value}"

    def send(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        """Sends the request and returns the answer, its body unread.

        Raises:
            OSError: the connection failed.
            http.client.HTTPException: the answer is not HTTP.
        """
        self.begin(connection)
        return connection.getresponse()

    def begin(self, connection: http.client.HTTPConnection) -> None:
        """Sends the request. Raises `OSError`."""
        connection.putrequest(self.method, self.target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.fields:
            connection.putheader(name, value.encode(errors="surrogateescape"))
        connection.endheaders(self.body)


def status_line(response: http.client.HTTPResponse) -> str:
    """Returns the status line as it was received, near enough: ``HTTP/1.1 200 OK``."""
    version = "HTTP/1.0" if response.version == 10 else "HTTP/1.1"
    return f"{version} {response.status} {response.reason}".rstrip()
