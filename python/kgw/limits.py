"""Token buckets: one, or one for each key.

    bucket = TokenBucket(3, 3, 60)              # three at once, then one every 20 seconds
    if not bucket.take():
        respond(429, retry_after=math.ceil(bucket.retry_after))

The buckets are those of the proxy's own rate limits: no locks, no timers, safe to share between
threads and event loops. They decide as Envoy's local rate limit does.
"""

from __future__ import annotations

from kgw._native.limit import KeyedTokenBucket
from kgw._native.limit import TokenBucket as _TokenBucket

__all__ = ["KeyedTokenBucket", "TokenBucket"]


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

    Raises:
        ValueError: a number is out of range.
    """

    __slots__ = ()

    async def acquire(self, n: int = 1) -> None:
        """Waits until ``n`` tokens are there and takes them.

        First come, first served, for all tasks, event loops and threads that share the bucket;
        while somebody waits, ``take`` returns False. A wait is bounded by the tokens ordered
        before it; use ``anyio.fail_after`` for less. Always a checkpoint; a cancelled wait puts
        its tokens back.

        Raises:
            ValueError: the bucket can never hold ``n``.
        """
        import anyio  # not at the top: `take` alone should not cost its import

        wait = self.reserve(n)
        try:
            await anyio.sleep(wait)
        except BaseException:
            self.refund(n)
            raise
