"""References from a Gateway API object to another."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, Port
from kgw.api.gateway.filters import Filter, filter_rules
from kgw.api.names import Group, Kind, NamespaceName, ObjectName, SectionName

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"


class ParentReference(Model):
    """What a route attaches to: a Gateway, or a Service of the mesh."""

    group: Group = GATEWAY_GROUP
    kind: Kind = "Gateway"
    namespace: NamespaceName | None = None
    name: ObjectName
    section_name: SectionName | None = None
    port: Port | None = None

    def as_written(self) -> dict[str, Any]:
        """The reference as it stands in the object: statuses echo it verbatim."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class ObjectReference(Model):
    """An object that holds certificate authorities."""

    group: Group
    kind: Kind
    namespace: NamespaceName | None = None
    name: ObjectName


class SecretObjectReference(ObjectReference):
    """An object that holds a certificate and its key."""

    group: Group = ""
    kind: Kind = "Secret"


class BackendObjectReference(Model):
    """What traffic goes to."""

    group: Group = ""
    kind: Kind = "Service"
    namespace: NamespaceName | None = None
    name: ObjectName
    port: Port | None = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.group == "" and self.kind == "Service" and self.port is None:
            raise ValueError("Must have port for Service reference")
        return self


class HTTPBackendRef(BackendObjectReference):
    """A weighted backend with filters of its own."""

    weight: Annotated[int, Strict(), Field(ge=0, le=1_000_000)] = 1
    filters: Annotated[tuple[Filter, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _filter_rules(self) -> Self:
        filter_rules(self.filters)
        return self
