from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "routing.py"


def test_the_example_does_what_it_says() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[2] for line in lines[:8]] == [
        "website /",
        "one user {'user': '42'}",
        "api v2 /items",
        "orders /7",
        "health",
        "website /apis",
        "beta /",
        "no route",
    ]
    assert "  routes[3]: prefix /api/orders on *.shop.example: the method does not match" in lines
    assert "  routes[1]: prefix /api on *.shop.example: selected" in lines


def test_the_module_documentation_is_true() -> None:
    import doctest

    import kgw.routing

    assert doctest.testmod(kgw.routing).failed == 0
    assert doctest.testmod(kgw.routing).attempted > 0
