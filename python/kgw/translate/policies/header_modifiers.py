"""Changes of header fields by policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.attach.checks.header_modifiers import values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api.kgateway.traffic.header_modifiers import PolicyHeader, PolicyHeaderModifier
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], context: PolicyContext) -> list[dict[str, Any]]:
    """The changes of requests and of answers."""
    (setting,) = settings
    both = (
        ("request_headers", setting.value.request),
        ("response_headers", setting.value.response),
    )
    return [
        {"type": kind, **_mutation(modifier, setting, context)}
        for kind, modifier in both
        if modifier is not None
    ]


def _mutation(
    modifier: PolicyHeaderModifier, setting: Setting, context: PolicyContext
) -> dict[str, Any]:
    def made(headers: Iterable[PolicyHeader]) -> list[list[str]]:
        found = []
        for header in headers:
            ref = header.secret_ref
            secret = None if ref is None else context.secret(setting, ref.name, ref.namespace)
            found += [
                [name, value.decode("latin-1")]
                for name, value in values(header, secret)
                if value is not None
            ]
        return found

    return {
        "set": made(modifier.set),
        "add": made(modifier.add),
        "remove": list(modifier.remove),
    }
