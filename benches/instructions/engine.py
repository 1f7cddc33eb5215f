"""The engine under callgrind, and its worker held still while peers prepare what it finds next.

How much work a request is depends on what the worker finds when it looks: a byte that has arrived
is read at once, one that has not costs a wait. So peers act while the worker waits for events or is
stopped, and then the same requests are the same instructions, on a busy machine too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from . import callgrind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .callgrind import Counts

PATIENCE = 60.0
"""Seconds until something that must happen counts as failed."""

_EPOLL = {
    "x86_64": ("232", "281", "441"),
    "aarch64": ("22", "441"),
}.get(os.uname().machine, ())
"""Numbers of the system calls that wait for events."""


class Missing(Exception):
    """A tool that is needed is not there."""


class Engine:
    """``serve`` with a configuration, under callgrind, until the context ends."""

    def __init__(self, executable: Path, config: dict[str, Any]) -> None:
        valgrind = shutil.which("valgrind")
        if valgrind is None:
            raise Missing("valgrind is not installed (Debian: apt-get install valgrind)")
        self._directory = tempfile.TemporaryDirectory(prefix="kgw-instructions-")
        self.directory = Path(self._directory.name)
        ir = self.directory / "config.json"
        ir.write_text(json.dumps(config))
        self._errors = (self.directory / "stderr").open("w+")
        self._process = subprocess.Popen(
            [
                valgrind,
                "--tool=callgrind",
                "--separate-threads=yes",
                "--compress-pos=no",
                f"--callgrind-out-file={self.directory}/out",
                str(executable),
                str(ir),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        assert self._process.stdout is not None
        self._stdout = self._process.stdout

    def __enter__(self) -> Self:
        started = self._stdout.readline()
        if not started:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"the engine does not start:\n{self._errors.read()}")
        addresses: dict[str, list[str]] = json.loads(started)
        ((address,),) = addresses.values()
        host, port = address.rsplit(":", 1)
        self.address = (host, int(port))
        self._worker = self._thread("kgw-worker-0")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._errors.close()
        self._stdout.close()
        self._directory.cleanup()

    def _thread(self, name: str) -> Path:
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            if (task / "comm").read_text().strip() == name:
                return task
        raise RuntimeError(f"the engine has no thread {name}")

    def settle(self) -> None:
        """Returns once the worker has acted on all that has arrived, and waits for more."""
        self._poll(self._is_waiting, "waits for events")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The worker does nothing until the context ends, and then finds all that has arrived."""
        self.settle()
        self._process.send_signal(signal.SIGSTOP)
        try:
            self._poll(self._is_stopped, "stops")
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _is_waiting(self) -> bool:
        where = (self._worker / "wchan").read_text()
        if where != "0":
            return "epoll" in where or "ep_poll" in where
        # It runs, or this kernel does not tell; the other file it tells to debuggers alone.
        with contextlib.suppress(PermissionError):
            return (self._worker / "syscall").read_text().split(" ")[0] in _EPOLL
        return False

    def _is_stopped(self) -> bool:
        return (self._worker / "stat").read_text().rpartition(")")[2].split()[0] in "Tt"

    def _poll(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"the worker never {what}")
            time.sleep(0.000_05)  # the kernel tells nobody when a thread stops or waits

    def finish(self) -> dict[int, Counts]:
        """Ends the engine and returns what each thread did, by number."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(PATIENCE) != 0:
            self._errors.seek(0)
            raise RuntimeError(f"the engine failed:\n{self._errors.read()}")
        return callgrind.read(self.directory.glob("out*"))
