"""EndpointSlice: the addresses behind a Service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self

from pydantic import Field

from kgw.api.base import Bool, Model, Port, given
from kgw.api.kinds import MULTICLUSTER_GROUP
from kgw.api.meta import ObjectMeta, Resource, ResourceKey
from kgw.api.names import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api.core.service import Service

#: The label that names the Service of a slice.
SERVICE_NAME: Final = "kubernetes.io/service-name"

#: The label that names the ServiceImport of a slice (KEP-1645).
IMPORT_NAME: Final = "multicluster.kubernetes.io/service-name"

_OWNERS: Final = (
    (SERVICE_NAME, "", "Service"),
    (IMPORT_NAME, MULTICLUSTER_GROUP, "ServiceImport"),
)


class EndpointConditions(Model):
    """Whether an endpoint may get traffic; Kubernetes reads an absent ``ready`` as true."""

    ready: Bool | None = None
    """Whether new requests may go there; absent is true."""
    serving: Bool | None = None
    """Whether it answers, also while it ends."""
    terminating: Bool | None = None
    """Whether it is about to end."""


class Endpoint(Model):
    """One endpoint and its addresses, of which consumers use the first."""

    ignored: ClassVar[frozenset[str]] = frozenset(
        {"hints", "hostname", "nodeName", "targetRef", "zone"}
    )

    addresses: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    """Addresses of the same endpoint, of which the first is used."""
    conditions: EndpointConditions = Field(default_factory=EndpointConditions.model_construct)
    """The state of the endpoint."""
    deprecated_topology: Labels = Field(default_factory=dict)
    """Where it is, in the words of ``v1beta1``; kgw does not read it."""

    @property
    def ready(self) -> bool:
        """Whether new requests may go there."""
        return self.conditions.ready is not False


class EndpointPort(Model):
    """A port of every endpoint of the slice; its name is that of the Service's port."""

    name: str = ""
    """The name of the Service's port that this one is behind."""
    port: Port | None = None
    """The number of the port."""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    """The transport; kgw connects to TCP."""
    app_protocol: str | None = None
    """What is spoken, as in ``kubernetes.io/h2c``."""


class EndpointSlice(Resource):
    """Some of the endpoints of a Service."""

    group: ClassVar[str] = "discovery.k8s.io"

    api_version: str = "discovery.k8s.io/v1"
    kind: Literal["EndpointSlice"] = "EndpointSlice"
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    """What the addresses are; names (FQDN) are not looked up."""
    endpoints: tuple[Endpoint, ...] = ()
    """The endpoints."""
    ports: tuple[EndpointPort, ...] = ()
    """The ports that all of the endpoints have."""

    @classmethod
    def of(cls, service: Service | str, *where: str) -> Self:
        """Makes the slice of a Service that has these addresses.

        Args:
            service: the Service, or the name of one in namespace ``default``, with one port.
            where: ``ip:port``, ``[ip]:port`` for IPv6; a slice has one port and one version of
                IP.

        Raises:
            ValueError: an address is none, or they are not of one slice.
        """
        made = cls.several(service, where)
        if len(made) != 1:
            raise ValueError(f"{len(where)} addresses are of {len(made)} slices: use several()")
        return made[0]

    @classmethod
    def several(cls, service: Service | str, where: Iterable[str]) -> tuple[Self, ...]:
        """Makes the slices of a Service: one for each port and version of IP that there are.

        Raises:
            ValueError: an address is none.
        """
        from kgw import addresses

        slices: dict[tuple[int, Literal["IPv4", "IPv6"]], list[str]] = {}
        for one in where:
            found = addresses.parse(one)
            if found.ip is None:
                raise ValueError(f"{one!r} is not IP:PORT or [IP]:PORT")
            version: Literal["IPv4", "IPv6"] = "IPv6" if found.ip.version == 6 else "IPv4"
            slices.setdefault((found.port, version), []).append(str(found.ip))
        owner = service if isinstance(service, str) else service.name
        namespace = None if isinstance(service, str) else service.metadata.namespace
        name = None if isinstance(service, str) else _only_port(service)
        return tuple(
            cls(
                metadata=ObjectMeta.of(f"{owner}-{number}", namespace, {SERVICE_NAME: owner}),
                address_type=version,
                endpoints=tuple(Endpoint(addresses=(ip,)) for ip in ips),
                ports=(EndpointPort(port=port, **given(name=name or None)),),
            )
            for number, ((port, version), ips) in enumerate(slices.items(), 1)
        )

    @property
    def service(self) -> str | None:
        """Name of the Service, which is in the same namespace."""
        return self.metadata.labels.get(SERVICE_NAME)

    @property
    def owners(self) -> tuple[ResourceKey, ...]:
        """The Service and the ServiceImport whose endpoints these are, as far as it names them."""
        labels, namespace = self.metadata.labels, self.namespace
        return tuple(
            ResourceKey(group, kind, namespace, labels[label])
            for label, group, kind in _OWNERS
            if label in labels
        )


def _only_port(service: Service) -> str:
    """The name of the port that the addresses are of."""
    ports = service.spec.ports
    if len(ports) != 1:
        raise ValueError(f"{service.key} has {len(ports)} ports: slices need their names")
    return ports[0].name
