"""What clients in the mesh call: a port of a Service or ServiceImport, by its virtual IP."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kgw.api import ResourceKey


class ServiceAddress(NamedTuple):
    """A port of a Service, as some clients see it.

    Routes of the Service's own namespace are for all clients; those of another one are for the
    clients of that namespace alone, and for them in the place of the others (GEP-1294).
    """

    service: ResourceKey
    port: int
    #: The namespace of the clients, whose own routes these are; empty for all that have none.
    clients: str = ""

    @property
    def name(self) -> str:
        """``service/NAMESPACE/NAME/PORT``, for the clients of a namespace with ``/NAMESPACE``."""
        _, kind, namespace, name = self.service
        found = f"{kind.lower()}/{namespace}/{name}/{self.port}"
        return f"{found}/{self.clients}" if self.clients else found
