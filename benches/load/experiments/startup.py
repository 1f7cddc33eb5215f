"""From fork to the first answer, and to the version number."""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benches.load import probe, procfs
from benches.load.experiments.bench import shuffled
from benches.load.spec import Spec
from benches.load.workloads import PEERS

if TYPE_CHECKING:
    from benches.load.experiments.bench import Bench
    from benches.load.peers.base import Peer

NAMES = ("start", "start-waypoint-example", "version")

EXAMPLE = Path(__file__).parents[3] / "examples" / "waypoint"
EXAMPLE_ENDPOINT = (("127.0.0.4", "127.0.0.1"), ("port: 11434,", "port: {port},"))
"""What is put in the place of the example's endpoint: the origin."""
EXAMPLE_VIP = "10.96.238.187"
EXAMPLE_TARGET = "ollama /"
PATIENCE = 30.0


def run(bench: Bench) -> None:
    """Measures every proxy with one route, and kgw with the walkthrough's manifests."""
    spec = Spec(bench.rig.ports[0], bench.rig.backends["small"])
    for number in range(bench.rounds):
        for peer in shuffled(bench.chosen(PEERS, spec)):
            bench.check_time()
            _start(bench, peer, spec, number)
        if "kgw" in bench.peers:
            _example(bench, number)
            _version(bench, number)


def _start(bench: Bench, peer: Peer, spec: Spec, number: int) -> None:
    with (
        bench.sample("start", peer.name, number) as values,
        bench.rig.proxy(peer, spec) as proxy,
    ):
        pids = proxy.pids()
        values |= {"started_s": proxy.started_s, "cpu_s": procfs.cpu(pids).total}
        values["rss_kib"] = procfs.memory(pids).resident


def _example(bench: Bench, number: int) -> None:
    port = bench.rig.ports[0]
    command = [bench.rig.programs.need("kgw"), "run", "-f", "manifests"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", "1"]
    data = probe.proxy_header(EXAMPLE_VIP) + probe.request(EXAMPLE_TARGET)
    with (
        bench.sample("start-waypoint-example", "kgw", number) as values,
        tempfile.TemporaryDirectory(prefix="kgw-bench-") as name,
    ):
        directory = Path(name)
        _write_example(directory / "manifests", bench.rig.backends["small"])
        began = time.perf_counter()
        with bench.rig.start(command, directory) as process:
            took = probe.until(lambda: b" 200" in probe.answer(port, data)[:16], PATIENCE, began)
            if took is None:
                raise RuntimeError("kgw does not answer for the example")
            values |= {"started_s": took, "cpu_s": procfs.cpu(procfs.tree(process.pid)).total}


def _write_example(directory: Path, backend: int) -> None:
    """Copies the walkthrough's manifests, with the origin as the endpoint."""
    directory.mkdir()
    for file in EXAMPLE.glob("*.yaml"):
        text = file.read_text()
        for old, new in EXAMPLE_ENDPOINT:
            text = text.replace(old, new.format(port=backend))
        (directory / file.name).write_text(text)


def _version(bench: Bench, number: int) -> None:
    command = [bench.rig.programs.need("kgw"), "--version"]
    with bench.sample("version", "kgw", number) as values:
        before, began = _children_cpu(), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        values |= {"cpu_s": _children_cpu() - before, "started_s": time.perf_counter() - began}


def _children_cpu() -> float:
    """Returns the processor time of the processes that have ended. Seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
