"""ReferenceGrant: who may refer to objects of its namespace from another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field

from kgw.api.base import Model
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import Group, Kind, NamespaceName, ObjectName

if TYPE_CHECKING:
    from collections.abc import Mapping


class GrantFrom(Model):
    """A kind of referrer in a namespace."""

    group: Group
    """The API group of the referrers."""
    kind: Kind
    """The kind of the referrers."""
    namespace: NamespaceName
    """The namespace of the referrers."""


class GrantTo(Model):
    """A kind of target, or one target."""

    group: Group
    """The API group of the targets; empty for the core group."""
    kind: Kind
    """The kind of the targets."""
    name: ObjectName | None = None
    """The only target; all of the kind if none is given."""


class ReferenceGrantSpec(Model):
    """Any ``from`` may refer to any ``to``."""

    from_: Annotated[tuple[GrantFrom, ...], Field(min_length=1, max_length=16)]
    """Who may refer."""
    to: Annotated[tuple[GrantTo, ...], Field(min_length=1, max_length=16)]
    """What may be referred to, in the grant's own namespace."""


class ReferenceGrant(Resource):
    """A permission that a namespace gives."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["ReferenceGrant"] = "ReferenceGrant"
    spec: ReferenceGrantSpec
    """Who may refer to what."""

    @classmethod
    def of(
        cls,
        name: str,
        *targets: Resource | type[Resource],
        kind: type[Resource],
        of: str,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Lets objects of a kind in namespace *of* refer to targets: objects, or all of a kind."""
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=ReferenceGrantSpec(
                from_=(GrantFrom(group=kind.group, kind=kind.__name__, namespace=of),),
                to=tuple(
                    GrantTo(group=one.group, kind=one.__name__)
                    if isinstance(one, type)
                    else GrantTo(group=one.key.group, kind=one.key.kind, name=one.name)
                    for one in targets
                ),
            ),
        )
