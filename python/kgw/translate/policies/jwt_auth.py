"""Who calls, by signed tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from kgw.api.kgateway.extension.jwt import JWTProvider, RemoteJWKS
    from kgw.attach.effective import Setting
    from kgw.attach.extensions import ExtensionState
    from kgw.translate.policies.context import PolicyContext

#: How long keys are good, as the CRD says. Milliseconds.
_CACHE: Final = 300_000

#: The time for one attempt to fetch keys, as in kgateway. Milliseconds.
_TIMEOUT: Final = 5_000

#: The pause after a failure, as in Envoy. Milliseconds.
_AGAIN: Final = 1_000

#: The first pause between attempts, as in Envoy. Milliseconds.
_BASE: Final = 1_000


def filters(settings: tuple[Setting, ...], context: PolicyContext) -> list[dict[str, Any]]:
    """The filters of issuers, one for each GatewayExtension; none if a policy turns them off."""
    if any(setting.value.disable is not None for setting in settings):
        return []
    found: dict[tuple[str, str], ExtensionState] = {}
    for setting in settings:
        ref = setting.value.extension_ref
        state = context.extension(setting, ref.name, ref.namespace)
        found.setdefault((state.extension.namespace, state.extension.name), state)
    return [_filter(state, context) for state in found.values()]


def _filter(state: ExtensionState, context: PolicyContext) -> dict[str, Any]:
    jwt = state.extension.spec.jwt
    assert jwt is not None  # the policy was checked
    ordered = sorted(jwt.providers, key=lambda one: one.name)
    return {
        "type": "jwt_auth",
        "providers": [_provider(state, one, context) for one in ordered],
        "allow_missing": jwt.validation_mode == "AllowMissing",
    }


def _provider(
    state: ExtensionState, provider: JWTProvider, context: PolicyContext
) -> dict[str, Any]:
    found: dict[str, Any] = {"keys": _keys(state, provider, context)}
    if provider.issuer:
        found["issuer"] = provider.issuer
    if provider.audiences:
        found["audiences"] = list(provider.audiences)
    source = provider.token_source
    if source is not None and source.header is not None:
        place = {"name": source.header.header, "prefix": source.header.prefix or ""}
        found["token"] = {"header": place}
    elif source is not None:
        found["token"] = {"query": source.query_parameter}
    if provider.forward_token:
        found["forward"] = True
    if provider.claims_to_headers:
        found["claims_to_headers"] = [[one.name, one.header] for one in provider.claims_to_headers]
    return found


def _keys(state: ExtensionState, provider: JWTProvider, context: PolicyContext) -> dict[str, Any]:
    local, remote = provider.jwks.local, provider.jwks.remote
    if remote is not None:
        return {"remote": _remote(state, remote, context)}
    assert local is not None  # it is one or the other
    if local.inline is not None:
        return {"local": local.inline}
    assert local.config_map_ref is not None  # likewise
    named = (state.extension.namespace, local.config_map_ref.name)
    return {"local": context.attachment.index.config_maps[named].data["jwks"]}


def _remote(state: ExtensionState, remote: RemoteJWKS, context: PolicyContext) -> dict[str, Any]:
    parts = urlsplit(remote.url)
    path = parts.path or "/"
    found: dict[str, Any] = {
        "cluster": context.cluster(state.backend(remote.backend_ref)),
        "authority": parts.netloc.rpartition("@")[2],
        "path": f"{path}?{parts.query}" if parts.query else path,
        "timeout_ms": _TIMEOUT,
        "cache_ms": _CACHE if remote.cache_duration is None else int(remote.cache_duration),
        "failed_refetch_ms": _AGAIN,
    }
    background = remote.async_fetch
    if background is not None:
        found["in_background"] = True
        if background.failed_refetch_duration is not None:
            found["failed_refetch_ms"] = int(background.failed_refetch_duration)
    retry = remote.retry_policy
    if retry is not None:
        base, most = _BASE, 10 * _BASE
        if retry.back_off is not None:
            base = int(retry.back_off.base_interval)
            longest = retry.back_off.max_interval
            most = 10 * base if longest is None else int(longest)
        found |= {"retries": retry.num_retries, "retry_base_ms": base, "retry_max_ms": most}
    return found
