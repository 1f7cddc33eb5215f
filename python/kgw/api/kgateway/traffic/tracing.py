"""Tracing of the requests of routes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.kgateway.tracing import CustomAttribute, Percent, unique
from kgw.api.kgateway.traffic.disable import PolicyDisable


class TracingPolicy(Model):
    """What is traced of a route, in place of what its listener says."""

    attributes: Annotated[tuple[CustomAttribute, ...], Field(max_length=16)] = ()
    """What spans say beside what the listener has them say; of the same name, this."""
    client_sampling: Percent | None = None
    """The share of the requests with an ``x-client-trace-id`` that are traced for it; all."""
    disable: PolicyDisable | None = None
    """Nothing is traced."""
    overall_sampling: Percent | None = None
    """The share of the requests to be traced that are after all; all."""
    random_sampling: Percent | None = None
    """The share of the other requests that are traced; all."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        unique(self.attributes)
        others = (self.client_sampling, self.overall_sampling, self.random_sampling)
        if self.disable is not None and (self.attributes or any(one is not None for one in others)):
            message = "disable is mutually exclusive with other tracing fields"
            raise contradiction(message, "disable")
        return self
