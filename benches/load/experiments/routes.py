"""What a request costs as the number of routes grows."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benches.load.experiments.bench import shuffled, target_file
from benches.load.generators import Load
from benches.load.spec import KINDS, RouteTable, Spec

if TYPE_CHECKING:
    from collections.abc import Collection

    from benches.load.experiments.bench import Bench
    from benches.load.peers.base import Peer
    from benches.load.spec import RouteKind

SIZES = (10, 1_000, 100_000)
QUICK_SIZES = (10, 1_000)
PEERS = ("kgw", "haproxy", "envoy", "nginx")
ROUNDS = 3
SECONDS = 1.0

NAMES = tuple(f"routes-{kind}" for kind in KINDS)


def run(bench: Bench, names: Collection[str]) -> None:
    """Measures the kinds named.

    A proxy runs with every size at once, and is asked in turn: what it costs drifts less from one
    sample to the next than from one process to the next.
    """
    sizes = QUICK_SIZES if bench.is_quick else SIZES
    for kind in KINDS:
        if f"routes-{kind}" not in names:
            continue
        for name in PEERS:
            for peer in bench.chosen([name], _spec(bench, 0, kind, 1)):
                bench.check_time()
                _sizes(bench, peer, kind, sizes)


def workload(kind: RouteKind, size: int) -> str:
    """Returns the name of a workload."""
    return f"routes-{kind}-{size}"


def _spec(bench: Bench, place: int, kind: RouteKind, size: int) -> Spec:
    backend = bench.rig.backends["small"]
    return Spec(bench.rig.ports[place], backend, routes=RouteTable(kind, size))


def _sizes(bench: Bench, peer: Peer, kind: RouteKind, sizes: tuple[int, ...]) -> None:
    rig = bench.rig
    with contextlib.ExitStack() as stack:
        cells = []
        for place, size in enumerate(sizes):
            spec = _spec(bench, place, kind, size)
            name = workload(kind, size)
            assert spec.routes is not None
            targets = spec.routes.targets()
            try:
                proxy = stack.enter_context(rig.proxy(peer, spec, targets[-1]))
            except (OSError, RuntimeError) as error:
                with bench.sample(name, peer.name, 0):
                    raise RuntimeError(str(error)) from error
                continue
            cells.append((name, proxy, stack.enter_context(target_file(targets))))
        load = Load(seconds=min(SECONDS, bench.seconds))
        for number in range(min(ROUNDS, bench.rounds)):
            for name, proxy, file in shuffled(cells):
                bench.check_time()
                with bench.sample(name, peer.name, number) as values:
                    values |= rig.load(load, proxy.spec, proxy.pids(), file)
                    values["started_s"] = proxy.started_s
