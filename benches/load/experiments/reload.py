"""One change with many routes live: how long until it answers, and what it costs those who ask."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from benches.load import probe
from benches.load.experiments.bench import shuffled, target_file
from benches.load.spec import RouteTable, Spec
from benches.load.workloads import PEERS

if TYPE_CHECKING:
    from pathlib import Path

    from benches.load.experiments.bench import Bench
    from benches.load.generators import Values
    from benches.load.peers.base import Peer

NAME = "reload"
ROUTES = 10_000
CHANGES = 6
APART = 1.0
"""Seconds from one change to the next, at least."""
RATE = 2_000
CONNECTIONS = 32
PATIENCE = 20.0
"""Seconds until a change counts as lost."""


def run(bench: Bench) -> None:
    """Changes the configuration of each proxy a few times under load."""
    table = RouteTable("paths", ROUTES)
    spec = Spec(bench.rig.ports[0], bench.rig.backends["small"], routes=table, version="v0")
    with target_file(table.targets()) as targets:
        for peer in shuffled(bench.chosen(PEERS, spec)):
            bench.check_time()
            with bench.sample(NAME, peer.name, 0) as values:
                values |= _changes(bench, peer, spec, targets)


def _changes(bench: Bench, peer: Peer, spec: Spec, targets: Path) -> Values:
    assert spec.routes is not None
    changing = spec.routes.targets()[-1]
    changes = 3 if bench.is_quick else CHANGES
    arguments = ["-p", str(spec.port), "-c", str(CONNECTIONS), "-R", str(RATE), "-O"]
    arguments += ["-f", str(targets), "-w", "0.5", "-d", str(changes * APART + 1)]
    with (
        bench.rig.proxy(peer, spec, changing, is_free=True) as proxy,
        bench.rig.generator(arguments) as load,
    ):
        load.wait_for("START")
        took = []
        for number in range(1, changes + 1):
            new = replace(spec, version=f"v{number}")
            change = peer.change(new, proxy.directory, proxy.pid)
            with bench.rig.abreast():  # or the answer that it waits for waits for this process
                began = time.perf_counter()
                change()
                took.append(_live(new, changing, began))
            # Changes come apart, so that the running traffic shows what each does to it.
            time.sleep(max(0.0, APART - (time.perf_counter() - began)))
        load.wait_for("END")
        values = load.result()
    return {
        "change_ms": statistics.median(took) * 1e3,
        "change_max_ms": max(took) * 1e3,
        "lost": values["errors"],
        "changes": changes,
        **{name: values[name] for name in ("requests", "p50_us", "p99_us", "max_us")},
    }


def _live(spec: Spec, target: str, began: float) -> float:
    """Asks until the answer is that of the new configuration; returns the seconds since a time.

    Raises:
        RuntimeError: it never is.
    """
    data, wanted = probe.request(target), f"x-version: {spec.version}\r\n".encode()
    took = probe.until(lambda: wanted in probe.answer(spec.port, data).lower(), PATIENCE, began)
    if took is None:
        raise RuntimeError(f"a change is not live after {PATIENCE:.0f} s")
    return took
