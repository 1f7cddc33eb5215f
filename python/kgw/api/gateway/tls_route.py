"""TLSRoute: where TLS connections go, by the server name that the client asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.gateway.references import (
    GATEWAY_GROUP,
    ParentReference,
    backend_refs,
    parent_refs,
    parent_rules,
)
from kgw.api.gateway.tcp_route import StreamRule, rule_names
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import Hostname

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api.gateway.references import Backend, Parent


class TLSRouteSpec(Model):
    """What a TLSRoute says."""

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] = ()
    """The Gateways, ListenerSets, or listeners of these, that the route attaches to."""
    use_default_gateways: Literal["All", "None"] = "None"
    """Whether it also attaches to the Gateways that are default ones (experimental)."""
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=1024)] = ()
    """The server names (SNI) that the route is for, which may start with ``*.``."""
    rules: Annotated[tuple[StreamRule, ...], Field(min_length=1, max_length=16)]
    """Where connections go; the first rule counts."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        rule_names(self.rules)
        parent_rules(self.parent_refs)
        return self


class TLSRoute(Resource):
    """A route of TLS connections."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1alpha2", "v1alpha3")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["TLSRoute"] = "TLSRoute"
    spec: TLSRouteSpec
    """Where the connections go."""

    @classmethod
    def of(
        cls,
        name: str,
        parents: Parent | Iterable[Parent],
        *backends: Backend,
        hostnames: Iterable[str],
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a route of server names to backends: Services, ``name:port``, or references."""
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=TLSRouteSpec(
                parent_refs=parent_refs(parents),
                hostnames=tuple(hostnames),
                rules=(StreamRule(backend_refs=backend_refs(backends)),),
            ),
        )

    @model_validator(mode="after")
    def _version_rules(self) -> Self:
        if self.api_version.endswith("/v1alpha2"):
            return self
        if not self.spec.hostnames:
            raise contradiction("hostnames must be specified", "spec", "hostnames")
        if self.api_version.endswith("/v1") and len(self.spec.rules) > 1:
            raise contradiction("there must be exactly one rule", "spec", "rules")
        return self
