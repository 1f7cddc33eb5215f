"""What is measured, and how: CPU time of one call, the least of several samples."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: CPU seconds that a sample takes, about; and how many are taken.
SAMPLE = 0.1
SAMPLES = 9

#: The most calls in a sample, for contestants that remember every call.
MOST_CALLS = 50_000


@dataclass(frozen=True, slots=True)
class Contestant:
    """A library, and its way to do the work."""

    name: str
    make: Callable[[], Callable[[], Any]]
    """Imports what it needs and returns what does the work once, or a coroutine function."""


@dataclass(frozen=True, slots=True)
class Work:
    """What everybody has to do."""

    name: str
    expected: Any
    """What doing it returns."""
    contestants: list[Contestant]


@dataclass(slots=True)
class Result:
    """What came of a work."""

    work: str
    seconds: dict[str, float] = field(default_factory=dict)
    """CPU seconds of one call, by contestant."""
    absent: list[str] = field(default_factory=list)
    """Contestants that are not installed."""


def measured(work: Work) -> Result:
    """Measures all contestants of a work, sample by sample in turn."""
    result = Result(work.name)
    calls: dict[str, tuple[Callable[[], Any], int]] = {}
    for contestant in work.contestants:
        try:
            call = contestant.make()
        except ModuleNotFoundError:
            result.absent.append(contestant.name)
            continue
        calls[contestant.name] = call, _count(work, contestant.name, call)
    for _ in range(SAMPLES):
        for name, (call, count) in calls.items():
            spent = _sample(call, count)[0] / count
            result.seconds[name] = min(spent, result.seconds.get(name, spent))
    return result


def _count(work: Work, name: str, call: Callable[[], Any]) -> int:
    """How many calls make a sample; checks that they do what they should."""
    _, last = _sample(call, 1)  # not counted: the first call imports, and fills caches
    if last != work.expected:
        raise AssertionError(f"{work.name}: {name} returned {last!r}, not {work.expected!r}")
    count = 1
    while True:
        spent, _ = _sample(call, count)
        if spent >= SAMPLE / 4 or count >= MOST_CALLS:
            return max(1, min(MOST_CALLS, round(count * SAMPLE / max(spent, 1e-9))))
        count *= 4


def _sample(call: Callable[[], Any], count: int) -> tuple[float, Any]:
    """CPU seconds of so many calls, and what the last returned."""
    gc.collect()
    gc.disable()
    try:
        if asyncio.iscoroutinefunction(call):
            return asyncio.run(_awaited(call, count))
        last = None
        began = time.process_time()
        for _ in range(count):
            last = call()
        return time.process_time() - began, last
    finally:
        gc.enable()


async def _awaited(call: Callable[[], Awaitable[Any]], count: int) -> tuple[float, Any]:
    last = None
    began = time.process_time()
    for _ in range(count):
        last = await call()
    return time.process_time() - began, last
