"""Access logs of listener policies: what cannot be used of them, and where their services are.

Where collectors of spans are, too: these are services as those of logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgw.attach import backends, native
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api import HTTPListenerPolicy, ListenerPolicy
    from kgw.api.kgateway.access_log import (
        AccessLog,
        AnyValue,
        CommonGrpcService,
        KeyAnyValueList,
        LogGrpcService,
    )
    from kgw.api.kgateway.access_log_filter import AccessLogFilter, ComparisonFilter
    from kgw.attach.index import Index
    from kgw.attach.policy import PolicyState
    from kgw.source.memory import FieldPath


def check(index: Index, state: PolicyState, policy: HTTPListenerPolicy | ListenerPolicy) -> None:
    """Notes what cannot be used of a policy's access logs and tracing, wherever these stand."""
    for settings, path in policy.every_settings():
        for number, log in enumerate(settings.access_log or ()):
            where = (*path, "accessLog", number)
            for problem in _formats(log, where):
                _fail(index, state, *problem)
            if log.filter is not None:
                check_filter(index, state, log.filter, (*where, "filter"))
            for service, place in _services(log, where):
                _resolve(index, state, policy, service, (*place, "backendRef"))
        if settings.tracing is not None:
            collector = settings.tracing.provider.open_telemetry.grpc_service
            place = (*path, "tracing", "provider", "openTelemetry", "grpcService", "backendRef")
            _resolve(index, state, policy, collector, place)


def check_filter(index: Index, state: PolicyState, given: AccessLogFilter, path: FieldPath) -> None:
    """Notes what cannot be used of a filter."""
    for one, where in _leaves(given, path):
        problem = native.filter_error(filter_ir(one))
        if problem is not None:
            name = _name(one)
            message = f"{name} cannot be used: {problem}"
            _fail(index, state, message, (*where, name))
        runtime = one.runtime_filter
        if runtime is not None and runtime.percent_sampled is None:
            index.report(
                state.policy,
                "KGW413",
                Severity.WARNING,
                "the filter passes nothing: without `percentSampled` it is for a runtime key to "
                "say how much, and kgw has no runtime",
                (*where, "runtimeFilter"),
            )


def filter_ir(given: AccessLogFilter) -> dict[str, Any]:
    """A filter in the IR."""
    for name, make in _FILTERS.items():
        value = getattr(given, name)
        if value is not None:
            made: dict[str, Any] = make(value)
            return made
    raise AssertionError("a filter has one condition")


def _comparison(kind: str) -> Any:
    def make(given: ComparisonFilter) -> dict[str, Any]:
        return {"type": kind, "op": given.op.lower(), "value": given.value}

    return make


def _header(given: Any) -> dict[str, Any]:
    match = given.header
    kind = "exact" if match.type == "Exact" else "regex"
    return {"type": "header", "name": match.name, "value": {kind: match.value}}


def _grpc_status(given: Any) -> dict[str, Any]:
    statuses = sorted({_STATUSES.index(one) for one in given.statuses})
    return {"type": "grpc_status", "statuses": statuses, "exclude": given.exclude}


def _runtime(given: Any) -> dict[str, Any]:
    share = given.percent_sampled
    return {
        "type": "runtime",
        "key": given.runtime_key,
        "numerator": 0 if share is None else share.numerator,
        "denominator": 100 if share is None else _DENOMINATORS[share.denominator],
        "independent": given.use_independent_randomness,
    }


def _both(kind: str) -> Any:
    def make(given: tuple[AccessLogFilter, ...]) -> dict[str, Any]:
        return {"type": kind, "filters": [filter_ir(one) for one in given]}

    return make


def _whether(kind: str) -> Any:
    def make(given: bool) -> dict[str, Any]:
        # As in Go, `false` says nothing: everything passes.
        return {"type": kind} if given else {"type": "and", "filters": []}

    return make


#: By gRPC's numbers.
_STATUSES: Final = (
    "OK",
    "CANCELED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)

_DENOMINATORS: Final = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}

