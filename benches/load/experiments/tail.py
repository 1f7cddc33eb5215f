"""Open loop: the latency that a proxy adds at a fixed rate, whatever it does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benches.load.experiments.bench import shuffled, target_file
from benches.load.generators import Load
from benches.load.workloads import BY_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from benches.load.experiments.bench import Bench
    from benches.load.generators import Values
    from benches.load.peers.base import Peer
    from benches.load.spec import Spec

NAMES = ("tail-2500", "tail-half")
RATE = 2_500
SECONDS = 1.5
STEAL = 0.02
"""Cores that the hypervisor may have taken; beyond that a tail is its doing, and taken again."""
ATTEMPTS = 3


def run(bench: Bench) -> None:
    """Measures the waypoint chain at `RATE`, and at half of what each proxy can do."""
    work = BY_NAME["waypoint"]
    spec = work.spec(bench.rig.ports[0], bench.rig.backends["small"])
    with target_file(work.targets) as targets:
        for number in range(1 if bench.is_quick else 3):
            for peer in shuffled(bench.chosen(work.peers, spec)):
                bench.check_time()
                _sample(bench, peer, spec, targets, number)


def _sample(bench: Bench, peer: Peer, spec: Spec, targets: Path, number: int) -> None:
    rig = bench.rig
    with rig.proxy(peer, spec, BY_NAME["waypoint"].targets[-1]) as proxy:
        pids = proxy.pids()
        most = rig.load(Load(seconds=0.7), spec, pids, targets)["rps"]
        for name, rate in zip(NAMES, (float(RATE), most / 2), strict=True):
            with bench.sample(name, peer.name, number) as values:
                load = Load(seconds=min(SECONDS, bench.seconds), rate=rate)
                values |= _calmest(bench, load, spec, pids, targets)
                plain = replace(spec, port=spec.backend, proxy_protocol=False)
                direct = _calmest(bench, load, plain, [], targets)
                values["rate"] = rate
                for share in ("p50", "p90", "p99", "p999"):
                    added = values[f"{share}_us"] - direct[f"{share}_us"]
                    values[f"added_{share}_ms"] = added / 1e3


def _calmest(bench: Bench, load: Load, spec: Spec, pids: list[int], targets: Path) -> Values:
    """Returns the first sample that the hypervisor left alone, or else the best of a few."""
    samples: list[Values] = []
    for _ in range(ATTEMPTS):
        samples.append(bench.rig.load(load, spec, pids, targets))
        if samples[-1]["steal"] < STEAL:
            break
    return min(samples, key=lambda sample: sample["steal"])
