"""The origin, a proxy and a load generator, and one sample of what the proxy costs."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benches.load import generators, probe, procfs
from benches.load.processes import (
    AHEAD,
    MEASURED,
    Placement,
    free_ports,
    open_files,
    running,
    urgent,
)
from benches.load.spec import HOST

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

    from benches.load.generators import Load, Values
    from benches.load.peers.base import Peer
    from benches.load.programs import Programs
    from benches.load.spec import Spec

ANSWERS = {"small": 13, "16k": 16 * 1024, "1m": 1024 * 1024}
"""Bytes of the origin's answers."""

PATIENCE = 120.0
"""Seconds that a proxy may take until its first answer: some read 100,000 routes."""

OPEN_FILES = 24_000
"""What each process may have open: two for each of 10,000 connections, and some more."""

ATTEMPTS = 3
LATE = 0.05
"""A sample is taken again if its snapshots are this share of its time, or more, too early or late.

On a busy machine the bench itself may have to wait for a core.
"""

_PORTS = 3
"""How many proxies may listen at once."""


@dataclass(frozen=True)
class Running:
    """A proxy that answers."""

    peer: Peer
    spec: Spec
    directory: Path
    pid: int
    started_s: float
    """Seconds from fork to the first answer."""

    def pids(self) -> list[int]:
        """Returns its processes."""
        return procfs.tree(self.pid)


class Rig:
    """Starts what is measured and takes samples.

    Pinned, a proxy has the last core for itself, and load and origin share the others.
    """

    def __init__(self, programs: Programs, *, nice: int = 0) -> None:
        cores = sorted(os.sched_getaffinity(0))
        own = frozenset(cores[-1:] if len(cores) > 1 else ())
        self.programs = programs
        self.is_pinned = bool(own)
        self._proxy = Placement(own, nice)
        self._load = Placement(frozenset(cores) - own if own else frozenset(), nice)
        self._free = Placement(frozenset(), nice)
        ports = free_ports(len(ANSWERS) + _PORTS)
        self.backends = dict(zip(ANSWERS, ports, strict=False))
        self.ports = ports[len(ANSWERS) :]
        self._origin: int | None = None
        self._nice = nice
        self.open_files = open_files(OPEN_FILES)

    @contextlib.contextmanager
    def origin(self) -> Iterator[None]:
        """Runs the origin, with a port for each of `ANSWERS`."""
        answers = [f"{port}:{ANSWERS[name]}" for name, port in self.backends.items()]
        command = [self.programs.need("backend"), *answers]
        with running(command, self._load) as process:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "READY":
                raise RuntimeError("the origin does not start")
            self._origin = process.pid
            yield

    @contextlib.contextmanager
    def proxy(
        self, peer: Peer, spec: Spec, target: str = f"{HOST} /", *, is_free: bool = False
    ) -> Iterator[Running]:
        """Runs a proxy.

        Args:
            peer: which.
            spec: what it is to do.
            target: a request that it answers with 200.
            is_free: whether the scheduler places it.

        Raises:
            RuntimeError: it does not answer.
        """
        with _directory(peer.name) as directory:
            spec = replace(spec, open_files=self.open_files)
            command = peer.command(self.programs, spec, directory)
            began = time.perf_counter()
            with self.start(command, directory, is_free=is_free) as process:
                data = probe.request(target)
                if spec.proxy_protocol:
                    data = probe.proxy_header() + data

                def is_ready() -> bool:
                    if process.poll() is not None:
                        raise RuntimeError(f"{peer.name} ended: {_said(directory)}")
                    if spec.h2:
                        return probe.speaks_h2(spec.port)
                    return b" 200" in probe.answer(spec.port, data)[:16]

                started = probe.until(is_ready, PATIENCE, began)
                if started is None:
                    raise RuntimeError(f"{peer.name} does not answer: {_said(directory)}")
                yield Running(peer, spec, directory, process.pid, started)

    @contextlib.contextmanager
    def start(
        self, command: list[str], directory: Path, *, is_free: bool = False
    ) -> Iterator[subprocess.Popen[str]]:
        """Runs a command where a proxy runs; what it says goes to files in the directory."""
        placement = self._free if is_free else self._proxy
        with (
            (directory / "stdout").open("w") as stdout,
            (directory / "stderr").open("w") as stderr,
            running(command, placement, directory=directory, stdout=stdout, stderr=stderr) as it,
        ):
            yield it

    def load(
        self,
        load: Load,
        spec: Spec,
        pids: Sequence[int] = (),
        targets: Path | None = None,
        *,
        is_free: bool = False,
    ) -> Values:
        """Puts load on a port and returns one sample: the first whose snapshots are on time.

        Args:
            load: how.
            spec: what the port expects.
            pids: the processes whose use counts: those of a proxy.
            targets: a file of requests.
            is_free: whether the scheduler places the generator.

        Raises:
            RuntimeError: nothing was answered.
        """
        placement = self._free if is_free else self._load
        samples: list[Values] = []
        for _ in range(ATTEMPTS):
            samples.append(self._sample(load, spec, list(pids), targets, placement))
            if samples[-1]["late"] <= LATE:
                break
        return min(samples, key=lambda sample: sample["late"])

    def _sample(
        self,
        load: Load,
        spec: Spec,
        pids: list[int],
        targets: Path | None,
        placement: Placement,
    ) -> Values:
        with _directory("load") as directory:
            log = directory / "h2load.log"
            if load.streams:
                command = generators.h2load(self.programs, spec, load, log)
                begins, ends = generators.H2LOAD_BEGINS, generators.H2LOAD_ENDS
            else:
                command = generators.kload(self.programs, spec, load, targets)
                begins, ends = "START", "END"
            with contextlib.ExitStack() as stack:
                with urgent(self._nice, AHEAD):  # snapshots must be taken on time
                    process = stack.enter_context(running(command, placement))
                    _skip_to(process, begins)
                    before = self._snapshot(pids, process.pid)
                    _skip_to(process, ends)
                    after = self._snapshot(pids, process.pid)
                assert process.stdout is not None
                text = process.stdout.read()
            if load.streams:
                with log.open() as lines:
                    values = generators.parse_h2load(text, lines, load.seconds)
            else:
                values = generators.parse_kload(text)
        if not values["requests"]:
            raise RuntimeError("no request was answered")
        late = abs(after.time - before.time - load.seconds) / load.seconds
        return values | _used(before, after, values) | _memory(pids) | {"late": late}

    def abreast(self) -> contextlib.AbstractContextManager[None]:
        """Runs the calling process as urgently as what is measured, for as long as it takes part.

        Only the real-time class counts: of the others each gets its share.
        """
        return urgent(self._nice, MEASURED)

    @contextlib.contextmanager
    def generator(self, arguments: list[str], stdin: int | None = None) -> Iterator[Generator]:
        """Runs kload beside other work."""
        command = [self.programs.need("kload"), *arguments]
        with running(command, self._free, stdin=stdin) as process:
            yield Generator(process)

    def _snapshot(self, pids: list[int], generator: int) -> _Snapshot:
        origin = [] if self._origin is None else [self._origin]
        return _Snapshot(
            time.perf_counter(),
            procfs.cpu(pids),
            procfs.cpu(origin),
            procfs.cpu([generator]),
            procfs.machine(),
        )


