"""How the services of GatewayExtensions are called."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.duration import Duration
from kgw.api.gateway.backend_object import BackendObjectReference


class Backoff(Model):
    """Time between two attempts: exponential, with full jitter."""

    base_interval: Duration
    """The interval that the first wait is taken from, of at least 1 ms."""
    max_interval: Duration | None = None
    """The longest interval; ten times the first one if none is given."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.base_interval < 1:
            raise contradiction("retry.BaseInterval must be at least 1ms.", "baseInterval")
        if self.max_interval is not None and self.max_interval < self.base_interval:
            message = "maxInterval must be greater than or equal to baseInterval"
            raise contradiction(message, "maxInterval")
        return self


class ServiceRetry(Model):
    """Attempts to call a service once more."""

    attempts: Annotated[int, Strict(), Field(ge=0, le=2_147_483_647)] = 1
    """How many more attempts there are."""
    backoff: Backoff | None = None
    """The time between attempts; 25 ms to 250 ms if none is given, as in Envoy."""


class GrpcService(Model):
    """A service that is called over gRPC."""

    backend_ref: BackendObjectReference
    """The service."""
    authority: str | None = None
    """What calls have as ``:authority``; the name of the service if nothing is given."""
    request_timeout: Duration | None = None
    """The time for one call."""
    retry: ServiceRetry | None = None
    """Attempts to call once more; none if nothing is given."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.request_timeout is not None and self.request_timeout < 1:
            raise contradiction("timeout must be at least 1ms.", "requestTimeout")
        return self
