"""Turning off what another policy turns on."""

from __future__ import annotations

from kgw.api.base import Model


class PolicyDisable(Model):
    """Turns off what a less specific policy turns on; it has no fields."""
