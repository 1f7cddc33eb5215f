"""Service: a name, virtual IPs and ports; its endpoints are in EndpointSlices."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Bool, Model, Port, given
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api.discovery.endpoint_slice import EndpointSlice

IPAddress = IPv4Address | IPv6Address


class ServicePort(Model):
    """One port of a Service."""

    ignored: ClassVar[frozenset[str]] = frozenset({"nodePort"})

    name: str = ""
    """The name, which the ports of EndpointSlices have too; needed if there are several."""
    port: Port
    """The port that clients and routes know the Service by."""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    """The transport; kgw serves TCP."""
    app_protocol: str | None = None
    """What is spoken, as in ``http`` and ``kubernetes.io/h2c``."""
    target_port: Annotated[int, Field(strict=True)] | str | None = None
    """The port of the pods, or its name; kgw reads that of the EndpointSlices."""


class ServiceSpec(Model):
    """What the data plane needs of a Service."""

    ignored: ClassVar[frozenset[str]] = frozenset(
        {
            "allocateLoadBalancerNodePorts",
            "externalIPs",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
            "sessionAffinity",
            "sessionAffinityConfig",
            "trafficDistribution",
        }
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    """How the Service is reached; one of type ExternalName has no endpoints."""
    cluster_ip: str | None = None
    """The first virtual IP, or ``None`` for a headless Service."""
    cluster_ips: tuple[str, ...] = ()
    """The virtual IPs, at most one of each version."""
    external_name: str | None = None
    """The DNS name that a Service of type ExternalName stands for."""
    publish_not_ready_addresses: Bool = False
    """Whether endpoints count as ready, whatever their state is."""
    selector: Labels = Field(default_factory=dict)
    """The labels of the pods; kgw reads EndpointSlices instead."""
    ports: tuple[ServicePort, ...] = ()
    """The ports."""

    @model_validator(mode="after")
    def _ips(self) -> Self:
        for text in (self.cluster_ip, *self.cluster_ips):
            if text not in (None, "", "None"):
                ip_address(str(text))
        return self


class Service(Resource):
    """A Service."""

    api_version: str = "v1"
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec = Field(default_factory=ServiceSpec)
    """What the Service offers."""

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
        """Makes a Service; its endpoints are in EndpointSlices.

        Args:
            name: its name.
            ports: its only port, or several.
            ips: its virtual IPs, which a waypoint knows it by; a Gateway needs none.
            namespace: its namespace.
            labels: its labels.
            annotations: its annotations.
        """
        several = (ServicePort(port=ports),) if isinstance(ports, int) else tuple(ports)
        vips = tuple(ips)
        where = {"cluster_ip": vips[0], "cluster_ips": vips} if vips else {}
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=ServiceSpec(ports=several, **given(**where)),
        )

    @classmethod
    def at(
        cls,
        name: str,
        *addresses: str,
        port: int = 80,
        app_protocol: str | None = None,
        ips: Iterable[str] = (),
        namespace: str | None = None,
    ) -> tuple[Service, *tuple[EndpointSlice, ...]]:
        """Makes a Service and the EndpointSlices of its addresses.

            users, *endpoints = Service.at("users", "127.0.0.1:9000", "127.0.0.1:9001")

        Args:
            name: the name of the Service.
            addresses: where it is: ``ip:port``, ``[ip]:port`` for IPv6.
            port: the port that routes know it by.
            app_protocol: what is spoken, as in ``kubernetes.io/h2c``; HTTP/1.1 by default.
            ips: virtual IPs, which a waypoint knows it by; a Gateway needs none.
            namespace: the namespace of all.

        Raises:
            ValueError: an address is none.
        """
        from kgw.api.discovery.endpoint_slice import EndpointSlice

        only = ServicePort(port=port, **given(app_protocol=app_protocol))
        service = Service.of(name, (only,), ips=ips, namespace=namespace)
        return service, *EndpointSlice.several(service, addresses)

    def vips(self) -> tuple[IPAddress, ...]:
        """The virtual IPs in order; none when the Service is headless."""
        texts = self.spec.cluster_ips or (self.spec.cluster_ip or "",)
        return tuple(ip_address(text) for text in texts if text not in ("", "None"))

    def port(self, number: int, protocol: str = "TCP") -> ServicePort | None:
        """The port of that number; TCP and UDP each have their own."""
        for port in self.spec.ports:
            if port.port == number and port.protocol == protocol:
                return port
        return None
