"""Secret: bytes by key, which nothing may show.

They are in no ``repr``, in no dump of the model and in no finding: what is wrong with them is told
without them, and without the lines of the file they stand in (`kgw.source.memory.Origin.blind`).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from kgw.api.base import Bool, contradiction, kubernetes_name
from kgw.api.meta import ObjectMeta, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The type of a Secret with a certificate chain and its key.
TLS: Final = "kubernetes.io/tls"


def _decoded(value: Any) -> Any:
    """The bytes of base64 text; line breaks do not count, as for an API server."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except binascii.Error:
        raise PydanticCustomError("base64", "base64 with padding") from None


class Secret(Resource):
    """A Secret."""

    # An unknown field may be a misspelled one, and hold what that would. Errors show their input
    # unless told otherwise.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", hide_input_in_errors=True)

    confidential: ClassVar[bool] = True

    api_version: str = "v1"
    kind: Literal["Secret"] = "Secret"
    # `kubectl apply` writes the whole object into an annotation.
    metadata: ObjectMeta = Field(repr=False, exclude=True)
    """What names and describes the object."""
    type: str = "Opaque"
    """What is in it; ``kubernetes.io/tls`` has ``tls.crt`` and ``tls.key``."""
    data: dict[str, Annotated[bytes, BeforeValidator(_decoded)]] = Field(
        default_factory=dict, repr=False, exclude=True
    )
    """Bytes by key, in base64."""
    string_data: dict[str, str] = Field(default_factory=dict, repr=False, exclude=True)
    """Texts by key, which take the place of data under the same key."""
    immutable: Bool = False
    """Whether the data may not be changed any more."""

    @classmethod
    def of(
        cls,
        name: str,
        data: Mapping[str, bytes],
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a Secret of bytes, which are not in base64 here.

        Raises:
            TypeError: a value is text. As ``data`` of a manifest it would be taken for base64.
        """
        for key, value in data.items():
            if not isinstance(value, bytes):
                raise TypeError(f"{key} must be bytes, not {type(value).__name__}")
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            data=dict(data),
        )

    @classmethod
    def tls(
        cls,
        name: str,
        certificate: bytes,
        key: bytes,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a Secret of a certificate, or a chain that starts with it, and its key, in PEM.

        Raises:
            TypeError: one of them is text and not bytes.
        """
        for what, value in (("certificate", certificate), ("key", key)):
            if not isinstance(value, bytes):
                raise TypeError(f"{what} must be bytes, not {type(value).__name__}")
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            type=TLS,
            data={"tls.crt": certificate, "tls.key": key},
        )

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for key in ("tls.crt", "tls.key") if self.type == TLS else ():
            if self.read(key) is None:
                raise contradiction(f"a Secret of type {TLS} must have the key {key}", "data")
        return self

    def __repr__(self) -> str:
        return f"Secret({self.namespace}/{self.name})"

    __str__ = __repr__

    def _contents(self) -> dict[str, Any]:
        """What was given, with its values: it is asked for with ``secrets=True`` only."""
        given: dict[str, Any] = {"type": self.type, "immutable": self.immutable}
        given["data"] = {key: base64.b64encode(one).decode() for key, one in self.data.items()}
        given["stringData"] = dict(self.string_data)
        names = {name: kubernetes_name(name) for name in type(self).model_fields}
        return {
            names[name]: given[names[name]]
            for name in type(self).model_fields
            if name in self.model_fields_set and names[name] in given
        }

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that it has, sorted."""
        return tuple(sorted({*self.data, *self.string_data}))

    def read(self, key: str) -> bytes | None:
        """The bytes of a key; ``stringData`` wins, as it does when the object is written."""
        text = self.string_data.get(key)
        return self.data.get(key) if text is None else text.encode()
