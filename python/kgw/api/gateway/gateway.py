"""Gateway: what listens."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, Port, Remark, contradiction, given, repeated
from kgw.api.gateway import options
from kgw.api.gateway.infrastructure import GatewayInfrastructure
from kgw.api.gateway.references import GATEWAY_GROUP, ObjectReference, SecretObjectReference
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import Group, Hostname, Kind, Labels, ObjectName, Protocol, SectionName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kgw.api.core.secret import Secret

#: Protocol of a waypoint's listener: PROXY protocol in front of HTTP.
PROXY: Final = "istio.io/PROXY"


class LabelSelectorRequirement(Model):
    """One expression of a label selector."""

    key: str
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How its value is compared, or whether there must be one."""
    values: tuple[str, ...] = ()
    """The values of In and NotIn."""

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
    """Labels and the values that they must have."""
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()
    """Further conditions, all of which must hold."""

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether the labels satisfy the selector."""
        return all(labels.get(k) == v for k, v in self.match_labels.items()) and all(
            one.matches(labels) for one in self.match_expressions
        )


class RouteNamespaces(Model):
    """Namespaces whose routes may attach."""

    from_: Literal["All", "Selector", "Same", "None"] = "Same"
    """Which namespaces: all, those that are selected, the Gateway's own, or none."""
    selector: LabelSelector | None = None
    """The labels of the namespaces, for ``Selector``."""


class RouteGroupKind(Model):
    """A kind of route."""

    group: Group = GATEWAY_GROUP
    """The API group of the routes."""
    kind: Kind
    """The kind of the routes."""


class AllowedRoutes(Model):
    """Routes that may attach."""

    namespaces: RouteNamespaces = Field(default_factory=RouteNamespaces.model_construct)
    """The namespaces of the routes."""
    kinds: Annotated[tuple[RouteGroupKind, ...], Field(max_length=8)] = ()
    """The kinds of the routes; by default those that fit the protocol."""


class ListenerNamespaces(Model):
    """Namespaces whose ListenerSets may attach."""

    from_: Literal["All", "Selector", "Same", "None"] = "None"
    """Which namespaces: all, those that are selected, the Gateway's own, or none."""
    selector: LabelSelector | None = None
    """The labels of the namespaces, for ``Selector``."""


class AllowedListeners(Model):
    """ListenerSets that may attach."""

    namespaces: ListenerNamespaces = Field(default_factory=ListenerNamespaces.model_construct)
    """The namespaces of the ListenerSets."""


class FrontendValidation(Model):
    """What is asked of client certificates."""

    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], Field(min_length=1, max_length=16)]
    """ConfigMaps with the authorities that client certificates must be of."""
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"
    """Whether a client without a valid certificate is refused."""


class ListenerTLS(Model):
    """TLS of a listener."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    """Whether TLS ends here, or is passed to the backend as it is."""
    certificate_refs: Annotated[tuple[SecretObjectReference, ...], Field(max_length=64)] = ()
    """Secrets with a certificate and its key; the server name chooses among them."""
    options: Labels = Field(default_factory=dict)
    """Options by name, which other implementations know."""
    #: The Gateway API had it here up to 1.4, and has it in `Gateway.spec.tls.frontend` since.
    frontend_validation: FrontendValidation | None = None
    """What is asked of client certificates, for this listener alone."""


class Listener(Model):
    """One port and hostname."""

    name: SectionName
    """The name, unique in the Gateway, by which routes and policies choose it."""
    hostname: Hostname | None = None
    """The host that it is for, which may start with ``*.``; all if none is given."""
    port: Port
    """The port to listen on."""
    protocol: Protocol
    """What is spoken: HTTP, HTTPS, TLS, TCP or ``istio.io/PROXY``, a waypoint's."""
    tls: ListenerTLS | None = None
    """Certificates and what is done with TLS."""
    allowed_routes: AllowedRoutes = Field(default_factory=AllowedRoutes.model_construct)
    """The routes that may attach."""

    @classmethod
    def of(
        cls,
        port: int,
        protocol: str | None = None,
        *,
        name: str | None = None,
        hostname: str | None = None,
        certificate: Secret | str | None = None,
    ) -> Self:
        """Makes a listener: ``HTTP``, or ``HTTPS`` if it has a certificate.

        Args:
            port: the port.
            protocol: another protocol.
            name: the name; by default the protocol in lower case.
            hostname: the only host that it is for, which may start with ``*.``.
            certificate: the Secret with the certificate and its key, or its name.
        """
        spoken = protocol or ("HTTP" if certificate is None else "HTTPS")
        named = name or spoken.rpartition("/")[2].lower()
        tls = None
        if isinstance(certificate, str):
            tls = ListenerTLS(certificate_refs=(SecretObjectReference(name=certificate),))
        elif certificate is not None:
            where = given(namespace=certificate.metadata.namespace)
            reference = SecretObjectReference(name=certificate.name, **where)
            tls = ListenerTLS(certificate_refs=(reference,))
        return cls(name=named, port=port, protocol=spoken, **given(hostname=hostname, tls=tls))

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


