"""Echo servers, and a client that asks for one thing after the other."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.precedence.sets import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.precedence.sets import Request

PATIENCE = 30.0
"""Seconds for anything that takes a moment."""

Addresses = dict[str, tuple[str, int]]


@dataclass(frozen=True)
class Outcome:
    """What came of a request."""

    status: int
    rule: str | None = None
    """The mark of the rule."""
    backend: str | None = None
    target: str | None = None
    """The target that the backend got."""
    host: str | None = None
    """The host that the backend got."""
    location: str | None = None
    """Where a redirect leads, with its port."""


@contextlib.contextmanager
def echo_servers() -> Iterator[Addresses]:
    """Runs the backends, which say in header fields what they were asked."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers = [asyncio.run_coroutine_threadsafe(_serve(name), loop) for name in BACKENDS]
    try:
        yield {
            name: server.result(PATIENCE).sockets[0].getsockname()[:2]
            for name, server in zip(BACKENDS, servers, strict=True)
        }
    finally:
        started = [server.result(PATIENCE) for server in servers]
        asyncio.run_coroutine_threadsafe(_end(started), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


async def _serve(name: str) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await _answer(name, reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    return await asyncio.start_server(connected, "127.0.0.1", 0)


async def _answer(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = [line.partition(": ") for line in head[1:]]
    host = next(value for key, _, value in fields if key.lower() == "host")
    target = head[0].split(" ")[1]
    answer = f"x-backend: {name}\r\nx-target: {target}\r\nx-host: {host}\r\n"
    writer.write(f"HTTP/1.1 200 OK\r\n{answer}content-length: 0\r\n\r\n".encode())


async def _end(servers: list[asyncio.Server]) -> None:
    for server in servers:
        server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def ask(address: tuple[str, int], requests: Iterable[Request]) -> list[Outcome]:
    """Sends requests on one connection, and returns what came of each."""
    found = []
    with contextlib.ExitStack() as stack:
        sock: socket.socket | None = None
        for request in requests:
            if sock is None:
                sock = stack.enter_context(socket.create_connection(address, PATIENCE))
            sock.sendall(request.head)
            response = http.client.HTTPResponse(sock, method=request.method)
            response.begin()
            response.read()
            found.append(_outcome(response))
            if response.will_close:
                sock = None
    return found


def _outcome(response: http.client.HTTPResponse) -> Outcome:
    location = response.getheader("location")
    return Outcome(
        response.status,
        response.getheader("x-rule"),
        response.getheader("x-backend"),
        response.getheader("x-target"),
        response.getheader("x-host"),
        None if location is None else with_port(location),
    )


def with_port(location: str) -> str:
    """A URL with its port: whether a default one is written makes no difference."""
    parts = urlsplit(location)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return parts._replace(netloc=f"{parts.hostname}:{port}").geturl()
