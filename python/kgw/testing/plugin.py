"""The pytest plugin: the fixture ``kgw_proxy``, and what gateways saw when a test fails.

pytest loads it wherever kgw is installed, so nothing of kgw is imported before a test asks for it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from kgw.testing.gateway import Gateway, GatewayFactory

_GATEWAYS = pytest.StashKey[list[Any]]()

_SHOWN = 20
"""Answers that are listed of each gateway when a test fails."""


@pytest.fixture
def kgw_proxy(request: pytest.FixtureRequest) -> Iterator[GatewayFactory]:
    """Starts gateways: ``kgw_proxy(config)`` returns a `kgw.testing.Gateway`.

    They end with the test. Arguments are those of `kgw.testing.Gateway`.
    """
    from kgw.testing.gateway import Gateway

    gateways: list[Gateway] = []
    request.node.stash[_GATEWAYS] = gateways
    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> Gateway:
            gateway = stack.enter_context(Gateway(*arguments, **options))
            gateways.append(gateway)
            return gateway

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what each gateway answered to the report of a test that failed."""
    report = yield
    if report.when == "call" and report.failed:
        gateways: list[Gateway] = item.stash.get(_GATEWAYS, [])
        for number, gateway in enumerate(gateways):
            lines = _transcript(gateway)
            name = "kgw gateway" if number == 0 else f"kgw gateway {number + 1}"
            report.sections.append((name, "\n".join(lines)))
    return report


def _transcript(gateway: Gateway) -> list[str]:
    """Every answer in a line, and all about the last one."""
    answers = list(gateway.answers)
    if not answers:
        return ["no request was answered"]
    earlier = len(answers) - _SHOWN
    lines = [f"({earlier} earlier answers)"] if earlier > 0 else []
    lines += [f"{answer.at:g} s: {answer!r}" for answer in answers[-_SHOWN:]]
    return [*lines, "", *answers[-1].describe()]
