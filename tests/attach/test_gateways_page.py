"""The manifests of docs/gateways.md do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.translate.support import codes, hosts, run, status

PAGE = Path(__file__).parents[2] / "docs" / "gateways.md"


def test_the_manifests_of_the_page_belong_together() -> None:
    found = run(*re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL))
    assert codes(found) == []
    assert status(found, "Gateway infra/edge").attached_listener_sets == 1
    (listener,) = status(found, "ListenerSet team/team").listeners
    assert listener.attached_routes == 1
    assert hosts(found, "gateway/infra/edge/80") == {
        "*": [],
        "shop.example": [],
        "team.example": ["httproute/team/team/0/0"],
    }


def test_every_reason_of_the_page_is_one_that_is_given() -> None:
    """What is not in the code would be looked for in vain."""
    package = Path(__file__).parents[2] / "python" / "kgw"
    code = "".join(
        file.read_text()
        for part in ("attach", "translate")
        for file in (package / part).glob("*.py")
    )
    table = PAGE.read_text().partition("| object | condition |")[2].partition("\n\n")[0]
    rows = [line.split("|")[2:4] for line in table.splitlines()[2:]]
    words = {word for row in rows for cell in row for word in re.findall(r"`([A-Z]\w+)`", cell)}
    assert {word for word in words if f'"{word}"' not in code} == set()
