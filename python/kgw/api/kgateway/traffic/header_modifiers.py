"""Changes of header fields."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.names import HeaderName, HeaderValue, NamespaceName, ObjectName

SecretKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class HeaderSecretRef(Model):
    """A Secret that has the value of a field."""

    name: ObjectName
    """The Secret."""
    namespace: NamespaceName | None = None
    """Its namespace, if it is not the policy's; a ReferenceGrant there must allow it."""
    key: SecretKey | None = None
    """The key of the value; the name of the field if none is given."""


class PolicyHeader(Model):
    """A header field to set or add, with a value or a Secret that has it."""

    name: HeaderName | None = None
    """The name, in any case. Without it, it is the key in the Secret; without that either, each key
    of the Secret is a field."""
    value: HeaderValue | None = None
    """The value."""
    secret_ref: HeaderSecretRef | None = None
    """Where the value is."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.value is None) == (self.secret_ref is None):
            raise contradiction("exactly one of the fields in [value secretRef] must be set")
        if self.value is not None and self.name is None:
            raise contradiction("name is required when using an inline value", "name")
        return self


Headers = Annotated[tuple[PolicyHeader, ...], Field(max_length=16)]


class PolicyHeaderModifier(Model):
    """Header fields to set, add and remove."""

    set: Headers = ()
    """Fields that take the place of those of the same name."""
    add: Headers = ()
    """Fields that stand beside those of the same name."""
    remove: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """Names of fields to take out."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not (self.set or self.add or self.remove):
            raise contradiction("at least one of the fields in [set add remove] must be set")
        return self


class HeaderModifiers(Model):
    """Changes of header fields of requests that are not refused, and of answers."""

    request: PolicyHeaderModifier | None = None
    """Changes of requests."""
    response: PolicyHeaderModifier | None = None
    """Changes of answers."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.request is None and self.response is None:
            raise contradiction("at least one of the fields in [request response] must be set")
        return self
