"""Who may do what, by conditions on requests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from kgw.api.base import Model

CelExpression = Annotated[str, Strict(), Field(min_length=1, max_length=16384)]
"""An expression in the Common Expression Language."""


class AuthorizationPolicy(Model):
    """Conditions, of which one has to hold."""

    match_expressions: Annotated[tuple[CelExpression, ...], Field(min_length=1, max_length=256)]
    """The conditions, about Envoy's attributes, as in ``request.headers['x-role'] == 'admin'``."""


class Authorization(Model):
    """Requests that match are allowed, and all others refused; or the other way round."""

    action: Literal["Allow", "Deny"] = "Allow"
    """What becomes of a request that matches. One that does not meets the opposite."""
    policy: AuthorizationPolicy
    """What a request has to match."""

    @classmethod
    def of(cls, *conditions: str, action: Literal["Allow", "Deny"] = "Allow") -> Authorization:
        """Allows, or refuses, requests of which one of the conditions holds."""
        return cls(action=action, policy=AuthorizationPolicy(match_expressions=conditions))
