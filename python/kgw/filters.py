"""Filters: Python code that decides about requests and responses on their way.

    proxy = kgw.Proxy("manifests/")

    @proxy.filter("auth", routes=["default/api"], timeout=0.5)
    async def auth(request: kgw.Request) -> kgw.Response | None:
        user = await user_of(request.headers.get("authorization"))
        if user is None:
            return kgw.Response(401, "who are you?")
        request.headers["x-user"] = user
        return None

    async with proxy:
        ...

A filter is called by the event loop in which the proxy was started, never by a thread of the data
plane, which goes on with other requests meanwhile. `docs/filters.md` says what happens when.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from kgw._native.bridge import Bridge, Headers, Request, Response
from kgw._native.route import check_regex

__all__ = ["Headers", "Needs", "OnError", "Request", "Response", "When"]

OnError: TypeAlias = Literal["allow", "deny"]
"""What becomes of a message that a filter fails to decide about: it passes, or the client gets an
error (500 for an exception, 504 for a filter that takes too long, 503 for too many at once, 413 for
a request's body that is longer than the filter takes)."""

Handler: TypeAlias = Callable[..., Any]

#: Seconds that a filter has for a decision, unless it says otherwise.
TIMEOUT: Final = 1.0

#: Calls of filters that may wait and run at once, unless the proxy says otherwise.
MAX_CALLS: Final = 1024

#: Bytes of bodies that may be held for filters at once, unless the proxy says otherwise.
MAX_BYTES: Final = 256 * 1024 * 1024

#: Flags of patterns that RE2 has as well.
_FLAGS: Final = re.IGNORECASE | re.MULTILINE | re.DOTALL

#: A name of a header field (RFC 9110 5.1).
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: The methods of a filter, in the order in which the native module has them.
_METHODS: Final = ("on_request", "on_response", "on_request_chunk", "on_response_chunk")

log: logging.Logger = logging.getLogger("kgw.filters")


@dataclass(frozen=True, slots=True)
class When:
    """The requests that a filter is for; all of it must hold.

    It is looked at without calling Python, so requests that it leaves out cost next to nothing. A
    response filter goes by the request as it was sent on.

    Patterns are regular expressions in the dialect of RE2, in time that is linear in the length of
    what they look at, and must match it as a whole. Of flags they may have `re.IGNORECASE`,
    `re.MULTILINE` and `re.DOTALL`.

    Attributes:
        path_prefix: whole leading segments of the path.
        methods: methods, one of which is the request's; empty is any.
        headers: header fields that are there, with a value that one of the name has, a pattern
            (`re.compile`) that one of them matches, or None.
        path: the whole path, or a pattern.
        hosts: hosts, one of which is the request's, without port; ``*.example.com`` is all below
            it. Empty is any.
        query: parameters that are there, as *headers*; of several of a name the first counts, as it
            is written.
    """

    path_prefix: str | None = None
    methods: Collection[str] = ()
    headers: Mapping[str, str | re.Pattern[str] | None] = field(default_factory=dict)
    path: str | re.Pattern[str] | None = None
    hosts: Collection[str] = ()
    query: Mapping[str, str | re.Pattern[str] | None] = field(default_factory=dict)

    def ir(self) -> dict[str, Any]:
        """The predicate in the form that the engine reads.

        Raises:
            TypeError: a pattern is one of bytes.
            ValueError: something is what no request can have, or a pattern that RE2 has not.
        """
        for place in (self.path_prefix, self.path):
            if isinstance(place, str) and not place.startswith("/") and place != "*":
                raise ValueError(f"a path starts with a slash, {place!r} does not")
        for name in self.headers:
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header field")
        path: dict[str, Any] = {}
        if isinstance(self.path, re.Pattern):
            path["path_regex"] = _pattern(self.path)
        elif self.path is not None:
            path["path"] = self.path
        return path | {
            "path_prefix": self.path_prefix,
            "methods": _several(self.methods),
            "hosts": _several(self.hosts),
            "headers": _values(self.headers),
            "query": _values(self.query),
        }


def _several(texts: Iterable[str]) -> list[str]:
    """Texts in a list; one alone is not its letters."""
    return [texts] if isinstance(texts, str) else list(texts)


def _values(expected: Mapping[str, str | re.Pattern[str] | None]) -> list[dict[str, Any]]:
    """What header fields or query parameters must be, in the form that the engine reads."""
    return [
        {"name": name, "regex": _pattern(value)}
        if isinstance(value, re.Pattern)
        else {"name": name, "value": value}
        for name, value in expected.items()
    ]


def _pattern(pattern: re.Pattern[str]) -> str:
    """A pattern with its flags, as RE2 writes them."""
    if not isinstance(pattern.pattern, str):
        raise TypeError(f"a pattern is of a text, not {pattern!r}")
    other = re.RegexFlag(pattern.flags & ~re.UNICODE) & ~_FLAGS
    if other:
        raise ValueError(f"a pattern cannot have {other!r}")
    flags = "".join(
        letter
        for letter, flag in (("i", re.IGNORECASE), ("m", re.MULTILINE), ("s", re.DOTALL))
        if pattern.flags & flag
    )
    text = f"(?{flags}:{pattern.pattern})" if flags else pattern.pattern
    if (problem := check_regex(text)) is not None:
        raise ValueError(f"{pattern.pattern!r} is no pattern of RE2's dialect: {problem}")
    return text


@dataclass(frozen=True, slots=True)
class Needs:
    """What a filter has to have before it can decide, beside the head.

    A message waits until it is there. What nobody needs passes by, and costs nothing.

    Attributes:
        request_body: ``on_request`` is called once all of the request's body is there, and has it
            as ``request.body``.
        response_body: ``on_response`` is called once all of the response's body is there, and has
            it as ``response.body``.
        max_body: the longest body that is waited for, in bytes. Of a longer one the filter is not
            asked: the message has the outcome that the filter declared for failures.
    """

    request_body: bool = False
    response_body: bool = False
    max_body: int = 64 * 1024


class Filters:
    """The filters of one proxy."""

    def __init__(self, max_calls: int, max_bytes: int = MAX_BYTES) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._declarations: list[dict[str, Any]] = []
        #: For each filter what is called for each of its methods.
        self.handlers: list[Handler | None] = []

    def __len__(self) -> int:
        return len(self._declarations)

    def name(self, number: int) -> str:
        """The name of a filter."""
        name = self._declarations[number]["name"]
        assert isinstance(name, str)
        return name

    def add(
        self,
        name: str,
        handler: object,
        *,
        routes: Iterable[str],
        when: When | None,
        needs: Needs | None,
        timeout: float,
        on_error: OnError,
    ) -> None:
        """Registers a filter. See `Proxy.filter`."""
        if not name or any(one["name"] == name for one in self._declarations):
            raise ValueError(f"a filter has a name of its own, not {name!r}")
        if on_error not in ("allow", "deny"):
            raise ValueError(f'on_error is "allow" or "deny", not {on_error!r}')
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"a timeout is a positive number of seconds, not {timeout}")
        handlers = _handlers(handler)
        needs = needs or Needs()
        _check_needs(needs, handlers)
        self._declarations.append(
            {
                "name": name,
                "routes": _several(routes),
                **{method: found is not None for method, found in handlers.items()},
                "request_body": needs.request_body,
                "response_body": needs.response_body,
                "max_body": needs.max_body,
                "timeout_ms": math.ceil(timeout * 1000),
                "on_error": on_error,
                "predicate": (when or When()).ir(),
            }
        )
        self.handlers += handlers.values()

    def bridge(self) -> Bridge:
        """A new way to the filters."""
        declarations = json.dumps(self._declarations).encode()
        return Bridge(declarations, self._max_calls, self._max_bytes)


