"""The access log of a gateway under test, read as it is written.

The log writer of the engine writes to a pipe that is read when somebody asks. What nobody reads
stays in the pipe and then in the writer's queues, which are bounded: lines beyond are dropped and
counted, as with any log.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kgw.testing.overlay import policy_lines

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Line", "Records"]

MAX_UNCLAIMED = 10_000
"""Lines that are kept until somebody asks for them; older ones are forgotten."""

_LOOKS = 1_000
"""Flushes that empty the writer's queues, a pipe full at a time, with much to spare."""

_PAUSE = 0.005
"""Real seconds between two looks for a line that is not there yet."""


class Line:
    """What the log says of one request or connection."""

    def __init__(self, line: dict[str, Any]) -> None:
        self.record: dict[str, Any] = line["record"]
        """See `kgw.testing.overlay.RECORD`."""
        self.policies: tuple[dict[str, Any] | str, ...] = tuple(policy_lines(line))
        """What each of the policies' own access logs says, in its own form."""


class Records:
    """Reads the log."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._lock = threading.Lock()
        self._rest = b""
        self._lines: deque[Line] = deque(maxlen=MAX_UNCLAIMED)

    @property
    def path(self) -> str:
        """What the engine opens to write the log."""
        return f"/proc/self/fd/{self._writing}"

    def claim(self, peer: str, flush: Callable[[float], bool], patience: float) -> Line | None:
        """Returns the first line about the connection from *peer*, and forgets it.

        Args:
            peer: address of the client's socket.
            flush: makes the engine write what it has, within so many seconds.
            patience: real seconds to wait for the line.
        """
        deadline = time.monotonic() + patience
        while True:
            self.read(flush)
            with self._lock:
                for line in self._lines:
                    if line.record["peer_address"] == peer:
                        self._lines.remove(line)
                        return line
            if time.monotonic() > deadline:
                return None
            time.sleep(_PAUSE)  # nothing tells when a request is over, shortly after its last byte

    def read(self, flush: Callable[[float], bool]) -> list[Line]:
        """Reads what has been written; returns all lines that nobody claimed."""
        with self._lock:
            self._receive()
            for _ in range(_LOOKS):
                clean = flush(1.0)
                self._receive()
                if clean:
                    break  # else the pipe was full, and there is room now
            return list(self._lines)

    def close(self) -> None:
        """Closes the pipe, once the engine has ended."""
        for descriptor in (self._reading, self._writing):
            with suppress(OSError):
                os.close(descriptor)

    def _receive(self) -> None:
        """Takes everything that is in the pipe."""
        while True:
            try:
                data = os.read(self._reading, 1 << 20)
            except BlockingIOError:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(Line(json.loads(line)) for line in lines)
