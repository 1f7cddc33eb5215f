"""The `kgw` command as a user runs it: in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from tests.embed.upstream import upstream as upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

TIMEOUT = 60.0
"""Seconds: a bound on anything that is waited for; nothing is expected to come near it."""


class Kgw(Protocol):
    """Runs a command to its end."""

    def __call__(
        self, *arguments: str | Path, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def kgw() -> Kgw:
    def run(
        *arguments: str | Path, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kgw", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
            env={**_environment(), **(env or {})},
        )

    return run


def _obey_interrupts() -> None:
    """Undoes what a shell does to jobs in the background: they ignore Ctrl-C, and so do theirs."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "NO_COLOR"}


class Running:
    """A command that keeps running, its output read line by line as it comes."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kgw", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
            preexec_fn=_obey_interrupts,
        )
        self.stdout = _Lines(self.process.stdout)
        self.stderr = _Lines(self.process.stderr)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        code = self.process.wait(TIMEOUT)
        self.stdout.join()
        self.stderr.join()
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


class _Lines:
    """The lines of a stream; `after` waits for one that has a text in it."""

    def __init__(self, stream: object) -> None:
        self._seen: list[str] = []
        self._next = 0
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def _read(self, stream: Iterator[str]) -> None:
        for line in stream:
            with self._changed:
                self._seen.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def after(self, text: str) -> str:
        """Returns the next line that has *text* in it; lines before it are passed over."""
        with self._changed:
            while True:
                while self._next < len(self._seen):
                    line = self._seen[self._next]
                    self._next += 1
                    if text in line:
                        return line
                if self._ended or not self._changed.wait(TIMEOUT):
                    raise AssertionError(f"no line has {text!r} in it:\n{self}")

    def join(self) -> None:
        self._reader.join(TIMEOUT)

    def __str__(self) -> str:
        return "\n".join(self._seen)


@pytest.fixture
def running() -> Iterator[type[Running]]:
    """Starts commands that keep running, and ends them after the test."""
    started: list[Running] = []

    class Started(Running):
        def __init__(self, *arguments: str | Path) -> None:
            super().__init__(*arguments)
            started.append(self)

    yield Started
    for one in started:
        one.end()


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """A copy of the waypoint scenario's manifests."""
    directory = tmp_path / "manifests"
    shutil.copytree(ROOT / "examples" / "waypoint", directory)
    return directory
