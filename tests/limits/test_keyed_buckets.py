from __future__ import annotations

import math
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from kgw.limits import KeyedTokenBucket


def test_each_key_has_its_own_bucket() -> None:
    buckets = KeyedTokenBucket(2, clock=lambda: 0.0)
    assert buckets.take("alice", 2)
    assert not buckets.take("alice")
    assert buckets.take("bob")
    assert [buckets.remaining(name) for name in ("alice", "bob", "carol")] == [0, 1, 2]
    assert [buckets.retry_after(name) for name in ("alice", "bob")] == [1.0, 0.0]
    assert buckets.retry_after("alice", 2) == 2.0
    assert buckets.retry_after("carol", 3) == math.inf
    assert len(buckets) == 2


def test_text_is_its_utf8_bytes() -> None:
    buckets = KeyedTokenBucket(1, clock=lambda: 0.0)
    assert buckets.take("käse")
    assert not buckets.take("käse".encode())
    with pytest.raises(TypeError, match="str or bytes"):
        buckets.take(7)  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        buckets.take("\ud800")


def test_a_full_bucket_is_forgotten_and_nobody_notices() -> None:
    now = 0.0
    buckets = KeyedTokenBucket(5, 1, 1, max_keys=100, clock=lambda: now)
    for n in range(1_000):
        now += 1.0
        assert buckets.take(str(n))
    assert len(buckets) < 10
    assert buckets.evicted == 0
    now += 1.0
    assert buckets.expire() > 0
    assert len(buckets) == 0


def test_the_number_of_keys_is_bounded() -> None:
    buckets = KeyedTokenBucket(1, max_keys=50, clock=lambda: 0.0)
    for n in range(200):
        assert buckets.take(f"key {n}")
    assert (len(buckets), buckets.evicted) == (50, 150)
    assert buckets.max_keys == 50


def test_impossible_limits_are_value_errors() -> None:
    with pytest.raises(ValueError, match="max_keys must be at least 1"):
        KeyedTokenBucket(1, max_keys=0)
    with pytest.raises(ValueError, match="tokens_per_fill"):
        KeyedTokenBucket(1, 0)
    with pytest.raises(ValueError, match="number of tokens"):
        KeyedTokenBucket(1).take("a", -1)


def test_its_settings_are_readable() -> None:
    buckets = KeyedTokenBucket(3, 2, 60)
    assert (buckets.max_tokens, buckets.tokens_per_fill, buckets.fill_interval) == (3, 2, 60.0)
    assert repr(buckets) == (
        "KeyedTokenBucket(max_tokens=3, tokens_per_fill=2, fill_interval=60.0, max_keys=10000)"
    )


def test_threads_share_the_buckets_exactly() -> None:
    threads = 8
    buckets = KeyedTokenBucket(100, clock=lambda: 0.0)
    start = threading.Barrier(threads)

    def hammer() -> Counter[str]:
        start.wait()
        keys = [f"key {n % 20}" for n in range(4_000)]
        return Counter(key for key in keys if buckets.take(key))

    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(hammer) for _ in range(threads)]
        granted = sum((job.result() for job in jobs), Counter[str]())
    assert granted == {f"key {n}": 100 for n in range(20)}
