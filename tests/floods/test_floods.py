"""A client that sends without end is cut off, costs little memory, and harms nobody else.

How long that takes is measured by `make floods`: a shared machine may not be asked in a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.peers import proxies
from tests.peers.service import serving

from .attack import attack
from .bystander import bystander
from .catalogue import FLOODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .catalogue import Flood

GROWTH = 8_000_000
"""Most memory that a flood may cost. Bytes."""


@pytest.fixture(scope="module")
def proxy() -> Iterator[proxies.Proxy]:
    with (
        serving() as service,
        proxies.kgw(proxies.forwarding({"main": service.address})) as found,
    ):
        yield found


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.name)
def test_a_flood_is_cut_off(flood: Flood, proxy: proxies.Proxy) -> None:
    with bystander(proxy.address) as other:
        damage = attack(proxy, proxy.address, flood)
    assert damage.ended, damage
    assert damage.growth <= GROWTH, damage
    assert other.latencies
    assert not other.failures
    assert proxy.is_running()
