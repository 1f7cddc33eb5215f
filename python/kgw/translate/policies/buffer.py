"""Requests that are passed on as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], _context: PolicyContext) -> list[dict[str, Any]]:
    """The filter that collects bodies; none if a policy turns it off."""
    (setting,) = settings
    size = setting.value.max_request_size
    return [] if size is None else [{"type": "buffer", "max_request_bytes": int(size)}]
