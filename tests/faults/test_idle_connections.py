"""Idle connections are cheap; `make connections` opens 10,000 of them."""

from __future__ import annotations

import pytest
from tests.peers.proxies import envoy_path

from .connections import measure, room_for, running

COUNT = 2000

MOST = 4000
"""What a connection may cost. Bytes."""


def test_an_idle_connection_costs_less_than_with_envoy() -> None:
    if not room_for(COUNT):
        pytest.skip("the limit of open files is too low")
    with running("kgw") as proxy:
        ours = measure(proxy, COUNT)
    print(f"kgw: {ours / 1000:.1f} kB for each of {COUNT} connections")
    assert ours <= MOST
    if envoy_path() is None:
        return
    with running("envoy") as proxy:
        theirs = measure(proxy, COUNT)
    print(f"Envoy: {theirs / 1000:.1f} kB for each of {COUNT} connections")
    assert ours < theirs
