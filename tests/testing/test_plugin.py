"""The pytest plugin, in a pytest inside of the one that runs these."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio  # noqa: F401 - what the pytest inside imports first, it takes with it when it ends
from tests.testing.manifests import EDGE, LIMIT

import kgw.testing.gateway  # noqa: F401 - the same; an extension module cannot be loaded twice

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
TIMEOUT = 60.0


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    """Runs a file of tests by a pytest with no other configuration than that warnings fail."""
    path = pytester.makepyfile(test_it=test)
    (pytester.path / "edge.yaml").write_text(f"{EDGE}---{LIMIT}")
    return pytester.runpytest_inprocess("-W", "error", *options, path)


def test_the_fixture_is_there_and_known_by_name(pytester: pytest.Pytester) -> None:
    test = """
def test_it(kgw_proxy):
    first, second = kgw_proxy("edge.yaml"), kgw_proxy(["edge.yaml"])
    assert [first.get("/api").status for _ in range(3)] == [200, 200, 429]
    assert second.get("/api").status == 200

async def test_in_a_coroutine(kgw_proxy, anyio_backend):
    assert (await kgw_proxy("edge.yaml").request_async("GET", "/api")).status == 200

import pytest
pytestmark = pytest.mark.anyio
"""
    run(pytester, test).assert_outcomes(passed=3)  # one of them under asyncio and trio
    listed = run(pytester, test, "--fixtures").stdout.str()
    assert "kgw_proxy" in listed
    assert "Starts gateways" in listed


def test_a_plain_assert_that_fails_shows_what_the_gateway_did(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
def test_it(kgw_proxy):
    gateway, other = kgw_proxy("edge.yaml"), kgw_proxy("edge.yaml")
    for _ in range(25):
        answer = gateway.get("/api")
    assert answer.status == 200

def test_without_a_gateway(kgw_proxy):
    assert False
""",
    )
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(
        [
            "*- kgw gateway -*",
            "(5 earlier answers)",
            "0 s: <Answer 429 RL to GET http://localhost/api: "
            "route default/web/api/0, backend none>",
            "  default/web/api/0: prefix /api on [*]: selected",
            '  response_code_details: "local_rate_limited"',
            "*- kgw gateway 2 -*",
            "no request was answered",
        ]
    )


def test_gateways_end_with_their_test(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
import threading

def ours():
    return [one.name for one in threading.enumerate() if one.name.startswith("kgw-")]

def test_one(kgw_proxy):
    kgw_proxy("edge.yaml").get("/api")
    assert ours()

def test_two():
    assert not ours()
""",
    )
    done.assert_outcomes(passed=2)


def test_nothing_is_imported_before_a_test_asks_for_it(tmp_path: Path) -> None:
    """In a process of its own, where nothing else has imported anything."""
    (tmp_path / "test_it.py").write_text(
        """
import sys

def test_it():
    assert "kgw.testing.plugin" in sys.modules
    assert not {"kgw._native", "kgw.testing.gateway", "pydantic", "anyio", "ssl"} & {*sys.modules}
"""
    )
    others = [
        part for name in ("anyio", "hypothesispytest", "benchmark") for part in ("-p", f"no:{name}")
    ]
    command = [sys.executable, "-m", "pytest", "-W", "error", *others, "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout


def test_the_example_runs(pytester: pytest.Pytester) -> None:
    example = ROOT / "examples" / "test_policy.py"
    pytester.runpytest_inprocess("-W", "error", example).assert_outcomes(passed=2)
    assert len(example.read_text().splitlines()) < 60
