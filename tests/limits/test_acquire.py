"""`TokenBucket.acquire` on asyncio and trio, in virtual time (see conftest.py)."""

from __future__ import annotations

import anyio
import pytest

from kgw.limits import TokenBucket

pytestmark = pytest.mark.anyio


async def test_a_token_that_is_there_costs_no_time() -> None:
    bucket = TokenBucket(3, 3, 60, clock=anyio.current_time)
    start = anyio.current_time()
    await bucket.acquire(3)
    assert anyio.current_time() == start
    assert bucket.remaining == 0


async def test_waits_for_the_refill() -> None:
    bucket = TokenBucket(3, 3, 60, clock=anyio.current_time)
    start = anyio.current_time()
    for _ in range(5):
        await bucket.acquire()
    assert anyio.current_time() - start == pytest.approx(40)
    await bucket.acquire(2)
    assert anyio.current_time() - start == pytest.approx(80)


async def test_first_come_first_served_whatever_the_size() -> None:
    bucket = TokenBucket(4, 1, 1, clock=anyio.current_time)
    start = anyio.current_time()
    served: list[tuple[str, float]] = []

    async def customer(name: str, n: int) -> None:
        await bucket.acquire(n)
        served.append((name, round(anyio.current_time() - start, 6)))

    async with anyio.create_task_group() as group:
        for name, n in [("a", 4), ("b", 4), ("c", 1), ("d", 1), ("e", 2)]:
            group.start_soon(customer, name, n)
            await anyio.sleep(0.001)
        assert not bucket.take(), "those who wait come first"
    assert served == [("a", 0), ("b", 4), ("c", 5), ("d", 6), ("e", 8)]


async def test_a_cancelled_wait_puts_its_tokens_back() -> None:
    bucket = TokenBucket(2, 1, 10, clock=anyio.current_time)
    assert bucket.take(2)
    with anyio.move_on_after(5) as scope:
        await bucket.acquire(2)
    assert scope.cancelled_caught
    assert bucket.retry_after == pytest.approx(5)
    await anyio.sleep(5)
    assert bucket.take()
    assert not bucket.take()


async def test_is_a_checkpoint_even_when_tokens_are_there() -> None:
    bucket = TokenBucket(2, 1, 10, clock=anyio.current_time)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bucket.acquire()
    assert scope.cancelled_caught
    assert bucket.remaining == 2


async def test_more_than_the_bucket_can_hold_is_an_error() -> None:
    bucket = TokenBucket(3, clock=anyio.current_time)
    with pytest.raises(ValueError, match="4 tokens are more than the bucket can hold, 3"):
        await bucket.acquire(4)
    assert bucket.remaining == 3
