"""One WebSocket of a middleware: its handshake to the data plane, and messages both ways.

Whether requests may switch to WebSockets is for the configuration to say: the port's
``appProtocol`` or the listener's policy. A handshake that is refused is answered as the data plane
answers it, where the server can (the extension ``websocket.http.response``), and closed otherwise.
"""

from __future__ import annotations

import base64
import contextlib
import os
from typing import TYPE_CHECKING

import anyio
import h11
from wsproto.events import CloseConnection
from wsproto.utilities import RemoteProtocolError

from kgw.asgi.exchange import HOP_BY_HOP
from kgw.asgi.pool import Caller
from kgw.asgi.scopes import FIELD, request_target
from kgw.asgi.websocket import Messages, client_side, frame_of, sent
from kgw.errors import KgwError

if TYPE_CHECKING:
    from kgw.asgi.pool import Connection, Pool
    from kgw.asgi.scopes import Scopes
    from kgw.asgi.types import Headers, Message, Receive, Scope, Send

_MAX_DENIAL = 64 * 1024
"""Bytes of a refusal's body that are passed on."""

_NEGOTIATED = frozenset(
    {b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-protocol"}
)


async def serve(pool: Pool, scopes: Scopes, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves a WebSocket. Cancel safe: it is cut."""
    first = await receive()
    if first["type"] != "websocket.connect":
        return
    target = request_target(scope)
    with scopes.number(scope, target) as number:
        try:
            connection = pool.take(Caller.of(scope), fresh=True)
        except (KgwError, LookupError, OSError):
            await send({"type": "websocket.close", "code": 1013, "reason": ""})
            return
        try:
            await _Tunnel(connection, receive, send).run(scope, _handshake(scope, target, number))
        finally:
            connection.stream.close()


def _handshake(scope: Scope, target: bytes, number: bytes) -> h11.Request:
    """What asks the data plane for a WebSocket (RFC 6455 4.1)."""
    headers = [
        (name, value)
        for name, value in scope["headers"]
        # Compression is between the client and its server.
        if name not in HOP_BY_HOP and name != b"sec-websocket-extensions"
    ]
    names = {name for name, _ in headers}
    wanted = {
        b"host": b"localhost",
        # HTTP/2 has no key (RFC 8441 5).
        b"sec-websocket-key": base64.b64encode(os.urandom(16)),
        b"sec-websocket-version": b"13",
    }
    headers += [(name, value) for name, value in wanted.items() if name not in names]
    if b"sec-websocket-protocol" not in names and scope.get("subprotocols"):
        headers.append((b"sec-websocket-protocol", ", ".join(scope["subprotocols"]).encode()))
    headers += [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (FIELD, number)]
    return h11.Request(method=b"GET", target=target, headers=headers)


class _Tunnel:
    """A WebSocket on a connection."""

    def __init__(self, connection: Connection, receive: Receive, send: Send) -> None:
        self._h11 = connection.h11
        self._stream = connection.stream
        self._receive = receive
        self._send = send
        self._messages = Messages(client_side())
        self._writing = anyio.Lock()

    async def run(self, scope: Scope, request: h11.Request) -> None:
        """Shakes hands, then passes messages on until either side closes."""
        begin = (self._h11.send(request) or b"") + (self._h11.send(h11.EndOfMessage()) or b"")
        try:
            await self._stream.send(begin)
            answer = await self._event()
        except (OSError, h11.RemoteProtocolError):
            answer = h11.ConnectionClosed()
        if isinstance(answer, h11.InformationalResponse):
            await self._accept(list(answer.headers))
            await self._pass_on()
        elif isinstance(answer, h11.Response) and "websocket.http.response" in (
            scope.get("extensions") or {}
        ):
            await self._deny(answer)
        else:
            await self._send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self._stream.receive())
        return event

    async def _accept(self, answered: Headers) -> None:
        subprotocol = dict(answered).get(b"sec-websocket-protocol")
        headers = [(name, value) for name, value in answered if name not in _NEGOTIATED]
        await self._send(
            {
                "type": "websocket.accept",
                "subprotocol": subprotocol and subprotocol.decode("latin-1"),
                "headers": headers,
            }
        )

    async def _deny(self, answer: h11.Response) -> None:
        headers = [(name, value) for name, value in answer.headers if name not in HOP_BY_HOP]
        kind = "websocket.http.response"
        start = {"type": f"{kind}.start", "status": answer.status_code, "headers": headers}
        await self._send(start)
        body = bytearray()
        # The status says enough, should the rest not come.
        with contextlib.suppress(OSError, h11.RemoteProtocolError):
            while isinstance(event := await self._event(), h11.Data) and len(body) < _MAX_DENIAL:
                body += event.data
        await self._send({"type": f"{kind}.body", "body": bytes(body)})

    async def _pass_on(self) -> None:
        error: Exception | None = None

        async def upwards() -> None:
            nonlocal error
            try:
                await self._upwards()
            except Exception as failed:
                error = failed
            both.cancel_scope.cancel()

        async with anyio.create_task_group() as both:
            both.start_soon(upwards)
            try:
                await self._downwards()
            except Exception as failed:
                error = failed
            both.cancel_scope.cancel()
        if error is not None:
            raise error

    async def _upwards(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or 1005
                # 1005 and 1006 are never sent (RFC 6455 7.4.1).
                known = None if code in (1005, 1006) else code
                closing = CloseConnection(
                    code=1000 if known is None else known, reason=message.get("reason") or None
                )
                if code != 1006:
                    await self._write(sent(self._messages.frames, closing))
                return
            await self._write(sent(self._messages.frames, frame_of(message)))

    async def _downwards(self) -> None:
        data: bytes | None = self._h11.trailing_data[0]
        while True:
            try:
                for answer, message in self._messages.feed(data):
                    if answer is not None:
                        await self._write(sent(self._messages.frames, answer))
                    if message is not None and await self._deliver(message):
                        return
            except RemoteProtocolError:
                await self._send({"type": "websocket.close", "code": 1002, "reason": ""})
                return
            try:
                data = await self._stream.receive()
            except OSError:
                data = b""
            if not data:
                await self._send({"type": "websocket.close", "code": 1011, "reason": ""})
                return

    async def _deliver(self, message: Message) -> bool:
        """Gives a message of the backend to the client; returns whether it was the last."""
        if message["type"] != "websocket.disconnect":
            await self._send({**message, "type": "websocket.send"})
            return False
        code = 1000 if message["code"] == 1005 else message["code"]
        await self._send({"type": "websocket.close", "code": code, "reason": message["reason"]})
        return True

    async def _write(self, data: bytes) -> None:
        async with self._writing:
            # Whoever reads finds the end.
            with contextlib.suppress(OSError):
                await self._stream.send(data)
