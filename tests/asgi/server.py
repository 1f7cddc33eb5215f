"""A server of applications for tests: each request is driven step by step."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import anyio
from tests.embed.upstream import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from kgw.asgi.types import App, Headers, Message, Scope


def scope_for(method: str = "GET", path: str = "/", **fields: Any) -> Scope:
    """The scope of a request."""
    raw, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"app.example")],
        "client": ("192.0.2.9", 5000),
        "server": ("127.0.0.1", 80),
        "state": {},
    } | fields


class Exchange:
    """A request that an application serves in a task."""

    def __init__(self) -> None:
        self._to_app, self._from_server = anyio.create_memory_object_stream[Any](math.inf)
        self._to_client, self._from_app = anyio.create_memory_object_stream[Any](math.inf)
        self.ended = anyio.Event()
        self.error: Exception | None = None

    async def run(self, app: App, scope: Scope) -> None:
        try:
            await app(scope, self._from_server.receive, self._to_client.send)
        except Exception as error:
            self.error = error
        finally:
            self.ended.set()
            self._to_client.close()

    def start(self, tasks: TaskGroup, app: App, scope: Scope) -> Exchange:
        tasks.start_soon(self.run, app, scope)
        return self

    def give(self, message: Message) -> None:
        """The server has a message for the application."""
        self._to_app.send_nowait(message)

    def body(self, body: bytes = b"", *, more: bool = False) -> None:
        self.give({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self.give({"type": "http.disconnect"})

    async def next(self) -> Message:
        """The next message of the application."""
        with anyio.fail_after(TIMEOUT):
            message: Message = await self._from_app.receive()
            return message

    async def answer(self) -> tuple[int, Headers, bytes]:
        """The whole answer."""
        start = await self.next()
        assert start["type"] == "http.response.start"
        body, more = b"", True
        while more:
            part = await self.next()
            body += part["body"]
            more = part.get("more_body", False)
        with anyio.fail_after(TIMEOUT):
            await self.ended.wait()
        return start["status"], list(start["headers"]), body

    def close(self) -> None:
        for stream in (self._to_app, self._from_server, self._to_client, self._from_app):
            stream.close()


@asynccontextmanager
async def exchange(app: App, scope: Scope) -> AsyncIterator[Exchange]:
    """Lets an application serve a request meanwhile."""
    one = Exchange()
    try:
        async with anyio.create_task_group() as tasks:
            yield one.start(tasks, app, scope)
            with anyio.fail_after(TIMEOUT):
                await one.ended.wait()
    finally:
        one.close()


async def ask(
    app: App, method: str = "GET", path: str = "/", body: bytes = b"", **fields: Any
) -> tuple[int, Headers, bytes]:
    """A request that needs no steps."""
    async with exchange(app, scope_for(method, path, **fields)) as one:
        one.body(body)
        return await one.answer()


@asynccontextmanager
async def living(app: App) -> AsyncIterator[dict[str, Any]]:
    """Runs an application's lifespan, as a server does; gives its state."""
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    async with exchange(app, scope) as one:
        one.give({"type": "lifespan.startup"})
        message = await one.next()
        assert message["type"] == "lifespan.startup.complete", message
        try:
            yield state
        finally:
            one.give({"type": "lifespan.shutdown"})
            message = await one.next()
            assert message["type"] == "lifespan.shutdown.complete", message
