"""Token buckets: one, or one for each key.

    bucket = TokenBucket(3, 3, 60)              # three at once, then one every 20 seconds
    if not bucket.take():
        respond(429, retry_after=math.ceil(bucket.retry_after))

    await bucket.acquire()                      # or wait for a token, on asyncio or trio

The buckets are those of the proxy's own rate limits: no timers, no lock to take a token, safe to
share between threads and event loops. They decide as Envoy's local rate limit does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kgw._native.limit import KeyedTokenBucket as _KeyedTokenBucket
from kgw._native.limit import TokenBucket as _TokenBucket
from kgw.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from kgw.waiting import Lines

__all__ = ["KeyedTokenBucket", "RateLimited", "TokenBucket"]


class TokenBucket(_TokenBucket):
    """A token bucket that threads and tasks share without a lock.

    Starts full with ``max_tokens`` and refills *continuously*: 3 tokens per 60 seconds is one
    token every 20 seconds. Never holds more than ``max_tokens``.

    Args:
        max_tokens: the most tokens the bucket holds; 0 refuses every take.
        tokens_per_fill: how many tokens come back in each ``fill_interval``; at least 1.
        fill_interval: seconds, or a ``timedelta``; more than 0.
        clock: returns monotonic seconds, 0 or more; by default the operating system's monotonic
            clock. ``acquire`` sleeps in the event loop's time: give both the same pace.
        max_waiters: how many callers ``acquire`` lets wait at a time; ``None`` for any number.

    Raises:
        ValueError: a number is out of range.
    """

    __slots__ = ("_lines", "_lock")

    def __init__(
        self,
        max_tokens: int,
        tokens_per_fill: int = 1,
        fill_interval: float | timedelta = 1.0,
        *,
        clock: Callable[[], float] | None = None,
        max_waiters: int | None = None,
    ) -> None:
        # The numbers were read when the object was made.
        self._lock = threading.Lock()
        self._lines: Lines[None] | None = None

    async def acquire(self, n: int = 1, *, max_wait: float | timedelta | None = None) -> None:
        """Waits until ``n`` tokens are there and takes them.

        First come, first served, for all tasks, event loops and threads that share the bucket;
        while somebody waits, ``take`` returns False. A wait is bounded by the tokens ordered
        before it, by ``max_wait``, and by the cancellation of the task. Always a checkpoint; a
        cancelled wait puts its tokens back, and those behind it go earlier.

        Args:
            n: how many tokens.
            max_wait: the most seconds to wait, or a ``timedelta``. 0 does not wait at all.

        Raises:
            RateLimited: the tokens are there after ``max_wait`` only, or ``max_waiters`` wait
                already. At once, without a wait; nothing is taken.
            ValueError: the bucket can never hold ``n``.
        """
        lines = self._make_lines() if self._lines is None else self._lines
        await lines.acquire(None, n, max_wait)

    def _make_lines(self) -> Lines[None]:
        from kgw.waiting import Lines  # not at the top: `take` alone should not cost its import

        with self._lock:
            if self._lines is None:
                self._lines = Lines(_OneBucket(self), self.max_waiters)
            return self._lines

    @property
    def waiting(self) -> int:
        """How many callers wait for tokens now."""
        return 0 if self._lines is None else self._lines.waiting


class KeyedTokenBucket(_KeyedTokenBucket):
    """A token bucket for each key (client address, user, path), for at most ``max_keys`` keys.

    A key that was not seen has a full bucket, and a bucket that is full again is forgotten, which
    nobody can notice. When more than ``max_keys`` keys are in debt at once, the least recently used
    is forgotten early and starts again with a full bucket; ``evicted`` counts those.

    A ``str`` key is its UTF-8 bytes: ``"a"`` and ``b"a"`` are the same key. The number of keys is
    bounded, their length is not: hash long ones from the network first.

    Args:
        max_tokens: the most tokens each bucket holds; 0 refuses every take.
        tokens_per_fill: how many tokens come back in each ``fill_interval``; at least 1.
        fill_interval: seconds, or a ``timedelta``; more than 0.
        max_keys: the most keys that are kept; at least 1.
        clock: as for ``TokenBucket``.
        max_waiters: how many callers ``acquire`` lets wait at a time, for all keys together.

    Raises:
        ValueError: a number is out of range.
    """

    __slots__ = ("_lines", "_lock")

    def __init__(
        self,
        max_tokens: int,
        tokens_per_fill: int = 1,
        fill_interval: float | timedelta = 1.0,
        *,
        max_keys: int = 10000,
        clock: Callable[[], float] | None = None,
        max_waiters: int | None = None,
    ) -> None:
        # The numbers were read when the object was made.
        self._lock = threading.Lock()
        self._lines: Lines[bytes] | None = None

    async def acquire(
        self, key: str | bytes, n: int = 1, *, max_wait: float | timedelta | None = None
    ) -> None:
        """Waits until the bucket of ``key`` has ``n`` tokens and takes them.

        As ``TokenBucket.acquire``; keys do not wait for each other. A key that is forgotten early
        (see the class) starts again with a full bucket, whoever waits for it.

        Args:
            key: as for ``take``.
            n: how many tokens.
            max_wait: the most seconds to wait, or a ``timedelta``. 0 does not wait at all.

        Raises:
            RateLimited: the tokens are there after ``max_wait`` only, or ``max_waiters`` wait
                already. At once, without a wait; nothing is taken.
            ValueError: a bucket can never hold ``n``.
        """
        lines = self._make_lines() if self._lines is None else self._lines
        await lines.acquire(key.encode() if isinstance(key, str) else key, n, max_wait)

    def _make_lines(self) -> Lines[bytes]:
        from kgw.waiting import Lines  # not at the top: `take` alone should not cost its import

        with self._lock:
            if self._lines is None:
                self._lines = Lines(_KeyedBuckets(self), self.max_waiters)
            return self._lines

    @property
    def waiting(self) -> int:
        """How many callers wait for tokens now, for all keys together."""
        return 0 if self._lines is None else self._lines.waiting


class _OneBucket:
    """A bucket as its waiters see it."""

    def __init__(self, bucket: _TokenBucket) -> None:
        self._bucket = bucket

    def reserve(self, key: None, n: int, max_wait: float | timedelta | None) -> float:
        return self._bucket.reserve(n, max_wait=max_wait)

    def refund(self, key: None, n: int) -> None:
        self._bucket.refund(n)

    def reserved_after(self, key: None, behind: int) -> float:
        return self._bucket.reserved_after(behind)


class _KeyedBuckets:
    """The buckets of all keys as their waiters see them."""

    def __init__(self, buckets: _KeyedTokenBucket) -> None:
        self._buckets = buckets

    def reserve(self, key: bytes, n: int, max_wait: float | timedelta | None) -> float:
        return self._buckets.reserve(key, n, max_wait=max_wait)

    def refund(self, key: bytes, n: int) -> None:
        self._buckets.refund(key, n)

    def reserved_after(self, key: bytes, behind: int) -> float:
        return self._buckets.reserved_after(key, behind)
