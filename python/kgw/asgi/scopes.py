"""Whose scope a request has, after its way through the data plane.

The data plane sees a request's head and nothing else of its scope: not the application's state, not
what other middleware has put there, not the context variables. So a request that a middleware sends
is numbered, in a header field that the application does not see, and finds its scope again by that.
"""

from __future__ import annotations

import contextlib
import contextvars
import secrets
from itertools import count
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kgw.asgi.types import Headers, Scope

FIELD = b"x-kgw-exchange"
"""The header field; what a client says in it is dropped."""


class Origin(NamedTuple):
    """Where a request came from."""

    scope: Scope
    context: contextvars.Context
    target: bytes
    """What was asked of the data plane."""


class Scopes:
    """The scopes of requests under way.

    Args:
        ended: called when no request comes any longer.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self.ended = ended
        # Nobody else can name a scope, not even the client of another request.
        self._secret = secrets.token_hex(8).encode()
        self._numbers = count()
        self._origins: dict[bytes, Origin] = {}

    @contextlib.contextmanager
    def number(self, scope: Scope, target: bytes) -> Iterator[bytes]:
        """Gives a request its number, while it is under way."""
        number = b"%b-%d" % (self._secret, next(self._numbers))
        self._origins[number] = Origin(scope, contextvars.copy_context(), target)
        try:
            yield number
        finally:
            del self._origins[number]

    def origin(self, number: bytes) -> Origin | None:
        """Where a request came from, while it is under way."""
        return self._origins.get(number)


def request_target(scope: Scope) -> bytes:
    """The target of a request, from its scope."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        from urllib.parse import quote

        raw = quote(scope["path"], safe="/:@!$&'()*+,;=~-._").encode()
    query: bytes = scope.get("query_string", b"")
    # Some servers leave the query in it.
    raw = raw.partition(b"?")[0] or b"/"
    return b"%b?%b" % (raw, query) if query else raw


def address(scope: Scope, name: str) -> tuple[str, int] | None:
    """The IP address and port of a scope's ``client`` or ``server``, if it has any."""
    import ipaddress

    given = scope.get(name)
    if not given:
        return None
    host, port = given
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return host, port or 0


def scope_of(
    kind: str, method: bytes, target: bytes, headers: Headers, origin: Origin | None
) -> Scope:
    """The scope of a request as it left the data plane."""
    raw_path, _, query = target.partition(b"?")
    found: Scope = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "root_path": "",
        "client": None,
        "server": None,
    }
    if origin is not None:
        found.update(origin.scope)
    if origin is None or target != origin.target:
        found["path"] = unquote(raw_path.decode("ascii"))
        found["raw_path"] = raw_path
        found["query_string"] = query
    found["headers"] = headers
    if kind == "http":
        found["method"] = method.decode("ascii")
    else:
        found.pop("method", None)
    if origin is None:
        _describe(found, dict(headers))
    return found


def _describe(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Adds what the data plane says about the client."""
    secure = headers.get(b"x-forwarded-proto") == b"https"
    if scope["type"] == "websocket":
        scope["scheme"] = "wss" if secure else "ws"
        asked = headers.get(b"sec-websocket-protocol", b"").decode("latin-1")
        scope["subprotocols"] = [one.strip() for one in asked.split(",") if one.strip()]
    else:
        scope["scheme"] = "https" if secure else "http"
    forwarded = headers.get(b"x-forwarded-for", b"").decode("latin-1")
    client = forwarded.rpartition(",")[2].strip()
    if client:
        scope["client"] = (client, 0)
    host, _, port = headers.get(b"host", b"").decode("latin-1").rpartition(":")
    if port.isdigit():
        scope["server"] = (host, int(port))
    elif host or port:
        whole = f"{host}:{port}" if host else port
        scope["server"] = (whole, 443 if secure else 80)
