"""The demo's waypoint: a real ``kgw run`` in a process of its own."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TextIO

import click

from kgw.addresses import Address, parse
from kgw.cli.run import LISTENING, READY
from kgw.cli.streams import OutputLost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

START_TIMEOUT = 60.0
"""Seconds that the waypoint gets to serve; it takes well under one, but a laptop may be busy."""

LINE_TIMEOUT = 10.0
"""Seconds that an access log line gets to appear."""

STOP_TIMEOUT = 15.0
"""Seconds that the waypoint gets to drain."""


class NotStarted(Exception):
    """The waypoint ended, or said nothing in time, instead of serving."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"kgw run ended with exit code {code}" if code else "kgw run hangs")
        self.code = code


class Waypoint:
    """``kgw run -f DIRECTORY`` with its access log read line by line.

    Its log of events is shown as it comes, each line marked.
    """

    def __init__(self, directory: Path, bind: Address) -> None:
        arguments = [sys.executable, "-m", "kgw", "run", "-f", str(directory), "--bind", str(bind)]
        # A group of its own: Ctrl-C reaches the demo alone, which then ends the waypoint in order.
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._address: Address | None = None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=_read, args=(self._process.stdout, self._lines.put)),
            threading.Thread(target=_read, args=(self._process.stderr, self._said)),
        ]
        for reader in self._readers:
            reader.daemon = True
            reader.start()

    def __enter__(self) -> Self:
        """Waits until it serves. Raises `NotStarted`."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready.wait(0.05):
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                self.stop()
                raise NotStarted(code)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drains and ends it."""
        self.stop()

    def line(self, timeout: float | None = LINE_TIMEOUT) -> str | None:
        """Returns the next access log line, or ``None`` when none came in time or it ended."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None

    @property
    def address(self) -> Address:
        """Where it listens, once it serves."""
        assert self._address is not None, "it does not serve yet"
        return self._address

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Asks it to drain, and ends it if it does not."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _said(self, line: str | None) -> None:
        if line is None:
            return
        with suppress(OutputLost):  # the main thread notices it too
            click.secho(f"   waypoint: {line}", dim=True)
        if LISTENING in line:
            self._address = parse(line.rpartition("address=")[2])
        if READY in line:
            self._ready.set()


def _read(stream: TextIO, take: Callable[[str | None], None]) -> None:
    for line in stream:
        take(line.rstrip("\n"))
    take(None)
