"""The event loops that call filters: asyncio's, trio's, or one in a thread of its own.

Rule 1: the loop watches the bridge's descriptor; all filters are called from that one callback or
task, so a filter that blocks holds up other filters, and nothing else.
Rule 2: a loop that ends closes the bridge, however it ends: what is in flight then has the outcome
that its filter declared for failures, at once.
Rule 3: no exception of a filter leaves it; it is logged to ``kgw.filters``.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

from kgw.filters import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    import trio

    from kgw._native.bridge import Bridge, Job
    from kgw.filters import Filters


class FilterLoop(Protocol):
    """What calls the filters of a running proxy."""

    async def aclose(self) -> None:
        """Closes the bridge, and returns when no filter runs any longer."""


def current(filters: Filters, bridge: Bridge) -> FilterLoop:
    """Lets the event loop that runs now call filters."""
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_run():
            return TrioLoop(filters, bridge)
    return AsyncioLoop(filters, bridge)


class _Loop:
    def __init__(self, filters: Filters, bridge: Bridge) -> None:
        self._filters = filters
        self._bridge = bridge

    def failed(self, number: int, error: Exception) -> None:
        """Logs what a filter raised."""
        log.error("filter %r failed", self._filters.name(number), exc_info=error)

    def _finish(self, job: Job, result: object) -> None:
        try:
            job.finish(result)
        except TypeError as error:
            self.failed(job.filter, error)


class AsyncioLoop(_Loop):
    """Filters in the running asyncio loop. Coroutines become tasks, eager ones from 3.12 on."""

    def __init__(self, filters: Filters, bridge: Bridge) -> None:
        super().__init__(filters, bridge)
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._stopped = self._loop.create_future()
        self._loop.add_reader(bridge.fileno(), bridge.drain, filters.handlers, self)
        # `asyncio.run` cancels it at the end of the loop, whoever forgot to close the proxy.
        self._task = self._loop.create_task(self._watch(), name="kgw filters")

    async def _watch(self) -> None:
        try:
            await self._stopped
        finally:
            self._loop.remove_reader(self._bridge.fileno())
            self._bridge.close()
            for task in self._tasks.values():
                task.cancel()

    def start(self, job: Job, result: Any) -> None:
        """Waits for what a filter returned."""
        if not inspect.iscoroutine(result):
            if not inspect.isawaitable(result):
                self._finish(job, result)
                return
            result = _awaited(result)
        task = self._task_of(result)
        if task.done():
            self._done(job, task)
        else:
            self._tasks[job.id] = task
            task.add_done_callback(functools.partial(self._done, job))

    if sys.version_info >= (3, 12):

        def _task_of(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            return asyncio.Task(coroutine, loop=self._loop, eager_start=True)

    else:

        def _task_of(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            return self._loop.create_task(coroutine)

    def _done(self, job: Job, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(job.id, None)
        if task.cancelled():
            job.abandon()
        elif (error := task.exception()) is None:
            self._finish(job, task.result())
        else:
            job.fail()
            if isinstance(error, Exception):
                self.failed(job.filter, error)

    def cancel(self, ident: int) -> None:
        """Cancels the filter that runs for a job, if one does."""
        if task := self._tasks.get(ident):
            task.cancel()

    def stop(self) -> None:
        """Ends the loop's part; the bridge is closed."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def aclose(self) -> None:
        """Closes the bridge, and returns when no filter runs any longer."""
        self._bridge.close()
        self.stop()
        await self.ended()

    async def ended(self) -> None:
        """Returns when no filter runs any longer."""
        await asyncio.wait([self._task])
        if self._tasks:
            await asyncio.wait(self._tasks.values())


class TrioLoop(_Loop):
    """Filters in the running trio loop, in a system task, which no scope of the program ends."""

    def __init__(self, filters: Filters, bridge: Bridge) -> None:
        import trio

        super().__init__(filters, bridge)
        self._trio = trio
        self._scopes: dict[int, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._ended = trio.Event()
        trio.lowlevel.spawn_system_task(self._watch, name="kgw filters")

    async def _watch(self) -> None:
        try:
            async with self._trio.open_nursery() as self._nursery:
                while not self._stopping:
                    await self._trio.lowlevel.wait_readable(self._bridge.fileno())
                    self._bridge.drain(self._filters.handlers, self)
                self._nursery.cancel_scope.cancel()
        finally:
            self._bridge.close()
            self._ended.set()

    def start(self, job: Job, result: Any) -> None:
        """Waits for what a filter returned."""
        if inspect.isawaitable(result):
            assert self._nursery is not None
            scope = self._scopes[job.id] = self._trio.CancelScope()
            self._nursery.start_soon(self._run, job, result, scope)
        else:
            self._finish(job, result)

    async def _run(self, job: Job, awaitable: Awaitable[Any], scope: trio.CancelScope) -> None:
        try:
            with scope:
                self._finish(job, await awaitable)
        except Exception as error:
            job.fail()
            self.failed(job.filter, error)
        finally:
            job.abandon()
            del self._scopes[job.id]

    def cancel(self, ident: int) -> None:
        """Cancels the filter that runs for a job, if one does."""
        if scope := self._scopes.get(ident):
            scope.cancel()

    def stop(self) -> None:
        """Ends the loop's part; the bridge is closed."""
        self._stopping = True

    async def aclose(self) -> None:
        """Closes the bridge, and returns when no filter runs any longer."""
        self._bridge.close()
        await self._ended.wait()


class ThreadLoop:
    """Filters in an asyncio loop of their own, for programs that have none."""

    def __init__(self, filters: Filters, bridge: Bridge) -> None:
        self._filters = filters
        self._bridge = bridge
        self._ready = threading.Event()
        # A daemon, since the interpreter waits for others before it runs what ends proxies.
        self._thread = threading.Thread(target=self._run, name="kgw-filters", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException:
            # SystemExit, that is: nobody else is told when it ends a thread.
            log.critical("a filter ended its thread: no filter is called any longer")
            raise

    async def _main(self) -> None:
        try:
            loop = AsyncioLoop(self._filters, self._bridge)
        finally:
            self._ready.set()
        await loop.ended()

    def close(self, timeout: float | None = None) -> None:
        """Closes the bridge, and returns when no filter runs any longer, or after *timeout*."""
        self._bridge.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
