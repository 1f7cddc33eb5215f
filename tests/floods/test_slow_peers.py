"""Clients that take their time: each costs little, is cut off in the end, and harms nobody else."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
from tests.peers import frames, proxies
from tests.peers.frames import Setting
from tests.peers.h2 import Connection
from tests.peers.service import Service, serving

from .bystander import bystander

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.peers.proxies import Proxy

WAIT = 20.0
PEERS = 200
TIMEOUT_MS = 500

PER_SLOW_READER = 80_000
"""Most memory for a client that does not read. Bytes."""


@pytest.fixture(scope="module")
def lab() -> Iterator[tuple[Proxy, Service]]:
    with serving() as service:
        config = proxies.forwarding({"patient": service.address, "strict": service.address})
        config["listeners"][1]["http"] = {
            "request_head_timeout_ms": TIMEOUT_MS,
            "request_timeout_ms": TIMEOUT_MS,
        }
        with proxies.kgw(config) as proxy:
            yield proxy, service


@contextlib.contextmanager
def peers(address: proxies.Address, first: bytes, **options: int) -> Iterator[list[socket.socket]]:
    """Connections that have sent ``first``."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(PEERS):
            sock = stack.enter_context(socket.socket())
            for name, value in options.items():
                sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
            sock.settimeout(WAIT)
            sock.connect(address)
            sock.sendall(first)
            found.append(sock)
        yield found


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)  # looks again, until the deadline


def answers_of(socks: list[socket.socket], drip: bytes) -> list[bytes]:
    """Sends a byte after the other on each connection until all are closed; what each was told."""
    told = dict.fromkeys(socks, b"")
    live = set(socks)
    for sock in socks:
        sock.setblocking(False)

    def look() -> bool:
        for sock in list(live):
            try:
                sock.send(drip)
                data = sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            told[sock] += data
            if not data:
                live.discard(sock)
        return not live

    until(look, f"the end of {len(live)} connections")
    return list(told.values())


def test_a_head_that_comes_byte_by_byte_is_cut_off(lab: tuple[Proxy, Service]) -> None:
    proxy, service = lab
    before = service.requests
    first = b"GET /slow HTTP/1.1\r\nhost: lab.test\r\nx-a: "
    with (
        bystander(proxy.addresses["strict"]) as other,
        peers(proxy.addresses["strict"], first) as socks,
    ):
        told = answers_of(socks, b"a")
    assert sum(answer.startswith(b"HTTP/1.1 408 ") for answer in told) > PEERS // 2
    assert not other.failures
    # No request of the slow ones was passed on; only what another client asked.
    assert service.requests - before == len(other.latencies)


def test_a_body_that_comes_byte_by_byte_is_cut_off(lab: tuple[Proxy, Service]) -> None:
    proxy, service = lab
    first = b"POST /slow HTTP/1.1\r\nhost: lab.test\r\ncontent-length: 1000000\r\n\r\n"
    with (
        bystander(proxy.addresses["strict"]) as other,
        peers(proxy.addresses["strict"], first) as socks,
    ):
        answers_of(socks, b"a")
    assert not other.failures
    until(lambda: service.open <= 8, "the end of the upstream connections")


def test_a_client_that_does_not_read_holds_little(lab: tuple[Proxy, Service]) -> None:
    proxy, service = lab
    before = proxy.memory()
    request = b"GET /large HTTP/1.1\r\nhost: lab.test\r\n\r\n"
    count = service.requests
    with (
        bystander(proxy.addresses["patient"]) as other,
        peers(proxy.addresses["patient"], request, SO_RCVBUF=4096),
    ):
        until(lambda: service.requests >= count + PEERS, "all requests upstream")
        for _ in range(20):
            other.ask(proxy.addresses["patient"])
        growth = proxy.memory() - before
    print(f"{growth / PEERS / 1000:.1f} kB for each client that does not read")
    assert growth <= PEERS * PER_SLOW_READER
    assert not other.failures
    until(lambda: service.open <= 8, "the end of the upstream connections")


def test_a_head_without_end_is_refused(lab: tuple[Proxy, Service]) -> None:
    proxy, _ = lab
    before = proxy.memory()
    with socket.create_connection(proxy.addresses["patient"], WAIT) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(b"GET / HTTP/1.1\r\nhost: lab.test\r\nx-a: ")
            for _ in range(800):
                sock.sendall(b"a" * 65536)
            raise AssertionError("50 MB of a head were taken")
        assert sock.recv(65536).startswith(b"HTTP/1.1 431 ")
    assert proxy.memory() - before < 2_000_000


def ask_for_much(connection: Connection, streams: int) -> None:
    """Asks for much on each stream, and waits for the heads of all the answers."""
    numbers = range(1, 2 * streams, 2)
    connection.send(b"".join(frames.request(it, "/large") for it in numbers))
    found = [connection.streams[it] for it in numbers]
    assert connection.read(lambda: all(it.status == 200 for it in found))


def test_streams_without_a_window_hold_little(lab: tuple[Proxy, Service]) -> None:
    proxy, service = lab
    before, streams = proxy.memory(), 50
    count = service.requests
    with bystander(proxy.addresses["patient"]) as other, contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(
                Connection(proxy.addresses["patient"], [(Setting.INITIAL_WINDOW_SIZE, 0)])
            )
            ask_for_much(connection, streams)
        until(lambda: service.requests >= count + 4 * streams, "all requests upstream")
        growth = proxy.memory() - before
    print(f"{growth / streams / 4 / 1000:.1f} kB for each stream without a window")
    assert growth <= 4 * streams * PER_SLOW_READER
    assert not other.failures
