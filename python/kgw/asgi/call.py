"""One call of an application for a request: its `receive`, its `send`."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import h11

from kgw.asgi.errors import ClientDisconnected

if TYPE_CHECKING:
    from kgw.asgi.serve import Connection
    from kgw.asgi.types import Message, Scope


class Call:
    """What calls for requests and for WebSockets share."""

    def __init__(self, connection: Connection, scope: Scope) -> None:
        self.connection = connection
        self.scope = scope
        #: What the application runs in.
        self.scope_of_task: anyio.CancelScope = anyio.CancelScope()
        #: The client, or the data plane in its name, is gone.
        self.is_gone: bool = False
        self._waiting = 0
        self._changed = anyio.Event()
        self._taken = anyio.Event()

    def leave(self, grace: float | None) -> None:
        """The client is gone: the application has *grace* seconds to end."""
        self.is_gone = True
        self.wake()
        deadline = math.inf if grace is None else anyio.current_time() + grace
        self.scope_of_task.deadline = min(self.scope_of_task.deadline, deadline)
        if grace == 0:
            self.scope_of_task.cancel()

    async def room(self, most: int) -> None:
        """Waits until no more than *most* bytes wait for the application."""
        while self._waiting > most and not self.is_gone:
            self._taken = anyio.Event()
            await self._taken.wait()

    def wake(self) -> None:
        """Something has changed for who waits in `receive`."""
        self._changed.set()
        self._changed = anyio.Event()

    def end(self) -> None:
        """The application has ended, and takes no more."""
        self.took(self._waiting)

    def took(self, count: int) -> None:
        """The application has taken bytes."""
        self._waiting -= count
        self._taken.set()


class HttpCall(Call):
    """A call for a request."""

    def __init__(self, connection: Connection, scope: Scope) -> None:
        super().__init__(connection, scope)
        self._pieces: list[bytes] = []
        self._is_complete = False
        self._told = False
        self._start: h11.Response | None = None
        self._is_answered = False
        self._is_head = scope["method"] == "HEAD"
        self._has_body = not self._is_head

    def feed(self, data: bytes) -> None:
        """Adds to the request's body."""
        self._pieces.append(data)
        self._waiting += len(data)
        self.wake()

    def complete(self) -> None:
        """The request's body is complete."""
        self._is_complete = True
        self.wake()

    async def receive(self) -> Message:
        """The application's `receive`."""
        while True:
            if self._pieces or (self._is_complete and not self._told):
                body = b"".join(self._pieces)
                self._pieces.clear()
                self.took(len(body))
                self._told = self._is_complete
                return {"type": "http.request", "body": body, "more_body": not self._told}
            if self.is_gone or self._is_answered:
                return {"type": "http.disconnect"}
            await self._changed.wait()

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        if self.is_gone:
            raise ClientDisconnected("the client is gone")
        state = self.connection.h11
        match message["type"]:
            case "http.response.start" if not self._is_begun:
                self._start = _response(message)
                self._has_body &= self._start.status_code not in (204, 304)
            case "http.response.body" if self._is_begun and not self._is_answered:
                begun = self._start
                data = b""
                if begun is not None:
                    self._start = None
                    data = state.send(begun) or b""
                body = message.get("body", b"")
                if body and self._has_body:
                    data += state.send(h11.Data(data=body)) or b""
                if not message.get("more_body", False):
                    data += state.send(h11.EndOfMessage()) or b""
                    self._is_answered = True
                    self.wake()
                try:
                    await self.connection.stream.send(data)
                except OSError as error:
                    raise ClientDisconnected("the client is gone") from error
            case other:
                raise RuntimeError(f"{other!r} is not what an application may send now")

    @property
    def _is_begun(self) -> bool:
        return self._start is not None or self.connection.h11.our_state not in (
            h11.IDLE,
            h11.SEND_RESPONSE,
        )

    async def finish(self, *, failed: bool) -> bool:
        """Ends the exchange as it must end; returns whether another can follow."""
        state = self.connection.h11
        if self.is_gone:
            return False
        if not self._is_answered:
            if state.our_state is h11.SEND_BODY:
                return False  # cut: what was sent must not look whole
            self._start = None
            await self.connection.stream.send(self._failure())
        return state.our_state is h11.DONE and state.their_state is h11.DONE

    def _failure(self) -> bytes:
        """What an application answers that fails, or says nothing."""
        state = self.connection.h11
        body = b"Internal Server Error"
        fields = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
        begun = h11.Response(status_code=500, headers=fields, reason=body)
        data = state.send(begun) or b""
        if not self._is_head:
            data += state.send(h11.Data(data=body)) or b""
        return data + (state.send(h11.EndOfMessage()) or b"")


def reason(status: int) -> bytes:
    """The words that go with a status."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _response(message: Message) -> h11.Response:
    status = message["status"]
    headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
    return h11.Response(status_code=status, headers=headers, reason=reason(status))
