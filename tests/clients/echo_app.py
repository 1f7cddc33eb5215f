"""An ASGI application that says what it was asked, for real servers to run."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

LARGE = 3_000_000


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Echoes; `/large` is a long answer in pieces, a WebSocket gets its messages back."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await _websocket(receive, send)
    else:
        await _http(scope, receive, send)


async def _http(scope: Message, receive: Receive, send: Send) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    start: Message = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/large":
        await send(start)
        for _ in range(LARGE // 30_000):
            await send({"type": "http.response.body", "body": bytes(30_000), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    answer = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "version": scope["http_version"],
        "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        "length": len(body),
        "digest": hashlib.sha256(body).hexdigest(),
    }
    await send(start | {"headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def _websocket(receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})
