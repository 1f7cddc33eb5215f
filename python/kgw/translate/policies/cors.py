"""Which pages of other origins may use a route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], _context: PolicyContext) -> list[dict[str, Any]]:
    """The filter that says who may use a route; none if a policy turns it off."""
    (setting,) = settings
    cors = setting.value
    if cors.disable is not None:
        return []
    return [
        {
            "type": "cors",
            # Here `*` is every origin that is a URL, which `null` is not.
            "allow_origins": ["*://*" if one == "*" else one for one in cors.allow_origins],
            "allow_credentials": cors.allow_credentials,
            "allow_methods": list(cors.allow_methods),
            "allow_headers": list(cors.allow_headers),
            "expose_headers": list(cors.expose_headers),
            "max_age_s": cors.max_age,
        }
    ]
