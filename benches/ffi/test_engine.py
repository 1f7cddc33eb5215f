"""What a configuration costs the engine: `make bench-python ARGS=benches/ffi/test_engine.py`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kgw._native.engine import IR_VERSION, Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

PATIENCE = 60.0


def ir(size: int) -> bytes:
    """A configuration of ``size`` routes."""
    rules = [
        {
            "path": {"prefix": f"/api/v1/team-{index % 97}/service-{index}"},
            "rank": {"name": f"default/route-{index}"},
            "route": f"route-{index}",
        }
        for index in range(size)
    ]
    action = {
        "type": "forward",
        "backends": [{"cluster": "backend", "weight": 1}],
        "request_timeout_ms": 15_000,
    }
    config: dict[str, Any] = {
        "version": IR_VERSION,
        "listeners": [
            {
                "id": "default/gateway/http",
                "bind": ["127.0.0.1:0"],
                "traffic": {"type": "http", "route_table": "table"},
            }
        ],
        "route_tables": {"table": {"hosts": [{"hostname": "*", "rules": rules}]}},
        "routes": {
            f"route-{index}": {"name": f"r-{index}", "action": action} for index in range(size)
        },
        "clusters": {"backend": {"endpoints": ["127.0.0.1:9"]}},
    }
    return json.dumps(config).encode()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(workers=1)
    engine.start(ir(1))
    yield engine
    engine.join(0.0)


@pytest.mark.parametrize("size", [10, 1_000, 100_000])
def test_apply(benchmark: BenchmarkFixture, engine: Engine, size: int) -> None:
    """The whole configuration is read, compiled and taken by the worker."""
    config = ir(size)

    def apply() -> bool:
        return engine.wait_applied(engine.apply(config), PATIENCE)

    assert benchmark(apply)
