"""WebSockets through a middleware, and to applications that are backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from tests.asgi.apps import path, resources
from tests.asgi.server import exchange, living, scope_for
from tests.embed.upstream import TIMEOUT

from kgw.asgi import GatewayMiddleware

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from kgw.asgi.types import App, Receive, Scope, Send

pytestmark = pytest.mark.anyio

#: What makes routes to the port take WebSockets.
SWITCHING: dict[str, Any] = {"appProtocol": "kubernetes.io/ws"}


async def upper(socket: WebSocket) -> None:
    """Says what it hears, louder, until it hears of the end."""
    await socket.accept(subprotocol="loud", headers=[(b"x-app", b"1")])
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "bye":
                await socket.close(4001, "as you wish")
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"].upper())
            else:
                await socket.send_bytes(message["bytes"][::-1])
    finally:
        await socket.close() if socket.application_state.name == "CONNECTED" else None


INNER = Starlette(routes=[WebSocketRoute("/ws", upper)])


def sockets_only(handler: Any) -> App:
    """An application of WebSockets, that raises for all else, as ASGI allows."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise ValueError(f"it serves WebSockets, not {scope['type']}")
        await handler(scope, receive, send)

    return app


def socket_scope(**fields: Any) -> Scope:
    headers = [
        (b"host", b"a"),
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
    ]
    found = scope_for(path="/ws", type="websocket", scheme="ws", headers=headers, subprotocols=[])
    del found["method"]
    return {**found, **fields}


def test_messages_go_both_ways() -> None:
    app = GatewayMiddleware(INNER, resources(**SWITCHING))
    with TestClient(app) as client, client.websocket_connect("/ws", subprotocols=["loud"]) as ws:
        assert ws.accepted_subprotocol == "loud"
        assert (b"x-app", b"1") in (ws.extra_headers or [])
        ws.send_text("hello")
        assert ws.receive_text() == "HELLO"
        ws.send_bytes(b"\x00\x01\x02")
        assert ws.receive_bytes() == b"\x02\x01\x00"
        large = "x" * 1_000_000
        ws.send_text(large)
        assert ws.receive_text() == large.upper()
        ws.send_text("bye")
        with pytest.raises(WebSocketDisconnect) as closed:
            ws.receive_text()
    assert (closed.value.code, closed.value.reason) == (4001, "as you wish")


def test_they_are_refused_unless_the_configuration_takes_them() -> None:
    app = GatewayMiddleware(INNER, resources())
    with (
        TestClient(app) as client,
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/ws"),
    ):
        pass
    assert denied.value.status_code == 403


def test_policies_hold_for_the_handshake() -> None:
    app = GatewayMiddleware(INNER, resources(rules=(path("/other"),), **SWITCHING))
    with (
        TestClient(app) as client,
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/ws"),
    ):
        pass
    assert denied.value.status_code == 404


async def test_a_server_that_cannot_deny_closes() -> None:
    app = GatewayMiddleware(INNER, resources())
    async with living(app), exchange(app, socket_scope()) as one:
        one.give({"type": "websocket.connect"})
        assert (await one.next())["type"] == "websocket.close"


async def test_a_client_that_vanishes_is_passed_on() -> None:
    told: list[Any] = []

    @sockets_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        told.append(await receive())
        ended.set()

    ended = anyio.Event()
    outer = GatewayMiddleware(app, resources(**SWITCHING))
    async with living(outer), exchange(outer, socket_scope()) as one:
        one.give({"type": "websocket.connect"})
        assert (await one.next())["type"] == "websocket.accept"
        one.give({"type": "websocket.disconnect", "code": 1006})
        with anyio.fail_after(TIMEOUT):
            await ended.wait()
    assert told[0]["type"] == "websocket.disconnect"
    assert told[0]["code"] == 1006


async def test_an_application_that_refuses_is_403() -> None:
    @sockets_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    outer = GatewayMiddleware(app, resources(**SWITCHING))
    extensions: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}
    async with living(outer), exchange(outer, socket_scope(**extensions)) as one:
        one.give({"type": "websocket.connect"})
        start = await one.next()
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
        await one.next()


async def test_an_exception_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    @sockets_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    outer = GatewayMiddleware(app, resources(**SWITCHING))
    async with living(outer), exchange(outer, socket_scope()) as one:
        one.give({"type": "websocket.connect"})
        assert (await one.next())["type"] == "websocket.accept"
        closed = await one.next()
    assert (closed["type"], closed["code"]) == ("websocket.close", 1011)
    assert "the application failed" in caplog.text
