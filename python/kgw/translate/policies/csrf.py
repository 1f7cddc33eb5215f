"""Requests that pages of other origins make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], _context: PolicyContext) -> list[dict[str, Any]]:
    """The filter that judges origins; none if that is for no request."""
    (setting,) = settings
    csrf = setting.value
    enabled, shadowed = csrf.percentage_enabled or 0, csrf.percentage_shadowed or 0
    if not enabled and not shadowed:
        return []
    origins = []
    for origin in csrf.additional_origins:
        kind, value = origin.way
        one = {"type": kind, "value": value}
        origins.append(one | ({"ignore_case": True} if origin.ignore_case else {}))
    return [
        {
            "type": "csrf",
            "percent_enabled": enabled,
            "percent_shadowed": shadowed,
            "additional_origins": origins,
        }
    ]
