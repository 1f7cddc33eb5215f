"""The example does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "proxyproto.py"


def test_example() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
    done = subprocess.run(
        [sys.executable, EXAMPLE], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.splitlines() == [
        "curl in default wants 10.96.0.1:80",
        "source 10.244.0.24:46238",
        "request GET / HTTP/1.1",
    ]
    assert done.stderr == ""
