"""UDPRoute: where the datagrams of a port go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model
from kgw.api.gateway.references import (
    GATEWAY_GROUP,
    ParentReference,
    backend_refs,
    parent_refs,
    parent_rules,
)
from kgw.api.gateway.tcp_route import StreamRule, one_rule, rule_names
from kgw.api.meta import ObjectMeta, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api.gateway.references import Backend, Parent


class UDPRouteSpec(Model):
    """What a UDPRoute says."""

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] = ()
    """The Gateways, ListenerSets, or listeners of these, that the route attaches to."""
    use_default_gateways: Literal["All", "None"] = "None"
    """Whether it also attaches to the Gateways that are default ones (experimental)."""
    rules: Annotated[tuple[StreamRule, ...], Field(min_length=1, max_length=16)]
    """Where datagrams go; the first rule counts."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        rule_names(self.rules)
        parent_rules(self.parent_refs)
        return self


class UDPRoute(Resource):
    """A route of datagrams."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1alpha2")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["UDPRoute"] = "UDPRoute"
    spec: UDPRouteSpec
    """Where the datagrams go."""

    @classmethod
    def of(
        cls,
        name: str,
        parents: Parent | Iterable[Parent],
        *backends: Backend,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a route to backends: Services with one port, ``name:port``, or references."""
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=UDPRouteSpec(
                parent_refs=parent_refs(parents),
                rules=(StreamRule(backend_refs=backend_refs(backends)),),
            ),
        )

    @model_validator(mode="after")
    def _version_rules(self) -> Self:
        one_rule(self.api_version, self.spec.rules)
        return self
