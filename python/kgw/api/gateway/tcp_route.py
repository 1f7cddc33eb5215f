"""TCPRoute: where the connections of a port go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction, repeated
from kgw.api.gateway.references import (
    GATEWAY_GROUP,
    BackendRef,
    ParentReference,
    backend_refs,
    parent_refs,
    parent_rules,
)
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import SectionName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api.gateway.references import Backend, Parent


class StreamRule(Model):
    """Where connections go."""

    name: SectionName | None = None
    """The name, unique in the route."""
    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]
    """Where connections go, by weight."""


def rule_names(rules: tuple[StreamRule, ...]) -> None:
    """Checks that rules have different names.

    Raises:
        ValueError: in the words of the CRD.
    """
    # Rules without a name are all different.
    twice = repeated(rule.name or index for index, rule in enumerate(rules))
    if twice is not None:
        raise contradiction("Rule name must be unique within the route", "rules", twice, "name")


def one_rule(api_version: str, rules: tuple[StreamRule, ...]) -> None:
    """Checks that a route of a version that has one rule only has no more.

    Raises:
        ValueError: it has.
    """
    if api_version.endswith("/v1") and len(rules) > 1:
        raise contradiction("there must be exactly one rule", "spec", "rules")


class TCPRouteSpec(Model):
    """What a TCPRoute says."""

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] = ()
    """The Gateways, ListenerSets, or listeners of these, that the route attaches to."""
    use_default_gateways: Literal["All", "None"] = "None"
    """Whether it also attaches to the Gateways that are default ones (experimental)."""
    rules: Annotated[tuple[StreamRule, ...], Field(min_length=1, max_length=16)]
    """Where connections go; the first rule counts."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        rule_names(self.rules)
        parent_rules(self.parent_refs)
        return self


class TCPRoute(Resource):
    """A route of connections."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1alpha2")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["TCPRoute"] = "TCPRoute"
    spec: TCPRouteSpec
    """Where the connections go."""

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
            spec=TCPRouteSpec(
                parent_refs=parent_refs(parents),
                rules=(StreamRule(backend_refs=backend_refs(backends)),),
            ),
        )

    @model_validator(mode="after")
    def _version_rules(self) -> Self:
        one_rule(self.api_version, self.spec.rules)
        return self
