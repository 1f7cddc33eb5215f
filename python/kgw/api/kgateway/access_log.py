"""Access logs of a listener policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from pydantic import model_validator

from kgw.api.base import Model, contradiction
from kgw.diagnostics import Severity

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


class AccessLog(Model):
    """One access log."""

    unsupported: ClassVar[Mapping[str, Severity]] = {
        "filter": Severity.ERROR,
        "grpcService": Severity.ERROR,
        "openTelemetry": Severity.ERROR,
    }

    file_sink: FileSink | None = None
    """The file that lines are appended to."""

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
