"""ServiceImport: a Service of a set of clusters, with endpoints in several of them (KEP-1645)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, given
from kgw.api.core.service import IPAddress, ServicePort
from kgw.api.kinds import MULTICLUSTER_GROUP
from kgw.api.meta import ObjectMeta, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class ServiceImportSpec(Model):
    """What the data plane needs of a ServiceImport."""

    ignored: ClassVar[frozenset[str]] = frozenset(
        {
            "internalTrafficPolicy",
            "ipFamilies",
            "sessionAffinity",
            "sessionAffinityConfig",
            "trafficDistribution",
        }
    )

    # What a Service says beside, for what serves both.
    selector: ClassVar[dict[str, str]] = {}
    publish_not_ready_addresses: ClassVar[bool] = False

    type: Literal["ClusterSetIP", "Headless"] = "ClusterSetIP"
    """Whether it has virtual IPs; a headless one is resolved to its endpoints by DNS."""
    ips: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    """The virtual IPs, at most one of each version."""
    ports: tuple[ServicePort, ...] = ()
    """The ports."""

    @model_validator(mode="after")
    def _ips(self) -> Self:
        for text in self.ips:
            ip_address(text)
        return self


class ServiceImport(Resource):
    """A Service of a set of clusters."""

    group: ClassVar[str] = MULTICLUSTER_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{MULTICLUSTER_GROUP}/v1alpha1"
    kind: Literal["ServiceImport"] = "ServiceImport"
    spec: ServiceImportSpec = Field(default_factory=ServiceImportSpec)
    """What is offered."""

    @classmethod
    def of(
        cls,
        name: str,
        ports: int | Iterable[ServicePort] = 80,
        *,
        ips: Iterable[str] = (),
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a ServiceImport; its endpoints are in EndpointSlices.

        Args:
            name: its name.
            ports: its only port, or several.
            ips: its virtual IPs, which a waypoint knows it by; a Gateway needs none.
            namespace: its namespace.
            labels: its labels.
            annotations: its annotations.
        """
        several = (ServicePort(port=ports),) if isinstance(ports, int) else tuple(ports)
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=ServiceImportSpec(**given(ports=several, ips=tuple(ips))),
        )

    def vips(self) -> tuple[IPAddress, ...]:
        """The virtual IPs in order; none when it is headless."""
        if self.spec.type == "Headless":
            return ()
        return tuple(ip_address(text) for text in self.spec.ips)

    def port(self, number: int, protocol: str = "TCP") -> ServicePort | None:
        """The port of that number; TCP and UDP each have their own."""
        for port in self.spec.ports:
            if port.port == number and port.protocol == protocol:
                return port
        return None
