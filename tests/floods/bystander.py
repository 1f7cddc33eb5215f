"""Another client, in a process of its own: ``python -m tests.floods.bystander HOST PORT``.

It asks one sound request after the other, each on a new connection, until its input ends, and says
then how long each answer took and what went wrong.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.peers.proxies import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.proxies import Address

REQUEST = b"GET / HTTP/1.1\r\nhost: lab.test\r\nconnection: close\r\n\r\n"

PAUSE = 0.002
"""Seconds between requests."""


@dataclass
class Bystander:
    """What another client saw."""

    latencies: list[float] = field(default_factory=list)
    """Of each answer. Seconds."""
    failures: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        last = len(self.latencies) - 1
        return sorted(self.latencies)[min(int(len(self.latencies) * share), last)]

    def ask(self, address: Address) -> None:
        """Asks once."""
        started = time.monotonic()
        answer = b""
        try:
            with socket.create_connection(address, 10) as sock:
                sock.sendall(REQUEST)
                while data := sock.recv(4096):
                    answer += data
        except OSError as error:
            self.failures.append(repr(error))
            return
        self.latencies.append(time.monotonic() - started)
        if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"ok"):
            self.failures.append(repr(answer[:100]))


@contextlib.contextmanager
def bystander(address: Address) -> Iterator[Bystander]:
    """Another client all the while that the block runs; it tells what it saw after the block."""
    found = Bystander()
    command = [sys.executable, "-m", "tests.floods.bystander", address[0], str(address[1])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asking\n"
        try:
            yield found
        finally:
            output, _ = process.communicate()
            seen = json.loads(output)
            found.latencies += seen["latencies"]
            found.failures += seen["failures"]


def main() -> None:
    found, stop = Bystander(), threading.Event()
    address = (sys.argv[1], int(sys.argv[2]))

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    print("asking", flush=True)
    while True:
        found.ask(address)
        if stop.wait(PAUSE):
            break
    print(json.dumps({"latencies": found.latencies, "failures": found.failures}))


if __name__ == "__main__":
    main()
