"""What a Gateway says about the objects that are made for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kgw.api.base import Model
from kgw.api.names import AnnotationValue, Group, Kind, LabelValue, ObjectName, QualifiedName


class LocalParametersReference(Model):
    """A reference to an object with parameters, in the namespace of the Gateway."""

    group: Group
    """The API group of the object."""
    kind: Kind
    """The kind of the object."""
    name: ObjectName
    """The name of the object."""


class GatewayInfrastructure(Model):
    """Labels, annotations and parameters of what a controller makes for a Gateway."""

    labels: Annotated[dict[QualifiedName, LabelValue], Field(max_length=8)] = Field(
        default_factory=dict
    )
    """Labels of every object that is made."""
    annotations: Annotated[dict[QualifiedName, AnnotationValue], Field(max_length=16)] = Field(
        default_factory=dict
    )
    """Annotations of every object that is made."""
    parameters_ref: LocalParametersReference | None = None
    """Parameters for the controller, a GatewayParameters of kgateway's."""
