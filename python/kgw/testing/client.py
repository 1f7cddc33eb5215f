"""The client's side of a request of a test: one connection, one request, one answer."""

from __future__ import annotations

import http.client
import json as jsonlib
import select
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from kgw.mesh import MeshConnection, Request
from kgw.testing.headers import Fields, Headers, pairs

if TYPE_CHECKING:
    from kgw.addresses import Address
    from kgw.testing.aim import Aim

__all__ = ["Exchange", "Response", "request"]


class Response(NamedTuple):
    """An answer as it came."""

    status: int
    reason: str
    headers: Headers
    body: bytes


class Exchange:
    """A request that is being made.

    Args:
        address: where the listener is bound.
        aim: where the request goes.
        request: the request.
        patience: real seconds without a byte after which it has failed.

    Raises:
        OSError: nothing listens there.
    """

    def __init__(self, address: Address, aim: Aim, request: Request, patience: float) -> None:
        self.aim = aim
        self.request = request
        self._connection = _Connection(address, aim, patience)
        try:
            self._connection.connect()
        except OSError:
            self._connection.abandon()
            raise
        # http.client closes its socket when it likes; this one stays until the end.
        assert self._connection.plain is not None  # connected, there is one
        self._socket = self._connection.plain
        self._answered = False
        self._patience = patience

    @property
    def peer(self) -> str:
        """The client's address, as the gateway sees it."""
        return str(self._connection.own)

    @property
    def answered(self) -> bool:
        """Whether something came back, be it the end of the connection."""
        return self._answered or _is_readable(self._socket, 0.0)

    def send(self) -> None:
        """Sends the request. Raises `OSError`."""
        self.request.begin(self._connection)

    def receive(self) -> Response:
        """Waits for the answer, and for the gateway to be done with the connection.

        Raises:
            OSError: the connection failed, or nothing came in time.
            http.client.HTTPException: it was closed, or the answer is not HTTP.
        """
        # Seen before it is read, so that `answered` stays true.
        if not _is_readable(self._socket, self._patience):
            raise TimeoutError
        self._answered = True
        response = self._connection.getresponse()
        body = response.read()
        fields = Headers(response.getheaders())
        # The gateway closes a connection that the client has ended once the exchange is over for
        # it as well: then its log record is made.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(65536):
                pass
        return Response(response.status, response.reason, fields, body)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()
        self._socket.close()


def _is_readable(sock: socket.socket, seconds: float) -> bool:
    """Whether there is something to read, an end included, or will be in so many seconds."""
    poll = select.poll()  # an object of each thread's own: two cannot use one
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class _Connection(MeshConnection):
    """A connection as the aim says: from where, with or without PROXY header and TLS."""

    def __init__(self, address: Address, aim: Aim, patience: float) -> None:
        super().__init__(address, aim.origin, patience)
        self._aim = aim
        self.plain: socket.socket | None = None

    def abandon(self) -> None:
        """Closes what there is of a connection that failed."""
        self.close()
        if self.plain is not None:
            self.plain.close()

    def connect(self) -> None:
        """Connects. Raises `OSError`."""
        self.sock = socket.create_connection(
            (self.host, self.port), self.timeout, source_address=self._aim.source
        )
        self.introduce()
        self.plain = self.sock.dup()
        self.plain.settimeout(self.timeout)
        if self._aim.server_name is not None:
            self.sock = _tls().wrap_socket(self.sock, server_hostname=self._aim.server_name)


def _tls() -> ssl.SSLContext:
    """TLS as a client that trusts any certificate: the gateway is what is tested, and the test's
    manifests rarely have one that anybody trusts."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def request(
    method: str, aim: Aim, headers: Fields = (), body: bytes | str | None = None, json: Any = None
) -> Request:
    """Returns a request with the fields that it needs, and those that are given.

    Raises:
        ValueError: both a body and JSON are given.
    """
    fields = pairs(headers)
    names = {name.lower() for name, _ in fields}
    content = body.encode() if isinstance(body, str) else body
    if json is not None:
        if content is not None:
            raise ValueError("a request has a body or JSON, not both")
        content = jsonlib.dumps(json).encode()
        if "content-type" not in names:
            fields.append(("Content-Type", "application/json"))
    if content is not None and not names & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(content))))
    if "host" not in names:
        fields.insert(0, ("Host", aim.authority))
    return Request(method, aim.target, tuple(fields), content)


Failure: tuple[type[Exception], ...] = (OSError, http.client.HTTPException)
"""What can go wrong with an exchange."""
