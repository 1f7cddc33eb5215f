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
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from kgw._native.bridge import Bridge, Headers, Request, Response

__all__ = ["Headers", "OnError", "Request", "Response", "When"]

OnError: TypeAlias = Literal["allow", "deny"]
"""What becomes of a message that a filter fails to decide about: it passes, or the client gets an
error (500 for an exception, 504 for a filter that takes too long, 503 for too many at once)."""

Decision: TypeAlias = Response | None
RequestHandler: TypeAlias = Callable[[Request], Decision | Awaitable[Decision]]
ResponseHandler: TypeAlias = Callable[[Request, Response], Decision | Awaitable[Decision]]

#: Seconds that a filter has for a decision, unless it says otherwise.
TIMEOUT: Final = 1.0

#: Calls of filters that may wait and run at once, unless the proxy says otherwise.
MAX_CALLS: Final = 1024

log: logging.Logger = logging.getLogger("kgw.filters")


@dataclass(frozen=True, slots=True)
class When:
    """The requests that a filter is for; all of it must hold.

    It is looked at without calling Python, so requests that it leaves out cost nothing. A response
    filter goes by the request as it was sent on.

    Attributes:
        path_prefix: whole leading segments of the path.
        methods: methods, one of which is the request's; empty is any.
        headers: header fields that are there, with a value that one of the name has, or None.
    """

    path_prefix: str | None = None
    methods: Collection[str] = ()
    headers: Mapping[str, str | None] = field(default_factory=dict)

    def ir(self) -> dict[str, Any]:
        """The predicate in the form that the engine reads."""
        return {
            "path_prefix": self.path_prefix,
            "methods": list(self.methods),
            "headers": [{"name": name, "value": value} for name, value in self.headers.items()],
        }


class Filters:
    """The filters of one proxy."""

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._declarations: list[dict[str, Any]] = []
        #: For each filter what is called with a request, then what is called with a response too.
        self.handlers: list[Callable[..., Any] | None] = []

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
        on_request, on_response = _handlers(handler)
        self._declarations.append(
            {
                "name": name,
                "routes": [routes] if isinstance(routes, str) else list(routes),
                "on_request": on_request is not None,
                "on_response": on_response is not None,
                "timeout_ms": math.ceil(timeout * 1000),
                "on_error": on_error,
                "predicate": (when or When()).ir(),
            }
        )
        self.handlers += [on_request, on_response]

    def bridge(self) -> Bridge:
        """A new way to the filters."""
        return Bridge(json.dumps(self._declarations).encode(), self._max_calls)


def _handlers(handler: object) -> tuple[RequestHandler | None, ResponseHandler | None]:
    """What is called with a request, and what is called with a response. Raises `TypeError`."""
    if inspect.isclass(handler):
        handler = handler()
    on_request = getattr(handler, "on_request", None)
    on_response = getattr(handler, "on_response", None)
    if on_request is None and on_response is None and callable(handler):
        on_request = handler
    if on_request is None and on_response is None:
        kind = type(handler).__name__
        raise TypeError(
            f"a filter is a function, or has on_request or on_response; {kind} is neither"
        )
    return on_request, on_response
