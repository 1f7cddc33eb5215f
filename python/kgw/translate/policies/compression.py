"""Bodies that are compressed on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def responses(settings: tuple[Setting, ...], _context: PolicyContext) -> list[dict[str, Any]]:
    """The filter that compresses answers; none if a policy turns it off."""
    return _filter("compression", settings)


def requests(settings: tuple[Setting, ...], _context: PolicyContext) -> list[dict[str, Any]]:
    """The filter that decompresses requests; none if a policy turns it off."""
    return _filter("decompression", settings)


def _filter(kind: str, settings: tuple[Setting, ...]) -> list[dict[str, Any]]:
    (setting,) = settings
    if setting.value.disable is not None:
        return []
    return [{"type": kind, "codings": [one.lower() for one in setting.value.libraries]}]