def _handlers(handler: object) -> dict[str, Handler | None]:
    """What is called for each of a filter's methods. Raises `TypeError`."""
    if inspect.isclass(handler):
        handler = handler()
    found: dict[str, Handler | None] = {
        method: getattr(handler, method, None) for method in _METHODS
    }
    if not any(found.values()) and callable(handler):
        found["on_request"] = handler
    if not any(found.values()):
        kind = type(handler).__name__
        raise TypeError(
            f"a filter is a function, or has {', '.join(_METHODS[:-1])} or {_METHODS[-1]}; "
            f"{kind} is neither"
        )
    return found


def _check_needs(needs: Needs, handlers: Mapping[str, Handler | None]) -> None:
    """Raises `ValueError` for needs that such a filter cannot have."""
    if not isinstance(needs.max_body, int) or needs.max_body < 1:
        raise ValueError(f"max_body is a number of bytes, at least 1, not {needs.max_body}")
    for message, is_needed in (
        ("request", needs.request_body),
        ("response", needs.response_body),
    ):
        if is_needed and handlers[f"on_{message}"] is None:
            raise ValueError(f"a filter that needs {message}_body has on_{message}")
        if is_needed and handlers[f"on_{message}_chunk"] is not None:
            raise ValueError(
                f"a filter has a {message}'s body as a whole or in chunks: "
                f"{message}_body, or on_{message}_chunk"
            )
