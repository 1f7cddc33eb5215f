"""Tracing, in the IR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.translate import log_services

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api.kgateway.early import UuidRequestIdConfig
    from kgw.api.kgateway.tracing import CustomAttribute, Tracing
    from kgw.api.kgateway.traffic.tracing import TracingPolicy
    from kgw.attach.gateways import GatewayState
    from kgw.attach.policy import PolicyState
    from kgw.translate.tables import Tables


def build(
    tables: Tables, gateway: GatewayState, policy: PolicyState, given: Tracing
) -> dict[str, Any] | None:
    """The tracing that a valid policy asks for; none if its collector cannot be reached."""
    provider = given.provider.open_telemetry
    namespace, name = gateway.named
    service_name = provider.service_name or f"{name}.{namespace}"
    protocol = {
        "type": "traces",
        "resource_attributes": [["service.name", {"string": service_name}]],
        "environment": any(
            one.environment_resource_detector.enable for one in provider.resource_detectors
        ),
    }
    service = log_services.call(tables, gateway, policy, provider.grpc_service, protocol)
    if service is None:
        return None
    found: dict[str, Any] = {
        "service": service,
        "sampling": sampling(given),
        "always_on": provider.sampler is not None,
        "verbose": given.verbose,
        "upstream_spans": given.spawn_upstream_span,
        "attributes": attributes(given.attributes),
    }
    if given.max_path_tag_length is not None:
        found["max_path_bytes"] = given.max_path_tag_length
    return found


def sampling(given: Tracing | TracingPolicy) -> dict[str, int]:
    """The shares of requests that are traced."""
    shares = {
        "client": given.client_sampling,
        "random": given.random_sampling,
        "overall": given.overall_sampling,
    }
    return {name: share for name, share in shares.items() if share is not None}


def attributes(given: Iterable[CustomAttribute]) -> list[dict[str, Any]]:
    """What spans say."""
    return [{"name": one.name, "value": _value(one)} for one in given]


def request_id(given: UuidRequestIdConfig) -> dict[str, bool]:
    """What ``x-request-id`` has to do with traces."""
    choices = {
        "packs_trace_reason": given.pack_trace_reason,
        "samples_traces": given.use_request_id_for_trace_sampling,
    }
    return {name: choice for name, choice in choices.items() if choice is not None}


def _value(given: CustomAttribute) -> dict[str, Any]:
    if given.literal is not None:
        return {"type": "literal", "value": given.literal.value}
    if given.environment is not None:
        return {
            "type": "environment",
            "name": given.environment.name,
            "default": given.environment.default_value or "",
        }
    if given.request_header is not None:
        return {
            "type": "request_header",
            "name": given.request_header.name,
            "default": given.request_header.default_value or "",
        }
    metadata = given.metadata
    assert metadata is not None  # the model has one of the four
    default = metadata.default_value or ""
    if metadata.kind != "Request":
        # Nothing is noted about these, so the default stands for it.
        return {"type": "literal", "value": default}
    key = metadata.metadata_key
    return {
        "type": "metadata",
        "namespace": key.key,
        "path": [one.key for one in key.path],
        "default": default,
    }
