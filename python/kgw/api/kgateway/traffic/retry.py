"""Sending requests once more."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.duration import Duration

RetryOnCondition = Literal[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
]
"""A way of failing, in Envoy's words."""


class RetryPolicy(Model):
    """When requests are sent once more, where their rule does not say so itself."""

    retry_on: Annotated[tuple[RetryOnCondition, ...], Field(min_length=1)] | None = None
    """The ways of failing that are followed by another attempt."""
    attempts: Annotated[int, Strict(), Field(ge=0, le=2_147_483_647)] = 1
    """How many attempts there are beside the first."""
    per_try_timeout: Duration | None = None
    """The time for one attempt, of at least 1 ms."""
    status_codes: (
        Annotated[tuple[Annotated[int, Strict(), Field(ge=400, le=599)], ...], Field(min_length=1)]
        | None
    ) = None
    """Statuses of answers that are followed by another attempt."""
    backoff_base_interval: Duration = Duration("25ms")
    """What the time between two attempts is taken from, of at least 1 ms: it doubles each time, up
    to ten times as much."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.retry_on is None and self.status_codes is None:
            raise contradiction("retryOn or statusCodes must be set.")
        if self.per_try_timeout is not None and self.per_try_timeout < 1:
            raise contradiction("retry.perTryTimeout must be at least 1ms.", "perTryTimeout")
        if self.backoff_base_interval < 1:
            message = "retry.backoffBaseInterval must be at least 1ms."
            raise contradiction(message, "backoffBaseInterval")
        return self
