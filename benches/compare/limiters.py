"""Rate limiters: may this client's request pass, and waiting until it may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from benches.compare.measure import Contestant, Work

import kgw

if TYPE_CHECKING:
    from collections.abc import Callable

#: More than a run can use up; pyrate-limiter remembers each, so it must not be endless.
PLENTY = 10_000_000
CLIENT = "10.244.0.24"

#: Tasks that wait for one another, and how many tokens there are for them in a second.
WAITING = 100
RATE = 10_000


def works() -> list[Work]:
    """All works about limits."""
    return [
        Work(
            "limit by client: allowed",
            True,
            [
                Contestant("kgw", lambda: _kgw_keyed(PLENTY)),
                Contestant("limits, fixed window", lambda: _limits(PLENTY, "FixedWindow")),
                Contestant(
                    "limits, sliding window", lambda: _limits(PLENTY, "SlidingWindowCounter")
                ),
                Contestant("throttled-py, token bucket", lambda: _throttled(PLENTY)),
            ],
        ),
        Work(
            "limit by client: refused",
            False,
            [
                Contestant("kgw", lambda: _kgw_keyed(1)),
                Contestant("limits, fixed window", lambda: _limits(1, "FixedWindow")),
                Contestant("limits, sliding window", lambda: _limits(1, "SlidingWindowCounter")),
                Contestant("throttled-py, token bucket", lambda: _throttled(1)),
            ],
        ),
        Work(
            "one limit for all: allowed",
            True,
            [Contestant("kgw", _kgw_single), Contestant("pyrate-limiter", _pyrate)],
        ),
        Work(
            "await acquire(), a token is there",
            None,
            [
                Contestant("kgw", _kgw_acquire),
                Contestant("aiolimiter", _aiolimiter),
                Contestant("aiolimiter, then asyncio.sleep(0)", _aiolimiter_checkpoint),
            ],
        ),
        Work(
            f"{WAITING} tasks wait for their turns",
            WAITING,
            [Contestant("kgw", _kgw_line), Contestant("aiolimiter", _aiolimiter_line)],
        ),
    ]


def _used_up(call: Callable[[], Any], most: int) -> Callable[[], Any]:
    if most == 1:
        call()
    return call


def _kgw_keyed(most: int) -> Callable[[], Any]:
    take = kgw.KeyedTokenBucket(most, 1, 86_400).take
    return _used_up(lambda: take(CLIENT), most)


def _limits(most: int, strategy: str) -> Callable[[], Any]:
    import limits
    from limits import storage, strategies

    limiter = getattr(strategies, f"{strategy}RateLimiter")(storage.MemoryStorage())
    item = limits.RateLimitItemPerDay(most)
    return _used_up(lambda: limiter.hit(item, CLIENT), most)


def _throttled(most: int) -> Callable[[], Any]:
    from throttled import RateLimiterType, Throttled, per_day
    from throttled.store import MemoryStore

    quota = per_day(most, burst=most)
    limiter = Throttled(using=RateLimiterType.TOKEN_BUCKET.value, quota=quota, store=MemoryStore())
    return _used_up(lambda: not limiter.limit(CLIENT).limited, most)


def _kgw_single() -> Callable[[], Any]:
    return kgw.TokenBucket(PLENTY, 1, 86_400).take


def _pyrate() -> Callable[[], Any]:
    from pyrate_limiter import Duration, Limiter, Rate

    limiter = Limiter(Rate(PLENTY, Duration.DAY))
    return lambda: limiter.try_acquire(CLIENT, blocking=False)


def _kgw_acquire() -> Callable[[], Any]:
    return kgw.TokenBucket(PLENTY, 1, 86_400).acquire


def _aiolimiter() -> Callable[[], Any]:
    import warnings

    from aiolimiter import AsyncLimiter

    # One limiter for several event loops, one after the other: nobody waits in it.
    warnings.filterwarnings("ignore", message="This AsyncLimiter instance is being re-used")
    acquire: Callable[[], Any] = AsyncLimiter(PLENTY, 86_400).acquire
    return acquire


def _aiolimiter_checkpoint() -> Callable[[], Any]:
    """As kgw's, which always lets other tasks run."""
    acquire = _aiolimiter()

    async def call() -> None:
        await acquire()
        await asyncio.sleep(0)

    return call


def _kgw_line() -> Callable[[], Any]:
    async def call() -> int:
        return await _line(kgw.TokenBucket(1, RATE).acquire)

    return call


def _aiolimiter_line() -> Callable[[], Any]:
    from aiolimiter import AsyncLimiter

    async def call() -> int:
        return await _line(AsyncLimiter(1, 1 / RATE).acquire)

    return call


async def _line(acquire: Callable[[], Any]) -> int:
    return len(await asyncio.gather(*[acquire() for _ in range(WAITING)]))