@dataclass(frozen=True)
class Generator:
    """A running kload."""

    process: subprocess.Popen[str]

    def wait_for(self, word: str) -> str:
        """Reads until a line begins with a word, and returns it."""
        return _skip_to(self.process, word)

    def result(self) -> Values:
        """Reads the numbers that follow the end of the measurement."""
        assert self.process.stdout is not None
        return generators.parse_kload(self.process.stdout.read())


@dataclass(frozen=True)
class _Snapshot:
    time: float
    proxy: procfs.Cpu
    origin: procfs.Cpu
    client: procfs.Cpu
    machine: procfs.Machine


def _skip_to(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if line.startswith(word):
            return line
        lines.append(line)
    raise RuntimeError(f"the load generator ended: {''.join(lines)[-500:]}")


def _used(before: _Snapshot, after: _Snapshot, values: Values) -> Values:
    """Returns what was used between two snapshots, by whom."""
    wall = after.time - before.time
    cpu, machine = after.proxy - before.proxy, after.machine - before.machine
    origin = after.origin - before.origin
    # kload may have ended by now, but says itself what it used.
    client = values.get("client_cpu_s", (after.client - before.client).total)
    foreign = machine.busy - cpu.total - origin.total - client
    used: Values = {
        "busy": cpu.total / wall,
        "foreign": max(foreign, 0.0) / wall,
        "steal": machine.steal / wall,
    }
    if cpu.total:
        each = cpu.total / wall / values["rps"] * 1e6
        used |= {"cpu_us": each, "system_us": each * cpu.system_share}
    return used


def _memory(pids: list[int]) -> Values:
    if not pids:
        return {}
    memory = procfs.memory(pids)
    return {"rss_kib": memory.resident, "peak_kib": memory.peak, "pss_kib": memory.proportional}


def _said(directory: Path) -> str:
    """Returns the end of what a process wrote."""
    texts = [(directory / name).read_text(errors="replace") for name in ("stderr", "stdout")]
    return " ".join("".join(texts)[-500:].split())


@contextlib.contextmanager
def _directory(name: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=f"kgw-bench-{name}-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
