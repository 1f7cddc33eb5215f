"""Choices of the caller that no resource can express."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from kgw.attach.options import PolicyOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.translate.pool import AddressPool

#: Where a waypoint listens: Istio delivers over loopback, where nobody can forge a header.
LOOPBACK: Final = ("127.0.0.1", "::1")

#: Where the other listeners listen.
WILDCARD: Final = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Options:
    """How Gateways become listening sockets, and policies count.

    Attributes:
        bind: addresses for every listener; otherwise waypoints are on loopback, others on all.
        port_offset: added to every port, so that ports below 1024 need no privileges.
        ports: ports by listener id (``namespace/gateway/listener``), 0 for any free one; of
            listeners that share a port, the first one's counts.
        gateways: only these Gateways, as ``namespace/name``; otherwise all.
        pool: addresses, of which each Gateway gets its own; then *bind* has no meaning.
        policies: how policies are attached, merged and checked.
    """

    bind: tuple[str, ...] | None = None
    port_offset: int = 0
    ports: Mapping[str, int] = field(default_factory=dict)
    gateways: frozenset[str] | None = None
    pool: AddressPool | None = None
    policies: PolicyOptions = field(default_factory=PolicyOptions)

    def includes(self, gateway: str) -> bool:
        """Whether a Gateway, as ``namespace/name``, is to be served."""
        return self.gateways is None or gateway in self.gateways

    def addresses(
        self, listener: str, port: int, own: tuple[str, ...] | None = None, *, waypoint: bool
    ) -> list[str]:
        """The socket addresses of a listener.

        Args:
            listener: its id.
            port: the port that it states.
            own: the addresses of its Gateway, if it has any.
            waypoint: whether it is a waypoint's.
        """
        hosts: Iterable[str] = own or self.bind or (LOOPBACK if waypoint else WILDCARD)
        number = self.ports.get(listener, port + self.port_offset)
        return [f"[{host}]:{number}" if ":" in host else f"{host}:{number}" for host in hosts]

    def is_exposed(self, own: tuple[str, ...] | None = None) -> bool:
        """Whether a waypoint is on an address that is not a loopback one.

        Args:
            own: the addresses of the Gateway, if it has any.
        """
        return any(not ip_address(host).is_loopback for host in own or self.bind or ())
