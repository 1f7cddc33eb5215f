"""ListenerPolicy: settings of a Gateway's listeners, for all or by port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Bool, Model, Port, Remark, contradiction, given, repeated
from kgw.api.duration import Duration
from kgw.api.gateway.references import ObjectReference
from kgw.api.kgateway.count import Count
from kgw.api.kgateway.early import TCPKeepalive
from kgw.api.kgateway.http_settings import HTTPSettings
from kgw.api.kgateway.targets import (
    KGATEWAY_GROUP,
    TargetRefs,
    TargetSelectors,
    target_refs,
    target_rules,
)
from kgw.api.meta import ObjectMeta, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgw.api.gateway.gateway import Gateway

#: Settings, and where they stand in the object.
Part = tuple[Model, tuple[str | int, ...]]


class ProxyProtocol(Model):
    """A PROXY protocol header in front of each connection."""

    allow_requests_without_proxy_protocol: Bool = False
    """Whether connections without a header are served too."""


class ListenerConfig(Model):
    """Settings of a listener."""

    http_settings: HTTPSettings = Field(default_factory=HTTPSettings.model_construct)
    """The settings of HTTP connections."""
    per_connection_buffer_limit_bytes: Count | None = None
    """How much may wait for a peer that reads slowly, before no more is taken in for it. At most
    16 MiB count, and 0 is as much."""
    proxy_protocol: ProxyProtocol | None = None
    """That connections start with a PROXY protocol header."""
    tcp_keepalive: TCPKeepalive | None = None
    """Probes of connections on which nothing happens."""
    transport_socket_connect_timeout: Duration | None = None
    """The time for a TLS handshake."""


class ClientCertificateValidation(Model):
    """What is asked of client certificates."""

    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], Field(min_length=1, max_length=8)]
    """ConfigMaps with the authorities that client certificates must be of."""
    mode: Literal["Require", "Optional"]
    """Whether a client must show a certificate."""


class DefaultListenerConfig(ListenerConfig):
    """Settings of all listeners."""

    client_certificate_validation: ClientCertificateValidation | None = None
    """What is asked of client certificates."""


class ListenerPortConfig(Model):
    """Settings of the listeners of one port, which replace the default ones altogether."""

    port: Port
    """The port."""
    listener: ListenerConfig = Field(default_factory=ListenerConfig.model_construct)
    """The settings, which replace the default ones."""


class ListenerPolicySpec(Model):
    """What a ListenerPolicy says."""

    target_refs: TargetRefs = ()
    """The Gateways that the policy is for."""
    target_selectors: TargetSelectors = ()
    """The Gateways that the policy is for, by labels."""
    default: DefaultListenerConfig | None = None
    """The settings of all listeners."""
    per_port: Annotated[tuple[ListenerPortConfig, ...], Field(max_length=64)] = ()
    """The settings of the listeners of a port, which replace the default ones."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        target_rules(self.target_refs, self.target_selectors, ("Gateway",), "Gateway resource")
        twice = repeated(one.port for one in self.per_port)
        if twice is not None:
            raise contradiction("perPort ports must be unique", "perPort", twice, "port")
        return self


class ListenerPolicy(Resource):
    """Settings for the listeners of a Gateway."""

    group: ClassVar[str] = KGATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{KGATEWAY_GROUP}/v1alpha1"
    kind: Literal["ListenerPolicy"] = "ListenerPolicy"
    spec: ListenerPolicySpec = Field(default_factory=ListenerPolicySpec)
    """Which Gateways, and the settings of their listeners."""

    @classmethod
    def of(
        cls,
        name: str,
        *gateways: Gateway,
        http: HTTPSettings | None = None,
        proxy_protocol: ProxyProtocol | None = None,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a policy for all listeners of Gateways.

        ListenerPolicy.of("log", gateway, http=HTTPSettings(access_log=(AccessLog.of(),)))
        """
        settings = given(http_settings=http, proxy_protocol=proxy_protocol)
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=ListenerPolicySpec(
                target_refs=target_refs(gateways), default=DefaultListenerConfig(**settings)
            ),
        )

    @property
    def validation(self) -> ClientCertificateValidation | None:
        """What is asked of client certificates, whatever the port: it cannot be said of one."""
        return self.spec.default.client_certificate_validation if self.spec.default else None

    def parts(self, port: int) -> tuple[Part, ...]:
        """What holds for a listener's port, and where it stands in the object."""
        for index, one in enumerate(self.spec.per_port):
            if one.port == port:
                found = _parts(one.listener, ("spec", "perPort", index, "listener"))
                kept = DefaultListenerConfig(client_certificate_validation=self.validation)
                return (*found, (kept, ("spec", "default")))
        return _parts(self.spec.default or ListenerConfig(), ("spec", "default"))

    def every_settings(self) -> Iterator[tuple[HTTPSettings, tuple[str | int, ...]]]:
        """All HTTP settings of the policy, and where they stand in the object."""
        if self.spec.default is not None:
            yield self.spec.default.http_settings, ("spec", "default", "httpSettings")
        for index, one in enumerate(self.spec.per_port):
            path = ("spec", "perPort", index, "listener", "httpSettings")
            yield one.listener.http_settings, path

    def remarks(self) -> Iterator[Remark]:
        """Values that are not kept to."""
        for settings, path in self.every_settings():
            yield from settings.unkept(path)


def _parts(config: ListenerConfig, path: tuple[str | int, ...]) -> tuple[Part, ...]:
    return ((config, path), (config.http_settings, (*path, "httpSettings")))
