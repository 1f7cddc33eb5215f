"""The proxies under test. To add one: subclass `Peer`, and list it here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.load.peers.envoy import Envoy
from benches.load.peers.floor import Floor
from benches.load.peers.haproxy import HAProxy
from benches.load.peers.kgw import Kgw
from benches.load.peers.nginx import Nginx

if TYPE_CHECKING:
    from benches.load.peers.base import Peer

PROXIES: dict[str, Peer] = {
    peer.name: peer for peer in (Kgw(), Envoy(), HAProxy(), Nginx(), Floor("http"), Floor("splice"))
}
BEST_C = ("haproxy", "nginx")
"""The better of them in a row is what the targets call best C."""
