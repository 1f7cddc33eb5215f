"""Access by the client's address."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Model, contradiction

Action = Literal["allow", "deny"]

_FieldName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class ACLRule(Model):
    """What becomes of clients of some networks."""

    name: Annotated[str, StringConstraints(max_length=256)] | None = None
    """What is said of the clients that the rule denies; ``rule`` without one."""
    cidrs: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]
    """Networks, such as ``10.0.0.0/8``, and addresses."""
    action: Action
    """What becomes of the clients."""


class ACLHeader(Model):
    """A header field of the answer to a client that is denied."""

    name: _FieldName
    """Its name."""
    value: Annotated[str, StringConstraints(max_length=4096)]
    """Its value."""


class ACLDenyResponse(Model):
    """The answer to a client that is denied; at least one of the fields."""

    status_code: Annotated[int, Strict(), Field(ge=100, le=599)] | None = None
    """The status; 403 if none is given."""
    headers: Annotated[tuple[ACLHeader, ...], Field(max_length=16)] = ()
    """Header fields."""
    blocked_by_header_name: _FieldName | None = None
    """The name of a header field that says which rule denied the client."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not self.model_fields_set & {"status_code", "headers", "blocked_by_header_name"}:
            raise contradiction(
                "at least one of the fields in [statusCode headers blockedByHeaderName] must be set"
            )
        return self


class ACL(Model):
    """Which clients may send requests, by their addresses.

    Of the networks that a client is in the longest prefix counts, wherever its rule stands.
    """

    default_action: Action
    """What becomes of clients of no network."""
    rules: Annotated[tuple[ACLRule, ...], Field(max_length=256)] = ()
    """What becomes of others."""
    deny_response: ACLDenyResponse | None = None
    """The answer to clients that are denied; 403 without a body if nothing is given."""
