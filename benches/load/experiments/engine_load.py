"""How long the engine takes to load many routes, and what each of them takes in memory.

The engine alone: in a process of kgw's own interpreter, which gets the representation that
`kgw.Config` made of the manifests.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benches.load import manifests
from benches.load.experiments.bench import shuffled
from benches.load.spec import KINDS, RouteTable, Spec

if TYPE_CHECKING:
    from benches.load.experiments.bench import Bench
    from benches.load.spec import RouteKind

NAMES = tuple(f"engine-load-{kind}" for kind in KINDS)
ROUTES = 100_000
QUICK_ROUTES = 10_000

PREPARE = """
import json, sys, time
import kgw
objects = json.load(open(sys.argv[1]))
began = time.perf_counter()
config = kgw.Config.from_objects(objects)
config.raise_for_errors()
open(sys.argv[2], "wb").write(config.ir_bytes)
print(json.dumps({"translate_s": time.perf_counter() - began}))
"""
"""Makes the representation of objects."""

LOAD = """
import ctypes, json, sys, time
from kgw._native.engine import Engine

def memory():
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024

parts = {"listeners": [], "route_tables": {}, "routes": {}, "clusters": {}}
empty = json.dumps({"version": 1, **parts})
engine = Engine(workers=1)
engine.start(empty.encode())
ir = open(sys.argv[1], "rb").read()
before, began = memory(), time.perf_counter()
cpu = time.process_time()
assert engine.wait_applied(engine.apply(ir), 60)
took, cpu = time.perf_counter() - began, time.process_time() - cpu
print(json.dumps({"load_wall_s": took, "load_s": cpu, "bytes": memory() - before}))
engine.join(0)
"""
"""Loads the representation. What the allocator could give back does not count."""


def run(bench: Bench, names: tuple[str, ...]) -> None:
    """Measures each kind of routes in processes of their own."""
    size = QUICK_ROUTES if bench.is_quick else ROUTES
    with tempfile.TemporaryDirectory(prefix="kgw-bench-") as directory:
        ready = []
        for kind in KINDS:
            if f"engine-load-{kind}" in names:
                bench.check_time()
                ready.append((kind, _prepare(bench, kind, size, Path(directory))))
        for number in range(min(3, bench.rounds)):
            for kind, ir in shuffled(ready):
                bench.check_time()
                with bench.sample(f"engine-load-{kind}", "kgw", number) as values:
                    loaded = _python(bench, LOAD, str(ir))
                    values |= loaded | {"route_bytes": loaded["bytes"] / size}


def _prepare(bench: Bench, kind: RouteKind, size: int, directory: Path) -> Path:
    spec = Spec(bench.rig.ports[0], bench.rig.backends["small"], routes=RouteTable(kind, size))
    objects, ir = directory / f"{kind}.json", directory / f"{kind}.ir"
    objects.write_text(json.dumps(manifests.fixed(spec, "/dev/null")))
    _python(bench, PREPARE, str(objects), str(ir))
    return ir


def _python(bench: Bench, program: str, *arguments: str) -> dict[str, float]:
    """Runs a program with the interpreter of kgw; returns the object that it prints."""
    interpreter = Path(bench.rig.programs.need("kgw")).parent / "python"
    command = [str(interpreter), "-c", program, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{interpreter.name} failed: {result.stderr[-300:]}")
    found: dict[str, float] = json.loads(result.stdout)
    return found
