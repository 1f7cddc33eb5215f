"""Access logs of a listener policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Bool, Model, contradiction
from kgw.api.duration import Duration
from kgw.api.gateway.backend_object import BackendObjectReference
from kgw.api.kgateway.access_log_filter import AccessLogFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The line that Envoy writes where nothing else is asked for.
TEXT: Final = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)


class FileSink(Model):
    """A file that lines are appended to."""

    path: str
    """The file; ``/dev/stdout`` is the stdout of the process."""
    string_format: str | None = None
    """The line, with operators such as ``%RESPONSE_CODE%``, and its own line break."""
    json_format: dict[str, Any] | None = None
    """The object that each line is, with operators in its values."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.string_format is None) == (self.json_format is None):
            message = "exactly one of the fields in [stringFormat jsonFormat] must be set"
            raise contradiction(message, *(() if self.json_format is None else ("jsonFormat",)))
        return self


class LogHeader(Model):
    """A header field of calls."""

    key: str
    """Its name."""
    value: str = ""
    """Its value."""


class LogBackoff(Model):
    """Time between two attempts."""

    base_interval: Duration
    """What the first pause is taken from; each further one is twice as long."""
    max_interval: Duration | None = None
    """The longest pause; ten times the base interval if nothing is given."""


class LogRetry(Model):
    """Further attempts to deliver what is logged."""

    num_retries: Annotated[int, Strict(), Field(ge=1, le=4_294_967_295)] = 1
    """How many there are."""
    retry_back_off: LogBackoff | None = None
    """The time between them; from 1 s on if nothing is given."""


class CommonGrpcService(Model):
    """A service that is told what is logged, or traced."""

    backend_ref: BackendObjectReference
    """The service."""
    authority: str | None = None
    """What calls have as ``:authority``; the name of the service if nothing is given."""
    max_receive_message_length: Annotated[int, Strict(), Field(ge=1, le=4_294_967_295)] | None = (
        None
    )
    """The longest answer. Bytes; 4 MiB if nothing is given."""
    skip_envoy_headers: Bool = False
    """Whether calls have no ``x-envoy-internal`` and ``x-forwarded-for``."""
    timeout: Duration | None = None
    """The time to connect and hand over a message, or for a whole call; 10 s by default."""
    initial_metadata: tuple[LogHeader, ...] = ()
    """Header fields of calls."""
    retry_policy: LogRetry | None = None
    """Further attempts to deliver; one if nothing is given."""


class LogGrpcService(CommonGrpcService):
    """A service that is told what is logged."""

    log_name: str
    """The name of the log."""


class AccessLogGrpcService(LogGrpcService):
    """Envoy's access log service, which gets a stream of entries."""

    additional_request_headers_to_log: tuple[str, ...] = ()
    """Request header fields that entries have."""
    additional_response_headers_to_log: tuple[str, ...] = ()
    """Response header fields that entries have."""
    additional_response_trailers_to_log: tuple[str, ...] = ()
    """Response trailer fields that entries have."""


class KeyAnyValue(Model):
    """A value and its name."""

    key: str
    """The name."""
    value: AnyValue
    """The value."""


class KeyAnyValueList(Model):
    """Values by names, in order."""

    values: tuple[KeyAnyValue, ...] = ()
    """The values."""


class AnyValue(Model):
    """A value of OpenTelemetry's."""

    string_value: str | None = None
    """Text, with operators where it is of each record."""
    array_value: tuple[AnyValue, ...] | None = None
    """A list."""
    kv_list_value: KeyAnyValueList | None = None
    """Values by names."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        values = (self.string_value, self.array_value, self.kv_list_value)
        if sum(one is not None for one in values) != 1:
            message = (
                "exactly one of the fields in [stringValue arrayValue kvListValue] must be set"
            )
            raise contradiction(message)
        return self


# Its values are of what is defined last.
KeyAnyValue.model_rebuild()


class OpenTelemetryLog(Model):
    """An OpenTelemetry collector, which gets a log record for each request."""

    grpc_service: LogGrpcService
    """The collector."""
    body: str | None = None
    """The body of records, with operators."""
    disable_builtin_labels: Bool = False
    """Whether the resource has no ``log_name``, ``zone_name``, ``cluster_name``, ``node_name``."""
    attributes: KeyAnyValueList | None = None
    """The attributes of records, with operators."""
    resource_attributes: KeyAnyValueList | None = None
    """Further attributes of the resource, as they are."""


class AccessLog(Model):
    """One access log."""

    file_sink: FileSink | None = None
    """The file that lines are appended to."""
    grpc_service: AccessLogGrpcService | None = None
    """The service that gets a stream of entries."""
    open_telemetry: OpenTelemetryLog | None = None
    """The collector that gets records."""
    filter: AccessLogFilter | None = None
    """What is logged; everything if nothing is given."""

    @classmethod
    def of(cls, path: str = "/dev/stdout", format: str | Mapping[str, Any] = TEXT) -> Self:
        """Makes a log of one line for each request.

        Args:
            path: the file; ``/dev/stdout`` is the stdout of the process.
            format: the line, which ends with its own line break, or a JSON object; both with
                operators as in ``%RESPONSE_CODE%``. By default the line is Envoy's.
        """
        if isinstance(format, str):
            return cls(file_sink=FileSink(path=path, string_format=format))
        return cls(file_sink=FileSink(path=path, json_format=dict(format)))