_FILTERS: Final = {
    "status_code_filter": _comparison("status_code"),
    "duration_filter": _comparison("duration"),
    "not_health_check_filter": _whether("not_health_check"),
    "traceable_filter": _whether("traceable"),
    "header_filter": _header,
    "response_flag_filter": lambda given: {"type": "response_flag", "flags": list(given.flags)},
    "grpc_status_filter": _grpc_status,
    "cel_filter": lambda given: {"type": "cel", "expression": given.match},
    "runtime_filter": _runtime,
    "and_filter": _both("and"),
    "or_filter": _both("or"),
}


def _name(given: AccessLogFilter) -> str:
    """The condition of a filter, as manifests name it."""
    fields = type(given).model_fields
    name = next(name for name in fields if getattr(given, name) is not None)
    return fields[name].alias or name


def _leaves(given: AccessLogFilter, path: FieldPath) -> Iterator[tuple[AccessLogFilter, FieldPath]]:
    """The conditions that a filter is made of, with their places."""
    for name, inner in (("andFilter", given.and_filter), ("orFilter", given.or_filter)):
        if inner is not None:
            for number, one in enumerate(inner):
                yield from _leaves(one, (*path, name, number))
            return
    yield given, path


def _services(log: AccessLog, path: FieldPath) -> Iterator[tuple[LogGrpcService, FieldPath]]:
    if log.grpc_service is not None:
        yield log.grpc_service, (*path, "grpcService")
    if log.open_telemetry is not None:
        yield log.open_telemetry.grpc_service, (*path, "openTelemetry", "grpcService")


def _resolve(
    index: Index,
    state: PolicyState,
    policy: HTTPListenerPolicy | ListenerPolicy,
    service: CommonGrpcService,
    path: FieldPath,
) -> None:
    found = backends.resolve(index, policy, service.backend_ref, path)
    state.log_backends[id(service.backend_ref)] = found
    if found.denial is not None:
        backends.report_denial(index, policy, found, (*path, "namespace"))
    failure = found.failure(mesh=False)
    if failure is not None and failure.message not in state.errors:
        state.errors.append(failure.message)


def _formats(log: AccessLog, path: FieldPath) -> Iterator[tuple[str, FieldPath]]:
    """What is wrong with formats, and where."""
    if log.file_sink is not None:
        problem = native.log_error(log.file_sink)
        if problem is not None:
            where, why = problem
            yield _FORMAT.format(why), (*path, "fileSink", *where)
    telemetry = log.open_telemetry
    if telemetry is None:
        return
    inside = (*path, "openTelemetry")
    if telemetry.body is not None:
        why_not = native.text_error(telemetry.body)
        if why_not is not None:
            yield _FORMAT.format(why_not), (*inside, "body")
    if telemetry.attributes is not None:
        for text, where in _texts(telemetry.attributes, (*inside, "attributes")):
            why_not = native.text_error(text)
            if why_not is not None:
                yield _FORMAT.format(why_not), where


def _texts(given: KeyAnyValueList, path: FieldPath) -> Iterator[tuple[str, FieldPath]]:
    for number, pair in enumerate(given.values):
        yield from _texts_of(pair.value, (*path, "values", number, "value"))


def _texts_of(value: AnyValue, path: FieldPath) -> Iterator[tuple[str, FieldPath]]:
    if value.string_value is not None:
        yield value.string_value, (*path, "stringValue")
    for number, item in enumerate(value.array_value or ()):
        yield from _texts_of(item, (*path, "arrayValue", number))
    if value.kv_list_value is not None:
        yield from _texts(value.kv_list_value, (*path, "kvListValue"))


def _fail(index: Index, state: PolicyState, message: str, path: FieldPath) -> None:
    index.report(state.policy, "KGW408", Severity.ERROR, message, path)
    if message not in state.errors:
        state.errors.append(message)


_FORMAT: Final = "access log format cannot be used: {}"
