"""GEP-2257 durations."""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kgw.api.duration import LONGEST, Duration, milliseconds, text
from kgw.api.gateway.http_route import Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("0s", 0),
        ("1h", 3_600_000),
        ("30m", 1_800_000),
        ("10s", 10_000),
        ("500ms", 500),
        ("2h30m", 9_000_000),
        ("150m", 9_000_000),
        ("100ms200ms300ms", 600),
        ("1h30m10s20ms", 5_410_020),
        ("99999h", 359_996_400_000),
    ],
)
def test_a_duration_is_the_sum_of_its_parts(given_text: str, expected: int) -> None:
    assert milliseconds(given_text) == expected


@pytest.mark.parametrize(
    "wrong",
    ["", "0", "1", "1m1", "1d", "1h30m10s20ms50h", "999999h", "1.5h", "-15m", " 1s", "1S", "1us"],
)
def test_anything_else_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        milliseconds(wrong)


def test_the_canonical_form_has_the_largest_unit_first() -> None:
    assert text(7_230_000) == "2h30s"
    assert text(0) == "0s"
    assert str(Duration(1_500)) == "1s500ms"


@given(st.integers(min_value=0, max_value=99_999 * 3_600_000))
def test_the_canonical_form_reads_back(duration: int) -> None:
    assert milliseconds(text(duration)) == duration


def test_a_duration_is_made_of_a_text_a_timedelta_or_milliseconds() -> None:
    made = [Duration("1m30s"), Duration(timedelta(seconds=90)), Duration(90_000)]
    assert made == [90_000] * 3
    assert [one.as_written() for one in made] == ["1m30s"] * 3
    assert Duration("90s").as_written() == "90s"
    assert repr(Duration("90s")) == "Duration('90s')"
    assert (str(Duration("90s")), f"{Duration('90s'):d}") == ("1m30s", "90000")


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_a_copy_is_written_the_same(copied: Callable[[Duration], Duration]) -> None:
    assert copied(Duration("90s")).as_written() == "90s"


@pytest.mark.parametrize(
    "wrong", [-1, LONGEST + 1, timedelta(microseconds=1), timedelta(-1), "1.5s"]
)
def test_what_is_no_duration_cannot_be_made(wrong: int | str | timedelta) -> None:
    with pytest.raises(ValueError, match=r"duration|milliseconds"):
        Duration(wrong)


@pytest.mark.parametrize("wrong", [0.5, 90.0, True, None, float("nan")])
def test_a_fraction_is_not_cut_to_milliseconds(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a text, a timedelta or milliseconds"):
        Duration(wrong)


@pytest.mark.parametrize("value", ["90s", timedelta(seconds=90), Duration("90s")])
def test_a_field_takes_what_a_duration_is_made_of(value: object) -> None:
    timeouts = Timeouts.model_validate({"request": value})
    assert timeouts.request == 90_000
    assert isinstance(timeouts.request, Duration)
    assert timeouts.model_dump(mode="json")["request"] in ("90s", "1m30s")


@pytest.mark.parametrize("value", [90, 90.0, True, timedelta(microseconds=1), "90"])
def test_a_number_has_no_unit(value: object) -> None:
    with pytest.raises(ValidationError):
        Timeouts.model_validate({"request": value})
