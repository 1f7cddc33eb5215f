"""API keys."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from kgw.api.kgateway.traffic.api_key_auth import HEADER
from kgw.attach import api_keys

if TYPE_CHECKING:
    from kgw.api.kgateway.traffic.api_key_auth import APIKeyAuth
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], context: PolicyContext) -> list[dict[str, Any]]:
    """The filter that wants a key; none if a policy turns it off. Keys are not in it."""
    (setting,) = settings
    auth: APIKeyAuth = setting.value
    if auth.disable is not None:
        return []
    found = api_keys.secrets(context.attachment.index, setting.policy, auth)
    keys = [
        {"client": client, "sha256": hashlib.sha256(key).hexdigest()}
        for key, client in api_keys.read(found).clients.items()
    ]
    # What is first in the configuration tells nothing about the key.
    keys.sort(key=lambda one: (one["client"], one["sha256"]))
    one: dict[str, Any] = {"type": "api_key_auth", "keys": keys, "sources": _sources(auth)}
    if auth.client_id_header is not None:
        one["client_header"] = auth.client_id_header
    if auth.forward_credential:
        one["forward"] = True
    return [one]


def _sources(auth: APIKeyAuth) -> list[dict[str, str]]:
    """Where a key may be: of one source the header field before the query before the cookie."""
    return [
        {place: name}
        for source in auth.key_sources
        for place, name in (
            ("header", source.header),
            ("query", source.query),
            ("cookie", source.cookie),
        )
        if name is not None
    ] or [{"header": HEADER}]
