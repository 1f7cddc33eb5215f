"""Rewrites of paths by regular expressions."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction

Text = Annotated[str, Field(min_length=1, max_length=1024)]


class PathRegexRewrite(Model):
    """What takes the place of the matches of an expression."""

    pattern: Text
    """The expression, in RE2's dialect."""
    substitution: Text
    r"""What takes the place of each match: ``\1`` to ``\9`` are its groups, ``\0`` is all of it."""


class PolicyURLRewrite(Model):
    """Rewrites of requests whose rule rewrites no path itself."""

    path_regex: PathRegexRewrite | None = None
    """The rewrite of the path; the query stays."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.path_regex is None:
            raise contradiction("at least one of the fields in [pathRegex] must be set")
        return self
