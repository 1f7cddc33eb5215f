"""ListenerSet: listeners that others add to a Gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, given
from kgw.api.gateway.gateway import Gateway, Listener, listener_rules
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import Group, Kind, NamespaceName, ObjectName

if TYPE_CHECKING:
    from collections.abc import Mapping


class ParentGatewayReference(Model):
    """The Gateway that listeners are added to."""

    group: Group = GATEWAY_GROUP
    """The API group of the parent."""
    kind: Kind = "Gateway"
    """The kind of the parent."""
    namespace: NamespaceName | None = None
    """The namespace of the Gateway; by default the ListenerSet's own."""
    name: ObjectName
    """The name of the Gateway."""


class ListenerSetSpec(Model):
    """What a ListenerSet says."""

    parent_ref: ParentGatewayReference
    """The Gateway, whose addresses the listeners are on."""
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64)]
    """What the Gateway listens on as well."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        listener_rules(self.listeners)
        return self


class ListenerSet(Resource):
    """A set of listeners that joins those of a Gateway, if that allows it."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["ListenerSet"] = "ListenerSet"
    spec: ListenerSetSpec
    """The listeners, and the Gateway that they join."""

    @classmethod
    def of(
        cls,
        name: str,
        parent: Gateway | str,
        *listeners: Listener | int,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a set of listeners, or of ports to listen on for HTTP.

        Args:
            name: the name.
            parent: the Gateway, or the name of one in the same namespace.
            listeners: what is listened on.
            namespace: the namespace.
            labels: labels of the object.
            annotations: annotations of the object.
        """
        if isinstance(parent, str):
            reference = ParentGatewayReference(name=parent)
        else:
            where = given(namespace=parent.metadata.namespace)
            reference = ParentGatewayReference(name=parent.name, **where)
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=ListenerSetSpec(
                parent_ref=reference,
                listeners=tuple(
                    Listener.of(one) if isinstance(one, int) else one for one in listeners
                ),
            ),
        )
