"""Checks that only the data plane can make: what it would refuse is refused here, with a place."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kgw._native import access_log, route, tls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api.kgateway.access_log import FileSink
    from kgw.source.memory import FieldPath


@lru_cache(maxsize=4096)
def regex_error(pattern: str) -> str | None:
    """Why a regular expression cannot be used, if so."""
    return route.check_regex(pattern)


def substitution_error(pattern: str, substitution: str) -> str | None:
    """Why the matches of a regular expression cannot be replaced, if so."""
    return route.check_substitution(pattern, substitution)


def certificate_error(chain: str, key: str) -> str | None:
    """Why a certificate and its key cannot be used, if so. Not kept: nothing else holds keys."""
    return tls.check_certificate(chain, key)


@lru_cache(maxsize=1024)
def certificate_names(pem: str) -> tuple[str, ...]:
    """The DNS names that the first certificate of a chain is for."""
    return tuple(tls.certificate_names(pem))


@lru_cache(maxsize=1024)
def authorities_error(pem: str) -> str | None:
    """Why a bundle of certificate authorities cannot be used, if so."""
    return tls.check_authorities(pem)


def parameters_error(
    min_version: str | None, max_version: str | None, cipher_suites: tuple[str, ...]
) -> str | None:
    """Why versions and cipher suites cannot be used, if so."""
    return tls.check_parameters(min_version, max_version, cipher_suites)


def operators_error(text: str) -> str | None:
    """Why a text with operators of access logs cannot be used, if so."""
    return access_log.check("text", text)


def log_format(sink: FileSink) -> dict[str, Any]:
    """The format of an access log in the IR."""
    if sink.json_format is not None:
        return {"json": sink.json_format}
    return {"text": sink.string_format}


def text_error(format: str) -> str | None:
    """Why a text format cannot be used, if so."""
    return access_log.check("text", format)


def json_error(format: dict[str, Any]) -> str | None:
    """Why a JSON format cannot be used, if so."""
    return access_log.check("json", json.dumps(format))


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


def filter_error(filter: dict[str, Any]) -> str | None:
    """Why a filter of access logs, in the IR, cannot be used, if so."""
    return access_log.check_filter(json.dumps(filter))


def local_replies_error(replies: dict[str, Any]) -> str | None:
    """Why changes to local replies, in the IR, cannot be used, if so."""
    return access_log.check_local_replies(json.dumps(replies))


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
