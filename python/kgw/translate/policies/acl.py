"""Access lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], _context: PolicyContext) -> list[dict[str, Any]]:
    """The filter of access lists, which are one list: of the same network the rule of the strongest
    counts, and of the rules of one list the last. The rest is what the strongest says."""
    first = settings[0].value
    rules = [
        {
            **({} if rule.name is None else {"name": rule.name}),
            "networks": list(rule.cidrs),
            "action": rule.action,
        }
        for setting in reversed(settings)
        for rule in setting.value.rules
    ]
    found: dict[str, Any] = {
        "type": "acl",
        "default_action": first.default_action,
        "rules": rules,
    }
    answers = (setting.value.deny_response for setting in settings)
    answer = next((one for one in answers if one is not None), None)
    if answer is not None:
        found["headers"] = [[field.name, field.value] for field in answer.headers]
        if answer.status_code is not None:
            found["status"] = answer.status_code
        if answer.blocked_by_header_name is not None:
            found["blocked_by_header"] = answer.blocked_by_header_name
    return [found]
