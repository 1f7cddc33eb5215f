"""Connections from a middleware to the data plane, kept for the next request of the same client."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import h11

from kgw.asgi.scopes import address
from kgw.sockets import Stream

if TYPE_CHECKING:
    from kgw.asgi.types import Scope
    from kgw.proxy import Proxy

_MAX_IDLE = 256
"""Idle connections; of more, that which was not used for longest is closed."""

_MAX_HEAD = 1024 * 1024
"""Bytes of an answer's head."""


class Caller(NamedTuple):
    """Whom a connection speaks for: the data plane knows a client by its connection."""

    peer: tuple[str, int] | None
    local: tuple[str, int] | None
    secure: bool
    server_name: str | None

    @classmethod
    def of(cls, scope: Scope) -> Caller:
        """Who makes a request, and to whom."""
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        name = host.decode("latin-1").rpartition("]")[2].partition(":")[0]
        secure = scope.get("scheme") in ("https", "wss")
        return cls(address(scope, "client"), address(scope, "server"), secure, name or None)


class Connection:
    """A connection to the data plane."""

    __slots__ = ("caller", "h11", "is_reused", "stream")

    def __init__(self, caller: Caller, stream: Stream) -> None:
        self.caller: Caller = caller
        self.stream: Stream = stream
        self.h11: h11.Connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self.is_reused: bool = False


class Pool:
    """Connections of one event loop."""

    def __init__(self, proxy: Proxy, listener: str | None) -> None:
        self._proxy = proxy
        self._listener = listener
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self._of: dict[Caller, list[Connection]] = {}

    def take(self, caller: Caller, *, fresh: bool = False) -> Connection:
        """Returns a connection, which is the caller's until it is put back or closed.

        Raises:
            KgwError: the proxy is not running.
            LookupError: no one listener is meant.
            OSError: there are no more descriptors, or too many connections wait.
        """
        while not fresh and (idle := self._of.get(caller)):
            connection = idle[-1]
            self._remove(connection)
            if connection.stream.is_quiet():
                connection.is_reused = True
                return connection
            connection.stream.close()
        connected = self._proxy.connect(
            self._listener,
            peer=caller.peer,
            local=caller.local,
            secure=caller.secure,
            server_name=caller.server_name,
        )
        return Connection(caller, Stream(connected))

    def put(self, connection: Connection) -> None:
        """Keeps a connection on which an exchange is complete, if another can follow."""
        state = connection.h11
        if state.our_state is not h11.DONE or state.their_state is not h11.DONE:
            connection.stream.close()
            return
        state.start_next_cycle()
        self._idle[connection] = None
        self._of.setdefault(connection.caller, []).append(connection)
        if len(self._idle) > _MAX_IDLE:
            oldest = next(iter(self._idle))
            self._remove(oldest)
            oldest.stream.close()

    def close(self) -> None:
        """Closes what is idle."""
        for connection in self._idle:
            connection.stream.close()
        self._idle.clear()
        self._of.clear()

    def _remove(self, connection: Connection) -> None:
        del self._idle[connection]
        same = self._of[connection.caller]
        same.remove(connection)
        if not same:
            del self._of[connection.caller]
