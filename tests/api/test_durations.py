"""GEP-2257 durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgw.api.duration import Duration, milliseconds, text


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
