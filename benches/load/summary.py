"""Medians over the samples of runs, and what is made of them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from benches.load.peers import BEST_C

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benches.load.results import Measured, Sample

CIRCUMSTANCES = frozenset({"busy", "foreign", "steal"})
"""Values that say how something was measured."""


class Summary:
    """Samples by workload and peer."""

    def __init__(self, runs: Iterable[Measured]) -> None:
        self.runs = list(runs)
        self._samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
        self._rounds: dict[tuple[str, str], dict[tuple[str, int], Sample]] = defaultdict(dict)
        for measured in self.runs:
            for sample in measured.samples:
                cell = (sample.workload, sample.peer)
                self._samples[cell].append(sample)
                self._rounds[cell][measured.run.id, sample.round] = sample

    def workloads(self) -> list[str]:
        """Returns what was measured, in that order."""
        return list(dict.fromkeys(workload for workload, _ in self._samples))

    def peers(self, workload: str) -> list[str]:
        """Returns whom it was measured with."""
        return [peer for known, peer in self._samples if known == workload]

    def values(self, workload: str, peer: str, name: str) -> list[float]:
        """Returns a value of every sample that has it."""
        samples = self._samples.get((workload, peer), [])
        return [sample.values[name] for sample in samples if name in sample.values]

    def median(self, workload: str, peer: str, name: str) -> float | None:
        """Returns the median of a value, if there is one."""
        values = self.values(workload, peer, name)
        return statistics.median(values) if values else None

    def worst(self, workload: str, peer: str, name: str) -> float | None:
        """Returns the largest of a value, if there is one."""
        return max(self.values(workload, peer, name), default=None)

    def difference(self, workload: str, base: str, peer: str, name: str) -> float | None:
        """Returns the median, over rounds, of what one workload has more than another."""
        differences = self.differences(workload, base, peer, name)
        return statistics.median(differences) if differences else None

    def differences(self, workload: str, base: str, peer: str, name: str) -> list[float]:
        """Returns what one workload has more than another, in each round that has both."""
        ours, theirs = self._rounds[workload, peer], self._rounds[base, peer]
        return [
            sample.values[name] - other.values[name]
            for number, sample in ours.items()
            if (other := theirs.get(number)) and name in sample.values and name in other.values
        ]

    def ratio(self, workload: str, base: str, peer: str, name: str) -> float | None:
        """Returns the quotient of the medians of two workloads."""
        ours, theirs = self.median(workload, peer, name), self.median(base, peer, name)
        return None if ours is None or not theirs else ours / theirs

    def best_c(self, workload: str) -> float | None:
        """Returns the processor time per request of the better of HAProxy and nginx."""
        costs = [self.median(workload, peer, "cpu_us") for peer in BEST_C]
        return min((cost for cost in costs if cost is not None), default=None)

    def errors(self, workload: str, peer: str) -> list[str]:
        """Returns why samples failed."""
        return [it.error for it in self._samples.get((workload, peer), []) if it.error]

    def extent(self, name: str) -> tuple[float, float, float] | None:
        """Returns the median, the 90th percentile and the largest of a value in all samples."""
        values = sorted(
            sample.values[name]
            for samples in self._samples.values()
            for sample in samples
            if name in sample.values
        )
        if not values:
            return None
        return statistics.median(values), values[int(0.9 * (len(values) - 1))], values[-1]

    def rounds(self) -> dict[int, list[str]]:
        """Returns what was measured by the number of its rounds, most first: `routes`, `idle`."""
        most: dict[str, int] = defaultdict(int)
        for (workload, _), samples in self._rounds.items():
            work = workload.partition("-")[0]
            measured = [one for one in samples.values() if one.values.keys() - CIRCUMSTANCES]
            most[work] = max(most[work], len(measured))
        by_number: dict[int, list[str]] = defaultdict(list)
        for work, number in most.items():
            if number:
                by_number[number].append(work)
        return dict(sorted(by_number.items(), reverse=True))
