"""Where applications run: in the event loop that runs now, or in one in a thread.

Rule 1: what is started is a task of the loop, not of the task that started it: a proxy may be
closed by another task, in any order.
Rule 2: a loop that ends ends the applications, whoever forgot to close the proxy: the data plane
then finds nobody at the doorbell, and answers 503.
Rule 3: requests end first, then the applications.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from kgw.asgi.backend import Backend
from kgw.asgi.lifespan import Lifespan, log
from kgw.asgi.serve import Server

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from kgw.asgi.scopes import Scopes

__all__ = ["LoopHost", "ThreadHost", "start"]


async def start(backends: Mapping[str, Any], scopes: Scopes | None = None) -> LoopHost:
    """Starts applications in the event loop that runs now.

    Args:
        backends: applications, or `Backend`, by name.
        scopes: whose scopes the requests have, if they are somebody's.

    Raises:
        LifespanError: an application could not start.
    """
    host = LoopHost(backends, scopes)
    await host.start()
    return host


class LoopHost:
    """Applications in an event loop."""

    def __init__(self, backends: Mapping[str, Any], scopes: Scopes | None = None) -> None:
        named = {
            name: given if isinstance(given, Backend) else Backend(given)
            for name, given in backends.items()
        }
        # An application with several names has one life.
        self._lifespans: dict[int, Lifespan] = {}
        self._scopes = scopes
        self._servers: dict[str, Server] = {}
        for name, backend in named.items():
            lifespan = self._lifespans.setdefault(id(backend.app), Lifespan(backend.app))
            self._servers[name] = Server(backend, lifespan.state, scopes)
            if not backend.lifespan:
                self._lifespans.pop(id(backend.app), None)
        self._started = anyio.Event()
        self._stop = anyio.Event()
        self._ended = anyio.Event()
        self._error: Exception | None = None

    def doorbells(self) -> list[tuple[str, socket.socket]]:
        """Returns the proxy's end of each backend's doorbell, which is the caller's then."""
        return [(name, server.doorbell()) for name, server in self._servers.items()]

    async def start(self) -> None:
        """Starts the applications, then what serves them. Raises `LifespanError`."""
        if "trio" in sys.modules:
            import trio

            if trio.lowlevel.in_trio_run():
                trio.lowlevel.spawn_system_task(self._main, name="kgw backends")
                await self._wait_started()
                return
        # `asyncio.run` cancels it at the end of the loop.
        self._task = asyncio.get_running_loop().create_task(self._main(), name="kgw backends")
        await self._wait_started()

    async def aclose(self) -> None:
        """Ends what is being served, and the applications."""
        self._stop.set()
        await self._ended.wait()

    async def _wait_started(self) -> None:
        try:
            await self._started.wait()
        except BaseException:
            self._stop.set()
            raise
        if self._error is not None:
            raise self._error

    async def _main(self) -> None:
        try:
            async with anyio.create_task_group() as lives:
                try:
                    for lifespan in self._lifespans.values():
                        await lifespan.start(lives)
                    await self._serve()
                except Exception as error:
                    self._error = error
                for lifespan in self._lifespans.values():
                    await lifespan.end()
                lives.cancel_scope.cancel()
        except Exception:
            log.exception("an application's end failed")
        finally:
            for server in self._servers.values():
                server.close()
            if self._scopes is not None:
                self._scopes.ended()
            self._started.set()
            self._ended.set()

    async def _serve(self) -> None:
        async with anyio.create_task_group() as serving:
            for server in self._servers.values():
                serving.start_soon(server.run)
            self._started.set()
            await self._stop.wait()
            serving.cancel_scope.cancel()


class ThreadHost:
    """Applications in an asyncio loop of their own, for programs that have none."""

    def __init__(self, backends: Mapping[str, Any]) -> None:
        self._backends = backends
        self._host: LoopHost | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._ready = threading.Event()
        # A daemon, since the interpreter waits for others before it runs what ends proxies.
        self._thread = threading.Thread(target=self._run, name="kgw-backends", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def doorbells(self) -> list[tuple[str, socket.socket]]:
        """Returns the proxy's end of each backend's doorbell, which is the caller's then."""
        assert self._host is not None
        return self._host.doorbells()

    async def aclose(self) -> None:
        """Ends what is being served, and the applications."""
        await anyio.to_thread.run_sync(self.close)

    def close(self, timeout: float | None = None) -> None:
        """Ends what is being served, and the applications; waits for *timeout* at most."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        try:
            self._host = await start(self._backends)
            self._loop = asyncio.get_running_loop()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._ready.set()
        await self._stop.wait()
        await self._host.aclose()
