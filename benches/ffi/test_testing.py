"""What a gateway costs a unit test: its start, and a request with its log record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kgw
from kgw.testing import Gateway

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from kgw.testing import Configuration

WAYPOINT = Path(__file__).parents[2] / "examples" / "waypoint"


@pytest.mark.parametrize("form", ["files", "loaded"])
def test_gateway_start(benchmark: BenchmarkFixture, form: str) -> None:
    config: Configuration = kgw.load(WAYPOINT) if form == "loaded" else WAYPOINT
    started: list[Gateway] = []

    def start() -> None:
        started.append(Gateway(config).__enter__())

    def end() -> None:
        started.pop().close()

    benchmark.pedantic(  # type: ignore[no-untyped-call]  # pytest-benchmark has no types for it
        start, teardown=end, rounds=100, warmup_rounds=5
    )


def test_gateway_request(benchmark: BenchmarkFixture) -> None:
    with Gateway(WAYPOINT) as gateway:
        answer = benchmark(gateway.get, "http://client/")
    assert answer.status == 200
