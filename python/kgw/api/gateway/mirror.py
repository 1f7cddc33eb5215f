"""The `RequestMirror` filter: copies of requests to another backend."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.gateway.backend_object import BackendObjectReference


class Fraction(Model):
    """A share, as a fraction."""

    numerator: Annotated[int, Strict(), Field(ge=0, le=2_147_483_647)]
    """What is above the line."""
    denominator: Annotated[int, Strict(), Field(ge=1, le=2_147_483_647)] = 100
    """What is below the line."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.numerator > self.denominator:
            raise contradiction("numerator must be less than or equal to denominator", "numerator")
        return self


class RequestMirror(Model):
    """A copy of each request, or of a share of them, to another backend."""

    backend_ref: BackendObjectReference
    """The backend that gets the copies, each at one of its endpoints."""
    percent: Annotated[int, Strict(), Field(ge=0, le=100)] | None = None
    """The share of the requests that are copied, in percent; all if no share is given."""
    fraction: Fraction | None = None
    """The share of the requests that are copied, as a fraction."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.percent is not None and self.fraction is not None:
            raise contradiction(
                "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter",
                "fraction",
            )
        return self

    @property
    def share(self) -> tuple[int, int]:
        """The share of the requests that are copied: numerator and denominator."""
        if self.fraction is not None:
            return (self.fraction.numerator, self.fraction.denominator)
        return (100 if self.percent is None else self.percent, 100)
