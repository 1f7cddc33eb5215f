"""Users and passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.attach import htpasswd

if TYPE_CHECKING:
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], context: PolicyContext) -> list[dict[str, Any]]:
    """The filter that wants a password; none if a policy turns it off."""
    (setting,) = settings
    auth = setting.value
    if auth.disable is not None:
        return []
    ref = auth.secret_ref
    if ref is None:
        entries = list(auth.users)
    else:
        named = (ref.namespace or setting.policy.namespace, ref.name)
        # Both are there: the policy was checked.
        data = context.attachment.index.secrets[named].read(ref.key) or b""
        entries = data.decode(errors="replace").split("\n")
    users = htpasswd.parse(entries).hashes.items()
    return [
        {"type": "basic_auth", "users": [{"name": name, "hash": hashed} for name, hashed in users]}
    ]
