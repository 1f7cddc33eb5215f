"""References from a Gateway API object to another."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, Port, contradiction, given, repeated
from kgw.api.gateway.backend_object import BackendObjectReference as BackendObjectReference
from kgw.api.gateway.filters import Filter, filter_rules
from kgw.api.kinds import GATEWAY_GROUP as GATEWAY_GROUP
from kgw.api.names import Group, Kind, NamespaceName, ObjectName, SectionName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api.core.service import Service
    from kgw.api.gateway.x_backend import XBackend
    from kgw.api.kgateway.backend import Backend as KgatewayBackend
    from kgw.api.meta import Resource


class ParentReference(Model):
    """What a route attaches to: a Gateway, a ListenerSet, or a Service of the mesh."""

    group: Group = GATEWAY_GROUP
    """The API group of the parent; empty for a Service."""
    kind: Kind = "Gateway"
    """The kind of the parent: Gateway, ListenerSet, or Service for a route of the mesh."""
    namespace: NamespaceName | None = None
    """The namespace of the parent; by default the route's own."""
    name: ObjectName
    """The name of the parent."""
    section_name: SectionName | None = None
    """The listener or port to attach to, by name; all if none is given."""
    port: Port | None = None
    """The port to attach to; all if none is given."""

    @classmethod
    def of(
        cls, parent: Resource | str, *, section: str | None = None, port: int | None = None
    ) -> Self:
        """Refers to a Gateway, ListenerSet or Service, or to a Gateway by its name.

        Args:
            parent: the object; where it names its namespace, the reference does so too.
            section: the name of a listener, to attach to that alone.
            port: a port, to attach to that alone.
        """
        if isinstance(parent, str):
            return cls(name=parent, **given(section_name=section, port=port))
        more = given(namespace=parent.metadata.namespace, section_name=section, port=port)
        if parent.key.kind != "Gateway":
            more |= {"group": parent.key.group, "kind": parent.key.kind}
        return cls(name=parent.name, **more)

    def as_written(self) -> dict[str, Any]:
        """The reference as it stands in the object."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def as_stored(self) -> dict[str, Any]:
        """The reference as an API server keeps it, which is what statuses echo.

        That is what was written, with the CRD's defaults. They are the same for a reference in a
        status, so that one without them would never be what is read back.
        """
        return {"group": self.group, "kind": self.kind} | self.as_written()


#: What can stand for a parent: a Gateway or Service, the name of a Gateway, or a reference.
Parent: TypeAlias = "Resource | str | ParentReference"


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


def parent_refs(parents: Parent | Iterable[Parent]) -> tuple[ParentReference, ...]:
    """References to one parent or several."""
    several = (parents,) if isinstance(parents, str | Model) else parents
    return tuple(
        one if isinstance(one, ParentReference) else ParentReference.of(one) for one in several
    )


class ObjectReference(Model):
    """An object that holds certificate authorities."""

    group: Group
    """The API group of the object; empty for a ConfigMap or Secret."""
    kind: Kind
    """The kind of the object."""
    namespace: NamespaceName | None = None
    """The namespace of the object; one in another must be allowed by a ReferenceGrant."""
    name: ObjectName
    """The name of the object."""


class SecretObjectReference(ObjectReference):
    """An object that holds a certificate and its key."""

    group: Group = ""
    """The API group of the object; empty for a Secret."""
    kind: Kind = "Secret"
    """The kind of the object."""


class BackendRef(BackendObjectReference):
    """A weighted backend."""

    weight: Annotated[int, Strict(), Field(ge=0, le=1_000_000)] = 1
    """The share of the traffic, against the weights of the rule's other backends."""

    @classmethod
    def of(
        cls,
        target: Service | XBackend | KgatewayBackend | str,
        port: int | None = None,
        *,
        weight: int | None = None,
    ) -> Self:
        """Refers to a port of a Service, to an XBackend or to a Backend.

        Args:
            target: the object, or ``name:port`` or ``namespace/name:port``. Where an object
                names its namespace, the reference does so too.
            port: the port, of a Service that has several.
            weight: the share of requests, against the weights of the rule's other backends.

        Raises:
            ValueError: no port is named, and the Service does not have exactly one.
        """
        if isinstance(target, str):
            where, colon, number = target.rpartition(":")
            if not colon or not number.isascii() or not number.isdigit():
                raise ValueError(f"{target!r} is not NAME:PORT or NAMESPACE/NAME:PORT")
            namespace, _, name = where.rpartition("/")
            return cls(
                name=name, port=int(number), **given(namespace=namespace or None, weight=weight)
            )
        if target.kind != "Service":
            more = given(namespace=target.metadata.namespace, port=port, weight=weight)
            return cls(group=target.group, kind=target.kind, name=target.name, **more)
        if port is None:
            ports = [one.port for one in target.spec.ports if one.protocol == "TCP"]
            if len(ports) != 1:
                raise ValueError(f"{target.key} has {len(ports)} TCP ports: name one")
            port = ports[0]
        more = given(namespace=target.metadata.namespace, weight=weight)
        return cls(name=target.name, port=port, **more)


class HTTPBackendRef(BackendRef):
    """A weighted backend with filters of its own."""

    filters: Annotated[tuple[Filter, ...], Field(max_length=16)] = ()
    """What is done to the requests that go to this backend."""

    @model_validator(mode="after")
    def _filter_rules(self) -> Self:
        filter_rules(self.filters)
        return self


#: What can stand for a backend: a Service with one port, an XBackend, a Backend, ``name:port``, a
#: reference.
Backend: TypeAlias = "Service | XBackend | KgatewayBackend | str | BackendRef"


def backend_refs(backends: Backend | Iterable[Backend]) -> tuple[BackendRef, ...]:
    """References to one backend or several."""
    several = (backends,) if isinstance(backends, str | Model) else backends
    return tuple(one if isinstance(one, BackendRef) else BackendRef.of(one) for one in several)


def http_backend_refs(backends: Backend | Iterable[Backend]) -> tuple[HTTPBackendRef, ...]:
    """References of an HTTPRoute to one backend or several."""
    several = (backends,) if isinstance(backends, str | Model) else backends
    return tuple(
        one
        if isinstance(one, HTTPBackendRef)
        else HTTPBackendRef.model_validate(one.model_dump(exclude_unset=True))
        if isinstance(one, BackendRef)
        else HTTPBackendRef.of(one)
        for one in several
    )
