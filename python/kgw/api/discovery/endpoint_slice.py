"""EndpointSlice: the addresses behind a Service."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from kgw.api.base import Bool, Model, Port
from kgw.api.meta import Resource
from kgw.api.names import Labels

#: The label that names the Service of a slice.
SERVICE_NAME: Final = "kubernetes.io/service-name"


class EndpointConditions(Model):
    """Whether an endpoint may get traffic; Kubernetes reads an absent ``ready`` as true."""

    ready: Bool | None = None
    serving: Bool | None = None
    terminating: Bool | None = None


class Endpoint(Model):
    """One endpoint and its addresses, of which consumers use the first."""

    ignored = frozenset({"hints", "hostname", "nodeName", "targetRef", "zone"})

    addresses: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    conditions: EndpointConditions = Field(default_factory=EndpointConditions.model_construct)
    deprecated_topology: Labels = Field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether new requests may go there."""
        return self.conditions.ready is not False


class EndpointPort(Model):
    """A port of every endpoint of the slice; its name is that of the Service's port."""

    name: str = ""
    port: Port | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    app_protocol: str | None = None


class EndpointSlice(Resource):
    """Some of the endpoints of a Service."""

    group: ClassVar[str] = "discovery.k8s.io"

    api_version: str = "discovery.k8s.io/v1"
    kind: Literal["EndpointSlice"] = "EndpointSlice"
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def service(self) -> str | None:
        """Name of the Service, which is in the same namespace."""
        return self.metadata.labels.get(SERVICE_NAME)
