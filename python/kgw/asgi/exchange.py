"""One request of a middleware: to the data plane, and its answer back.

Rule 1: body and answer stream, both at once: no more than one chunk of either is held here.
Rule 2: an answer that is cut short raises `ResponseCut`, so that the server does not end it well.
Rule 3: a connection that the data plane closed while it was idle is no error: a request without a
body is sent once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import h11

from kgw.asgi.errors import ResponseCut
from kgw.asgi.pool import Caller
from kgw.asgi.scopes import FIELD, request_target
from kgw.errors import KgwError

if TYPE_CHECKING:
    from kgw.asgi.pool import Connection, Pool
    from kgw.asgi.scopes import Scopes
    from kgw.asgi.types import Headers, Message, Receive, Scope, Send

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        FIELD,
    }
)
"""Fields of a connection, and not of its requests (RFC 9110 7.6.1); the server has answered
them."""


class Gone(Exception):
    """The data plane closed the connection before it answered."""


async def serve(pool: Pool, scopes: Scopes, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves a request. Cancel safe: the exchange is abandoned."""
    target = request_target(scope)
    headers = list(scope["headers"])
    first: Message | None = None
    is_long = any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in headers
    )
    if not is_long:
        # HTTP/2 announces no body; what there is shows whether there is one.
        first = await receive()
        if first["type"] == "http.disconnect":
            return
        is_long = bool(first.get("body")) or first.get("more_body", False)
    caller = Caller.of(scope)
    with scopes.number(scope, target) as number:
        request = h11.Request(
            method=scope["method"].encode(),
            target=target,
            headers=_forwarded(headers, number, is_long=is_long),
        )
        for fresh in (False, True):
            try:
                connection = pool.take(caller, fresh=fresh)
            except (KgwError, LookupError, OSError) as error:
                await _unavailable(send, str(error))
                return
            exchange = _Exchange(connection, receive, send)
            try:
                await exchange.run(request, first, is_long=is_long)
            except Gone:
                if connection.is_reused and not is_long:
                    continue
                await _unavailable(send, "the gateway closed the connection")
            finally:
                exchange.close(pool)
            return


def _forwarded(headers: Headers, number: bytes, *, is_long: bool) -> Headers:
    """The fields of a request as the data plane gets them."""
    found = [(name, value) for name, value in headers if name not in HOP_BY_HOP]
    names = {name for name, _ in found}
    if b"host" not in names:
        found.append((b"host", b"localhost"))
    if is_long and b"content-length" not in names:
        found.append((b"transfer-encoding", b"chunked"))
    found.append((FIELD, number))
    return found


async def _unavailable(send: Send, why: str) -> None:
    body = f"the gateway is not available: {why}".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Exchange:
    """A request on a connection."""

    def __init__(self, connection: Connection, receive: Receive, send: Send) -> None:
        self._connection = connection
        self._h11 = connection.h11
        self._stream = connection.stream
        self._receive = receive
        self._send = send
        self._is_begun = False
        self._is_over = False
        self._is_gone = False
        self._error: Exception | None = None

    async def run(self, request: h11.Request, first: Message | None, *, is_long: bool) -> None:
        """Sends the request and its body, and gives the answer to the server."""
        data = self._h11.send(request) or b""
        if not is_long:
            data += self._h11.send(h11.EndOfMessage()) or b""
        try:
            await self._stream.send(data)
        except OSError:
            raise Gone from None
        # An exception that left the group would be wrapped in one of its own.
        async with anyio.create_task_group() as both:
            both.start_soon(self._upwards, both.cancel_scope, first if is_long else None, is_long)
            try:
                await self._downwards()
            except Exception as error:
                self._error = error
            # Nobody waits for the client's side any longer.
            both.cancel_scope.cancel()
        if self._error is not None:
            raise self._error
        if self._is_gone:
            raise Gone

    def close(self, pool: Pool) -> None:
        """Gives the connection back, or up."""
        if self._is_over:
            pool.put(self._connection)
        else:
            self._stream.close()

    async def _upwards(self, scope: anyio.CancelScope, message: Message | None, more: bool) -> None:
        """Sends the body as it comes, and then waits for the client to leave."""
        try:
            while True:
                message = message or await self._receive()
                if message["type"] == "http.disconnect":
                    break
                if more:
                    more = await self._send_part(message)
                message = None
        except Exception as error:
            self._error = error
        scope.cancel()

    async def _send_part(self, message: Message) -> bool:
        """Sends a part of the body; returns whether the next is to be sent as well."""
        data = b""
        if body := message.get("body"):
            data = self._h11.send(h11.Data(data=body)) or b""
        more: bool = message.get("more_body", False)
        if not more:
            data += self._h11.send(h11.EndOfMessage()) or b""
        try:
            await self._stream.send(data)
        except OSError:
            return False  # the data plane has answered without it
        return more

    async def _downwards(self) -> None:
        """Passes the answer on as it comes."""
        # The last part goes with the word that it is the last: one message, and not two.
        held = b""
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise ResponseCut(str(error)) from error
            match event:
                case h11.NEED_DATA:
                    if held:
                        await self._pass(held, more=True)
                        held = b""
                    data = await self._receive_some()
                    if not data and not self._is_begun:
                        self._is_gone = True
                        return
                    self._h11.receive_data(data)
                case h11.Response():
                    self._is_begun = True
                    await self._begin(event)
                case h11.Data():
                    if held:
                        await self._pass(held, more=True)
                    held = bytes(event.data)
                case h11.EndOfMessage():
                    self._is_over = True
                    await self._pass(held, more=False)
                    return
                case h11.InformationalResponse():
                    pass
                case _:
                    raise ResponseCut("the answer ended before its end")

    async def _receive_some(self) -> bytes:
        try:
            return await self._stream.receive()
        except OSError:
            return b""

    async def _pass(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _begin(self, response: h11.Response) -> None:
        headers = [(name, value) for name, value in response.headers if name not in HOP_BY_HOP]
        await self._send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": headers,
            }
        )
