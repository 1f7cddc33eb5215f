"""Processes with a place and a class: which cores they run on, and ahead of whom."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REAL_TIME = -20
"""A niceness below this stands for the real-time class, ahead of everything that is not in it."""

MEASURED = 1
"""The real-time priority of what is measured."""
AHEAD = 2
"""That of what must be on time.

Only for moments that touch no files: a process that waits in the kernel, without sleeping, for one
of a lower real-time priority on its core waits for ever.
"""

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

_PORTS = range(12_000, 30_000)
"""Below what Linux gives to outgoing connections, which would take a port between two starts."""


@dataclass(frozen=True)
class Placement:
    """Where and how urgently processes run."""

    cores: frozenset[int]
    """Empty leaves it to the scheduler."""
    nice: int = 0

    def enter(self) -> Callable[[], None]:
        """Returns what puts the calling process there, for the moment between fork and exec."""

        def enter() -> None:
            # Nothing outlives the bench, not even where it is killed.
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if self.cores:
                os.sched_setaffinity(0, self.cores)
            with contextlib.suppress(OSError):
                if self.nice < REAL_TIME:
                    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(MEASURED))
                elif self.nice:
                    os.setpriority(os.PRIO_PROCESS, 0, self.nice)
                    # Niceness counts within a session only, where the kernel groups by session.
                    Path("/proc/self/autogroup").write_text(str(self.nice))

        return enter


@contextlib.contextmanager
def running(
    command: list[str],
    placement: Placement,
    *,
    directory: Path | None = None,
    stdin: int | None = None,
    stdout: int | IO[str] | None = subprocess.PIPE,
    stderr: int | IO[str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Runs a command in a process group of its own, all of which is killed at the end."""
    process = subprocess.Popen(
        command,
        cwd=directory,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
        preexec_fn=placement.enter(),
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def urgent(nice: int, priority: int) -> Iterator[None]:
    """Runs the calling process at a real-time priority, if what is measured is in that class."""
    is_urgent = nice < REAL_TIME
    if is_urgent:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    try:
        yield
    finally:
        if is_urgent:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def open_files(wanted: int) -> int:
    """Raises the limit of open files, for this process and its children, as far as it may be.

    Returns the limit, or what is wanted if that is less.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((wanted, max(wanted, hard)), (hard, hard)):
        if soft >= wanted:
            break
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            soft = limits[0]
    return min(soft, wanted)


def free_ports(count: int) -> list[int]:
    """Returns ports of 127.0.0.1 that nobody listens on, one after the other."""
    for start in range(_PORTS.start, _PORTS.stop, count):
        ports = list(range(start, start + count))
        if all(map(_is_free, ports)):
            return ports
    raise OSError("no port is free")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
