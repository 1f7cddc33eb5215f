"""API keys: Secrets with keys, each of one client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.attach import api_keys
from kgw.attach.checks import header_names

if TYPE_CHECKING:
    from kgw.api.kgateway.traffic.api_key_auth import APIKeyAuth
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath


def check(checking: Checking, auth: APIKeyAuth, path: FieldPath) -> None:
    """Refuses keys that are missing or of several clients."""
    if auth.disable is not None:
        return
    for number, source in enumerate(auth.key_sources):
        if source.header is not None:
            where = (*path, "keySources", number, "header")
            header_names.check(checking, source.header, where)
    if auth.client_id_header is not None:
        header_names.check(checking, auth.client_id_header, (*path, "clientIdHeader"))
    if auth.secret_ref is not None:
        ref, path = auth.secret_ref, (*path, "secretRef")
        if (ref.group, ref.kind) != ("", "Secret"):
            checking.fail(
                "KGW309", f"a {ref.kind} cannot hold API keys", (*path, "kind"), legal="Secret"
            )
            return
        if checking.secret(ref.name, path, ref.namespace) is None:
            return
    else:
        path = (*path, "secretSelector")
    found = api_keys.secrets(checking.index, checking.policy, auth)
    for secret in found:
        checking.read(secret)
    if not found:
        checking.fail("KGW441", "no Secret has the labels of the selector", path)
        return
    keys = api_keys.read(found)
    for problem in keys.problems:
        checking.fail("KGW441", problem, path)
    for client in sorted(set(keys.clients.values())):
        if not client.isascii() or not client.isprintable():
            checking.fail("KGW441", f"client {client!r} cannot be told in a header field", path)
    if not keys.clients:
        checking.fail("KGW441", "there are no API keys in the Secrets", path)
