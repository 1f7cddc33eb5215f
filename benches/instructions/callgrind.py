"""What callgrind counted: its output files, and the difference between two of them.

The format is in valgrind's manual, "Callgrind Format Specification". Read here is what
``--separate-threads=yes --compress-pos=no`` writes: one file per thread, absolute line numbers,
names given once and numbered.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Call(NamedTuple):
    """Who calls whom."""

    caller: str
    callee: str


class Line(NamedTuple):
    """A line of source, also of code that was inlined elsewhere."""

    file: str
    number: int


@dataclass
class Counts:
    """Instructions of one thread."""

    total: int = 0
    exclusive: Counter[str] = field(default_factory=Counter)
    """By function, inlined ones with their callers."""
    inclusive: Counter[str] = field(default_factory=Counter)
    """By function and what it calls; what recurs is counted each time."""
    calls: Counter[Call] = field(default_factory=Counter)
    """How often, not how many instructions."""
    lines: Counter[Line] = field(default_factory=Counter)

    def since(self, earlier: Counts) -> Counts:
        """Returns what was counted beyond ``earlier``."""
        later = Counts(
            self.total - earlier.total,
            Counter(self.exclusive),
            Counter(self.inclusive),
            Counter(self.calls),
            Counter(self.lines),
        )
        later.exclusive.subtract(earlier.exclusive)
        later.inclusive.subtract(earlier.inclusive)
        later.calls.subtract(earlier.calls)
        later.lines.subtract(earlier.lines)
        return later


def read(files: Iterable[Path]) -> dict[int, Counts]:
    """Returns the counts by valgrind's number of the thread, which is the order of their start."""
    threads: dict[int, Counts] = {}
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            thread, counts = _parse(lines)
        if counts.total:
            threads[thread] = counts
    return threads


def _parse(lines: Iterable[str]) -> tuple[int, Counts]:
    counts = Counts()
    names: dict[tuple[str, str], str] = {}
    thread = 0
    function = file = callee = ""
    is_call = False
    for line in lines:
        if line[:1].isdigit():
            number, cost = line.split()
            counts.inclusive[function] += int(cost)
            if is_call:
                # A function that calls itself has the cost already.
                if callee == function:
                    counts.inclusive[function] -= int(cost)
                is_call = False
            else:
                counts.total += int(cost)
                counts.exclusive[function] += int(cost)
                counts.lines[Line(file, int(number))] += int(cost)
            continue
        key, separator, value = line.rstrip("\n").partition("=")
        if not separator:
            if line.startswith("thread:"):
                thread = int(line.split(":")[1])
        elif key in ("fl", "fi", "fe"):
            file = _name(names, "file", value)
        elif key in ("cfl", "cfi"):
            _name(names, "file", value)
        elif key == "fn":
            function = _name(names, "function", value)
        elif key == "cfn":
            callee = _name(names, "function", value)
        elif key == "calls":
            is_call = True
            counts.calls[Call(function, callee)] += int(value.split()[0])
    return thread, counts


_NUMBERED = re.compile(r"\((\d+)\)(?: (.*))?")
_HASH = re.compile(r"::h[0-9a-f]{16}\b")
_SOURCES = re.compile(rf"{re.escape(str(Path.cwd()))}/|.*/(?:registry/src/[^/]*|rustc/[0-9a-f]+)/")


def _name(names: dict[tuple[str, str], str], kind: str, value: str) -> str:
    """Returns the name that ``value`` is or stands for, without what differs between machines."""
    found = _NUMBERED.fullmatch(value)
    if not found:
        return value
    number, name = found.groups()
    if name is not None:
        # "'2" and so on: how deep a recursion is.
        name = _HASH.sub("", name) if kind == "function" else _SOURCES.sub("", name)
        names[kind, number] = name
    return names[kind, number]
