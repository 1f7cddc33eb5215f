"""The table of services and their waypoints, as ``istioctl ztunnel-config service`` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgw.attach import endpoints, gateways, waypoints
from kgw.attach.index import Index

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Resource


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One Service."""

    namespace: str
    name: str
    vips: tuple[str, ...]
    #: Name of the waypoint; none when traffic passes no waypoint.
    waypoint: str | None
    ready: int
    total: int

    @property
    def endpoints(self) -> str:
        """``ready/total``."""
        return f"{self.ready}/{self.total}"


def services(resources: Iterable[Resource]) -> list[ServiceRow]:
    """The rows of all Services, by namespace and name.

    The Service that leads to a served Gateway has no EndpointSlice outside a cluster: this process
    is its endpoint.
    """
    index = Index(resources)
    states = gateways.resolve(index)
    bindings = waypoints.resolve(index, states)
    rows = []
    for named, service in sorted(index.services.items()):
        binding = bindings.get(service.key)
        ready, total = endpoints.counts(index, service)
        if not total and any(waypoints.own_service(state, service) for state in states.values()):
            ready = total = 1
        rows.append(
            ServiceRow(
                *named,
                tuple(str(vip) for vip in service.vips()),
                binding.name if binding else None,
                ready,
                total,
            )
        )
    return rows
