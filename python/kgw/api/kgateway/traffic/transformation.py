"""What templates make of requests and of their responses.

What kgw has beyond kgateway is under one field, ``body.kgw``, that no definition of kgateway's has:
``kubectl apply`` refuses it there, and an API server that is asked not to be strict drops it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Model, contradiction, repeated
from kgw.api.quantity import Quantity

#: A field, or a pseudo field of HTTP/2.
PartName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256, pattern=r"^:?[A-Za-z0-9!#$%&'*+\-.^_`|~]+$"),
]
Key = Annotated[str, StringConstraints(min_length=1, max_length=256)]

#: The longest body, and the longest event, that templates are given at most. Bytes.
_LONGEST: Final = 64 << 20


class HeaderTemplate(Model):
    """A field with a template of its value."""

    name: PartName
    """The field, or ``:path``, ``:method`` and ``:authority`` of requests, ``:status`` of
    responses."""
    value: str = ""
    """The template."""


class EventStream(Model):
    """Bodies that are transformed event by event, as they come."""

    framing: Literal["SSE", "JsonLines"]
    """How events follow one another. Bodies of other media types are none of it."""
    value: str = ""
    """The template of an event's data. The event is left out where it makes nothing."""
    max_event_bytes: Quantity = 64 << 10
    """The longest event, as in ``64Ki``; a message with a longer one is cut short."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not 0 < self.max_event_bytes <= _LONGEST:
            message = "maxEventBytes must be greater than 0 and at most 64Mi"
            raise contradiction(message, "maxEventBytes")
        return self


class BodyExtensions(Model):
    """What kgateway's transformations of bodies have not."""

    stream: EventStream | None = None
    """The events of a body; it passes on as its events do, and is never there as a whole."""
    max_bytes: Quantity | None = None
    """The longest body that is looked at as a whole, as in ``1Mi``, which is the default."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.max_bytes is not None and not 0 < self.max_bytes <= _LONGEST:
            message = "maxBytes must be greater than 0 and at most 64Mi"
            raise contradiction(message, "maxBytes")
        return self


class BodyTemplate(Model):
    """How a body is read, and a template of another one."""

    parse_as: Literal["AsString", "AsJson", "None"] = "AsString"
    """As text, as JSON, whose members are variables then, or not at all."""
    value: str = ""
    """The template; without one the body stays as it is."""
    kgw: BodyExtensions | None = None
    """What kgateway does not have."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        stream = None if self.kgw is None else self.kgw.stream
        if stream is not None and self.parse_as == "None":
            message = "stream needs a body that is parsed AsString or AsJson"
            raise contradiction(message, "kgw", "stream")
        return self


class MetadataValue(Model):
    """A value of dynamic metadata."""

    string_value: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The template of a text."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.string_value is None:
            raise contradiction("exactly one of the fields in [stringValue] must be set")
        return self


class MetadataTemplate(Model):
    """What is noted in the dynamic metadata, for access logs and filters behind."""

    namespace: Key
    """Where it is noted."""
    key: Key
    """Under which name."""
    value: MetadataValue
    """What is noted."""


class Transform(Model):
    """What templates make of a message: the body first, then its fields in this order."""

    set: Annotated[tuple[HeaderTemplate, ...], Field(max_length=16)] = ()
    """Fields that get a value; they are removed where the template makes nothing."""
    add: Annotated[tuple[HeaderTemplate, ...], Field(max_length=16)] = ()
    """Fields that are added, where the template makes something."""
    remove: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """Names of fields that are removed."""
    body: BodyTemplate | None = None
    """The body."""
    dynamic_metadata: Annotated[tuple[MetadataTemplate, ...], Field(max_length=16)] = ()
    """What is noted."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        lists = {
            "set": [field.name for field in self.set],
            "add": [field.name for field in self.add],
            "remove": self.remove,
        }
        for name, names in lists.items():
            again = repeated(names)
            if again is not None:
                raise contradiction(f"{names[again]} is there before", name, again)
        return self


class Transformation(Model):
    """What templates make of requests and of their responses."""

    request: Transform | None = None
    """Of requests."""
    response: Transform | None = None
    """Of responses, the proxy's own ones included."""
