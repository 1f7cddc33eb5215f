"""Access logs of a listener policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import model_validator

from kgw.api.base import Model, contradiction
from kgw.diagnostics import Severity


class FileSink(Model):
    """A file that lines are appended to."""

    path: str
    string_format: str | None = None
    json_format: dict[str, Any] | None = None

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
