"""Backend: a destination that is no Service, by the addresses or names of its hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Model, Port, Remark, contradiction, given
from kgw.api.core.service import ServicePort
from kgw.api.kinds import KGATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.diagnostics import Severity

#: The kinds of backends: fields of the spec, of which a Backend has exactly one.
_UNSUPPORTED: Final = ("ai", "aws", "dynamicForwardProxy", "gcp", "mcp", "priorityGroups")

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


class BackendSpec(Model):
    """What a Backend says; exactly one of its kinds."""

    unsupported: ClassVar[Mapping[str, Severity]] = dict.fromkeys(_UNSUPPORTED, Severity.ERROR)

    type: (
        Literal["AI", "AWS", "MCP", "Static", "DynamicForwardProxy", "GCP", "PriorityGroups"] | None
    ) = None
    """The kind once more, as kgateway 2.0 to 2.3 want it."""
    static: StaticBackend | None = None
    """Hosts that are listed."""

    #: As of a Service: endpoints that were told not to be ready are not there.
    publish_not_ready_addresses: ClassVar[bool] = False

    @property
    def ports(self) -> tuple[ServicePort, ...]:
        """The one port, as of a Service: its number is that of the first host."""
        if self.static is None:
            return ()
        protocol = self.static.app_protocol or "http"
        return (ServicePort(port=self.static.hosts[0].port, app_protocol=protocol),)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        own = ["static"] if self.static is not None else []
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
        if kind is not None and (self.spec.static is None or kind == "Static"):
            text = "`type` has no meaning any more: the other field says what kind it is"
            yield Remark("KGW602", Severity.INFO, text, ("spec", "type"), hint="leave it out")
        if kind is not None and self.spec.static is not None and kind != "Static":
            text = f"`{_TYPES[kind]}` is not given, so the type has no effect"
            path = ("spec", "type")
            yield Remark("KGW413", Severity.WARNING, text, path, legal="Static")
