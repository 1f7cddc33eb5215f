"""What a lookup costs from Python: `make bench-python ARGS=benches/ffi/test_routing.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kgw.routing import Route, RouteTable

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SIZES = [10, 1_000, 100_000]


def routes(size: int) -> list[Route[int]]:
    return [
        Route(f"/api/v1/team-{i % 97}/service-{i}", i, hosts=("api.example",)) for i in range(size)
    ]


@pytest.mark.parametrize("size", SIZES)
def test_match(benchmark: BenchmarkFixture, size: int) -> None:
    table = RouteTable(routes(size))
    last = size - 1
    path = f"/api/v1/team-{last % 97}/service-{last}/users/42?page=1"
    found = benchmark(table.match, path, host="api.example:8080")
    assert found is not None
    assert found.index == last


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", ["", "*."], ids=["exact", "wildcard"])
def test_match_hosts(benchmark: BenchmarkFixture, size: int, prefix: str) -> None:
    table = RouteTable(
        [Route("/v1", i, hosts=(f"{prefix}team-{i}.api.example",)) for i in range(size)]
    )
    last = size - 1
    host = f"{'www.' if prefix else ''}team-{last}.api.example:8080"
    found = benchmark(table.match, "/v1/users", host=host)
    assert found is not None
    assert found.index == last


def test_match_with_headers(benchmark: BenchmarkFixture) -> None:
    table = RouteTable([Route("/", i, headers={"x-tenant": str(i)}) for i in range(8)])
    headers = {"accept": "*/*", "user-agent": "bench", "x-tenant": "3", "x-other": "y"}
    found = benchmark(table.match, "/", headers=headers)
    assert found is not None
    assert found.value == 3


def test_no_match(benchmark: BenchmarkFixture) -> None:
    table = RouteTable(routes(1_000))
    assert benchmark(table.match, "/api/v2/none", host="api.example") is None


@pytest.mark.parametrize("size", SIZES)
def test_build(benchmark: BenchmarkFixture, size: int) -> None:
    given = routes(size)
    assert len(benchmark(RouteTable, given)) == size
