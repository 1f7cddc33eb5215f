"""Serving an application on connections from the data plane: HTTP/1.1 by h11.

A connection is one task that reads; each request is another that runs the application.

Rule 1: no more is read ahead than `_AHEAD`, so a body that the application does not take waits in
the client.
Rule 2: the end of a connection is the end of its request: the application is told, and cancelled if
it does not end by itself.
Rule 3: an exception of the application before its answer is 500; after that the connection is cut,
so that nobody takes the answer for whole.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import anyio
import h11

from kgw import inprocess
from kgw.asgi.call import HttpCall
from kgw.asgi.lifespan import log
from kgw.asgi.scopes import FIELD, scope_of
from kgw.asgi.websocket import SocketCall, is_handshake
from kgw.sockets import Stream

if TYPE_CHECKING:
    import socket

    from anyio.abc import TaskGroup

    from kgw.asgi.backend import Backend
    from kgw.asgi.scopes import Origin, Scopes

_AHEAD = 64 * 1024
"""Bytes of a body, beside one chunk, that wait for the application."""

_MAX_HEAD = 1024 * 1024
"""Bytes of a head: the most that a listener can be told to take."""


class Server:
    """Takes connections for an application, and serves them."""

    def __init__(self, backend: Backend, state: dict[str, Any], scopes: Scopes | None) -> None:
        self.backend = backend
        self.state = state
        self.scopes = scopes
        self.running: anyio.Semaphore = anyio.Semaphore(backend.max_concurrency, fast_acquire=True)
        self._doorbell: socket.socket | None
        self._doorbell, self._bell = inprocess.doorbell()

    def doorbell(self) -> socket.socket:
        """Returns the data plane's end of the doorbell, once."""
        given, self._doorbell = self._doorbell, None
        assert given is not None
        return given

    async def run(self) -> None:
        """Serves until cancelled, or until the data plane is gone."""
        async with anyio.create_task_group() as connections:
            while True:
                try:
                    connected = inprocess.next_connection(self._bell)
                except BlockingIOError:
                    await anyio.wait_readable(self._bell)
                    continue
                if connected is None:
                    return
                connections.start_soon(Connection(self, connected).serve)

    def close(self) -> None:
        """Takes no more connections."""
        self._bell.close()
        if self._doorbell is not None:
            self._doorbell.close()


class Connection:
    """A connection from the data plane."""

    def __init__(self, server: Server, connected: socket.socket) -> None:
        self.server = server
        self.stream: Stream = Stream(connected)
        self.h11: h11.Connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._call: HttpCall | SocketCall | None = None
        self._tasks: TaskGroup

    async def serve(self) -> None:
        """Serves requests, one after the other, until either side closes."""
        try:
            async with anyio.create_task_group() as self._tasks:
                while data := await self._receive():
                    self._feed(data)
                    if self._call is not None:
                        await self._call.room(_AHEAD)
                if self._call is not None:
                    self._call.leave(self.server.backend.disconnect_grace)
        except h11.RemoteProtocolError:
            log.exception("the data plane sent what h11 does not understand")
        finally:
            self.stream.close()

    async def _receive(self) -> bytes:
        try:
            return await self.stream.receive()
        except OSError:
            return b""

    def _feed(self, data: bytes) -> None:
        if isinstance(self._call, SocketCall):
            self._call.feed(data)
            return
        self.h11.receive_data(data)
        self._advance()

    def _advance(self) -> None:
        while True:
            event = self.h11.next_event()
            match event:
                case h11.Request():
                    self._begin(event)
                case h11.Data() if isinstance(self._call, HttpCall):
                    self._call.feed(bytes(event.data))
                case h11.EndOfMessage() if isinstance(self._call, HttpCall):
                    self._call.complete()
                case h11.NEED_DATA | h11.PAUSED | h11.ConnectionClosed():
                    return

    def _begin(self, request: h11.Request) -> None:
        number = None
        headers = []
        for name, value in request.headers:
            if name == FIELD:
                number = value
            else:
                headers.append((name, value))
        origin: Origin | None = None
        if number is not None and self.server.scopes is not None:
            origin = self.server.scopes.origin(number)
        kind = "websocket" if is_handshake(headers) else "http"
        scope = scope_of(kind, request.method, request.target, headers, origin)
        if origin is None:
            scope["state"] = self.server.state.copy()
        make = SocketCall if kind == "websocket" else HttpCall
        self._call = make(self, scope)
        # The application has the context variables of whom it would have been called by.
        context = origin.context.copy() if origin else contextvars.copy_context()
        context.run(self._tasks.start_soon, self._run, self._call)

    async def _run(self, call: HttpCall | SocketCall) -> None:
        failed = False
        with call.scope_of_task:
            async with self.server.running:
                try:
                    await self.server.backend.app(call.scope, call.receive, call.send)
                except Exception:
                    failed = True
                    if not call.is_gone:
                        log.exception("the application failed")
        try:
            reusable = await call.finish(failed=failed)
        except OSError:
            reusable = False
        call.end()
        self._call = None
        if reusable:
            self.h11.start_next_cycle()
            self._advance()
        else:
            self._tasks.cancel_scope.cancel()
