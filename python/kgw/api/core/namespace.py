"""Namespace: its labels choose waypoints and pass ``allowedRoutes`` selectors."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from kgw.api.meta import Resource


class Namespace(Resource):
    """A namespace."""

    namespaced: ClassVar[bool] = False

    api_version: str = "v1"
    kind: Literal["Namespace"] = "Namespace"
    spec: Any = None
