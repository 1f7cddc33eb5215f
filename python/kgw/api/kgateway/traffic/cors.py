"""Which pages of other origins may use a route."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Bool, Model, contradiction, repeated
from kgw.api.gateway.cors import Method
from kgw.api.kgateway.traffic.disable import PolicyDisable
from kgw.api.names import LEGAL, HeaderName

_ORIGIN = r"^\*$|^[a-zA-Z][a-zA-Z0-9+.-]+://[^:/?#\s]+(:[0-9]{1,5})?$"

LEGAL[_ORIGIN] = "`*`, or a scheme and a host, such as https://*.example.com or http://localhost:80"

Origin = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_ORIGIN)]


class CorsPolicy(Model):
    """Which pages of other origins may use a route, and how.

    A ``CORS`` filter of a rule has precedence.
    """

    allow_origins: Annotated[tuple[Origin, ...], Field(max_length=64)] = ()
    """The origins whose pages may read answers. A ``*`` stands for any characters, one at the end
    for a port as well; ``*`` alone for all origins."""
    allow_credentials: Bool = False
    """Whether requests may carry cookies and the like."""
    allow_methods: Annotated[tuple[Method, ...], Field(max_length=9)] = ()
    """The methods that pages may use; ``*`` for all."""
    allow_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    """The header fields that pages may set; ``*`` for all."""
    expose_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    """The header fields of answers that pages may read; ``*`` for all."""
    max_age: Annotated[int, Strict(), Field(ge=1, le=2_147_483_647)] = 5
    """How long browsers may keep the answer to a preflight request. Seconds."""
    disable: PolicyDisable | None = None
    """Nothing is said about origins, whatever less specific policies say."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for alias, what, values in (
            ("allowOrigins", "origins", self.allow_origins),
            ("allowMethods", "methods", self.allow_methods),
            ("allowHeaders", "headers", self.allow_headers),
        ):
            if "*" in values and len(values) > 1:
                name = alias[0].upper() + alias[1:]
                raise contradiction(f"{name} cannot contain '*' alongside other {what}", alias)
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
