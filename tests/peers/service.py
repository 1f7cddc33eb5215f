"""An HTTP/1 backend that takes thousands of connections and misbehaves on request."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .proxies import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = 10_000_000
"""The length of the body of `/large`. Bytes."""

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Service:
    """What the backend does is told by the path: `/` answers, `/hang` never does.

    `/large` has a body of :data:`LARGE` bytes, `/sink` answers after the request's body.
    """

    address: str = ""
    requests: int = 0
    """Request heads seen."""
    hanging: int = 0
    """Requests of `/hang` whose connection is still there."""
    open: int = 0
    """Connections."""
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    """Of the open connections."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        self.open += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await self._exchange(reader, writer)
        self.open -= 1
        self.writers.discard(writer)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.requests += 1
        path = head.split(" ", 2)[1]
        if path == "/hang":
            self.hanging += 1
            try:
                while await reader.read(65536):
                    pass
            finally:
                self.hanging -= 1
            raise OSError("the peer left")
        await _body(reader, head.lower())
        if path == "/large":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
            for _ in range(LARGE // 10_000):
                writer.write(bytes(10_000))
                await writer.drain()
        else:
            writer.write(ANSWER)
        await writer.drain()


async def _body(reader: asyncio.StreamReader, head: str) -> None:
    if "transfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
    elif "content-length:" in head:
        left = int(head.split("content-length:")[1].split("\r\n")[0])
        while left:
            left -= len(await reader.readexactly(min(left, 65536)))


@contextlib.contextmanager
def serving() -> Iterator[Service]:
    """Runs a backend in a thread."""
    service, started = Service(), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(service.serve, "127.0.0.1", 0, backlog=4096)
        service.address = "{}:{}".format(*server.sockets[0].getsockname())
        started.set()
        await stop.wait()
        server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for writer in service.writers:
                writer.transport.abort()
            await asyncio.wait(tasks, timeout=0.1)

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    yield service
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


@contextlib.contextmanager
def serving_apart() -> Iterator[str]:
    """Runs a backend in a process of its own; yields its address."""
    command = [sys.executable, "-m", "tests.peers.service"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()
        process.communicate()


if __name__ == "__main__":
    with serving() as alone:
        print(alone.address, flush=True)
        sys.stdin.read()
