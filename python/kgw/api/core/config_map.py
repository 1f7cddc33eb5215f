"""ConfigMap: text by key; certificate authorities are under ``ca.crt``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kgw.api.base import Bool
from kgw.api.meta import Resource
from kgw.api.names import Labels


class ConfigMap(Resource):
    """A ConfigMap."""

    ignored = frozenset({"binaryData"})

    api_version: str = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    data: Labels = Field(default_factory=dict)
    binary_data: Any = None
    immutable: Bool = False
