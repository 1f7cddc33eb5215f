"""The route table. Public as ``kgw.routing``."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import GenericAlias
from typing import Any, Generic, Literal, TypeVar, final, overload

from kgw.api.gateway.http_route import HTTPRoute
from kgw.httproutes import RouteRule
from kgw.routing import Route

__all__ = [
    "Considered",
    "Explanation",
    "RouteMatch",
    "RouteTable",
    "canonical_path",
    "check_regex",
    "check_substitution",
]

_T = TypeVar("_T")
_V = TypeVar("_V")

def canonical_path(path: str) -> str:
    """The one form of a request's path that the proxy matches, logs and forwards.

    Escapes of unreserved characters are decoded, other escapes get upper-case digits, a backslash
    becomes a slash, dot segments are removed and runs of slashes become one. Escaped slashes stay.
    The query, after the first ``?``, is left as it is. Doing it again changes nothing.

    Raises:
        ValueError: the proxy answers 400, as backends might read two things into the path.
    """

def check_regex(pattern: str) -> str | None:
    """What is wrong with a regular expression, or ``None`` if a route can use it.

    The dialect is RE2's, as in Envoy's ``safe_regex``: matching takes linear time and covers the
    whole value, classes are ASCII, there are no back-references and no look-around. The answer
    names the byte at which a syntax error starts.
    """

def check_substitution(pattern: str, substitution: str) -> str | None:
    """What is wrong with the replacement of what a regular expression matches, or ``None``.

    In the replacement a backslash and a digit stand for a group, 0 for the whole match, and two
    backslashes for one, as in RE2.
    """

@final
class Considered(Generic[_T]):
    """A route whose hostname matches a request, and its fate. ``str()`` gives one line."""

    @property
    def route(self) -> Route[_T] | tuple[str, _T]:
        """The route: a :class:`kgw.routing.Route`, or the tuple that was given."""

    @property
    def value(self) -> _T:
        """The value given with the route."""

    @property
    def index(self) -> int:
        """The route's position among the routes given."""

    @property
    def hostname(self) -> str:
        """The hostname of the route that matched, in lower case."""

    @property
    def outcome(
        self,
    ) -> Literal["selected", "hostname", "path", "method", "header", "query", "outranked", "other"]:
        """The fate: the first reason why it lost, in the order in which a lookup looks.

        ``selected``; ``hostname`` (the routes of a more specific one decide); ``path``, ``method``,
        ``header`` or ``query`` (it does not match); ``outranked`` (it matches, but the selected
        route goes before it).
        """

    @property
    def detail(self) -> str | None:
        """The name of the header or query parameter, or what outranked it; else ``None``.

        The latter is ``path_kind``, ``prefix_length``, ``method``, ``headers``, ``query``, ``age``,
        ``name`` or ``order``.
        """

    @property
    def reason(self) -> str:
        """The fate in words."""

    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

@final
class Explanation(Generic[_T]):
    """Every route whose hostname matches a request, with its fate, in order of precedence.

    A sequence of :class:`kgw.routing.Considered`. ``str()`` gives one line for the request and one
    for each route.
    """

    @property
    def selected(self) -> Considered[_T] | None:
        """The route that serves the request, if any does."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: int, /) -> Considered[_T]: ...
    def __iter__(self) -> Iterator[Considered[_T]]: ...
    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

@final
class RouteMatch(Generic[_T]):
    """The route that serves a request.

    What it tells is worked out when it is asked for.
    """

    @property
    def route(self) -> Route[_T] | tuple[str, _T]:
        """The route: a :class:`kgw.routing.Route`, or the tuple that was given."""

    @property
    def value(self) -> _T:
        """The value given with the route."""

    @property
    def index(self) -> int:
        """The route's position among the routes given."""

    @property
    def matched_prefix(self) -> str | None:
        """The part of the path that a prefix route matched, without trailing slash.

        It is empty for the prefix ``/``, so that ``path.removeprefix(matched_prefix)`` is what an
        application mounted there sees. ``None`` for exact and regex routes.
        """

    @property
    def suffix(self) -> str | None:
        """The part of the path after ``matched_prefix``: empty, or from a slash on.

        Bytes that are not UTF-8 are surrogates in it, as ``os.fsdecode`` has them. ``None`` for
        exact and regex routes.
        """

    @property
    def params(self) -> dict[str, str]:
        """What the named groups of a regex path stand for, as in ``/users/(?P<user>[0-9]+)``.

        Not decoded; bytes that are not UTF-8 are surrogates. A group that has no part in the match
        is left out. Empty for other routes.
        """

    @property
    def hostname(self) -> str:
        """The hostname of the route that matched, in lower case, as in ``*.example``."""

    @property
    def why(self) -> Explanation[_T]:
        """Why this route, and why none of the others; see ``RouteTable.explain``."""

    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

