"""Issuers of tokens whose keys can verify them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgw._native.jwt import check_keys

if TYPE_CHECKING:
    from kgw.api.kgateway.extension.jwt import JWTProvider
    from kgw.api.kgateway.traffic.jwt_auth import JWTAuthentication
    from kgw.attach.checking import Checking
    from kgw.attach.extensions import ExtensionState
    from kgw.source.memory import FieldPath

#: The name of a header field.
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")


def check(checking: Checking, value: JWTAuthentication, path: FieldPath) -> None:
    """Refuses references to what does not say who issues tokens, and keys that verify nothing."""
    ref = value.extension_ref
    if ref is None:
        return
    path = (*path, "extensionRef")
    state = checking.extension(ref.name, "jwt", path, ref.namespace)
    if state is None:
        return
    jwt = state.extension.spec.jwt
    assert jwt is not None  # it is of this kind
    if not jwt.providers:
        checking.fail("KGW430", f"{state.extension.key} has no providers", (*path, "name"))
    for provider in jwt.providers:
        _provider(checking, state, provider, (*path, "name"))


def _provider(
    checking: Checking, state: ExtensionState, provider: JWTProvider, path: FieldPath
) -> None:
    at = f"{state.extension.key}: provider {provider.name}"
    for one in provider.claims_to_headers or ():
        if not _NAME.fullmatch(one.header):
            checking.fail("KGW430", f"{at}: {one.header!r} is no name of a header field", path)
    source = provider.token_source
    if source is not None and source.header is not None:
        name = source.header.header
        if not _NAME.fullmatch(name):
            checking.fail("KGW430", f"{at}: {name!r} is no name of a header field", path)
    local = provider.jwks.local
    if local is None:
        return
    keys = local.inline
    if local.config_map_ref is not None:
        named = (state.extension.namespace, local.config_map_ref.name)
        found = checking.index.config_maps.get(named)
        if found is None:
            checking.fail("KGW307", f"{at}: ConfigMap {'/'.join(named)} not found", path)
            return
        checking.read(found)
        keys = found.data.get("jwks")
        if not keys:
            message = f"{at}: ConfigMap {'/'.join(named)} has no key jwks"
            checking.fail("KGW431", message, path)
            return
    problem = check_keys(keys or "")
    if problem is not None:
        checking.fail("KGW451", f"{at}: its keys verify nothing: {problem}", path)
