"""What the documentation says of log records is what they are."""

from __future__ import annotations

from pathlib import Path

from kgw.testing.overlay import RECORD

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_every_key_of_a_record_is_documented() -> None:
    table = PAGE.read_text().partition("<!-- record -->\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert {key.strip("`"): operator.strip("`") for key, operator in rows} == dict(RECORD)
