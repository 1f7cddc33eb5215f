"""Tracing of the requests of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.translate import tracing

if TYPE_CHECKING:
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], _context: PolicyContext) -> list[dict[str, Any]]:
    """What takes the place of the listener's tracing."""
    (setting,) = settings
    given = setting.value
    if given.disable is not None:
        return [{"type": "tracing", "disabled": True}]
    found = {
        "sampling": tracing.sampling(given),
        "attributes": tracing.attributes(given.attributes),
    }
    return [{"type": "tracing", **found}]
