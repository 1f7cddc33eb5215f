"""WebSockets: frames by wsproto, towards the application and towards the data plane.

The data plane sees the handshake (RFC 6455 4) and passes the frames on as bytes. Extensions are
left out on the way between: what the client and its server compress is theirs.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import h11
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from kgw.asgi.call import Call, reason
from kgw.asgi.errors import ClientDisconnected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.asgi.serve import Connection
    from kgw.asgi.types import Headers, Message, Scope

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a message, at most: what uvicorn takes too."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_OWN = frozenset(
    {
        b"upgrade",
        b"connection",
        b"sec-websocket-accept",
        b"sec-websocket-protocol",
        b"content-length",
    }
)
"""Fields of a handshake's answer that are not the application's."""


def is_handshake(headers: Headers) -> bool:
    """Whether a request asks for a WebSocket."""
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in headers)


def accept_key(key: bytes) -> bytes:
    """What answers a handshake's key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def client_side() -> Frames:
    """The frames of a client, after its handshake."""
    return Frames(ConnectionType.CLIENT)


class Messages:
    """Puts messages together of their frames."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self._parts: list[Any] = []
        self._size = 0

    def feed(self, data: bytes | None) -> Iterator[tuple[Event | None, Message | None]]:
        """Yields what to answer at once, or a message, for each that is complete in *data*.

        Raises:
            RemoteProtocolError: the peer sends what is no WebSocket, or too much of it.
        """
        self.frames.receive_data(data)
        for event in self.frames.events():
            match event:
                case TextMessage() | BytesMessage():
                    self._parts.append(event.data)
                    self._size += len(event.data)
                    if self._size > MAX_MESSAGE:
                        raise RemoteProtocolError("a message is too long")
                    if not event.message_finished:
                        continue
                    parts, self._parts, self._size = self._parts, [], 0
                    kind = "text" if isinstance(event, TextMessage) else "bytes"
                    whole = "".join(parts) if kind == "text" else b"".join(map(bytes, parts))
                    yield None, {"type": "websocket.receive", kind: whole}
                case Ping():
                    yield event.response(), None
                case CloseConnection():
                    code = event.code if event.code is not None else 1005
                    closed = {
                        "type": "websocket.disconnect",
                        "code": int(code),
                        "reason": event.reason or "",
                    }
                    yield None, closed


def frame_of(message: Message) -> TextMessage | BytesMessage:
    """The frame of a message that an application sends."""
    text = message.get("text")
    if text is not None:
        return TextMessage(data=text)
    return BytesMessage(data=message["bytes"])


def sent(frames: Frames, event: Event) -> bytes:
    """The bytes of an event; none if the other side has closed already."""
    try:
        return frames.send(event)
    except LocalProtocolError:
        return b""


class SocketCall(Call):
    """A call of an application for a WebSocket."""

    def __init__(self, connection: Connection, scope: Scope) -> None:
        super().__init__(connection, scope)
        self._messages = Messages(Frames(ConnectionType.SERVER))
        self._queue: list[Message] = [{"type": "websocket.connect"}]
        self._sizes: list[int] = [0]
        self._is_accepted = False
        self._is_closed = False
        self._denial: h11.Response | None = None
        self._is_denied = False
        self._replies: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Takes bytes from the client."""
        if not self._is_accepted:
            return  # nothing comes before the handshake's answer
        try:
            for answer, message in self._messages.feed(data):
                if answer is not None:
                    self._replies.append(sent(self._messages.frames, answer))
                if message is not None:
                    self._put(message)
        except RemoteProtocolError:
            self._put({"type": "websocket.disconnect", "code": 1002, "reason": ""})

    def _put(self, message: Message) -> None:
        size = len(message.get("text") or message.get("bytes") or b"")
        self._queue.append(message)
        self._sizes.append(size)
        self._waiting += size
        self.wake()

    def leave(self, grace: float | None) -> None:
        """The client is gone: the application has *grace* seconds to end."""
        if not self._is_closed:
            self._put({"type": "websocket.disconnect", "code": 1006, "reason": ""})
        super().leave(grace)

    async def receive(self) -> Message:
        """The application's `receive`."""
        while not self._queue:
            await self.flush()
            await self._changed.wait()
        message = self._queue.pop(0)
        self.took(self._sizes.pop(0))
        if message["type"] == "websocket.disconnect":
            self._is_closed = True
        await self.flush()
        return message

    async def flush(self) -> None:
        """Sends what answers pings."""
        if self._replies:
            data, self._replies = b"".join(self._replies), []
            await self._send(data)

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        if self.is_gone or self._is_closed:
            raise ClientDisconnected("the client is gone")
        frames = self._messages.frames
        match message["type"]:
            case "websocket.accept" if not self._is_accepted:
                await self._accept(message)
            case "websocket.send" if self._is_accepted:
                await self._send(sent(frames, frame_of(message)))
            case "websocket.close" if self._is_accepted:
                self._is_closed = True
                closing = CloseConnection(
                    code=message.get("code", 1000), reason=message.get("reason") or None
                )
                await self._send(sent(frames, closing))
            case "websocket.close":
                await self._deny(403, [], b"")
            case "websocket.http.response.start" if not self._is_accepted:
                self._denial = h11.Response(
                    status_code=message["status"],
                    headers=list(message.get("headers", ())),
                    reason=reason(message["status"]),
                )
            case "websocket.http.response.body" if self._denial is not None:
                await self._deny_part(message)
            case other:
                raise RuntimeError(f"{other!r} is not what an application may send now")

    async def _accept(self, message: Message) -> None:
        headers = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
        asked = dict(self.scope["headers"])
        key = asked.get(b"sec-websocket-key", b"")
        headers.append((b"sec-websocket-accept", accept_key(key)))
        if message.get("subprotocol"):
            headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
        given = message.get("headers", ())
        headers += [(bytes(name), bytes(value)) for name, value in given if name not in _OWN]
        switch = h11.InformationalResponse(
            status_code=101, headers=headers, reason=b"Switching Protocols"
        )
        data = self.connection.h11.send(switch) or b""
        self._is_accepted = True
        await self._send(data)

    async def _deny(self, status: int, headers: Headers, body: bytes) -> None:
        self._denial = h11.Response(
            status_code=status,
            headers=[*headers, (b"content-length", str(len(body)).encode())],
            reason=reason(status),
        )
        await self._deny_part({"type": "websocket.http.response.body", "body": body})

    async def _deny_part(self, message: Message) -> None:
        state = self.connection.h11
        data = b""
        if self._denial is not None and state.our_state is h11.SEND_RESPONSE:
            data = state.send(self._denial) or b""
        if message.get("body"):
            data += state.send(h11.Data(data=message["body"])) or b""
        if not message.get("more_body", False):
            data += state.send(h11.EndOfMessage()) or b""
            self._is_denied = self._is_closed = True
        await self._send(data)

    async def _send(self, data: bytes) -> None:
        try:
            await self.connection.stream.send(data)
        except OSError as error:
            raise ClientDisconnected("the client is gone") from error

    async def finish(self, *, failed: bool) -> bool:
        """Ends the WebSocket if the application has not."""
        if self.is_gone or self._is_denied:
            return False
        if not self._is_accepted:
            if self._denial is None:
                await self._deny(500 if failed else 403, [], b"")
        elif not self._is_closed:
            closing = CloseConnection(code=1011 if failed else 1000)
            await self._send(sent(self._messages.frames, closing))
        return False
