"""What an idle keep-alive connection costs: ``python -m tests.faults.connections``."""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers import proxies
from tests.peers.service import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.proxies import Proxy

WAIT = 20.0
REQUEST = b"GET / HTTP/1.1\r\nhost: lab.test\r\n\r\n"
SPARE = 200
"""File descriptors for everything else."""


def room_for(count: int) -> bool:
    """Raises the limit of open files, if it may be; returns whether so many connections fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard == resource.RLIM_INFINITY or hard >= count + SPARE


def _ask(sock: socket.socket) -> None:
    sock.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"\r\n\r\nok"):
        data = sock.recv(4096)
        assert data, answer
        answer += data


def measure(proxy: Proxy, count: int) -> float:
    """Opens connections, each of which asks once and stays; returns the bytes that each costs.

    All of them are served a second time at the end, so none was lost.
    """
    with contextlib.ExitStack() as stack:
        warm = stack.enter_context(socket.create_connection(proxy.address, WAIT))
        _ask(warm)
        before = proxy.memory()
        socks = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(proxy.address, WAIT))
            _ask(sock)
            socks.append(sock)
        cost = (proxy.memory() - before) / count
        for sock in socks:
            _ask(sock)
    return cost


@contextlib.contextmanager
def running(name: str) -> Iterator[Proxy]:
    """A proxy in front of a backend, for long idle connections."""
    with serving() as service:
        config = proxies.forwarding({"main": service.address})
        if name == "kgw":
            with proxies.kgw(config) as proxy:
                yield proxy
        else:
            with (
                tempfile.TemporaryDirectory() as directory,
                proxies.envoy(config, Path(directory)) as proxy,
            ):
                yield proxy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--proxies", default="kgw,envoy")
    options = parser.parse_args()
    if not room_for(options.count):
        raise SystemExit(f"the limit of open files does not allow {options.count} connections")
    costs = {}
    for name in options.proxies.split(","):
        with running(name) as proxy:
            costs[name] = measure(proxy, options.count)
        print(f"{name}: {options.count:,} connections, {costs[name] / 1000:.1f} kB each")
    if costs.get("kgw", 0) > costs.get("envoy", float("inf")):
        raise SystemExit("kgw's connections cost more than Envoy's")


if __name__ == "__main__":
    main()
