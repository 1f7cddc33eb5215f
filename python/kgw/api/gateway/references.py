"""References from a Gateway API object to another."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, Port, contradiction, repeated
from kgw.api.gateway.filters import Filter, filter_rules
from kgw.api.kinds import GATEWAY_GROUP as GATEWAY_GROUP
from kgw.api.names import Group, Kind, NamespaceName, ObjectName, SectionName


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


def parent_rules(parents: tuple[ParentReference, ...]) -> None:
    """Checks that references to one parent name different parts of it.

    Raises:
        ValueError: in the words of the CRD.
    """
    same = defaultdict(list)
    for number, parent in enumerate(parents):
        same[parent.group, parent.kind, parent.namespace, parent.name].append(
            (number, (parent.section_name, parent.port))
        )
    for places in same.values():
        numbers, sections = zip(*places, strict=True)
        if len(sections) > 1 and (None, None) in sections:
            raise contradiction(
                "sectionName or port must be specified when parentRefs includes 2 or more "
                "references to the same parent",
                "parentRefs",
                numbers[sections.index((None, None))],
            )
        twice = repeated(sections)
        if twice is not None:
            raise contradiction(
                "sectionName or port must be unique when parentRefs includes 2 or more "
                "references to the same parent",
                "parentRefs",
                numbers[twice],
            )


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


class BackendRef(BackendObjectReference):
    """A weighted backend."""

    weight: Annotated[int, Strict(), Field(ge=0, le=1_000_000)] = 1


class HTTPBackendRef(BackendRef):
    """A weighted backend with filters of its own."""

    filters: Annotated[tuple[Filter, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _filter_rules(self) -> Self:
        filter_rules(self.filters)
        return self
