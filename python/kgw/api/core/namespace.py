"""Namespace: its labels choose waypoints and pass ``allowedRoutes`` selectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from kgw.api.meta import ObjectMeta, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping


class Namespace(Resource):
    """A namespace."""

    namespaced: ClassVar[bool] = False

    api_version: str = "v1"
    kind: Literal["Namespace"] = "Namespace"
    spec: Any = None
    """What keeps a namespace from being deleted; kgw does not read it."""

    @classmethod
    def of(
        cls,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a namespace."""
        return cls(metadata=ObjectMeta.of(name, None, labels, annotations))
