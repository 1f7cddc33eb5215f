from __future__ import annotations

import gc
import math
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgw.limits import TokenBucket


class FakeClock:
    """Monotonic seconds that stand still until told to move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_three_a_minute_lets_three_through_and_a_fourth_after_twenty_seconds(
    clock: FakeClock,
) -> None:
    bucket = TokenBucket(3, 3, 60, clock=clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert (bucket.remaining, bucket.retry_after) == (0, 20.0)
    clock.now = 19.999
    assert not bucket.take()
    assert bucket.retry_after == pytest.approx(0.001)
    clock.now = 20.0
    assert bucket.retry_after == 0.0
    assert bucket.take()
    clock.now = 3600.0
    assert bucket.remaining == 3


def test_a_refused_take_takes_nothing(clock: FakeClock) -> None:
    bucket = TokenBucket(5, clock=clock)
    assert bucket.take(3)
    assert not bucket.take(3)
    assert bucket.remaining == 2
    assert bucket.retry_after_for(3) == 1.0
    assert bucket.take(2)


@pytest.mark.parametrize("interval", [60, 60.0, timedelta(minutes=1)])
def test_an_interval_is_seconds_or_a_timedelta(interval: float | timedelta) -> None:
    bucket = TokenBucket(3, 3, interval)
    assert (bucket.max_tokens, bucket.tokens_per_fill, bucket.fill_interval) == (3, 3, 60.0)
    assert repr(bucket) == "TokenBucket(max_tokens=3, tokens_per_fill=3, fill_interval=60.0)"


def test_without_a_clock_time_is_the_monotonic_clock() -> None:
    bucket = TokenBucket(2, 1, timedelta(days=1))
    assert bucket.take(2)
    assert not bucket.take()
    assert 86_000 < bucket.retry_after <= 86_400


def test_what_can_never_be_there() -> None:
    assert TokenBucket(3).retry_after_for(4) == math.inf
    assert TokenBucket(0).retry_after == math.inf
    assert not TokenBucket(0).take()
    assert not TokenBucket(3).take(2**64 - 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "number of tokens"),
        ((2**64,), "number of tokens"),
        ((1, 0), "tokens_per_fill must be at least 1"),
        ((1, 1, 0), "fill_interval must not be zero"),
        ((1, 1, -1.0), "positive, finite"),
        ((1, 1, math.nan), "positive, finite"),
        ((1, 1, math.inf), "positive, finite"),
        ((1, 1, timedelta(seconds=-1)), "negative"),
        ((1, 2**63), "more than 16 tokens per nanosecond"),
        ((2**64 - 1, 1, 60), "too large for one token every 60s"),
    ],
)
def test_an_impossible_limit_is_a_value_error(
    arguments: tuple[int, int, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TokenBucket(*arguments)


def test_a_wrong_type_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        TokenBucket("3")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        TokenBucket(3, 1, "60s")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        TokenBucket(3, 1, 1.0, lambda: 0.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("n", [-1, 2**64])
def test_a_negative_number_of_tokens_is_a_value_error(n: int) -> None:
    bucket = TokenBucket(3)
    with pytest.raises(ValueError, match="number of tokens"):
        bucket.take(n)


def test_a_clock_must_tell_a_time() -> None:
    with pytest.raises(ValueError, match="-1 seconds"):
        TokenBucket(1, clock=lambda: -1.0).take()
    with pytest.raises(TypeError):
        TokenBucket(1, clock=lambda: "noon").take()  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        TokenBucket(1, clock=lambda: 1 / 0).take()


def test_reservations_are_served_in_order(clock: FakeClock) -> None:
    bucket = TokenBucket(2, 1, 1, clock=clock)
    assert [bucket.reserve() for _ in range(4)] == [0.0, 0.0, 1.0, 2.0]
    clock.now = 2.0
    assert not bucket.take()
    bucket.refund(1)
    assert bucket.take()
    with pytest.raises(ValueError, match="3 tokens are more than the bucket can hold, 2"):
        bucket.reserve(3)


def test_threads_share_a_bucket_exactly(clock: FakeClock) -> None:
    threads = 8
    bucket = TokenBucket(5_000, 1, 1, clock=clock)
    start = threading.Barrier(threads)

    def hammer() -> int:
        start.wait()
        return sum(bucket.take() for _ in range(2_000))

    with ThreadPoolExecutor(threads) as pool:
        granted = sum(job.result() for job in [pool.submit(hammer) for _ in range(threads)])
    assert granted == 5_000
    clock.now = 10.0
    assert bucket.remaining == 10


def test_a_clock_that_holds_its_bucket_is_collected() -> None:
    class Owner:
        def __init__(self) -> None:
            self.bucket = TokenBucket(1, clock=self.clock)

        def clock(self) -> float:
            return 0.0

    owner = weakref.ref(Owner())
    gc.collect()
    assert owner() is None


@given(
    max_tokens=st.integers(0, 50),
    millis_per_token=st.integers(1, 100_000),
    steps=st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 60)), max_size=60),
)
def test_agrees_with_integers(
    max_tokens: int, millis_per_token: int, steps: list[tuple[int, int]]
) -> None:
    clock = FakeClock()
    bucket = TokenBucket(max_tokens, 1, timedelta(milliseconds=millis_per_token), clock=clock)
    now, level = 0, max_tokens * millis_per_token
    for gap, n in steps:
        now += gap
        clock.now = now / 1000
        level = min(level + gap, max_tokens * millis_per_token)
        granted = n * millis_per_token <= level
        if granted:
            level -= n * millis_per_token
        assert bucket.take(n) is granted
        assert bucket.remaining == level // millis_per_token
