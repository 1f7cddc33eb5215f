"""Runs the conformance tests and writes their results: ``python -m tests.conformance.report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.conformance.suite import OFFICIAL, PROFILES, profiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
"""What is written."""

RELEASE: Final = "v1.6.1"
"""The release of the official suite whose tests these follow."""

MAIN: Final = "4564255ac2c3"
"""The commit of the suite's main branch (2026-08-21) whose newer tests these follow as well."""

PASS, FAIL, NONE = "pass", "**fail**", "—"

_HEAD: Final = f"""\
# Gateway API conformance

Written by `make conformance`; do not edit.

The Gateway API has a [conformance suite](https://gateway-api.sigs.k8s.io/concepts/conformance/),
which runs against a cluster. **This page is not a report of that suite.** It is the result of
kgw's own tests in `tests/conformance`: one for each official test, of the same name, with
manifests of the same meaning, the same requests, and the same expectations of answers, backends
and statuses. They follow {RELEASE}, and the tests that only the suite's main branch has (commit
`{MAIN}`). They were written from reading the official tests, so they can share a misunderstanding
with kgw that the official suite would not.

What else is different:

* There is no Kubernetes. Manifests are files, served as by `kgw run`; requests and answers go
  over real sockets on loopback. Statuses are those that kgw computes for each object, as `kgw
  check` shows them; nobody writes them anywhere.
* Backends are echo servers in the test, and Services and EndpointSlices lead to them.
* Each Gateway has a free port for each of its listeners, whose literal port stays in the
  manifest.
* Where the suite asks again until answers are consistently right, these ask once: a change is
  live when `apply` returns.

A test counts for each profile that has all of the features it needs. It is *core* if these are
core features of the profile. *Provisional* tests do not count yet in reports of the suite.
"""


class Results:
    """Notes the outcome of every test that follows an official one; a plugin for pytest."""

    def __init__(self) -> None:
        self.passed: dict[str, bool] = {}
        self._names: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            mark = item.get_closest_marker("conformance")
            if mark is not None:
                self._names[item.nodeid] = str(mark.args[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = self._names.get(report.nodeid)
        if name is None:
            return
        # A test that is skipped has shown nothing.
        good = report.passed if report.when == "call" else not (report.failed or report.skipped)
        self.passed[name] = self.passed.get(name, True) and good


def page(passed: Mapping[str, bool]) -> str:
    """The page for results by the name of the official test; what has none has no test of ours."""
    return "\n".join(
        [_HEAD, *_totals(passed), *(line for p in PROFILES for line in _table(p, passed))]
    )


def _totals(passed: Mapping[str, bool]) -> Iterator[str]:
    yield f"| profile | core | extended | newer than {RELEASE} |"
    yield "|---|---|---|---|"
    for profile in PROFILES:
        counts = []
        for wanted in ("core", "extended", "newer"):
            names = [name for name in OFFICIAL if profile in profiles(name)]
            names = [name for name in names if _column(profile, name) == wanted]
            good = sum(passed.get(name, False) for name in names)
            counts.append(f"{good} of {len(names)}" if names else "")
        yield f"| {profile} | {' | '.join(counts)} |"
    good = sum(passed.get(name, False) for name in OFFICIAL)
    yield ""
    yield f"Of {len(OFFICIAL)} tests, {good} pass."


def _column(profile: str, name: str) -> str:
    if OFFICIAL[name].since == "head":
        return "newer"
    return "core" if OFFICIAL[name].features <= PROFILES[profile].core else "extended"


def _table(profile: str, passed: Mapping[str, bool]) -> Iterator[str]:
    yield ""
    yield f"## {profile}"
    yield ""
    yield "| feature | test | | result |"
    yield "|---|---|---|---|"
    own = [name for name in OFFICIAL if profile in profiles(name)]
    for name in sorted(
        own, key=lambda name: (_column(profile, name), _feature(profile, name), name)
    ):
        about = ["core"] if OFFICIAL[name].features <= PROFILES[profile].core else []
        about += ["provisional"] if OFFICIAL[name].provisional else []
        about += [f"newer than {RELEASE}"] if OFFICIAL[name].since == "head" else []
        result = PASS if passed.get(name) else FAIL if name in passed else NONE
        yield f"| {_feature(profile, name)} | {name} | {', '.join(about)} | {result} |"


def _feature(profile: str, name: str) -> str:
    """What a test is about: the extended features that it needs, else the core one."""
    needs = OFFICIAL[name].features
    extended = needs - PROFILES[profile].core
    basic = needs - {"Gateway"} or needs
    return ", ".join(sorted(extended or basic))


def main() -> int:
    """Runs the tests, and writes the page."""
    results = Results()
    # The page itself is tested beside them: by what is written now.
    code = pytest.main([str(Path(__file__).parent), "-q", "-m", "conformance"], plugins=[results])
    PAGE.write_text(page(results.passed))
    print(f"{PAGE}: {sum(results.passed.values())} of {len(OFFICIAL)} official tests pass")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
