"""The tutorials' programs do what the tutorials say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
TIMEOUT = 60.0

PROGRAM = re.compile(
    r"`([a-z]+\.py)`:\n\n```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?",
    flags=re.MULTILINE | re.DOTALL,
)
"""A file's name at the end of a paragraph, the file, and what it prints."""


@pytest.mark.parametrize(("tutorial", "programs"), [("embed", 4), ("primitives", 3)])
def test_the_programs_of_a_tutorial(tutorial: str, programs: int, tmp_path: Path) -> None:
    found = PROGRAM.findall((TUTORIALS / f"{tutorial}.md").read_text(encoding="utf-8"))
    for name, program, _ in found:
        (tmp_path / name).write_text(program, encoding="utf-8")
    printing = [(name, printed) for name, _, printed in found if printed]
    assert len(printing) == programs
    for name, printed in printing:
        result = subprocess.run(
            [sys.executable, "-W", "error", name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert (result.stderr, result.stdout) == ("", printed), name
