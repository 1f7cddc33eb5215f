"""ConfigMap: text by key; certificate authorities are under ``ca.crt``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from kgw.api.base import Bool
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import Labels

if TYPE_CHECKING:
    from collections.abc import Mapping


class ConfigMap(Resource):
    """A ConfigMap."""

    ignored: ClassVar[frozenset[str]] = frozenset({"binaryData"})

    api_version: str = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    data: Labels = Field(default_factory=dict)
    """Texts by key; certificate authorities are in PEM under ``ca.crt``."""
    binary_data: Any = None
    """Bytes by key, in base64; kgw does not read them."""
    immutable: Bool = False
    """Whether the data may not be changed any more."""

    @classmethod
    def of(
        cls,
        name: str,
        data: Mapping[str, str],
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a ConfigMap."""
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            data=dict(data),
        )
