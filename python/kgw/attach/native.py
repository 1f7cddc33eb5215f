"""Checks that only the data plane can make: what it would refuse is refused here, with a place."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kgw._native import access_log, route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api.kgateway.access_log import FileSink
    from kgw.source.memory import FieldPath


@lru_cache(maxsize=4096)
def regex_error(pattern: str) -> str | None:
    """Why a regular expression cannot be used, if so."""
    return route.check_regex(pattern)


def log_format(sink: FileSink) -> dict[str, Any]:
    """The format of an access log in the IR."""
    if sink.json_format is not None:
        return {"json": sink.json_format}
    return {"text": sink.string_format}


def log_error(sink: FileSink) -> tuple[FieldPath, str] | None:
    """Where in a file sink and why its format cannot be used, if so."""
    if sink.json_format is None:
        problem = access_log.check("text", sink.string_format or "")
        return None if problem is None else (("stringFormat",), problem)
    problem = access_log.check("json", json.dumps(sink.json_format))
    if problem is None:
        return None
    for path, leaf in _leaves(sink.json_format, ()):
        alone = access_log.check("json", json.dumps({"value": leaf}))
        if alone is not None:
            return ("jsonFormat", *path), alone
    return ("jsonFormat",), problem


def _leaves(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, Any]]:
    """Everything in JSON data that holds nothing itself, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value
