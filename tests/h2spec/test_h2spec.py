"""kgw is a conforming HTTP/2 server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.hostile.lane import Lane, lanes

from . import connections, frame_types, messages, sound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet

    from .case import Case

LIMITS = {
    "8.3: a pseudo-field in trailers": "the h2 crate takes it off, and the request goes on without",
}
"""What is known not to conform, and why."""

CASES = [*sound.CASES, *connections.CASES, *frame_types.CASES, *messages.CASES]


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with lanes() as found:
        yield found[0]


def _marked(case: Case) -> ParameterSet:
    limit = LIMITS.get(case.id)
    marks = [pytest.mark.xfail(reason=limit)] if limit else []
    return pytest.param(case, id=case.id, marks=marks)


@pytest.mark.parametrize("case", [_marked(case) for case in CASES])
def test_a_server_conforms(case: Case, lane: Lane) -> None:
    assert case.run(lane.address) is None
