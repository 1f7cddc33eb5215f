"""ReferenceGrant: who may refer to objects of its namespace from another."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kgw.api.base import Model
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.api.meta import Resource
from kgw.api.names import Group, Kind, NamespaceName, ObjectName


class GrantFrom(Model):
    """A kind of referrer in a namespace."""

    group: Group
    kind: Kind
    namespace: NamespaceName


class GrantTo(Model):
    """A kind of target, or one target."""

    group: Group
    kind: Kind
    name: ObjectName | None = None


class ReferenceGrantSpec(Model):
    """Any ``from`` may refer to any ``to``."""

    from_: Annotated[tuple[GrantFrom, ...], Field(min_length=1, max_length=16)]
    to: Annotated[tuple[GrantTo, ...], Field(min_length=1, max_length=16)]


class ReferenceGrant(Resource):
    """A permission that a namespace gives."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["ReferenceGrant"] = "ReferenceGrant"
    spec: ReferenceGrantSpec
