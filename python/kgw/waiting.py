"""Callers that wait for tokens, in the order in which they came.

A waiter has *reserved* its tokens: the bucket itself counts them, so nobody else can take them, and
the waiter knows from the start when they will be there at the latest. So each waiter sleeps by its
own clock, and none depends on another's event loop. When one gives up, its tokens go back and
everybody behind it can go earlier. Only the first in line needs to know: it is woken, works out how
long it still has to wait, and wakes the next when it goes.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

import anyio
from anyio import lowlevel

from kgw.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["Buckets", "Lines"]

Key_ = TypeVar("Key_")
Key = TypeVar("Key", contravariant=True)


class Buckets(Protocol[Key]):
    """What tokens are reserved of."""

    def reserve(self, key: Key, n: int, max_wait: float | timedelta | None) -> float:
        """Takes tokens to come; returns the seconds until they are there."""

    def refund(self, key: Key, n: int) -> None:
        """Puts tokens back."""

    def reserved_after(self, key: Key, behind: int) -> float:
        """Seconds until all reserved tokens are there, but for the last of them."""


class _Waiter(Generic[Key_]):
    """One caller. It waits in the event loop that it was made in."""

    __slots__ = ("deadline", "event", "key", "n", "wake")

    def __init__(
        self, key: Key_, n: int, deadline: float, wake: Callable[[_Waiter[Key_]], None]
    ) -> None:
        self.key = key
        self.n = n
        #: When its tokens are there, in its event loop's time.
        self.deadline = deadline
        self.event = anyio.Event()
        self.wake = wake


class _Left(NamedTuple, Generic[Key_]):
    """A caller that has left."""

    key: Key_
    n: int
    #: None if it had its tokens at once.
    waiter: _Waiter[Key_] | None
    #: Whether it keeps its tokens.
    served: bool


class _Line(OrderedDict[int, _Waiter[Key_]]):
    """Those who wait for one bucket, by their id, and how many tokens they have reserved."""

    reserved = 0


class Lines(Generic[Key_]):
    """The callers that wait for buckets, a line for each key.

    Args:
        buckets: what they wait for.
        max_waiters: how many may wait at a time, in all lines.
    """

    def __init__(self, buckets: Buckets[Key_], max_waiters: int | None) -> None:
        self._buckets = buckets
        self._max_waiters = max_waiters
        self._lock = threading.Lock()
        self._lines: dict[Key_, _Line[Key_]] = {}
        self._waiting = 0
        #: Those who have left and are still in line. A waiter also leaves when its coroutine is
        #: collected, which any thread does at any time: also one that has the lock.
        self._left: deque[_Left[Key_]] = deque()

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return self._waiting

    async def acquire(self, key: Key_, n: int, max_wait: float | timedelta | None) -> None:
        """Waits until tokens are there and takes them; see `kgw.TokenBucket.acquire`."""
        waiter = self._enter(key, n, max_wait)
        if waiter is None:
            try:
                await lowlevel.checkpoint()
            except BaseException:
                self._left.append(_Left(key, n, None, served=False))
                self._settle()
                raise
            return
        served = False
        try:
            await self._wait(waiter)
            served = True
        finally:
            self._left.append(_Left(key, n, waiter, served))
            self._settle()

    def _enter(self, key: Key_, n: int, max_wait: float | timedelta | None) -> _Waiter[Key_] | None:
        """Reserves tokens; returns a waiter unless they are there already."""
        try:
            with self._lock:
                full = self._max_waiters is not None and self._waiting >= self._max_waiters
                wait = self._buckets.reserve(key, n, 0.0 if full else max_wait)
                if wait == 0.0:
                    return None
                try:
                    waiter = _Waiter(key, n, anyio.current_time() + wait, _waker())
                except BaseException:  # there is no event loop to wait in
                    self._buckets.refund(key, n)
                    raise
                line = self._lines.setdefault(key, _Line())
                line[id(waiter)] = waiter
                line.reserved += n
                self._waiting += 1
                return waiter
        except RateLimited as error:
            if full:
                raise RateLimited(error.retry_after, "too many wait already") from None
            raise
        finally:
            if self._left:
                self._settle()

    async def _wait(self, waiter: _Waiter[Key_]) -> None:
        """Returns when the tokens of a waiter are there."""
        while (left := waiter.deadline - anyio.current_time()) > 0:
            with anyio.move_on_after(left) as scope:
                await waiter.event.wait()
            if scope.cancelled_caught:
                return
            # It is the first in line now: what was reserved before has been used or put back.
            with self._lock:
                waiter.event = anyio.Event()
                behind = self._lines[waiter.key].reserved - waiter.n
                left = self._buckets.reserved_after(waiter.key, behind)
            self._settle()
            waiter.deadline = min(waiter.deadline, anyio.current_time() + left)

    def _settle(self) -> None:
        """Takes those who have left out of their lines.

        Never waits for the lock: whoever has it comes here after releasing it.
        """
        while self._left and self._lock.acquire(blocking=False):
            try:
                while self._left:
                    self._remove(self._left.popleft())
            finally:
                self._lock.release()

    def _remove(self, left: _Left[Key_]) -> None:
        if not left.served:
            self._buckets.refund(left.key, left.n)
        line = self._lines.get(left.key)
        if line is None:
            return
        first = next(iter(line.values()))
        if left.waiter is not None:
            del line[id(left.waiter)]
            line.reserved -= left.n
            self._waiting -= 1
            if not line:
                del self._lines[left.key]
                return
            if left.waiter is not first:
                return
            first = next(iter(line.values()))
        first.wake(first)


def _waker() -> Callable[[_Waiter[Key_]], None]:
    """What wakes a waiter of the running event loop, from any thread."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        run, gone = trio.lowlevel.current_trio_token().run_sync_soon, trio.RunFinishedError
    else:
        run, gone = asyncio.get_running_loop().call_soon_threadsafe, RuntimeError

    def wake(waiter: _Waiter[Key_]) -> None:
        try:
            run(_set, waiter)
        except gone:
            # Its event loop has ended, and nothing waits in it any more. The waiter leaves when its
            # coroutine is collected; those behind it have deadlines of their own.
            return

    return wake


def _set(waiter: _Waiter[Key_]) -> None:
    waiter.event.set()
