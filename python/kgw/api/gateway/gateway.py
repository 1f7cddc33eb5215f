"""Gateway: what listens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, Port, Remark, contradiction, repeated
from kgw.api.gateway import options
from kgw.api.gateway.references import GATEWAY_GROUP, ObjectReference, SecretObjectReference
from kgw.api.meta import Resource
from kgw.api.names import Group, Hostname, Kind, Labels, ObjectName, Protocol, SectionName
from kgw.diagnostics import Severity

#: Protocol of a waypoint's listener: PROXY protocol in front of HTTP.
PROXY: Final = "istio.io/PROXY"


class LabelSelectorRequirement(Model):
    """One expression of a label selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise contradiction(
                "values must be given for the operators In and NotIn, and only for them",
                "values" if self.values else "operator",
            )
        return self

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether the labels satisfy the expression."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case _:
                return value is None


class LabelSelector(Model):
    """Labels to have; an empty selector is satisfied by all."""

    match_labels: Labels = Field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether the labels satisfy the selector."""
        return all(labels.get(k) == v for k, v in self.match_labels.items()) and all(
            one.matches(labels) for one in self.match_expressions
        )


class RouteNamespaces(Model):
    """Namespaces whose routes may attach."""

    from_: Literal["All", "Selector", "Same", "None"] = "Same"
    selector: LabelSelector | None = None


class RouteGroupKind(Model):
    """A kind of route."""

    group: Group = GATEWAY_GROUP
    kind: Kind


class AllowedRoutes(Model):
    """Routes that may attach."""

    namespaces: RouteNamespaces = Field(default_factory=RouteNamespaces.model_construct)
    kinds: Annotated[tuple[RouteGroupKind, ...], Field(max_length=8)] = ()


class FrontendValidation(Model):
    """What is asked of client certificates."""

    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], Field(min_length=1, max_length=16)]
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"


class ListenerTLS(Model):
    """TLS of a listener."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: Annotated[tuple[SecretObjectReference, ...], Field(max_length=64)] = ()
    options: Labels = Field(default_factory=dict)
    #: The Gateway API had it here up to 1.4, and has it in `Gateway.spec.tls.frontend` since.
    frontend_validation: FrontendValidation | None = None


class Listener(Model):
    """One port and hostname."""

    name: SectionName
    hostname: Hostname | None = None
    port: Port
    protocol: Protocol
    tls: ListenerTLS | None = None
    allowed_routes: AllowedRoutes = Field(default_factory=AllowedRoutes.model_construct)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.protocol in ("HTTP", "TCP", "UDP") and self.tls:
            raise contradiction(
                "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']", "tls"
            )
        if self.protocol == "HTTPS" and self.tls and self.tls.mode != "Terminate":
            raise contradiction("tls mode must be Terminate for protocol HTTPS", "tls", "mode")
        if self.protocol == "TLS" and not self.tls:
            raise contradiction("tls mode must be set for protocol TLS", "protocol")
        if self.protocol in ("TCP", "UDP") and self.hostname:
            raise contradiction(
                "hostname must not be specified for protocols ['TCP', 'UDP']", "hostname"
            )
        terminates = self.tls and self.tls.mode == "Terminate"
        if terminates and self.tls and not self.tls.certificate_refs and not self.tls.options:
            raise contradiction(
                "certificateRefs or options must be specified when mode is Terminate", "tls"
            )
        return self


class TLSConfig(Model):
    """TLS towards clients."""

    validation: FrontendValidation | None = None


class TLSPortConfig(Model):
    """TLS towards the clients of a port."""

    port: Port
    tls: TLSConfig


class FrontendTLSConfig(Model):
    """TLS towards clients: for all HTTPS listeners, and instead of that for those of a port."""

    default: TLSConfig
    per_port: Annotated[tuple[TLSPortConfig, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _rules(self) -> Self:
        twice = repeated(one.port for one in self.per_port)
        if twice is not None:
            message = "Port for TLS configuration must be unique within the Gateway"
            raise contradiction(message, "perPort", twice, "port")
        return self


class GatewayBackendTLS(Model):
    """TLS towards backends."""

    client_certificate_ref: SecretObjectReference | None = None


class GatewayTLSConfig(Model):
    """TLS of a Gateway."""

    backend: GatewayBackendTLS | None = None
    frontend: FrontendTLSConfig | None = None


class GatewayAddress(Model):
    """A requested address."""

    type: str = "IPAddress"
    value: str = ""


class GatewaySpec(Model):
    """What a Gateway says."""

    unsupported: ClassVar[Mapping[str, Severity]] = {
        "addresses": Severity.WARNING,
        "allowedListeners": Severity.WARNING,
        "defaultScope": Severity.WARNING,
    }
    ignored = frozenset({"infrastructure"})

    gateway_class_name: ObjectName
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64)]
    addresses: Annotated[tuple[GatewayAddress, ...], Field(max_length=16)] = ()
    tls: GatewayTLSConfig | None = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        twice = repeated(one.name for one in self.listeners)
        if twice is not None:
            message = "Listener name must be unique within the Gateway"
            raise contradiction(message, "listeners", twice, "name")
        twice = repeated((one.port, one.protocol, one.hostname) for one in self.listeners)
        if twice is not None:
            message = "Combination of port, protocol and hostname must be unique for each listener"
            raise contradiction(message, "listeners", twice)
        return self


class Gateway(Resource):
    """A set of listeners."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec

    def remarks(self) -> Iterator[Remark]:
        """What is wrong with the options of its listeners."""
        return options.remarks(self.metadata.annotations, (one.name for one in self.spec.listeners))
