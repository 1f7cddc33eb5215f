"""Faults that are made on purpose."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.duration import Duration
from kgw.api.kgateway.traffic.disable import PolicyDisable

Percentage = Annotated[int, Strict(), Field(ge=0, le=100)]

_HOUR = 3_600_000


class FaultDelay(Model):
    """Requests that go on later."""

    fixed_delay: Duration
    """How long they wait: 1 ms to an hour."""
    percentage: Percentage = 100
    """The share of the requests that wait."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.fixed_delay < 1:
            raise contradiction("fixedDelay must be at least 1ms", "fixedDelay")
        if self.fixed_delay > _HOUR:
            raise contradiction("fixedDelay must not exceed 1h", "fixedDelay")
        return self


class FaultAbort(Model):
    """Requests that are answered with an error; exactly one of the statuses."""

    http_status: Annotated[int, Strict(), Field(ge=200, le=599)] | None = None
    """The status of the answer."""
    grpc_status: Annotated[int, Strict(), Field(ge=0, le=16)] | None = None
    """The status of the answer to a gRPC call; others get the HTTP status that goes with it."""
    percentage: Percentage = 100
    """The share of the requests that are answered so."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.http_status is None) == (self.grpc_status is None):
            raise contradiction("exactly one of the fields in [httpStatus grpcStatus] must be set")
        return self


class FaultResponseRateLimit(Model):
    """Answers that are sent slowly."""

    kbits_per_second: Annotated[int, Strict(), Field(ge=1, le=(1 << 63) - 1)]
    """How fast they are sent, in units of 1,024 bits a second."""
    percentage: Percentage = 100
    """The share of the requests whose answers are sent so."""


class FaultInjection(Model):
    """Faults that are made on purpose, to see what becomes of them."""

    delay: FaultDelay | None = None
    """Requests that go on later."""
    abort: FaultAbort | None = None
    """Requests that are answered with an error; of delayed ones after the delay."""
    response_rate_limit: FaultResponseRateLimit | None = None
    """Answers that are sent slowly."""
    max_active_faults: Annotated[int, Strict(), Field(ge=0, le=4_294_967_295)] | None = None
    """The most requests with a fault at a time; others have none."""
    disable: PolicyDisable | None = None
    """No faults are made, whatever less specific policies say."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        given = (self.delay, self.abort, self.response_rate_limit, self.disable)
        if all(one is None for one in given):
            raise contradiction(
                "at least one of the fields in [delay abort responseRateLimit disable] must be set"
            )
        return self
