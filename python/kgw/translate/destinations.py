"""The service ports that a waypoint serves, and what becomes of their connections.

What a port carries is `kgw.attach.protocols`'. Where that is not declared, the first bytes of a
connection tell; unless a route has been attached to the port, which says what it is for. Routes
of other namespaces than the Service's are for the clients of theirs, in the place of the others.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kgw.attach import protocols
from kgw.attach.frontends import ServiceAddress
from kgw.attach.policies import Place
from kgw.attach.waypoints import own_service

if TYPE_CHECKING:
    from kgw.api.core.service import ServicePort
    from kgw.attach.attachment import Attachment
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import AnyService
    from kgw.translate.streams import Streams
    from kgw.translate.tables import Tables


class Destinations:
    """Builds the destinations of waypoints."""

    def __init__(self, attachment: Attachment, tables: Tables, streams: Streams) -> None:
        self._attachment = attachment
        self._tables = tables
        self._streams = streams
        #: The namespaces whose clients have routes of their own, of each service port.
        self._clients: dict[ServiceAddress, set[str]] = defaultdict(set)
        for address in (*attachment.routes.by_port, *attachment.streams.by_service):
            if address.clients:
                self._clients[address._replace(clients="")].add(address.clients)

    def build(self, gateway: GatewayState) -> list[dict[str, Any]]:
        """The addresses of all service ports that the waypoint serves."""
        found: list[dict[str, Any]] = []
        for key, binding in sorted(self._attachment.bindings.items()):
            service = self._attachment.index.service(key)
            assert service is not None  # it is bound
            # The waypoint's own Service leads to this listener: forwarding would go in circles.
            if binding.state is not gateway or own_service(gateway, service):
                continue
            origin = {} if service.kind == "Service" else {"cluster_set": True}
            for port in service.spec.ports:
                vips = service.vips()
                if port.protocol != "TCP" or not vips:
                    continue  # headless: no connection names it
                what = self._traffic(gateway, service, port)
                found += [
                    {
                        "address": str(vip),
                        "port": port.port,
                        "service": f"{service.namespace}/{service.name}",
                        **origin,
                        **what,
                    }
                    for vip in vips
                ]
        return found

    def _traffic(
        self, gateway: GatewayState, service: AnyService, port: ServicePort
    ) -> dict[str, Any]:
        """The route table, the forwarding of other connections, or both."""
        address = ServiceAddress(service.key, port.port)
        clients = {
            one: self._own(gateway, address._replace(clients=one))
            for one in sorted(self._clients.get(address, ()))
        }
        found = self._own(gateway, address) or self._default(gateway, service, port)
        return {**found, "clients": clients} if clients else found

    def _own(self, gateway: GatewayState, address: ServiceAddress) -> dict[str, Any]:
        """Where routes of a service port send its traffic; empty if it has none."""
        if address in self._attachment.routes.by_port:
            return {"route_table": self._tables.clients(gateway, address)}
        return self._streams.service(gateway, address)

    def _default(
        self, gateway: GatewayState, service: AnyService, port: ServicePort
    ) -> dict[str, Any]:
        """What becomes of a service port that has no routes of its own."""
        protocol = protocols.of(port)
        found: dict[str, Any] = {}
        if protocol.http:
            found["route_table"] = self._tables.service(gateway, service, port)
        if protocol.stream and not self._closed(gateway, port):
            found["tcp"] = self._streams.to_service(gateway, service, port)
        return found

    def _closed(self, gateway: GatewayState, port: ServicePort) -> bool:
        """Whether a port that may carry anything carries requests only.

        Where a policy that cannot be used answers requests 500, bytes that are made to look like
        none must not get past it.
        """
        if not protocols.of(port).http:
            return False
        listener = gateway.proxy_listener
        assert listener is not None  # a Service is only bound to a waypoint that has one
        place = Place(gateway.named, listener.section)
        return isinstance(self._attachment.policies.effective(place), str)
