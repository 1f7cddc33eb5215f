"""The time of a gateway under test, which stands still unless it is moved.

Two things wait by it: the gateway (time-outs, rate limits), and fake backends that were told to
take their time. It moves from one of these moments to the next, and lets what is due happen before
it goes on. So a backend that needs 20 seconds is always too late for a time-out of 15, and
``advance(60)`` does what 60 seconds do. At one and the same moment the gateway goes first.

Who moves it::

    advance()        the test, at any time
    a jump           by itself, to the next moment at which anything happens: when the test waits
                     for an answer (`Gateway.request`, `Pending.answer`), and every request that is
                     under way waits in a backend for time to pass

A jump is what makes ``responds(delay=20)`` cost nothing in a test that just asks. Who wants to look
in between starts a request with `Gateway.start`, and advances.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kgw.proxy import ManualClock

__all__ = ["Clock"]

PATIENCE = 10.0
"""Real seconds that anything here may take: a bound, which only what hangs comes near."""

_POLL = 0.02
"""Real seconds after which a waiting backend looks whether its connection is still there. Jumps
wake it; this is for a client that goes away without one."""

_STEPS = 100_000
"""Moments at which anything happens that one advance passes at most."""


class _Wait:
    """A backend that waits for its moment."""

    def __init__(self, due: float, is_gone: Callable[[], bool]) -> None:
        self.due = due
        """Nanoseconds of the clock; infinite for one that never answers."""
        self.is_gone = is_gone
        self.released = False
        self.done = threading.Event()
        """Set once it has done what it waited to do."""


class Clock:
    """The clock of a gateway under test: see `kgw.testing.clock`. Times are in seconds."""

    def __init__(self, engine: ManualClock) -> None:
        self._engine = engine
        self._now = 0
        self._condition = threading.Condition(threading.RLock())
        self._waits: list[_Wait] = []
        self._stepping = False
        self._closed = False
        # Requests that were sent and are not answered, and those of them that a test waits for.
        self._under_way = 0
        self._awaited = 0

    def __repr__(self) -> str:
        return f"<Clock at {self.now:g} s>"

    @property
    def now(self) -> float:
        """Seconds since the gateway was started."""
        return self._now / 1e9

    def advance(self, seconds: float) -> None:
        """Moves time forward, and lets everything happen on the way that is due.

        Returns once the gateway has done what follows.

        Raises:
            ValueError: *seconds* is negative or not finite.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"time goes forward by a finite number of seconds, not by {seconds}")
        with self._step():
            target = self._now + round(seconds * 1e9)
            for _ in range(_STEPS):
                for wait in self._move(target):
                    wait.done.wait(PATIENCE)
                if self._now >= target:
                    self._engine.settle(PATIENCE)
                    return
        raise AssertionError(f"more than {_STEPS} things happen within {seconds:g} s")

    # === What requests and backends say ===

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Counts a request for as long as it has no answer."""
        self._count(under_way=1)
        try:
            yield
        finally:
            self._count(under_way=-1)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Lets time jump meanwhile: a test waits for an answer."""
        self._count(awaited=1)
        try:
            yield
        finally:
            self._count(awaited=-1)

    @contextmanager
    def waited(self, seconds: float, is_gone: Callable[[], bool]) -> Iterator[bool]:
        """Waits as a backend until *seconds* have passed; gives whether it is to answer then.

        Time stands still until the block has ended.

        Args:
            seconds: how long; infinity for ever.
            is_gone: whether nobody is there any longer to be answered.
        """
        never = math.isinf(seconds)
        wait = _Wait(math.inf if never else self._now + round(seconds * 1e9), is_gone)
        try:
            yield self._wait(wait)
        finally:
            wait.done.set()

    @property
    def at_rest(self) -> bool:
        """Whether every request that is under way waits in a backend for time to pass."""
        with self._condition:
            return len(self._waits) >= self._under_way

    def close(self) -> None:
        """Ends every wait."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    # === How time moves ===

    def _count(self, *, under_way: int = 0, awaited: int = 0) -> None:
        with self._condition:
            self._under_way += under_way
            self._awaited += awaited
            self._condition.notify_all()

    def _wait(self, wait: _Wait) -> bool:
        """Waits until a wait is released; jumps if nobody else does."""
        with self._condition:
            self._waits.append(wait)
            self._condition.notify_all()
        try:
            while True:
                with self._condition:
                    if wait.released or self._closed:
                        return wait.released
                    jumps = self._may_jump() and not self._stepping
                    if not jumps:
                        self._condition.wait(_POLL)
                if wait.is_gone():
                    return wait.released
                if jumps:
                    with self._step():
                        moved = self._jump()
                    if not moved:
                        with self._condition:
                            self._condition.wait(_POLL)
        finally:
            with self._condition:
                if wait in self._waits:
                    self._waits.remove(wait)
                self._condition.notify_all()

    def _may_jump(self) -> bool:
        """Whether nothing happens any more unless time passes, and a test waits that it does."""
        return self._awaited > 0 and self.at_rest

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Keeps all others from moving time."""
        with self._condition:
            deadline = time.monotonic() + PATIENCE
            while self._stepping:
                if not self._condition.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError("the clock is being moved and does not come to rest")
            self._stepping = True
        try:
            yield
        finally:
            with self._condition:
                self._stepping = False
                self._condition.notify_all()

    def _jump(self) -> bool:
        """Moves to the next moment at which anything happens, if it is still time for that.

        Returns whether there is such a moment.
        """
        self._engine.settle(PATIENCE)
        self._forget()
        with self._condition:
            still = self._may_jump()  # much may have happened since this was decided
        if not still:
            return False
        before = self._now
        return bool(self._move(math.inf)) or self._now > before

    def _move(self, target: float) -> list[_Wait]:
        """Moves to the next moment, or to *target* if that comes first.

        Returns the waits that are over by then.
        """
        self._engine.settle(PATIENCE)
        left = self._engine.next_deadline()
        deadline = math.inf if left is None else self._now + round(left * 1e9)
        with self._condition:
            due = min((wait.due for wait in self._waits), default=math.inf)
        moment = min(target, deadline, due)
        if moment == math.inf:
            return []  # nothing will ever happen
        step = max(0, int(moment) - self._now)
        self._now += step
        self._engine.advance(step / 1e9)
        self._engine.settle(PATIENCE)
        self._forget()
        with self._condition:
            released = [wait for wait in self._waits if wait.due <= self._now]
            for wait in released:
                wait.released = True
                self._waits.remove(wait)
            self._condition.notify_all()
        return released

    def _forget(self) -> None:
        """Forgets the waits of backends whose connection has been closed."""
        with self._condition:
            gone = [wait for wait in self._waits if wait.is_gone()]
            for wait in gone:
                self._waits.remove(wait)
