"""No file descriptor left: the process waits without spinning, closes late, and recovers."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import ExitStack

from tests.engine.harness import Peer, eventually, get
from tests.lifecycle.conftest import Process, Site, serving

FILES = 120

TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def starving(site: Site, *arguments: str) -> Process:
    """A `kgw run` that may open few files."""
    kgw = [sys.executable, "-m", "kgw", *site.arguments(*arguments, workers=1)]
    return Process("sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh", *kgw)


def test_a_process_without_descriptors_serves_who_is_there_and_recovers(site: Site) -> None:
    with starving(site, "--max-connections", "100000") as run, ExitStack() as stack:
        address = serving(run)
        early = stack.enter_context(socket.create_connection(address, 5))
        first = Peer(early)
        first.send(get())
        assert first.read_response().status == 200

        started, cpu = time.monotonic(), cpu_seconds(run.process.pid)
        crowd = [
            Peer(stack.enter_context(socket.create_connection(address, 5)))
            for _ in range(FILES + 100)
        ]
        # Who is connected is served meanwhile.
        first.send(get())
        assert first.read_response().status == 200
        # Who waits is told in the end; those that were accepted stay.
        eventually(lambda: any(peer.is_readable() for peer in crowd), "closed connections")
        eventually(lambda: sum(peer.is_readable() for peer in crowd) >= 100, "the rest closed")
        assert sum(peer.is_readable() for peer in crowd) < FILES + 100
        used = cpu_seconds(run.process.pid) - cpu
        # A loop that spins would take all of the time there is.
        assert used < 0.3 * (time.monotonic() - started)

        for peer in crowd:
            peer.close()

        def answered() -> bool:
            # While it accepts nobody, its queue may be full, and the system refuses who comes.
            # That it is the process of before, and not dead, its end tells below.
            try:
                with socket.create_connection(address, 5) as sock:
                    peer = Peer(sock)
                    peer.send(get())
                    return peer.read_response().status == 200
            except (OSError, EOFError):
                return False

        eventually(answered, "an answer after the shortage")
        assert run.end() == 0
        log = str(run.stderr)
        assert "reason=downstream_accept_error" in log
        assert "reason=downstream_cx_overflow" in log


def test_half_of_the_descriptors_are_for_clients(site: Site) -> None:
    """Unless told otherwise, accepting pauses before backends cannot be connected to."""
    with starving(site) as run, ExitStack() as stack:
        address = serving(run)
        crowd = [
            Peer(stack.enter_context(socket.create_connection(address, 5))) for _ in range(FILES)
        ]
        for peer in crowd:
            peer.send(get())
        left = list(crowd)
        while left:
            eventually(lambda: any(peer.is_readable() for peer in left), "answers")
            for peer in [peer for peer in left if peer.is_readable()]:
                assert peer.read_response().status == 200
                peer.close()
                left.remove(peer)
        assert run.end() == 0
        assert "refused connections" not in str(run.stderr)
