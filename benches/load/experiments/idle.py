"""What a keep-alive connection costs that has asked once and stays."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from benches.load import procfs
from benches.load.experiments.bench import shuffled
from benches.load.generators import Load
from benches.load.spec import SERVICE_VIP, Spec
from benches.load.workloads import PEERS, WAYPOINT_TARGETS

if TYPE_CHECKING:
    from benches.load.experiments.bench import Bench
    from benches.load.peers.base import Peer

NAMES = ("idle", "idle-waypoint")
CONNECTIONS = 10_000
SPARE = 100
"""Connections of everything else."""


def run(bench: Bench) -> None:
    """Measures plain connections, and those of the waypoint chain."""
    limit = Spec(0, 0, open_files=bench.rig.open_files).connections
    count = min(CONNECTIONS, limit - SPARE)
    if count < CONNECTIONS:
        bench.journal.skip("idle", f"{count:,} connections only, by the limit of open files")
    for number in range(1 if bench.is_quick else 2):
        for waypoint in (False, True):
            spec = Spec(
                bench.rig.ports[0],
                bench.rig.backends["small"],
                proxy_protocol=waypoint,
                waypoint=waypoint,
            )
            for peer in shuffled(bench.chosen(PEERS, spec)):
                bench.check_time()
                _sample(bench, peer, spec, count, number)


def _sample(bench: Bench, peer: Peer, spec: Spec, count: int, number: int) -> None:
    arguments = ["-p", str(spec.port), "-c", str(count), "-I"]
    if spec.proxy_protocol:
        arguments += ["-P", "-D", f"{SERVICE_VIP}:80"]
    with (
        bench.sample(NAMES[spec.waypoint], peer.name, number) as values,
        bench.rig.proxy(peer, spec, WAYPOINT_TARGETS[-1]) as proxy,
    ):
        bench.rig.load(Load(seconds=0.5), spec)  # what it takes once, it has taken
        pids = proxy.pids()
        before = procfs.memory(pids).proportional
        with bench.rig.generator(arguments, stdin=subprocess.PIPE) as load:
            held = int(load.wait_for("HELD").split()[1])
            after = procfs.memory(pids).proportional
        if held < count:
            raise RuntimeError(f"only {held:,} of {count:,} connections were answered")
        values |= {
            "connection_bytes": (after - before) * 1024 / held,
            "connections": held,
            "idle_kib": before,
        }
