"""The endpoints of a Service's port, from its EndpointSlices."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from kgw.api.core.service import ServicePort
    from kgw.attach.index import AnyService, Index, MeshService


def addresses(index: Index, service: MeshService, port: ServicePort) -> list[str]:
    """Ready endpoints as ``address:port``, sorted, IPv4 first.

    The port of a slice that has the name of the Service's port is the target port.
    """
    found = set()
    for one in index.slices(service):
        targets = [
            p.port
            for p in one.ports
            if p.name == port.name and p.protocol == port.protocol and p.port
        ]
        if not targets:
            continue
        for number, endpoint in enumerate(one.endpoints):
            if not (endpoint.ready or service.spec.publish_not_ready_addresses):
                continue
            try:
                address = ip_address(endpoint.addresses[0])
            except ValueError:
                index.report(
                    one,
                    "KGW506",
                    Severity.WARNING,
                    f"endpoint {endpoint.addresses[0]!r} is not an IP address; it is left out",
                    ("endpoints", number, "addresses", 0),
                )
                continue
            found |= {(address.version, int(address), target) for target in targets}
    return [_socket(version, number, port) for version, number, port in sorted(found)]


def _socket(version: int, number: int, port: int) -> str:
    return f"{IPv4Address(number)}:{port}" if version == 4 else f"[{IPv6Address(number)}]:{port}"


def counts(index: Index, service: AnyService) -> tuple[int, int]:
    """Ready and all endpoints of a Service; one of two address families counts once."""
    ready: dict[str, int] = {}
    total: dict[str, int] = {}
    for one in index.slices(service):
        kind = one.address_type
        total[kind] = total.get(kind, 0) + len(one.endpoints)
        ready[kind] = ready.get(kind, 0) + sum(endpoint.ready for endpoint in one.endpoints)
    return max(ready.values(), default=0), max(total.values(), default=0)
