"""Access logs that are services, in the IR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgw.attach import access_logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgw.api.kgateway.access_log import (
        AccessLog,
        AccessLogGrpcService,
        AnyValue,
        CommonGrpcService,
        KeyAnyValueList,
        LogGrpcService,
        LogRetry,
        OpenTelemetryLog,
    )
    from kgw.attach.gateways import GatewayState
    from kgw.attach.policy import PolicyState
    from kgw.translate.tables import Tables


def build(
    tables: Tables, gateway: GatewayState, policy: PolicyState, logs: Iterable[AccessLog]
) -> list[dict[str, Any]]:
    """The services of a valid policy's access logs, as a Gateway reaches them."""
    return [
        one
        for log in logs
        for service, protocol in _protocols(gateway, log)
        if (one := _service(tables, gateway, policy, log, service, protocol)) is not None
    ]


def _protocols(
    gateway: GatewayState, log: AccessLog
) -> Iterator[tuple[LogGrpcService, dict[str, Any]]]:
    if log.grpc_service is not None:
        yield log.grpc_service, _envoy(log.grpc_service)
    if log.open_telemetry is not None:
        yield log.open_telemetry.grpc_service, _telemetry(gateway, log.open_telemetry)


def _service(
    tables: Tables,
    gateway: GatewayState,
    policy: PolicyState,
    log: AccessLog,
    service: LogGrpcService,
    protocol: dict[str, Any],
) -> dict[str, Any] | None:
    found = call(tables, gateway, policy, service, protocol)
    if found is None:
        return None
    namespace, name = gateway.named
    found |= {"log_name": service.log_name, "node_cluster": f"{name}.{namespace}"}
    if log.filter is not None:
        found["filter"] = access_logs.filter_ir(log.filter)
    return found


def call(
    tables: Tables,
    gateway: GatewayState,
    policy: PolicyState,
    service: CommonGrpcService,
    protocol: dict[str, Any],
) -> dict[str, Any] | None:
    """How a service is told something by a protocol; none if it cannot be reached."""
    backend = policy.log_backends[id(service.backend_ref)]
    cluster = tables.backend(gateway, backend, mesh=False, variant="http2")
    if cluster is None:
        return None
    found: dict[str, Any] = {
        "cluster": cluster,
        "authority": service.authority or tables.authority(backend),
        "protocol": protocol,
    }
    if service.initial_metadata:
        found["metadata"] = [[one.key, one.value] for one in service.initial_metadata]
    if service.timeout:
        found["timeout_ms"] = service.timeout
    if service.retry_policy is not None:
        found["retry"] = _retry(service.retry_policy)
    if service.max_receive_message_length is not None:
        found["max_answer_bytes"] = service.max_receive_message_length
    if service.skip_envoy_headers:
        found["skip_envoy_headers"] = True
    return found


def _retry(given: LogRetry) -> dict[str, Any]:
    found: dict[str, Any] = {"attempts": given.num_retries}
    pause = given.retry_back_off
    if pause is not None:
        base = max(pause.base_interval, 1)
        longest = 10 * base if pause.max_interval is None else pause.max_interval
        found |= {"base_interval_ms": base, "max_interval_ms": longest}
    return found


def _envoy(service: AccessLogGrpcService) -> dict[str, Any]:
    return {
        "type": "envoy",
        "request_headers": list(service.additional_request_headers_to_log),
        "response_headers": list(service.additional_response_headers_to_log),
        "response_trailers": list(service.additional_response_trailers_to_log),
    }


def _telemetry(gateway: GatewayState, log: OpenTelemetryLog) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "open_telemetry",
        "builtin_labels": not log.disable_builtin_labels,
        "resource_attributes": _resource(gateway, log.resource_attributes),
    }
    if log.body is not None:
        found["body"] = {"string": log.body}
    if log.attributes is not None:
        found["attributes"] = _pairs(log.attributes)
    return found


def _resource(gateway: GatewayState, given: KeyAnyValueList | None) -> list[list[Any]]:
    """What is given, and what kgateway adds where it is not."""
    namespace, name = gateway.named
    usual = {
        "service.name": f"{name}.{namespace}",
        "service.namespace": namespace,
        "k8s.namespace.name": namespace,
        "k8s.container.name": _CONTAINER,
    }
    found = [] if given is None else _pairs(given)
    known = {key for key, _ in found}
    return [
        *found,
        *([key, {"string": value}] for key, value in usual.items() if key not in known),
    ]


def _pairs(given: KeyAnyValueList) -> list[list[Any]]:
    return [[one.key, _value(one.value)] for one in given.values]


def _value(value: AnyValue) -> dict[str, Any]:
    if value.string_value is not None:
        return {"string": value.string_value}
    if value.array_value is not None:
        return {"array": [_value(one) for one in value.array_value]}
    assert value.kv_list_value is not None  # the model has one of the three
    return {"key_values": _pairs(value.kv_list_value)}


_CONTAINER: Final = "kgw"
