"""Waiting for tokens in turn, in virtual time (see conftest.py): asyncio and trio."""

from __future__ import annotations

import gc
import math
import pickle
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from kgw.limits import KeyedTokenBucket, RateLimited, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio


class Bucket:
    """A plain bucket, or one key of a keyed one: they are to behave alike."""

    def __init__(
        self, keyed: bool, max_tokens: int, fill: int, interval: float, waiters: int | None = None
    ) -> None:
        if keyed:
            all_keys = KeyedTokenBucket(
                max_tokens, fill, interval, clock=anyio.current_time, max_waiters=waiters
            )
            self.buckets: TokenBucket | KeyedTokenBucket = all_keys
            self.take: Callable[..., bool] = lambda n=1: all_keys.take("key", n)
            self.remaining: Callable[[], int] = lambda: all_keys.remaining("key")
            self.retry_after: Callable[[], float] = lambda: all_keys.retry_after(b"key")
            self.acquire: Callable[..., Awaitable[None]] = lambda n=1, **more: all_keys.acquire(
                "key", n, **more
            )
        else:
            one = TokenBucket(
                max_tokens, fill, interval, clock=anyio.current_time, max_waiters=waiters
            )
            self.buckets = one
            self.take = one.take
            self.remaining = lambda: one.remaining
            self.retry_after = lambda: one.retry_after
            self.acquire = one.acquire


@pytest.fixture(params=[False, True], ids=["plain", "keyed"])
def make(request: pytest.FixtureRequest) -> Callable[..., Bucket]:
    return lambda *args: Bucket(request.param, *args)


