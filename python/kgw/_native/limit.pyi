"""Token buckets, decided as Envoy decides: full at the start, refilled continuously, capped."""

from collections.abc import Callable
from datetime import timedelta
from typing import Self

from typing_extensions import disjoint_base

__all__ = ["KeyedTokenBucket", "TokenBucket"]

@disjoint_base
class TokenBucket:
    """A token bucket that threads share without a lock.

    Starts full with ``max_tokens`` and refills *continuously*: 3 tokens per 60 seconds is one
    token every 20 seconds. Never holds more than ``max_tokens``.

    Args:
        max_tokens: the most tokens the bucket holds; 0 refuses every take.
        tokens_per_fill: how many tokens come back in each ``fill_interval``; at least 1.
        fill_interval: seconds, or a ``timedelta``; more than 0.
        clock: returns monotonic seconds, 0 or more; by default the operating system's monotonic
            clock. What it raises, every method that needs the time raises.
        max_waiters: how many callers ``acquire`` lets wait at a time; ``None`` for any number.

    Raises:
        ValueError: a number is out of range (also: more than 16 tokens per nanosecond).
    """

    def __new__(
        cls,
        max_tokens: int,
        tokens_per_fill: int = 1,
        fill_interval: float | timedelta = 1.0,
        *,
        clock: Callable[[], float] | None = None,
        max_waiters: int | None = None,
    ) -> Self: ...
    def take(self, n: int = 1) -> bool:
        """Takes ``n`` tokens and returns True, or takes none and returns False.

        Raises:
            ValueError: ``n`` is negative or above 2**64 - 1.
        """

    def reserve(self, n: int = 1, *, max_wait: float | timedelta | None = None) -> float:
        """Takes ``n`` tokens now or as soon as they are there; returns the seconds to wait.

        Until then ``take`` returns False: reservations are served in the order they are made.
        Whoever gives up waiting puts its tokens back with ``refund``.

        Args:
            n: how many tokens.
            max_wait: the most seconds that the caller would wait, or a ``timedelta``.

        Raises:
            RateLimited: they are there after ``max_wait`` only; nothing is reserved.
            ValueError: the bucket can never hold ``n``, or reservations already reach years ahead.
        """

    def reserved_after(self, behind: int = 0) -> float:
        """Seconds until all reserved tokens are there, but for the last ``behind`` of them.

        After a refund, whoever reserved before those has to wait for this only.
        """

    def refund(self, n: int = 1) -> None:
        """Puts ``n`` taken or reserved tokens back; never more than the bucket holds."""

    def retry_after_for(self, n: int) -> float:
        """Seconds until ``n`` tokens are there, if nobody else takes any.

        0.0 if they are there, ``inf`` if the bucket can never hold them.
        """

    @property
    def remaining(self) -> int:
        """Whole tokens in the bucket."""

    @property
    def retry_after(self) -> float:
        """Seconds until a token is there: 0.0 if one is, ``inf`` if ``max_tokens`` is 0."""

    @property
    def max_tokens(self) -> int:
        """The most tokens the bucket holds."""

    @property
    def tokens_per_fill(self) -> int:
        """How many tokens come back in each ``fill_interval``."""

    @property
    def fill_interval(self) -> float:
        """Seconds in which ``tokens_per_fill`` tokens come back."""

    @property
    def max_waiters(self) -> int | None:
        """How many callers ``acquire`` lets wait at a time; ``None`` for any number."""

@disjoint_base
class KeyedTokenBucket:
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

    def __new__(
        cls,
        max_tokens: int,
        tokens_per_fill: int = 1,
        fill_interval: float | timedelta = 1.0,
        *,
        max_keys: int = 10000,
        clock: Callable[[], float] | None = None,
        max_waiters: int | None = None,
    ) -> Self: ...
    def take(self, key: str | bytes, n: int = 1) -> bool:
        """Takes ``n`` tokens from the bucket of ``key``, or none; returns whether it did.

        Raises:
            ValueError: ``n`` is negative or above 2**64 - 1.
        """

    def reserve(
        self, key: str | bytes, n: int = 1, *, max_wait: float | timedelta | None = None
    ) -> float:
        """Takes ``n`` tokens of ``key``, now or when they are there; returns the seconds to wait.

        As ``TokenBucket.reserve``. A key that is forgotten early loses its reservations too, and
        starts again with a full bucket.

        Raises:
            RateLimited: they are there after ``max_wait`` only; nothing is reserved.
            ValueError: a bucket can never hold ``n``, or reservations already reach years ahead.
        """

    def refund(self, key: str | bytes, n: int = 1) -> None:
        """Puts ``n`` taken or reserved tokens of ``key`` back; never more than its bucket holds."""

    def reserved_after(self, key: str | bytes, behind: int = 0) -> float:
        """Seconds until all reserved tokens of ``key`` are there, but for the last ``behind``."""

    def remaining(self, key: str | bytes) -> int:
        """Whole tokens in the bucket of ``key``."""

    def retry_after(self, key: str | bytes, n: int = 1) -> float:
        """Seconds until the bucket of ``key`` has ``n`` tokens: 0.0 if it has, ``inf`` if never."""

    def expire(self) -> int:
        """Forgets every bucket that is full again; returns how many.

        Never needed for a right answer or for the bound: it frees keys early.
        """

    @property
    def evicted(self) -> int:
        """How many buckets were forgotten before they were full again, for want of room."""

    @property
    def max_keys(self) -> int:
        """The most keys that are kept."""

    @property
    def max_tokens(self) -> int:
        """The most tokens each bucket holds."""

    @property
    def tokens_per_fill(self) -> int:
        """How many tokens come back in each ``fill_interval``."""

    @property
    def fill_interval(self) -> float:
        """Seconds in which ``tokens_per_fill`` tokens come back."""

    @property
    def max_waiters(self) -> int | None:
        """How many callers ``acquire`` lets wait at a time; ``None`` for any number."""

    def __len__(self) -> int:
        """How many keys are kept; some may be full again and not yet forgotten."""
