"""XMesh: what a mesh is, as its controller sees it (GEP-3949, experimental)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field

from kgw.api.base import Model
from kgw.api.kinds import X_GATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import ControllerName, Group, Kind, NamespaceName, ObjectName

if TYPE_CHECKING:
    from collections.abc import Mapping


class ParametersReference(Model):
    """An object with parameters for a controller, in a namespace or for the whole cluster."""

    group: Group
    """The API group of the object."""
    kind: Kind
    """The kind of the object."""
    name: ObjectName
    """The name of the object."""
    namespace: NamespaceName | None = None
    """The namespace of the object, if it is in one."""


class XMeshSpec(Model):
    """What an XMesh says."""

    controller_name: ControllerName
    """The controller that runs the mesh; kgw is ``kgateway.dev/kgateway``."""
    parameters_ref: ParametersReference | None = None
    """An object with parameters for the controller; kgw has none."""
    description: Annotated[str, Field(max_length=64)] | None = None
    """A note for people."""


class XMesh(Resource):
    """A mesh."""

    group: ClassVar[str] = X_GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)
    namespaced: ClassVar[bool] = False

    api_version: str = f"{X_GATEWAY_GROUP}/v1alpha1"
    kind: Literal["XMesh"] = "XMesh"
    spec: XMeshSpec
    """Who runs the mesh."""

    @classmethod
    def of(
        cls,
        name: str,
        controller: str = "kgateway.dev/kgateway",
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a mesh that a controller runs."""
        return cls(
            metadata=ObjectMeta.of(name, None, labels, annotations),
            spec=XMeshSpec(controller_name=controller),
        )
