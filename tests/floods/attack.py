"""Sends a flood, and watches what becomes of the proxy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers.h2 import Connection

if TYPE_CHECKING:
    from tests.peers.proxies import Address, Proxy

    from .catalogue import Flood

BATCH = 64 * 1024
"""Bytes sent at once."""


@dataclass
class Damage:
    """What a flood did."""

    parts: int
    """Parts sent until the end."""
    ended: bool
    """Whether the proxy ended the connection: GOAWAY, or its close."""
    goaway: int | None
    seconds: float
    cpu: float
    """Processor time of the proxy. Seconds."""
    growth: int
    """Memory of the proxy at its most, above that of before. Bytes."""


def attack(proxy: Proxy, address: Address, flood: Flood) -> Damage:
    """Sends the flood's parts until the connection ends or there were enough."""
    memory, cpu, started = proxy.memory(), proxy.cpu(), time.monotonic()
    most = memory
    parts = 0
    with Connection(address) as connection:
        connection.handshake()
        connection.send(flood.first)
        while parts < flood.most and not connection.goaways and not connection.closed:
            batch = bytearray()
            while len(batch) < BATCH and parts < flood.most:
                batch += flood.part(parts)
                parts += 1
            if not connection.send(batch):
                break
            connection.read(lambda: False, 0.0005)
            most = max(most, proxy.memory())
        connection.read(lambda: connection.goaways or connection.closed, 1.0)
        ended = bool(connection.goaways) or connection.closed
        seconds = time.monotonic() - started
    most = max(most, proxy.memory())
    used = proxy.cpu() - cpu
    return Damage(parts, ended, connection.goaway, seconds, used, most - memory)
