"""A middleware under a real server, with real clients."""

from __future__ import annotations

import contextlib
import http.client
import threading
from typing import TYPE_CHECKING

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from tests.asgi.apps import limited, resources
from tests.asgi.test_websockets import SWITCHING, upper
from tests.embed.upstream import TIMEOUT, fetch
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from kgw.asgi import GatewayMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

LOUD = Subprotocol("loud")


class Server(uvicorn.Server):
    """Says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override] # what it is given is passed on
        await super().startup(sockets)  # type: ignore[arg-type]
        self.ready.set()


@contextlib.contextmanager
def serving(app: object) -> Iterator[tuple[str, int]]:
    """Serves an application; gives its address."""
    config = uvicorn.Config(app, port=0, log_level="warning", ws="websockets-sansio")  # type: ignore[arg-type] # any application
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.ready.wait(TIMEOUT)
    try:
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join(TIMEOUT)
    assert not thread.is_alive()


async def double(request: Request) -> StreamingResponse:
    body = await request.body()  # the client reads no answer before it has sent all

    async def parts() -> AsyncIterator[bytes]:
        yield body
        yield body

    return StreamingResponse(parts())


INNER = Starlette(
    routes=[Route("/double", double, methods=["GET", "POST"]), WebSocketRoute("/ws", upper)]
)


def test_requests_and_limits() -> None:
    with serving(GatewayMiddleware(INNER, resources(limited(3)))) as address:
        connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
        body = b"x" * 1_000_000
        connection.request("POST", "/double", body=body)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, body * 2)
        connection.request("POST", "/double", body=iter([b"a", b"b"]), encode_chunked=True)
        assert connection.getresponse().read() == b"abab"
        connection.close()
        assert fetch(address, "/nothing")[0] == 404
        assert fetch(address, "/double")[0] == 429


def test_websockets() -> None:
    with (
        serving(GatewayMiddleware(INNER, resources(**SWITCHING))) as (host, port),
        connect(f"ws://{host}:{port}/ws", subprotocols=[LOUD], open_timeout=TIMEOUT) as socket,
    ):
        socket.send("hello")
        assert socket.recv(TIMEOUT) == "HELLO"
        socket.send("bye")
        with pytest.raises(ConnectionClosedError) as closed:
            socket.recv(TIMEOUT)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4001
