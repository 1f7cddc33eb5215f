"""What all experiments share: the rig, the journal, and how much time there is."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benches.load.peers import PROXIES
from benches.load.results import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benches.load.generators import Values
    from benches.load.peers.base import Peer
    from benches.load.results import Journal
    from benches.load.rig import Rig
    from benches.load.spec import Spec


_T = TypeVar("_T")


class OutOfTime(Exception):
    """The bench has used the time that it may take."""


@dataclass
class Bench:
    """A run under way."""

    rig: Rig
    journal: Journal
    peers: Sequence[str]
    """Which proxies are wanted, and installed."""
    rounds: int
    seconds: float
    """How long one sample is measured."""
    deadline: float
    """When to stop, on the clock of `time.monotonic`."""
    is_quick: bool = False
    _failed: set[tuple[str, str]] = field(default_factory=set)

    def chosen(self, names: Iterable[str], spec: Spec) -> list[Peer]:
        """Returns the wanted proxies, of those named, that do such work."""
        return [PROXIES[name] for name in names if name in self.peers and PROXIES[name].can(spec)]

    def check_time(self) -> None:
        """Raises `OutOfTime` if there is none left for another sample."""
        if time.monotonic() > self.deadline:
            raise OutOfTime

    @contextlib.contextmanager
    def sample(self, workload: str, peer: str, number: int) -> Iterator[Values]:
        """Adds what the block puts into the values; an error is one of this peer only.

        A peer that failed at a workload is left out of its later rounds.
        """
        values: Values = {}
        try:
            yield values
        except (OSError, RuntimeError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"[:500]
            self._failed.add((workload, peer))
            self.add(Sample(workload, peer, number, {}, text))
        else:
            self.add(Sample(workload, peer, number, values))

    def has_failed(self, workload: str, peer: str) -> bool:
        """Returns whether a peer has failed at a workload."""
        return (workload, peer) in self._failed

    def add(self, sample: Sample) -> None:
        """Adds a sample, and says so."""
        self.journal.add(sample)
        shown = (f"{name}={value:,.4g}" for name, value in sample.values.items() if name in SHOWN)
        print(
            f"{sample.workload:<16} {sample.peer:<12} #{sample.round}",
            *(shown if not sample.error else [sample.error]),
            flush=True,
        )


SHOWN = (
    "cpu_us",
    "rps",
    "p99_us",
    "busy",
    "foreign",
    "errors",
    "added_us",
    "added_p50_ms",
    "added_p99_ms",
    "change_ms",
    "lost",
    "connection_bytes",
    "cpu_s",
    "started_s",
    "load_s",
    "route_bytes",
)
"""Values that are worth a look while the bench runs."""


@contextlib.contextmanager
def target_file(targets: Iterable[str]) -> Iterator[Path]:
    """Writes a file of requests for the load generator."""
    with tempfile.TemporaryDirectory(prefix="kgw-bench-") as directory:
        path = Path(directory) / "targets"
        path.write_text("".join(f"{target}\n" for target in targets))
        yield path


def shuffled(items: Sequence[_T]) -> list[_T]:
    """Returns the items in random order."""
    return random.sample(items, len(items))
