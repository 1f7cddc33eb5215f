"""Closed loop: what a request costs when the proxy has all the work it can do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benches.load.experiments.bench import shuffled, target_file
from benches.load.workloads import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Collection

    from benches.load.experiments.bench import Bench
    from benches.load.spec import Spec
    from benches.load.workloads import Workload

DIRECT = "direct"
"""The peer of samples without a proxy: load straight at the origin."""


def run(bench: Bench, names: Collection[str]) -> None:
    """Measures the workloads named, block by block."""
    for block in BLOCKS:
        wanted = [workload for workload in block if workload.name in names]
        cells = [
            (workload, peer)
            for workload in wanted
            for peer in (*(it.name for it in bench.chosen(workload.peers, _spec(bench, workload))),)
        ]
        for number in range(bench.rounds):
            for workload, peer in shuffled(cells):
                if not bench.has_failed(workload.name, peer):
                    bench.check_time()
                    _sample(bench, workload, peer, number)


def _spec(bench: Bench, workload: Workload) -> Spec:
    return workload.spec(bench.rig.ports[0], bench.rig.backends[workload.answer])


def _sample(bench: Bench, workload: Workload, name: str, number: int) -> None:
    spec = _spec(bench, workload)
    load = replace(workload.load, seconds=bench.seconds)
    (peer,) = bench.chosen([name], spec)
    with (
        bench.sample(workload.name, name, number) as values,
        target_file(workload.targets) as targets,
        bench.rig.proxy(peer, spec, workload.targets[-1]) as proxy,
    ):
        values |= bench.rig.load(load, spec, proxy.pids(), targets)
        values["started_s"] = proxy.started_s
