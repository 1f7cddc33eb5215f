"""What all tests have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long an example takes says how busy the machine is, and nothing about what is tested.
settings.register_profile("kgw", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kgw")


@pytest.fixture(scope="module", autouse=True)
def _fields(request: pytest.FixtureRequest) -> Iterator[None]:
    """Makes sure that a module uses the fields that it says it tests; see tests/kgateway.

    Only if all of it runs, and passes: what fails is told by itself.
    """
    module = request.module
    marks = getattr(module, "pytestmark", [])
    mine = [one for one in (marks if isinstance(marks, list) else [marks]) if one.name == "fields"]
    if not mine:
        yield
        return
    from tests.kgateway.fields import Claim, canonical, recorded

    before = request.session.testsfailed
    with recorded() as seen:
        yield
    names = {name for name in vars(module) if name.startswith("test_")}
    running = {
        one.originalname  # type: ignore[attr-defined]  # of functions, which these items are
        for one in request.session.items
        if getattr(one, "module", None) is module
    }
    if names != running or request.session.testsfailed != before:
        return
    every = seen | {canonical(one) for one in seen}
    for mark in mine:
        claim = Claim(module.__name__, mark.args, tuple(mark.kwargs.get("without", ())))
        unused = sorted(claim.every - every)
        assert not unused, f"the module says it tests {unused}, and no valid policy has them"