class Customers:
    """Tasks that acquire, and when each was served."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.start = anyio.current_time()
        self.served: list[tuple[str, float]] = []
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def customer(self, name: str, n: int) -> None:
        with anyio.CancelScope() as self.scopes[name]:
            await self.bucket.acquire(n)
            self.served.append((name, round(anyio.current_time() - self.start, 3)))

    async def enter(self, group: anyio.abc.TaskGroup, name: str, n: int = 1) -> None:
        waiting = self.bucket.buckets.waiting
        group.start_soon(self.customer, name, n)
        while self.bucket.buckets.waiting == waiting:
            await anyio.lowlevel.checkpoint()


async def test_whoever_is_behind_one_that_gives_up_goes_earlier(
    make: Callable[..., Bucket],
) -> None:
    bucket = make(3, 1, 1)
    assert bucket.take(3)
    customers = Customers(bucket)
    async with anyio.create_task_group() as group:
        for name, n in [("a", 3), ("b", 1), ("c", 2), ("d", 1)]:
            await customers.enter(group, name, n)
        await anyio.sleep(0.5)
        customers.scopes["a"].cancel()
        await anyio.sleep(1)
        customers.scopes["c"].cancel()
    assert customers.served == [("b", 1.0), ("d", 2.0)]
    assert bucket.buckets.waiting == 0
    assert bucket.retry_after() == pytest.approx(1)


async def test_a_newcomer_does_not_overtake_when_others_give_up(
    make: Callable[..., Bucket],
) -> None:
    bucket = make(1, 1, 1)
    assert bucket.take()
    customers = Customers(bucket)
    async with anyio.create_task_group() as group:
        for name in "abcde":
            await customers.enter(group, name)
        await anyio.sleep(0.1)
        for name in "abc":
            customers.scopes[name].cancel()
        while bucket.buckets.waiting > 2:
            await anyio.lowlevel.checkpoint()
        await customers.enter(group, "newcomer")
        assert not bucket.take()
    assert customers.served == [("d", 1.0), ("e", 2.0), ("newcomer", 3.0)]


async def test_all_that_give_up_leave_a_bucket_as_it_was(make: Callable[..., Bucket]) -> None:
    bucket = make(5, 1, 1)
    assert bucket.take(5)
    customers = Customers(bucket)
    async with anyio.create_task_group() as group:
        for number in range(50):
            await customers.enter(group, str(number), 1 + number % 5)
        assert bucket.buckets.waiting == 50
        group.cancel_scope.cancel()
    assert customers.served == []
    assert bucket.buckets.waiting == 0
    assert bucket.retry_after() == pytest.approx(1)


async def test_who_will_not_wait_that_long_is_told_at_once(make: Callable[..., Bucket]) -> None:
    bucket = make(2, 1, 10)
    start = anyio.current_time()
    await bucket.acquire(2, max_wait=0)
    with pytest.raises(RateLimited, match="there in 10 s only") as caught:
        await bucket.acquire(max_wait=9.5)
    assert caught.value.retry_after == pytest.approx(10)
    with pytest.raises(RateLimited):
        await bucket.acquire(max_wait=timedelta(seconds=9))
    assert anyio.current_time() == start
    await bucket.acquire(max_wait=10)
    assert anyio.current_time() == pytest.approx(start + 10)
    await bucket.acquire(max_wait=math.inf)
    with pytest.raises(ValueError, match="max_wait must be 0 or more"):
        await bucket.acquire(max_wait=-1)
    assert bucket.buckets.waiting == 0


async def test_no_more_wait_than_may(make: Callable[..., Bucket]) -> None:
    bucket = make(2, 1, 10, 2)
    assert bucket.buckets.max_waiters == 2
    customers = Customers(bucket)
    await bucket.acquire(2)
    async with anyio.create_task_group() as group:
        await customers.enter(group, "a")
        await customers.enter(group, "b")
        with pytest.raises(RateLimited, match="too many wait already") as caught:
            await bucket.acquire()
        assert caught.value.retry_after == pytest.approx(30)
    assert customers.served == [("a", 10.0), ("b", 20.0)]
    await anyio.sleep(20)
    await bucket.acquire(2)


async def test_none_may_wait(make: Callable[..., Bucket]) -> None:
    bucket = make(1, 1, 1, 0)
    await bucket.acquire()
    with pytest.raises(RateLimited, match="too many"):
        await bucket.acquire()


async def test_a_cancelled_checkpoint_puts_tokens_back(make: Callable[..., Bucket]) -> None:
    bucket = make(2, 1, 10)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bucket.acquire()
    assert scope.cancelled_caught
    assert bucket.remaining() == 2


async def test_keys_do_not_wait_for_each_other() -> None:
    buckets = KeyedTokenBucket(1, 1, 10, clock=anyio.current_time)
    start = anyio.current_time()
    served: list[tuple[str, float]] = []

    async def customer(key: str) -> None:
        await buckets.acquire(key)
        served.append((key, anyio.current_time() - start))

    async with anyio.create_task_group() as group:
        for key in ("alice", "alice", "bob"):
            group.start_soon(customer, key)
            await anyio.sleep(0.001)
        await buckets.acquire(b"carol")
    assert [key for key, _ in served] == ["alice", "bob", "alice"]
    assert served[-1][1] == pytest.approx(10)


async def test_an_abandoned_coroutine_leaves_the_line() -> None:
    """One that was collected, not cancelled: its event loop closed around it, say."""
    bucket = TokenBucket(1, 1, 10, clock=anyio.current_time)
    assert bucket.take()
    abandoned = bucket.acquire()
    abandoned.__await__().send(None)
    assert bucket.waiting == 1
    del abandoned
    gc.collect()
    assert bucket.waiting == 0
    assert bucket.retry_after == pytest.approx(10)


def test_without_an_event_loop_nothing_is_reserved() -> None:
    bucket = TokenBucket(1, clock=lambda: 0.0)
    with pytest.raises(RuntimeError, match="event loop"):
        bucket.acquire().__await__().send(None)
    assert bucket.take(), "it was there, and was put back"
    with pytest.raises(RuntimeError, match="event loop"):
        bucket.acquire().__await__().send(None)
    assert (bucket.retry_after, bucket.waiting) == (1.0, 0)


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(RateLimited(2.5)))
    assert (str(error), error.retry_after) == ("the tokens are there in 2.5 s only", 2.5)


@pytest.mark.parametrize("count", [-1, 2**64])
def test_a_number_of_waiters_is_not_negative(count: int) -> None:
    with pytest.raises(ValueError, match="max_waiters"):
        TokenBucket(1, max_waiters=count)
