"""What a log format costs from Python, which compiles formats and leaves lines to the engine.

What a line costs the engine: `cargo bench -p kgw-engine --bench access_log`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benches.instructions.cases import LOG_FORMAT

from kgw._native import access_log

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

TEN_KEYS = json.dumps(LOG_FORMAT)


def test_check(benchmark: BenchmarkFixture) -> None:
    assert benchmark(access_log.check, "json", TEN_KEYS) is None


def test_compile_and_render(benchmark: BenchmarkFixture) -> None:
    line = benchmark(access_log.render_example, "json", TEN_KEYS)
    assert json.loads(line)["response_code"] == 429
