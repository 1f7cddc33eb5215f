"""What a take costs from Python: `make bench-python ARGS=benches/ffi/test_limits.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.limits import KeyedTokenBucket, TokenBucket

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture


def test_take(benchmark: BenchmarkFixture) -> None:
    bucket = TokenBucket(1 << 40)
    assert benchmark(bucket.take)


def test_take_denied(benchmark: BenchmarkFixture) -> None:
    bucket = TokenBucket(1, 1, 86_400)
    bucket.take()
    assert not benchmark(bucket.take)


def test_remaining(benchmark: BenchmarkFixture) -> None:
    bucket = TokenBucket(1 << 40)
    assert benchmark(lambda: bucket.remaining) > 0


def test_keyed_take(benchmark: BenchmarkFixture) -> None:
    buckets = KeyedTokenBucket(1 << 40)
    assert benchmark(buckets.take, "10.0.0.1")


def test_keyed_take_of_ever_new_keys(benchmark: BenchmarkFixture) -> None:
    buckets = KeyedTokenBucket(1 << 40)
    keys = (f"client {n}" for n in range(10**9))
    assert benchmark(lambda: buckets.take(next(keys)))
