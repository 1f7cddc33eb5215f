"""What reading manifests costs from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kgw._native import manifest

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

WAYPOINT = Path(__file__).parents[2] / "examples" / "waypoint"

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: route-{0}
  namespace: default
spec:
  parentRefs:
    - name: gateway
  rules:
    - matches:
        - path:
            type: PathPrefix
            value: /api/v1/service-{0}
      backendRefs:
        - name: backend
          port: 80
"""


def test_parse_the_waypoint_example(benchmark: BenchmarkFixture) -> None:
    text = b"---\n".join(path.read_bytes() for path in sorted(WAYPOINT.glob("*.yaml")))
    documents, problems = benchmark(manifest.parse, text)
    assert documents
    assert not problems


@pytest.mark.parametrize("size", [1, 1_000])
def test_parse_routes(benchmark: BenchmarkFixture, size: int) -> None:
    text = "---\n".join(ROUTE.format(index) for index in range(size)).encode()
    documents, problems = benchmark(manifest.parse, text)
    assert len(documents) == size
    assert not problems