@final
class RouteTable(Generic[_T]):
    """An immutable table that finds the route of a request, by Gateway API precedence.

    The hostname decides first: an exact one, then the longest ``*.suffix`` (one or more labels,
    never the bare domain), then ``*``. Only the routes of the most specific matching hostname are
    tried. Among those that match, precedence goes to an exact path, then a regex, then the longest
    prefix; then to a method, more headers, more query parameters, the older route, the
    alphabetically first name, and the one given first.

    The cost of a lookup hardly depends on the number of routes. Threads can share a table.

    Args:
        routes: :class:`kgw.routing.Route` objects, or tuples of a path prefix and a value.
        fall_through: try less specific hostnames too if no route of the most specific one matches.

    Raises:
        kgw.errors.ConfigError: a route cannot be used; ``path`` names the part at fault, as in
            ``routes[3].headers[0]``, and the message the byte at which a bad regex goes wrong.
    """

    def __new__(
        cls, routes: Iterable[Route[_T] | tuple[str, _T]], *, fall_through: bool = False
    ) -> RouteTable[_T]: ...
    @overload
    @classmethod
    def from_objects(
        cls,
        objects: Iterable[HTTPRoute | Mapping[str, Any]],
        *,
        value: None = None,
        hostname: str | None = "*",
        fall_through: bool = False,
    ) -> RouteTable[RouteRule]: ...
    @overload
    @classmethod
    def from_objects(
        cls,
        objects: Iterable[HTTPRoute | Mapping[str, Any]],
        *,
        value: Callable[[RouteRule], _V],
        hostname: str | None = "*",
        fall_through: bool = False,
    ) -> RouteTable[_V]:
        """A table of HTTPRoutes that decides as the proxy does; see `kgw.routing.routes_of`.

        Args:
            objects: :class:`kgw.api.HTTPRoute` models, or mappings as in a manifest.
            value: what the table hands back for a rule; by default the
                :class:`kgw.routing.RouteRule` itself.
            hostname: the hostname of the listener that the routes are attached to, or ``None`` for
                routes of a Service, whose hostnames do not count.
            fall_through: as for the constructor. The proxy does not.

        Raises:
            kgw.errors.ConfigError: an object cannot be used; ``resource`` and ``path`` name the
                field.
        """

    def match(
        self,
        path: str | bytes,
        *,
        host: str | bytes | None = None,
        method: str = "GET",
        headers: Mapping[str, str]
        | Iterable[tuple[str, str]]
        | Iterable[tuple[bytes, bytes]]
        | None = None,
    ) -> RouteMatch[_T] | None:
        """The route that serves a request, or ``None``.

        Args:
            path: path and, after the first ``?``, query. Neither is decoded or normalised; see
                `kgw.routing.canonical_path`. An empty one, of a ``CONNECT``, is ``/``.
            host: value of ``Host``; a port, upper case and a trailing dot do not matter.
            method: compared as it is.
            headers: fields; of a repeated one, any value may match.
        """

    def explain(
        self,
        path: str | bytes,
        *,
        host: str | bytes | None = None,
        method: str = "GET",
        headers: Mapping[str, str]
        | Iterable[tuple[str, str]]
        | Iterable[tuple[bytes, bytes]]
        | None = None,
    ) -> Explanation[_T]:
        """Every route whose hostname matches a request, with its fate: selected, or why not.

        In order of precedence. Looks at each of these routes: for people, not for the data path.
        ``str()`` gives one line for each. The arguments are those of ``match``.
        """

    def __len__(self) -> int: ...
    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
