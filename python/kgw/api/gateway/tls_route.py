"""TLSRoute: where TLS connections go, by the server name that the client asks for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.gateway.references import GATEWAY_GROUP, ParentReference, parent_rules
from kgw.api.gateway.tcp_route import StreamRule, rule_names
from kgw.api.meta import Resource
from kgw.api.names import Hostname


class TLSRouteSpec(Model):
    """What a TLSRoute says."""

    ignored = frozenset({"useDefaultGateways"})

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] = ()
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=1024)] = ()
    rules: Annotated[tuple[StreamRule, ...], Field(min_length=1, max_length=16)]

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

    @model_validator(mode="after")
    def _version_rules(self) -> Self:
        if self.api_version.endswith("/v1alpha2"):
            return self
        if not self.spec.hostnames:
            raise contradiction("hostnames must be specified", "spec", "hostnames")
        if self.api_version.endswith("/v1") and len(self.spec.rules) > 1:
            raise contradiction("there must be exactly one rule", "spec", "rules")
        return self
