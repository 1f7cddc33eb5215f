"""Buckets that threads with event loops of their own share, in real time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import pytest
import trio

from kgw.limits import KeyedTokenBucket, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

THREADS = 6
EACH = 40


def run_in_threads(work: Callable[[int], Awaitable[int]]) -> int:
    """Runs *work* in an event loop for each thread, asyncio's and trio's; sums the results."""
    start = threading.Barrier(THREADS)

    def thread(number: int) -> int:
        start.wait()
        if number % 2:
            return asyncio.run(awaited(work, number))
        return trio.run(awaited, work, number)

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(thread, range(THREADS)))


async def awaited(work: Callable[[int], Awaitable[int]], number: int) -> int:
    return await work(number)


def test_tasks_of_all_threads_get_what_there_is_and_no_more() -> None:
    """A third of them gives up while waiting; what those had reserved is for the others."""
    bucket = TokenBucket(10, 4_000, 1.0)
    began = time.monotonic()

    async def work(number: int) -> int:
        done = 0

        async def customer(at: int) -> None:
            nonlocal done
            if at % 3 == 0:
                with anyio.move_on_after(0.0005 * (at % 5)):
                    await bucket.acquire(3)
                    done += 3
                return
            await bucket.acquire()
            done += 1

        async with anyio.create_task_group() as group:
            for at in range(EACH):
                group.start_soon(customer, at)
        return done

    taken = run_in_threads(work)
    elapsed = time.monotonic() - began
    assert taken >= THREADS * (EACH * 2 // 3)
    assert taken <= 10 + 4_000 * elapsed, "never more than the burst and the rate"
    assert bucket.waiting == 0


def test_keys_are_shared_by_threads_too() -> None:
    buckets = KeyedTokenBucket(5, 2_000, 1.0)
    got = Counter[str]()
    lock = threading.Lock()

    async def work(number: int) -> int:
        async def customer(key: str) -> None:
            await buckets.acquire(key)
            with lock:
                got[key] += 1

        async with anyio.create_task_group() as group:
            for at in range(EACH):
                group.start_soon(customer, f"key {at % 4}")
        return EACH

    assert run_in_threads(work) == THREADS * EACH
    assert got == {f"key {at}": THREADS * EACH // 4 for at in range(4)}
    assert buckets.waiting == 0


def test_a_loop_that_ends_holds_nobody_up() -> None:
    """The first in line is never woken again: those behind it have deadlines of their own."""
    bucket = TokenBucket(1, 100, 1.0)
    assert bucket.take()
    loop = asyncio.new_event_loop()
    task = loop.create_task(bucket.acquire())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert bucket.waiting == 1
    asyncio.run(bucket.acquire())
    assert bucket.waiting == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    assert bucket.waiting == 0
