"""Samples, and the file of JSON lines that they are appended to.

A run is a line of type ``run`` followed by its lines of type ``sample`` and ``skip``. Each names
its run, so that a file can hold many.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One call of the bench."""

    id: str
    """When it began, in UTC: 2026-11-23T08:30:00Z."""
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    """By peer."""
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    """What one peer did in one round of a workload."""

    workload: str
    peer: str
    round: int
    values: Mapping[str, float]
    """By name; the end of a name is its unit."""
    error: str = ""
    """Why there are no values."""


@dataclass(frozen=True)
class Skip:
    """What was not measured, and why."""

    what: str
    why: str


@dataclass
class Measured:
    """A run with what it found."""

    run: Run
    samples: list[Sample] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)


class Journal:
    """Appends what a run finds to a file, each as soon as it is known."""

    def __init__(self, path: Path, run: Run) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.measured = Measured(run)
        self._append({"type": "run", **asdict(run)})

    def add(self, sample: Sample) -> None:
        """Appends a sample."""
        self.measured.samples.append(sample)
        known = {name: value for name, value in sample.values.items() if math.isfinite(value)}
        self._append({"type": "sample", **asdict(sample), "values": known})

    def skip(self, what: str, why: str) -> None:
        """Appends that something is not measured, once."""
        skip = Skip(what, why)
        if skip not in self.measured.skips:
            self.measured.skips.append(skip)
            self._append({"type": "skip", **asdict(skip)})

    def _append(self, line: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"in_run": self.measured.run.id, **line}) + "\n")


def read(lines: Iterable[str]) -> list[Measured]:
    """Returns the runs of a file, in the order in which they began.

    Raises:
        ValueError: a line is not one of ours.
    """
    runs: dict[str, Measured] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            run, kind = fields.pop("in_run"), fields.pop("type")
            match kind:
                case "run":
                    runs[run] = Measured(Run(**fields))
                case "sample":
                    runs[run].samples.append(Sample(**fields))
                case "skip":
                    runs[run].skips.append(Skip(**fields))
                case _:
                    raise ValueError(f"unknown type {kind}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} is not a result: {error}") from None
    return list(runs.values())