def listener_rules(listeners: tuple[Listener, ...]) -> None:
    """Checks that the listeners of one object can be told apart.

    Raises:
        ValueError: in the words of the CRD.
    """
    twice = repeated(one.name for one in listeners)
    if twice is not None:
        message = "Listener name must be unique within the Gateway"
        raise contradiction(message, "listeners", twice, "name")
    twice = repeated((one.port, one.protocol, one.hostname) for one in listeners)
    if twice is not None:
        message = "Combination of port, protocol and hostname must be unique for each listener"
        raise contradiction(message, "listeners", twice)


class TLSConfig(Model):
    """TLS towards clients."""

    validation: FrontendValidation | None = None
    """What is asked of client certificates."""


class TLSPortConfig(Model):
    """TLS towards the clients of a port."""

    port: Port
    """The port."""
    tls: TLSConfig
    """What holds for its HTTPS listeners."""


class FrontendTLSConfig(Model):
    """TLS towards clients: for all HTTPS listeners, and instead of that for those of a port."""

    default: TLSConfig
    """What holds for all HTTPS listeners."""
    per_port: Annotated[tuple[TLSPortConfig, ...], Field(max_length=64)] = ()
    """What holds instead for those of a port."""

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
    """The Secret with the certificate that backends are shown."""


class GatewayTLSConfig(Model):
    """TLS of a Gateway."""

    backend: GatewayBackendTLS | None = None
    """TLS towards backends."""
    frontend: FrontendTLSConfig | None = None
    """TLS towards clients."""


class GatewayAddress(Model):
    """A requested address."""

    type: str = "IPAddress"
    """What the value is: ``IPAddress``, ``Hostname`` or a domain-prefixed name."""
    value: Annotated[str, Field(max_length=253)] = ""
    """The address; one is chosen if it is empty."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.type == "IPAddress" and self.value:
            try:
                ipaddress.ip_address(self.value)
            except ValueError:
                message = "Address must be a valid IP address"
                raise contradiction(message, "value") from None
        return self


class GatewaySpec(Model):
    """What a Gateway says."""

    gateway_class_name: ObjectName
    """The class; kgw serves ``kgateway``, ``kgateway-waypoint`` and classes of their controller."""
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64)]
    """What it listens on."""
    addresses: Annotated[tuple[GatewayAddress, ...], Field(max_length=16)] = ()
    """The addresses that are asked for, of those that kgw has to give (``--address-pool``)."""
    infrastructure: GatewayInfrastructure | None = None
    """What the objects have that a controller makes for the Gateway."""
    allowed_listeners: AllowedListeners = Field(default_factory=AllowedListeners.model_construct)
    """The ListenerSets that may attach; none by default."""
    default_scope: Literal["All", "None"] = "None"
    """Whether routes attach to the Gateway that ask for a default one (experimental)."""
    tls: GatewayTLSConfig | None = None
    """TLS towards clients and backends."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        listener_rules(self.listeners)
        for kind in ("IPAddress", "Hostname"):
            values = [one.value if one.type == kind else "" for one in self.addresses]
            twice = repeated(value or number for number, value in enumerate(values))
            if twice is not None:
                raise contradiction(f"{kind} values must be unique", "addresses", twice, "value")
        return self


class Gateway(Resource):
    """A set of listeners."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec
    """What the Gateway listens on."""

    @classmethod
    def of(
        cls,
        name: str,
        *listeners: Listener | int,
        class_name: str = "kgateway",
        addresses: Iterable[str] = (),
        listener_sets: Literal["All", "Same", "None"] = "None",
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a Gateway of listeners, or of ports to listen on for HTTP.

        Args:
            name: the name.
            listeners: what it listens on.
            class_name: the class.
            addresses: IP addresses that it asks for.
            listener_sets: the namespaces of the ListenerSets that may attach.
            namespace: the namespace.
            labels: labels of the object.
            annotations: annotations of the object.
        """
        more: dict[str, Any] = {}
        if listener_sets != "None":
            namespaces = ListenerNamespaces(from_=listener_sets)
            more["allowed_listeners"] = AllowedListeners(namespaces=namespaces)
        if asked := tuple(GatewayAddress(value=one) for one in addresses):
            more["addresses"] = asked
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=GatewaySpec(
                gateway_class_name=class_name,
                listeners=tuple(
                    Listener.of(one) if isinstance(one, int) else one for one in listeners
                ),
                **more,
            ),
        )

    @classmethod
    def waypoint(
        cls,
        name: str,
        *,
        port: int = 15088,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a waypoint, which ztunnel connects to with the PROXY protocol."""
        return cls.of(
            name,
            Listener.of(port, PROXY),
            class_name="kgateway-waypoint",
            namespace=namespace,
            labels=labels,
            annotations=annotations,
        )

    def remarks(self) -> Iterator[Remark]:
        """What is wrong with the options of its listeners."""
        return options.remarks(self.metadata.annotations, (one.name for one in self.spec.listeners))
