"""The service ports that a waypoint serves, and what becomes of their connections.

What a port carries is `kgw.attach.protocols`'. Where that is not declared, the first bytes of a
connection tell; unless a route has been attached to the port, which says what it is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.attach import protocols
from kgw.attach.policies import Place
from kgw.attach.waypoints import own_service

if TYPE_CHECKING:
    from kgw.api import Service
    from kgw.api.core.service import ServicePort
    from kgw.attach.attachment import Attachment
    from kgw.attach.gateways import GatewayState
    from kgw.translate.streams import Streams
    from kgw.translate.tables import Tables


class Destinations:
    """Builds the destinations of waypoints."""

    def __init__(self, attachment: Attachment, tables: Tables, streams: Streams) -> None:
        self._attachment = attachment
        self._tables = tables
        self._streams = streams

    def build(self, gateway: GatewayState) -> list[dict[str, Any]]:
        """The addresses of all service ports that the waypoint serves."""
        found: list[dict[str, Any]] = []
        for named, binding in sorted(self._attachment.bindings.items()):
            service = self._attachment.index.services[named]
            # The waypoint's own Service leads to this listener: forwarding would go in circles.
            if binding.state is not gateway or own_service(gateway, service):
                continue
            for port in service.spec.ports:
                vips = service.vips()
                if port.protocol != "TCP" or not vips:
                    continue  # headless: no connection names it
                what = self._traffic(gateway, service, port)
                found += [
                    {
                        "address": str(vip),
                        "port": port.port,
                        "service": "/".join(named),
                        **what,
                    }
                    for vip in vips
                ]
        return found

    def _traffic(
        self, gateway: GatewayState, service: Service, port: ServicePort
    ) -> dict[str, Any]:
        """The route table, the forwarding of other connections, or both."""
        own = self._streams.service(gateway, service, port)
        if own is not None:
            return {"tcp": own}
        protocol = protocols.of(port)
        found: dict[str, Any] = {}
        if protocol.http:
            found["route_table"] = self._tables.service(gateway, service, port)
        if protocol.stream and not self._closed(gateway, service, port):
            found["tcp"] = self._streams.to_service(gateway, service, port)
        return found

    def _closed(self, gateway: GatewayState, service: Service, port: ServicePort) -> bool:
        """Whether a port that may carry anything carries requests only.

        A route says that it does. And where a policy that cannot be used answers requests 500,
        bytes that are made to look like none must not get past it.
        """
        if not protocols.of(port).http:
            return False
        named = (service.namespace, service.name, port.port)
        listener = gateway.proxy_listener
        assert listener is not None  # a Service is only bound to a waypoint that has one
        policies = self._attachment.policies
        return named in self._attachment.routes.by_port or isinstance(
            policies.limit(Place(gateway.named, listener.section)), str
        )
