"""What one bucket costs that every request of two workers takes from."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benches.load.experiments.bench import shuffled, target_file
from benches.load.generators import Load, spread
from benches.load.spec import HOST, LIMITED, UNLIMITED, Spec
from benches.load.workloads import PEERS

if TYPE_CHECKING:
    from pathlib import Path

    from benches.load.experiments.bench import Bench
    from benches.load.peers.base import Peer

NAME = "limiter"
PAIRS = 10
"""Pairs of samples of one process, with and without: their differences are far below its noise."""
SECONDS = 0.3


def run(bench: Bench) -> None:
    """Measures pairs within one process of each proxy, twice unless quick."""
    spec = Spec(bench.rig.ports[0], bench.rig.backends["small"], workers=2, bucket=True)
    for number in range(1 if bench.is_quick else 2):
        for peer in shuffled(bench.chosen(PEERS, spec)):
            bench.check_time()
            _sample(bench, peer, spec, number)


def _sample(bench: Bench, peer: Peer, spec: Spec, number: int) -> None:
    rig = bench.rig
    load = Load(seconds=SECONDS, warmup=0.1)
    with (
        bench.sample(NAME, peer.name, number) as values,
        target_file([f"{HOST} {LIMITED}/1"]) as limited,
        target_file([f"{HOST} {UNLIMITED}/1"]) as unlimited,
        rig.proxy(peer, spec, f"{HOST} {LIMITED}/1", is_free=True) as proxy,
    ):
        costs: dict[Path, list[float]] = {limited: [], unlimited: []}
        pids = proxy.pids()
        for _ in range(PAIRS):
            for targets in shuffled([limited, unlimited]):
                sample = rig.load(load, spec, pids, targets, is_free=True)
                if sample["errors"]:
                    raise RuntimeError(f"{sample['errors']:.0f} requests failed")
                costs[targets].append(sample["cpu_us"])
        added = [a - b for a, b in zip(costs[limited], costs[unlimited], strict=True)]
        values |= {
            "added_us": statistics.median(added),
            "noise_us": spread(added),
            "cpu_us": statistics.median(costs[limited]),
        }
