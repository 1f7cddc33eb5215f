"""TCPRoute: where the connections of a port go."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction, repeated
from kgw.api.gateway.references import (
    GATEWAY_GROUP,
    BackendRef,
    ParentReference,
    parent_rules,
)
from kgw.api.meta import Resource
from kgw.api.names import SectionName


class StreamRule(Model):
    """Where connections go."""

    name: SectionName | None = None
    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]


def rule_names(rules: tuple[StreamRule, ...]) -> None:
    """Checks that rules have different names.

    Raises:
        ValueError: in the words of the CRD.
    """
    # Rules without a name are all different.
    twice = repeated(rule.name or index for index, rule in enumerate(rules))
    if twice is not None:
        raise contradiction("Rule name must be unique within the route", "rules", twice, "name")


class TCPRouteSpec(Model):
    """What a TCPRoute says."""

    ignored = frozenset({"useDefaultGateways"})

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] = ()
    rules: Annotated[tuple[StreamRule, ...], Field(min_length=1, max_length=16)]

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
