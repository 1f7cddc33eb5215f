"""Backend: a destination that is no Service, by the addresses or names of its hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Bool, Model, Port, Remark, contradiction, given
from kgw.api.core.service import ServicePort
from kgw.api.kinds import KGATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.diagnostics import Severity

#: The kinds of backends: fields of the spec, of which a Backend has exactly one.
_UNSUPPORTED: Final = ("ai", "aws", "gcp", "mcp", "priorityGroups")

#: What each historical `type` stands for.
_TYPES: Final = {
    "AI": "ai",
    "AWS": "aws",
    "MCP": "mcp",
    "Static": "static",
    "DynamicForwardProxy": "dynamicForwardProxy",
    "GCP": "gcp",
    "PriorityGroups": "priorityGroups",
}

#: The same the other way round.
_HISTORICAL: Final = {name: kind for kind, name in _TYPES.items()}


class Host(Model):
    """One host of a destination."""

    host: Annotated[str, StringConstraints(min_length=1)]
    """Its address or name."""
    port: Port
    """Its port."""


class StaticBackend(Model):
    """A destination whose hosts are listed."""

    app_protocol: (
        Literal["http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"] | None
    ) = None
    """What is spoken there; HTTP/1.1 by default."""
    hosts: Annotated[tuple[Host, ...], Field(min_length=1)]
    """The hosts, which requests are spread over."""


class DynamicForwardProxyBackend(Model):
    """A destination that each request names: its host."""

    enable_tls: Bool = False
    """Whether connections are encrypted, and certificates verified by the system's authorities."""


class BackendSpec(Model):
    """What a Backend says; exactly one of its kinds."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(_UNSUPPORTED, Severity.ERROR)

    type: (
        Literal["AI", "AWS", "MCP", "Static", "DynamicForwardProxy", "GCP", "PriorityGroups"] | None
    ) = None
    """The kind once more, as kgateway 2.0 to 2.3 want it."""
    static: StaticBackend | None = None
    """Hosts that are listed."""
    dynamic_forward_proxy: DynamicForwardProxyBackend | None = None
    """The host that a request names."""

    #: As of a Service: endpoints that were told not to be ready are not there.
    publish_not_ready_addresses: ClassVar[bool] = False

    @property
    def ports(self) -> tuple[ServicePort, ...]:
        """The one port, as of a Service: its number is that of the first host, or the usual one."""
        if self.dynamic_forward_proxy is not None:
            number = 443 if self.dynamic_forward_proxy.enable_tls else 80
            return (ServicePort(port=number, app_protocol="http"),)
        if self.static is None:
            return ()
        protocol = self.static.app_protocol or "http"
        return (ServicePort(port=self.static.hosts[0].port, app_protocol=protocol),)

    @property
    def kind(self) -> str | None:
        """The kind that it has, if it is one that kgw knows."""
        return next((name for name, one in self._kinds().items() if one is not None), None)

    def _kinds(self) -> dict[str, Model | None]:
        return {"static": self.static, "dynamicForwardProxy": self.dynamic_forward_proxy}

    @model_validator(mode="after")
    def _rules(self) -> Self:
        own = [name for name in self._kinds() if self._kinds()[name] is not None]
        own += [name for name in _UNSUPPORTED if name in (self.model_extra or {})]
        if len(own) != 1:
            words = "aws static dynamicForwardProxy gcp priorityGroups"
            raise contradiction(f"exactly one of the fields in [{words}] must be set")
        return self


class Backend(Resource):
    """A destination that is no Service."""

    group: ClassVar[str] = KGATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{KGATEWAY_GROUP}/v1alpha1"
    kind: Literal["Backend"] = "Backend"
    spec: BackendSpec
    """The destination."""

    @classmethod
    def of(
        cls,
        name: str,
        *hosts: str,
        app_protocol: Literal["http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"]
        | None = None,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a destination whose hosts are listed.

        Args:
            name: its name.
            hosts: the hosts as ``HOST:PORT``, where an IPv6 address is in brackets.
            app_protocol: what is spoken there; HTTP/1.1 by default.
            namespace: its namespace.
            labels: its labels.
            annotations: its annotations.

        Raises:
            ValueError: a host has no port.
        """
        several = []
        for one in hosts:
            host, colon, port = one.rpartition(":")
            if not colon or not port.isascii() or not port.isdigit():
                raise ValueError(f"{one!r} is not HOST:PORT")
            several.append(Host(host=host.removeprefix("[").removesuffix("]"), port=int(port)))
        static = StaticBackend(hosts=tuple(several), **given(app_protocol=app_protocol))
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=BackendSpec(static=static),
        )

    def remarks(self) -> Iterator[Remark]:
        """A historical type that is not that of the destination."""
        kind = self.spec.type
        own = self.spec.kind
        if kind is not None and own in (None, _TYPES[kind]):
            text = "`type` has no meaning any more: the other field says what kind it is"
            yield Remark("KGW602", Severity.INFO, text, ("spec", "type"), hint="leave it out")
        elif kind is not None:
            text = f"`{_TYPES[kind]}` is not given, so the type has no effect"
            path = ("spec", "type")
            yield Remark("KGW413", Severity.WARNING, text, path, legal=_HISTORICAL[own or "static"])
