"""Services that process requests and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kgw.api.kgateway.extension.ext_proc import ExtProcProvider
    from kgw.api.kgateway.extension.grpc_service import ServiceRetry
    from kgw.api.kgateway.processing_mode import ProcessingMode
    from kgw.api.kgateway.traffic.ext_proc import ExtProcPolicy
    from kgw.attach.effective import Setting
    from kgw.attach.extensions import ExtensionState
    from kgw.translate.policies.context import PolicyContext

_ROUTE_CACHE_ACTIONS: Final = {
    "FromResponse": "from_response",
    "Clear": "clear",
    "Retain": "retain",
}


def filters(settings: tuple[Setting, ...], context: PolicyContext) -> list[dict[str, Any]]:
    """The filters of services, one for each; none if a policy turns them off.

    They run in the order of the weights of their GatewayExtensions, and of the same weight by name.
    Where several policies have one service the strongest says what it is sent.
    """
    if any(setting.value.disable is not None for setting in settings):
        return []
    found: dict[tuple[str, str], tuple[ExtensionState, ExtProcPolicy]] = {}
    for setting in settings:
        ref = setting.value.extension_ref
        state = context.extension(setting, ref.name, ref.namespace)
        key = (state.extension.namespace, state.extension.name)
        found.setdefault(key, (state, setting.value))
    ordered = sorted(found.items(), key=lambda one: (-one[1][0].weight, one[0]))
    return [_filter(state, policy, context) for _, (state, policy) in ordered]


def _filter(state: ExtensionState, policy: ExtProcPolicy, context: PolicyContext) -> dict[str, Any]:
    provider = state.extension.spec.ext_proc
    assert provider is not None  # the policy was checked
    service = provider.grpc_service
    backend = state.backend(service.backend_ref)
    found: dict[str, Any] = {
        "type": "ext_proc",
        "name": f"{state.extension.namespace}/{state.extension.name}",
        "cluster": context.cluster(backend, http2=True),
        "authority": service.authority or context.authority(backend),
        "failure_mode_allow": provider.fail_open,
        "mode": _mode(policy.processing_mode or provider.processing_mode),
    }
    if provider.message_timeout is not None:
        found["message_timeout_ms"] = int(provider.message_timeout)
    if provider.max_message_timeout is not None:
        found["max_message_timeout_ms"] = int(provider.max_message_timeout)
    if service.request_timeout is not None:
        found["open_timeout_ms"] = int(service.request_timeout)
    return found | _retries(service.retry) | _options(provider)


def _options(provider: ExtProcProvider) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if provider.allow_processing_mode_override:
        modes = provider.allowed_processing_mode_overrides
        found["allow_mode_override"] = True
        found["allowed_mode_overrides"] = [_mode(mode) for mode in modes]
    if provider.route_cache_action != "FromResponse":
        found["route_cache_action"] = _ROUTE_CACHE_ACTIONS[provider.route_cache_action]
    options = provider.metadata_options
    if options is not None and options.forwarding is not None and options.forwarding.untyped:
        found["forward_metadata"] = list(options.forwarding.untyped)
    if provider.request_attributes:
        found["request_attributes"] = list(provider.request_attributes)
    stage = provider.filter_stage
    if stage is not None:
        found["stage"] = (stage.stage, stage.predicate, stage.weight)
        if (stage.stage, stage.predicate) == ("Route", "After"):
            found["after_router"] = True
    return found


def _mode(mode: ProcessingMode | None) -> dict[str, str]:
    """A mode; what is as if nothing were said is left out."""
    if mode is None:
        return {}
    said = {
        "request_header": mode.request_header_mode,
        "response_header": mode.response_header_mode,
        "request_body": mode.request_body_mode,
        "response_body": mode.response_body_mode,
        "request_trailer": mode.request_trailer_mode,
        "response_trailer": mode.response_trailer_mode,
    }
    return {name: value.lower() for name, value in said.items() if value not in ("DEFAULT", "NONE")}


def _retries(retry: ServiceRetry | None) -> dict[str, Any]:
    if retry is None or not retry.attempts:
        return {}
    found: dict[str, Any] = {"retries": retry.attempts}
    if retry.backoff is not None:
        found["retry_interval_ms"] = int(retry.backoff.base_interval)
        if retry.backoff.max_interval is not None:
            found["retry_max_interval_ms"] = int(retry.backoff.max_interval)
    return found
