"""Find the route of a request by host, path, method, headers and query.

Precedence is the Gateway API's, see :class:`RouteTable`.

>>> from kgw.routing import Route, RouteTable
>>> table = RouteTable([
...     Route("/", "site", hosts=("*.example",)),
...     Route("/api", "api", hosts=("*.example",), headers={"x-version": "2"}),
... ])
>>> table.match("/api/users?page=1", host="www.example", headers={"X-Version": "2"}).value
'api'
>>> found = table.match("/api", host="www.example")
>>> found.value
'site'
>>> print(found.why)
GET www.example/api
  routes[1]: prefix /api on *.example: header "x-version" is absent or does not match
  routes[0]: prefix / on *.example: selected

:meth:`RouteTable.from_objects` makes a table of HTTPRoutes, which decides as the proxy does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from kgw._native.route import (
    Considered,
    Explanation,
    RouteMatch,
    RouteTable,
    canonical_path,
    check_regex,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kgw.httproutes import RouteRule as RouteRule
    from kgw.httproutes import routes_of as routes_of

__all__ = [
    "Considered",
    "Explanation",
    "HeaderMatch",
    "QueryMatch",
    "Route",
    "RouteMatch",
    "RouteRule",
    "RouteTable",
    "canonical_path",
    "check_regex",
    "routes_of",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A predicate on a header.

    Attributes:
        name: in any case.
        value: what any one of the header's values must be; ignored by ``present``.
        kind: ``exact``, ``present`` (any value, the empty one included) or ``regex`` (of the whole
            value, see :func:`check_regex`).
    """

    name: str
    value: str = ""
    kind: Literal["exact", "present", "regex"] = "exact"


@dataclass(frozen=True, slots=True)
class QueryMatch:
    """A predicate on a query parameter: compared without decoding, the first of a name counts.

    Attributes:
        name: in this case.
        value: what the parameter's value must be; ignored by ``present``.
        kind: ``exact``, ``present`` (any value, the empty one included) or ``regex`` (of the whole
            value, see :func:`check_regex`).
    """

    name: str
    value: str = ""
    kind: Literal["exact", "present", "regex"] = "exact"


@dataclass(frozen=True, slots=True)
class Route(Generic[T]):
    """What a request must look like to be served by a value.

    Attributes:
        path: a path prefix of whole segments (``/foo`` matches ``/foo`` and ``/foo/x``, not
            ``/foobar``), a whole path, or a regular expression of a whole path.
        value: any object; the table hands it back.
        kind: what ``path`` is.
        hosts: ``foo.example``, ``*.example`` or ``*``; one of them must match.
        method: ``None`` matches all.
        headers: all must match; a mapping asks for exact values.
        query: all must match; a mapping asks for exact values.
        created: breaks ties, the lower first; seconds since 1970, unknown last.
        name: breaks ties after it, alphabetically; ``namespace/name`` of a Kubernetes route.
    """

    path: str
    value: T
    kind: Literal["prefix", "exact", "regex"] = "prefix"
    hosts: str | Sequence[str] = ("*",)
    method: str | None = None
    headers: Mapping[str, str] | Sequence[HeaderMatch] = ()
    query: Mapping[str, str] | Sequence[QueryMatch] = ()
    created: int | None = None
    name: str = ""


if not TYPE_CHECKING:  # for a type checker, every name would exist

    def __getattr__(name: str) -> Any:
        """Imports what needs the models of HTTPRoutes on its first use (PEP 562)."""
        if name not in ("RouteRule", "routes_of"):
            raise AttributeError(f"module 'kgw.routing' has no attribute {name!r}")
        from kgw import httproutes

        return getattr(httproutes, name)
