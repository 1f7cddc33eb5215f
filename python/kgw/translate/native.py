"""Checks that only the data plane can make: what it would refuse is refused here, with a place."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kgw._native import access_log, route

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgw.api.kgateway.access_log import FileSink


@lru_cache(maxsize=4096)
def regex_error(pattern: str) -> str | None:
    """Why a regular expression cannot be used, if so."""
    return route.check_regex(pattern)


def log_format(sink: FileSink) -> tuple[dict[str, Any], str | None]:
    """The format of an access log in the IR, and why it cannot be used, if so."""
    if sink.json_format is not None:
        text = json.dumps(sink.json_format, sort_keys=True)
        return {"json": sink.json_format}, _log_error("json", text)
    line = sink.string_format or ""
    return {"text": line}, _log_error("text", line)


def _log_error(kind: str, value: str) -> str | None:
    check: Callable[[str, str], str | None] | None = getattr(access_log, "check", None)
    return None if check is None else check(kind, value)
