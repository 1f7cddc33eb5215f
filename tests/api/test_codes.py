"""The codes of findings: each is documented, and each that is documented is used."""

from __future__ import annotations

import re
from pathlib import Path

from kgw.diagnostics import CODES

PACKAGE = Path(__file__).parents[2] / "python" / "kgw"


def test_every_code_of_a_resource_is_documented_and_used() -> None:
    used = {
        code
        for folder in ("api", "attach", "migrate", "source", "translate")
        for file in (PACKAGE / folder).rglob("*.py")
        for code in re.findall(r"\"(KGW\d{3})\"", file.read_text())
    }
    assert used <= CODES.keys()
    assert {code for code in CODES if code >= "KGW203"} <= used
