"""The `CORS` filter: which pages of other origins may use a route (GEP-1767)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Model, contradiction, given, repeated
from kgw.api.names import LEGAL, HeaderName

if TYPE_CHECKING:
    from collections.abc import Iterable

_ORIGIN: Final = r"^\*$|^https?://((\*\.)?([a-zA-Z0-9-]+\.)*[a-zA-Z0-9-]+|\*)(:[0-9]{1,5})?$"

LEGAL[_ORIGIN] = "`*`, or a scheme and a host, such as https://*.example.com or http://localhost:80"

Origin = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_ORIGIN)]

Method = Literal[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"
]


class CORS(Model):
    """Which pages of other origins may use a route, and how."""

    allow_origins: Annotated[tuple[Origin, ...], Field(max_length=64)] = ()
    """The origins whose pages may read answers: ``https://*.example.com`` for any number of
    labels, ``*`` for all."""
    allow_credentials: bool = False
    """Whether requests may carry cookies and the like."""
    allow_methods: Annotated[tuple[Method, ...], Field(max_length=9)] = ()
    """The methods that pages may use; ``*`` for all."""
    allow_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    """The header fields that pages may set; ``*`` for all."""
    expose_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    """The header fields of answers that pages may read; ``*`` for all."""
    max_age: Annotated[int, Strict(), Field(ge=1, le=2_147_483_647)] = 5
    """How long browsers may keep the answer to a preflight request. Seconds."""

    @classmethod
    def of(
        cls,
        *origins: str,
        credentials: bool | None = None,
        methods: Iterable[str] = (),
        headers: Iterable[str] = (),
        expose: Iterable[str] = (),
        max_age: int | None = None,
    ) -> Self:
        """Allows pages of these origins."""
        return cls(
            **given(
                allow_origins=origins,
                allow_credentials=credentials,
                allow_methods=tuple(methods),
                allow_headers=tuple(headers),
                expose_headers=tuple(expose),
                max_age=max_age,
            )
        )

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for alias, what, values in (
            ("allowOrigins", "other origins", self.allow_origins),
            ("allowMethods", "other methods", self.allow_methods),
            # The words are those of the CRD.
            ("allowHeaders", "other methods", self.allow_headers),
        ):
            if "*" in values and len(values) > 1:
                name = alias[0].upper() + alias[1:]
                raise contradiction(f"{name} cannot contain '*' alongside {what}", alias)
        for alias, values in (
            ("allowOrigins", self.allow_origins),
            ("allowMethods", self.allow_methods),
            ("allowHeaders", self.allow_headers),
            ("exposeHeaders", self.expose_headers),
        ):
            twice = repeated(values)
            if twice is not None:
                raise contradiction(f"duplicate value {values[twice]!r}", alias, twice)
        return self
