"""Which requests an access log is about, and which local replies are changed."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Bool, Model, contradiction
from kgw.api.gateway.http_route import HeaderMatch

#: Numbers of 32 bits, without sign.
Count = Annotated[int, Strict(), Field(ge=0, le=4_294_967_295)]

GrpcStatus = Literal[
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
]


class ComparisonFilter(Model):
    """A number and how another one is compared with it."""

    op: Literal["EQ", "GE", "LE"]
    """Whether it has to be equal, at least as large, or at most as large."""
    value: Count
    """The number."""


class HeaderFilter(Model):
    """A header field of the request."""

    header: HeaderMatch
    """The field and its value, or any of its values."""


class ResponseFlagFilter(Model):
    """How a request ended."""

    flags: Annotated[tuple[str, ...], Field(min_length=1)]
    """Response flags in their short form, such as ``UH``; any of them."""


class GrpcStatusFilter(Model):
    """The status of a gRPC call."""

    statuses: Annotated[tuple[GrpcStatus, ...], Field(min_length=1)]
    """The statuses, any of them."""
    exclude: Bool = False
    """Whether it is all but these."""


class CelFilter(Model):
    """A condition in CEL."""

    match: str
    """The expression, of Envoy's attributes, such as ``response.code >= 500``."""


class FractionalPercent(Model):
    """A share."""

    numerator: Count
    """So many of the denominator."""
    denominator: Literal["HUNDRED", "TEN_THOUSAND", "MILLION"] = "HUNDRED"
    """Of how many."""


class RuntimeFilter(Model):
    """A sample of the requests."""

    runtime_key: Annotated[str, StringConstraints(min_length=1)]
    """The key that would override the share in Envoy's runtime; kgw has none."""
    percent_sampled: FractionalPercent | None = None
    """The share; none of the requests if nothing is given."""
    use_independent_randomness: Bool = False
    """Whether chance decides, and not the request id, by which several proxies agree."""


class AccessLogFilter(Model):
    """What is logged: exactly one condition, which may be made of others."""

    status_code_filter: ComparisonFilter | None = None
    """By the status of the response; 0 if there is none."""
    duration_filter: ComparisonFilter | None = None
    """By the time that the request took. Milliseconds."""
    not_health_check_filter: Bool | None = None
    """Those that are no health checks."""
    traceable_filter: Bool | None = None
    """Those that ask to be traced."""
    header_filter: HeaderFilter | None = None
    """By a header field of the request."""
    response_flag_filter: ResponseFlagFilter | None = None
    """By how they ended."""
    grpc_status_filter: GrpcStatusFilter | None = None
    """By the status of the call."""
    cel_filter: CelFilter | None = None
    """By a condition in CEL."""
    runtime_filter: RuntimeFilter | None = None
    """A sample of them."""
    and_filter: Annotated[tuple[AccessLogFilter, ...], Field(min_length=2)] | None = None
    """Those for which all of several hold."""
    or_filter: Annotated[tuple[AccessLogFilter, ...], Field(min_length=2)] | None = None
    """Those for which any of several holds."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        given = sum(getattr(self, name) is not None for name in type(self).model_fields)
        if given != 1:
            raise contradiction(_EXACTLY_ONE)
        return self


_EXACTLY_ONE: Final = (
    "exactly one of the fields in [statusCodeFilter durationFilter notHealthCheckFilter "
    "traceableFilter headerFilter responseFlagFilter grpcStatusFilter celFilter runtimeFilter "
    "andFilter orFilter] must be set"
)
