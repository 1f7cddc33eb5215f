"""Events: what happens to a proxy, other than requests.

    async for event in proxy.events():
        match event:
            case ApplyFailed(error=error):
                print("kept the last good configuration:", error)
            case ConnectionsRefused(reason=reason, count=count):
                print(count, "connections refused:", reason)

`docs/embedding.md` says when each comes.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kgw.errors import NotRunning
from kgw.refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kgw.diagnostics import Finding
    from kgw.errors import BindError
    from kgw.stats import Stats

__all__ = [
    "ApplyFailed",
    "Closed",
    "ConfigApplied",
    "ConnectionsRefused",
    "DrainBegun",
    "Event",
    "ListenerBound",
    "ListenerClosed",
    "ListenerFailed",
    "MemoryPressure",
]

CAPACITY: Final = 1024
"""Events that may wait for a reader."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    at: float = field(default_factory=time.time, kw_only=True)
    """When, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class ConfigApplied(Event):
    """A configuration is served by every worker."""

    generation: int
    """Its number; the first is 1."""
    findings: tuple[Finding, ...]
    """What is wrong with it, or worth knowing. What can be served of it is."""
    problems: tuple[str, ...]
    """What of it could not be put into effect, in words. See `Proxy.problems`."""


@dataclass(frozen=True, slots=True)
class ApplyFailed(Event):
    """A configuration cannot be used. The one before keeps serving; at the start nothing does."""

    error: Exception
    """What `Proxy.apply` raised."""


@dataclass(frozen=True, slots=True)
class ListenerBound(Event):
    """A listener listens on an address."""

    listener: str
    """``namespace/gateway/listener``."""
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ListenerClosed(Event):
    """A listener no longer listens on an address, for another configuration was applied."""

    listener: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ListenerFailed(Event):
    """An address cannot be bound; `ApplyFailed` with the same error follows."""

    listener: str
    address: str
    """``host:port``."""
    error: BindError


@dataclass(frozen=True, slots=True)
class ConnectionsRefused(Event):
    """Connections were not served, or no longer. Without a request, they leave no record.

    What was refused for one reason is reported at most every ten seconds.
    """

    reason: str
    """The counter in `kgw.Stats`: ``proxy_header_malformed``, ``downstream_tls_fail``."""
    count: int
    """How many since the last report of that reason."""


@dataclass(frozen=True, slots=True)
class MemoryPressure(Event):
    """Memory is so short that load is shed, or is so no longer."""

    level: int
    """0: it suffices again. 1: idle connections are closed. 2: requests are refused too."""
    used: int | None
    """Bytes, if there is a limit."""


@dataclass(frozen=True, slots=True)
class DrainBegun(Event):
    """The proxy is about to end: requests in flight are finished."""

    max: float
    """Seconds that they get."""
    min: float
    """Seconds, of those, for which connections are still accepted."""


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """Everything ended: the last event."""

    finished: bool
    """Whether it ended by itself. If not, something was cut off, or nothing was started."""


class EventFeed:
    """The events for one reader. Any thread may put some; one takes them."""

    def __init__(self, interval: float, stats: Callable[[], Stats | None]) -> None:
        self.interval = interval
        self.closed: bool = False
        self.dropped: int = 0
        self._stats = stats
        before = stats()
        self._refusals = Refusals(before)
        self._pressure = before["memory_pressure"] if before else 0
        self._owner = os.getpid()
        self._lock = threading.RLock()  # a signal handler may end a proxy at any time
        self._events: deque[Event] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Without a descriptor left, there is none to close.
        if (wake := getattr(self, "_wake", None)) is not None:
            close(wake)

    def fileno(self) -> int:
        """Returns a descriptor that is readable while there are events, and once it is closed."""
        return self._wake

    def put(self, event: Event) -> None:
        """Adds an event, unless there are too many already."""
        with self._lock:
            if self.closed:
                return
            if len(self._events) >= CAPACITY:
                self.dropped += 1
                return
            self._events.append(event)
            os.eventfd_write(self._wake, 1)

    def look(self, stats: Stats, now: float) -> None:
        """Adds what the counters say. *now* is in monotonic seconds; infinity leaves nothing."""
        for reason, count in self._refusals.due(stats, now):
            self.put(ConnectionsRefused(reason, count))
        if (pressure := stats["memory_pressure"]) != self._pressure:
            self._pressure = pressure
            self.put(MemoryPressure(pressure, stats.get("memory_used")))

    def take(self) -> list[Event]:
        """Returns the events that are there."""
        if os.getpid() != self._owner:
            raise NotRunning("the events belong to the parent process")
        if (stats := self._stats()) is not None:
            self.look(stats, time.monotonic())
        with self._lock:
            if not self.closed:
                with suppress(BlockingIOError):  # there is nothing to read
                    os.eventfd_read(self._wake)
            events = list(self._events)
            self._events.clear()
        return events

    def decode(self, event: Event) -> Event:
        """Returns the event as it is."""
        return event

    def close(self) -> None:
        """Takes no more events; the descriptor stays readable."""
        with self._lock:
            self.closed = True
            os.eventfd_write(self._wake, 1)


class EventHub:
    """Where the events of one proxy come from. Without a reader they cost nothing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # A reader that is forgotten is gone.
        self._feeds: list[weakref.ref[EventFeed]] = []
        self._closed = False

    def open(self, interval: float, stats: Callable[[], Stats | None]) -> EventFeed:
        """Returns a feed for one reader."""
        if not interval > 0:
            raise ValueError(f"an interval is a positive number of seconds, not {interval}")
        feed = EventFeed(interval, stats)
        with self._lock:
            self._feeds = [weakref.ref(feed), *(weakref.ref(one) for one in self._open())]
            if self._closed:
                feed.close()
        return feed

    def _open(self) -> Iterator[EventFeed]:
        with self._lock:
            feeds = [reference() for reference in self._feeds]
        return (feed for feed in feeds if feed is not None and not feed.closed)

    def __bool__(self) -> bool:
        return any(True for _ in self._open())

    def emit(self, event: Event) -> None:
        """Tells every reader."""
        for feed in self._open():
            feed.put(event)

    def look(self, stats: Stats) -> None:
        """Tells every reader what the counters say, for the last time."""
        for feed in self._open():
            feed.look(stats, math.inf)

    def close(self, last: Event) -> None:
        """Tells every reader that this is the end. Only the first call does."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for feed in self._open():
            feed.put(last)
            feed.close()
