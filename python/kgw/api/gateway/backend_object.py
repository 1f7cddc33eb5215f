"""A reference to what traffic goes to."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from kgw.api.base import Model, Port
from kgw.api.names import Group, Kind, NamespaceName, ObjectName


class BackendObjectReference(Model):
    """What traffic goes to."""

    group: Group = ""
    """The API group of the backend; empty for a Service."""
    kind: Kind = "Service"
    """The kind of the backend."""
    namespace: NamespaceName | None = None
    """The namespace of the backend; one in another must be allowed by a ReferenceGrant."""
    name: ObjectName
    """The name of the backend."""
    port: Port | None = None
    """The port of the Service (not that of its pods)."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.group == "" and self.kind == "Service" and self.port is None:
            raise ValueError("Must have port for Service reference")
        return self
