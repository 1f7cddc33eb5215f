"""Service: a name, virtual IPs and ports; its endpoints are in EndpointSlices."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Bool, Model, Port
from kgw.api.meta import Resource
from kgw.api.names import Labels

IPAddress = IPv4Address | IPv6Address


class ServicePort(Model):
    """One port of a Service."""

    ignored = frozenset({"nodePort"})

    name: str = ""
    port: Port
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    app_protocol: str | None = None
    target_port: Annotated[int, Field(strict=True)] | str | None = None


class ServiceSpec(Model):
    """What the data plane needs of a Service."""

    ignored = frozenset(
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
    cluster_ip: str | None = None
    cluster_ips: tuple[str, ...] = ()
    external_name: str | None = None
    publish_not_ready_addresses: Bool = False
    selector: Labels = Field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()

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

    def vips(self) -> tuple[IPAddress, ...]:
        """The virtual IPs in order; none when the Service is headless."""
        texts = self.spec.cluster_ips or (self.spec.cluster_ip or "",)
        return tuple(ip_address(text) for text in texts if text not in ("", "None"))

    def port(self, number: int) -> ServicePort | None:
        """The TCP port of that number."""
        for port in self.spec.ports:
            if port.port == number and port.protocol == "TCP":
                return port
        return None
