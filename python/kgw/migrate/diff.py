"""Differences of manifests, without what belongs to Secrets."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECRET: Final = re.compile(r"\bSecret(List)?\b")
#: A Secret with its data on one line, as there is in JSON.
_ON_A_LINE: Final = re.compile(r"(?=.*\bSecret\b)(?=.*\b(?:data|stringData)\b)")
_HUNK: Final = re.compile(r"@@ -(\d+)")

HIDDEN: Final = "(a line of a document with a Secret)"


def diff(before: str, after: str, file: str) -> str:
    """A unified diff. Lines of documents with Secrets are not shown, unless they changed."""
    secret = _secret_lines(before)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        f"a/{file.lstrip('/')}",
        f"b/{file.lstrip('/')}",
    )
    return "".join(_hidden(lines, secret))


def _hidden(lines: Iterator[str], secret: set[int]) -> Iterator[str]:
    number = 0
    for line in lines:
        hunk = _HUNK.match(line)
        if hunk:
            number = int(hunk[1]) - 1
        if line.startswith((" ", "-")) and not line.startswith("---"):
            number += 1
        shown = line
        if _ON_A_LINE.match(line) or (line.startswith(" ") and number in secret):
            shown = f"{line[0]}{HIDDEN}\n"
        yield shown if shown.endswith("\n") else f"{shown}\n\\ No newline at end of file\n"


def _secret_lines(text: str) -> set[int]:
    """The numbers of the lines of documents in which the word stands, from 1."""
    found: set[int] = set()
    document: list[tuple[int, str]] = []
    for number, line in enumerate([*text.splitlines(), "---"], 1):
        if re.match(r"---(\s|$)", line):
            if any(_SECRET.search(one) for _, one in document):
                found.update(at for at, _ in document)
            document = []
        document.append((number, line))
    return found
