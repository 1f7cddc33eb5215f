from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "limit.py"


def test_the_example_does_what_it_says() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "alice: 200",
        "alice: 200",
        "alice: 200",
        "alice: 429, retry-after: 20",
        "bob: 200",
        "the paced task made 5 calls",
        "alice would wait for 20 s",
    ]
