"""Manifests of earlier versions of kgateway, rewritten in place.

`rewrite` changes no more of a text than what has a successor: comments, order and layout stay. Each
change is made alone, and the text is read again after it; one that does not come to exactly the
object that is wanted is not made, and reported.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgw.diagnostics import Finding, Severity
from kgw.migrate.edits import Unclear, edited
from kgw.migrate.rules import Change, changes, leftovers
from kgw.source.files import parse_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgw.source.memory import RawObject

__all__ = ["Change", "Rewritten", "changes", "rewrite"]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of a text."""

    text: str
    """The text with all changes; as it was if there are none, or if it cannot be read."""
    changes: tuple[Finding, ...]
    """What was changed, where it stood before that."""
    left: tuple[Finding, ...]
    """What is to be changed by hand, and what keeps the text from being read."""


def rewrite(text: str, file: str) -> Rewritten:
    """Rewrites what has a successor.

    Args:
        text: YAML documents, or JSON.
        file: how findings call it.
    """
    objects, problems = parse_text(text, file)
    errors = [one for one in problems if one.severity is Severity.ERROR]
    if errors:
        return Rewritten(text, (), tuple(errors))
    made: list[Finding] = []
    left: list[Finding] = []
    for index, first in enumerate(objects):
        left += leftovers(first)
        refused: set[Change] = set()
        while True:
            raw = objects[index]
            change = next((one for one in changes(raw.object) if one not in refused), None)
            if change is None:
                break
            found = _changed(text, file, objects, index, change)
            if found is None:
                refused.add(change)
                left.append(_by_hand(first, change))
                continue
            text, objects = found
            made.append(_finding("KGW601", Severity.WARNING, change.message, first, change))
    return Rewritten(text, tuple(made), tuple(left))


def _changed(
    text: str, file: str, objects: Sequence[RawObject], index: int, change: Change
) -> tuple[str, list[RawObject]] | None:
    """The text with a change, and its objects; ``None`` if it would change anything else."""
    raw = objects[index]
    if raw.origin is None or change.blocked:
        return None
    try:
        after = edited(text, raw, change)
    except Unclear:
        return None
    found, problems = parse_text(after, file)
    wanted = [one.object for one in objects]
    wanted[index] = change.applied(raw.object)
    if any(one.severity is Severity.ERROR for one in problems) or _comments(text) != _comments(
        after
    ):
        return None
    return (after, found) if [one.object for one in found] == wanted else None


def _comments(text: str) -> Counter[str]:
    """What may be a comment: all that stands behind a # after a space, also in quotes."""
    return Counter(re.findall(r"(?m)(?:^|(?<=\s))#.*$", text))


def _by_hand(raw: RawObject, change: Change) -> Finding:
    why = change.blocked or "it is written in a way that kgw does not rewrite"
    message = f"{change.message}: to be changed by hand, {why}"
    return _finding("KGW603", Severity.ERROR, message, raw, change)


def _finding(
    code: str, severity: Severity, message: str, raw: RawObject, change: Change
) -> Finding:
    return Finding(code, severity, message, raw.resource, change.path, source=raw.origin, key=True)
