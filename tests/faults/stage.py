"""A gateway between a client and a backend of given versions, on a clock turned by hand."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.engine.harness import Gateway, Setup, eventually
from tests.peers.h2 import Connection

from .clients import Client, H1Client, H2Client
from .upstreams import Listener, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG = {
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "sent": "%BYTES_SENT%",
    "received": "%BYTES_RECEIVED%",
}

PAIRS = [(down, up) for down in ("h1", "h2") for up in ("h1", "h2")]
"""Versions of the client and of the backend."""


@dataclass
class Stage:
    """What is on it."""

    gateway: Gateway
    listener: Listener
    downstream: str
    clients: list[Client]

    def client(self) -> Client:
        """A new connection to the gateway."""
        if self.downstream == "h2":
            client: Client = H2Client(Connection(("127.0.0.1", self.gateway.port)))
        else:
            client = H1Client(self.gateway.connect())
        self.clients.append(client)
        return client

    def exchange(self, method: str = "GET", length: int | None = None) -> tuple[Client, Upstream]:
        """A new client whose request's head has come to the backend."""
        client = self.client()
        client.ask(method, length)
        upstream = self.listener.accept()
        upstream.read_head()
        return client, upstream

    def serves(self, upstream: Upstream | None = None) -> None:
        """The gateway serves another client, over the upstream connection given or a new one."""
        client = self.client()
        client.ask("GET")
        upstream = upstream or self.listener.accept()
        upstream.read_head()
        upstream.answer(b"sound")
        answer = client.answer()
        assert (answer.status, answer.body, answer.whole) == (200, b"sound", True)

    def nothing_is_left(self, *, connections: int = 0) -> None:
        """No request is under way, and no more than these client connections are open."""
        eventually(lambda: self.gateway.stat("downstream_rq_active") == 0, "no request")
        if connections == 0:
            for client in self.clients:
                client.close()
        eventually(
            lambda: self.gateway.stat("downstream_cx_active") <= connections + self._probes(),
            "no connection",
        )

    def _probes(self) -> int:
        return int(self.gateway.probe is not None)

    def gone(self, leave: str) -> str:
        """The flag of a client that left: it reset its stream, or ended its connection."""
        return "DR" if (self.downstream, leave) == ("h2", "abort") else "DC"

    def logged(self) -> dict[str, Any]:
        """The access log's only line so far."""
        (line,) = self.gateway.log_lines(1)
        return line


@contextlib.contextmanager
def stage(downstream: str, upstream: str, directory: Path, **http: Any) -> Iterator[Stage]:
    """Sets the stage up."""
    listener = Listener(upstream)
    protocol = {"h1": "http1", "h2": "http2"}[upstream]
    setup = Setup(
        log=LOG,
        log_path=str(directory / "access.log"),
        http=http,
        clusters={"c": {"endpoints": [listener.address], "protocol": protocol}},
    )
    gateway = Gateway(setup)
    found = Stage(gateway, listener, downstream, [])
    try:
        yield found
    finally:
        for client in found.clients:
            client.close()
        gateway.close()
        listener.close()
