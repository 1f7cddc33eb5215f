"""What texts are compared with."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from kgw.api.base import Bool, Model, contradiction

#: The ways to match, as the models name them.
_WAYS = ("exact", "prefix", "suffix", "contains", "safe_regex")


class StringMatcher(Model):
    """A text, or a pattern of texts: exactly one of the first five fields."""

    exact: str | None = None
    """The text."""
    prefix: str | None = None
    """What texts begin with."""
    suffix: str | None = None
    """What texts end with."""
    contains: str | None = None
    """What is somewhere in texts."""
    safe_regex: str | None = None
    """A regular expression of RE2's dialect that matches all of a text."""
    ignore_case: Bool = False
    """Whether letters match in either case; regular expressions say that themselves."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if len([way for way in _WAYS if getattr(self, way) is not None]) != 1:
            raise contradiction(
                "exactly one of the fields in [exact prefix suffix contains safeRegex] must be set"
            )
        return self

    @property
    def way(self) -> tuple[str, str]:
        """How it matches, as the IR calls it, and what."""
        name, value = next(
            (way, value) for way in _WAYS if (value := getattr(self, way)) is not None
        )
        return ("regex" if name == "safe_regex" else name), value
