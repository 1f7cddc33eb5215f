"""Services that decide about requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgw.attach import decision_cache
from kgw.translate.filters import AUTHORIZATION_TIMEOUT_MS

if TYPE_CHECKING:
    from kgw.api.kgateway.extension.ext_auth import HttpAuthService
    from kgw.api.kgateway.extension.grpc_service import ServiceRetry
    from kgw.api.kgateway.request_body import BufferSettings
    from kgw.api.kgateway.traffic.ext_auth import ExtAuthPolicy
    from kgw.attach.effective import Setting
    from kgw.attach.extensions import ExtensionState
    from kgw.translate.policies.context import PolicyContext

#: Time for a decision of a service over gRPC, where nothing is said: Envoy's. Milliseconds.
GRPC_TIMEOUT_MS: Final = 200

#: Pauses between attempts, where nothing is said: Envoy's. Milliseconds.
_BASE_INTERVAL_MS: Final = 25


def filters(settings: tuple[Setting, ...], context: PolicyContext) -> list[dict[str, Any]]:
    """The filters that ask services, one for each; none if a policy turns them off.

    They are asked in the order of the weights of their GatewayExtensions, and of the same weight by
    name. Where several policies have one service the strongest says what it is told.
    """
    if any(setting.value.is_disabled for setting in settings):
        return []
    found: dict[tuple[str, str], tuple[ExtensionState, ExtAuthPolicy]] = {}
    for setting in settings:
        ref = setting.value.extension_ref
        state = context.extension(setting, ref.name, ref.namespace)
        key = (state.extension.namespace, state.extension.name)
        found.setdefault(key, (state, setting.value))
    ordered = sorted(found.items(), key=lambda one: (-one[1][0].weight, one[0]))
    return [_filter(state, policy, context) for _, (state, policy) in ordered]


def _filter(state: ExtensionState, policy: ExtAuthPolicy, context: PolicyContext) -> dict[str, Any]:
    provider = state.extension.spec.ext_auth
    assert provider is not None  # the policy was checked
    found: dict[str, Any] = {"type": "ext_authz"}
    if provider.grpc_service is not None:
        grpc = provider.grpc_service
        backend = state.backend(grpc.backend_ref)
        found["cluster"] = context.cluster(backend, http2=True)
        found["service"] = {
            "type": "grpc",
            "authority": grpc.authority or context.authority(backend),
            "context_extensions": dict(sorted(policy.context_extensions.items())),
        }
        found["timeout_ms"] = int(grpc.request_timeout or GRPC_TIMEOUT_MS)
        retry = grpc.retry
        if provider.headers_to_forward:
            found["request_headers"] = list(provider.headers_to_forward)
    else:
        http = provider.http_service
        assert http is not None
        backend = state.backend(http.backend_ref)
        found["cluster"] = context.cluster(backend)
        found["service"] = _http(http)
        found["timeout_ms"] = int(http.request_timeout or AUTHORIZATION_TIMEOUT_MS)
        retry = http.retry
        found["request_headers"] = list(provider.headers_to_forward)
    if retry is not None and retry.attempts:
        found["retry"] = _retry(retry)
    body = policy.with_request_body or provider.with_request_body
    if body is not None:
        found["body"] = _body(body)
    if provider.fail_open:
        found["failure_mode_allow"] = True
    if provider.clear_route_cache:
        found["clear_route_cache"] = True
    if provider.stat_prefix is not None:
        found["stat_prefix"] = provider.stat_prefix
    text = state.extension.metadata.annotations.get(decision_cache.ANNOTATION)
    if text is not None:
        found["cache"] = decision_cache.parse(text).ir()
    return found


def _http(http: HttpAuthService) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "http", "path_prefix": http.path_prefix}
    request, answer = http.authorization_request, http.authorization_response
    if request is not None:
        found["headers_to_add"] = [[name, value] for name, value in request.headers_to_add.items()]
    if answer is not None:
        found["upstream_headers"] = list(answer.headers_to_backend)
        # Without a list Envoy passes all on.
        found["client_headers"] = list(answer.headers_to_client) or None
        found["client_headers_on_success"] = list(answer.headers_to_client_on_success)
    return found


def _retry(retry: ServiceRetry) -> dict[str, Any]:
    base, most = _BASE_INTERVAL_MS, None
    if retry.backoff is not None:
        base, most = int(retry.backoff.base_interval), retry.backoff.max_interval
    return {
        "attempts": retry.attempts,
        "base_interval_ms": base,
        "max_interval_ms": 10 * base if most is None else int(most),
    }


def _body(body: BufferSettings) -> dict[str, Any]:
    return {
        "max_bytes": body.max_request_bytes,
        "allow_partial": body.allow_partial_message,
        "as_bytes": body.pack_as_bytes,
    }
