"""Headers parsed, written and shared by many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from kgw.proxyproto import MeshIdentity, ProxyHeader, ProxyProtocolError, parse_proxy_header

THREADS = 8


def test_threads_do_not_disturb_each_other() -> None:
    start = threading.Barrier(THREADS)
    shared = ProxyHeader(("10.0.0.1", 1), ("10.0.0.2", 2), authority="shared")
    buffer = bytearray(shared.encode())  # written to by all: each parses a copy of some moment

    def hammer(number: int) -> int:
        own = ProxyHeader(
            (f"10.0.0.{number}", number),
            ("10.96.0.1", 80),
            identity=MeshIdentity("cluster.local", f"ns{number}", "sa"),
        )
        start.wait()
        refused = 0
        for _ in range(1_000):
            assert parse_proxy_header(own.encode(crc32c=True)) == own
            assert parse_proxy_header(shared.encode()).authority == "shared"
            buffer[12] ^= number  # version and command
            try:
                assert parse_proxy_header(buffer).length == len(buffer)
            except ProxyProtocolError:
                refused += 1
            buffer[12] ^= number
        assert {own: number}[parse_proxy_header(own.encode())] == number
        return refused

    with ThreadPoolExecutor(THREADS) as pool:
        refused = sum(pool.map(hammer, range(1, THREADS + 1)))
    assert refused > 0, "some were parsed in between"
    assert shared.source == ("10.0.0.1", 1)
