"""Who may do what, by conditions on requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], _context: PolicyContext) -> list[dict[str, Any]]:
    """The filter of the conditions; the most specific policy's alone count, as in kgateway."""
    (setting,) = settings
    return [
        {
            "type": "rbac",
            "action": setting.value.action.lower(),
            "conditions": list(setting.value.policy.match_expressions),
        }
    ]
