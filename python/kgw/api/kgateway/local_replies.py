"""What becomes of answers that a gateway makes itself."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.gateway.filters import HeaderModifier
from kgw.api.kgateway.access_log_filter import AccessLogFilter


class ReplyBodyFormat(Model):
    """The form of a body."""

    json_body: dict[str, Any] | None = None
    """The object that it is, with operators such as ``%RESPONSE_CODE%`` in its values."""
    text: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    """The text that it is, with operators."""
    content_type: str | None = None
    """The ``content-type``; that of JSON or of plain text if nothing is given."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.json_body is None) == (self.text is None):
            message = "exactly one of the fields in [json text] must be set"
            raise contradiction(message, *(() if self.text is None else ("text",)))
        return self


class LocalReplyMapper(Model):
    """A change to some answers."""

    filter: AccessLogFilter
    """Which answers."""
    status_code: Annotated[int, Strict(), Field(ge=100, le=599)] | None = None
    """Their new status."""
    body: str | None = None
    """Their new body, which is ``%LOCAL_REPLY_BODY%`` for a format."""
    body_format_override: ReplyBodyFormat | None = None
    """The form of their body, instead of the default one."""
    headers: HeaderModifier | None = None
    """Fields that are set or added; values may have operators."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        changes = (self.status_code, self.body, self.body_format_override, self.headers)
        if all(one is None for one in changes):
            message = (
                "at least one of the fields in [statusCode body bodyFormatOverride headers] "
                "must be set"
            )
            raise contradiction(message)
        if self.headers is not None:
            if self.headers.remove:
                message = "Local reply mappers may only add or modify headers, not remove them"
                raise contradiction(message, "headers", "remove")
            if not self.headers.set and not self.headers.add:
                message = "at least one of the fields in [set add remove] must be set"
                raise contradiction(message, "headers")
        return self


class LocalReplies(Model):
    """Changes to answers that the gateway makes itself."""

    mappers: Annotated[tuple[LocalReplyMapper, ...], Field(min_length=1, max_length=16)] | None = (
        None
    )
    """Changes to some of them; the first one counts whose filter holds."""
    default_body_format: ReplyBodyFormat | None = None
    """The form of bodies that no mapper gives another."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.mappers is None and self.default_body_format is None:
            message = "at least one of the fields in [mappers defaultBodyFormat] must be set"
            raise contradiction(message)
        return self
