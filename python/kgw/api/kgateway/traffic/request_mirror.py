"""What copies of requests ask for."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction


class PolicyRequestMirror(Model):
    """How copies differ from the requests that RequestMirror filters copy."""

    disable_shadow_host_suffix_append: bool | None = None
    """Whether copies ask for the same host; else its name has ``-shadow`` behind it."""
    host_rewrite_literal: Annotated[str, Field(min_length=1)] | None = None
    """The host that copies ask for."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.disable_shadow_host_suffix_append is None and self.host_rewrite_literal is None:
            raise contradiction("at least one field must be set")
        return self
