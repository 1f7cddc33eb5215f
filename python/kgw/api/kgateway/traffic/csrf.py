"""Requests that pages of other origins make."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.kgateway.string_matcher import StringMatcher

_Percent = Annotated[int, Strict(), Field(ge=0, le=100)]


class CSRF(Model):
    """Requests that change something have to come from a page of the host that they are for.

    Without a percentage nothing is refused or counted, as in kgateway.
    """

    percentage_enabled: _Percent | None = None
    """The share of the requests that are refused otherwise, in percent."""
    percentage_shadowed: _Percent | None = None
    """The share of the requests that are counted otherwise, and passed on, in percent."""
    additional_origins: Annotated[tuple[StringMatcher, ...], Field(max_length=16)] = ()
    """Other hosts, with their ports if they have any, whose pages may make them."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.percentage_enabled is not None and self.percentage_shadowed is not None:
            raise contradiction(
                "at most one of the fields in [percentageEnabled percentageShadowed] may be set"
            )
        return self
