"""The route table. Public as ``kgw.routing``."""

from collections.abc import Iterable, Mapping
from types import GenericAlias
from typing import Any, Generic, TypeVar, final

from kgw.routing import Route

__all__ = ["RouteMatch", "RouteTable", "check_regex"]

_T = TypeVar("_T")

def check_regex(pattern: str) -> str | None:
    """What is wrong with a regular expression, or ``None`` if a route can use it.

    The dialect is RE2's, as in Envoy's ``safe_regex``: matching takes linear time and covers the
    whole value, classes are ASCII, there are no back-references and no look-around. The answer
    names the byte at which a syntax error starts.
    """

@final
class RouteMatch(Generic[_T]):
    """The route that serves a request."""

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
            path: path and, after the first ``?``, query. Neither is decoded or normalised.
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
    ) -> list[str]:
        """One line for every route whose hostname matches: selected, or why not.

        In order of precedence. Looks at each of these routes: for people, not for the data path.
        """

    def __len__(self) -> int: ...
    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
