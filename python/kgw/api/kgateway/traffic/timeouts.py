"""Time-outs of requests."""

from __future__ import annotations

from kgw.api.base import Model
from kgw.api.duration import Duration


class Timeouts(Model):
    """Time-outs of requests."""

    request: Duration | None = None
    """The time for a whole request, where its rule gives none; ``0s`` is no bound."""
    stream_idle: Duration | None = None
    """The time that a request may pass without a byte in either direction, in place of the
    listener's; ``0s`` is no bound."""
