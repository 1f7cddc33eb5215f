"""Requests that are passed on as a whole."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from kgw.api.base import Model, contradiction
from kgw.api.kgateway.traffic.disable import PolicyDisable
from kgw.api.quantity import Quantity


class Buffer(Model):
    """No request is passed on before all of its body is there; exactly one of the fields."""

    max_request_size: Quantity | None = None
    """The longest body, in bytes, as in ``64Ki``; a longer one is answered with 413."""
    disable: PolicyDisable | None = None
    """Requests are passed on as they come, whatever less specific policies say."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.max_request_size is None) == (self.disable is None):
            raise contradiction("exactly one of the fields in [maxRequestSize disable] must be set")
        if self.max_request_size is not None and not 0 < self.max_request_size < 1 << 32:
            message = "maxRequestSize must be greater than 0 and less than 4Gi"
            raise contradiction(message, "maxRequestSize")
        return self
