"""The route of a request among many, and the parameter in its path."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

from benches.compare.measure import Contestant, Work

from kgw.routing import Route, RouteTable

if TYPE_CHECKING:
    from collections.abc import Callable

#: Which of the routes is asked for, of a thousand: all over the table, in no order.
TURNS = [(turn * 617) % 1000 for turn in range(1000)]


def works() -> list[Work]:
    """All works about routes."""
    return [
        Work(
            f"route and parameter of a request, {count:,} routes",
            "42",
            [
                Contestant("kgw", lambda count=count: _kgw(count)),  # type: ignore[misc] # its type is known
                Contestant("werkzeug", lambda count=count: _werkzeug(count)),  # type: ignore[misc] # as above
                Contestant("starlette", lambda count=count: _starlette(count)),  # type: ignore[misc] # as above
            ],
        )
        for count in (10, 100, 1000)
    ]


def _paths(count: int) -> Any:
    return cycle([f"/service{turn % count}/items/42" for turn in TURNS])


def _kgw(count: int) -> Callable[[], Any]:
    paths = _paths(count)
    match = RouteTable(
        [Route(rf"/service{at}/items/(?P<id>[^/]+)", at, "regex") for at in range(count)]
    ).match

    def call() -> Any:
        found = match(next(paths), host="shop.example")
        assert found is not None
        return found.params["id"] if found.value is not None else None

    return call


def _werkzeug(count: int) -> Callable[[], Any]:
    from werkzeug.routing import Map, Rule

    paths = _paths(count)
    rules = [Rule(f"/service{at}/items/<id>", endpoint=at) for at in range(count)]
    match = Map(rules).bind("shop.example").match  # bound once: an application does so per request

    def call() -> Any:
        endpoint, params = match(next(paths))
        return params["id"] if endpoint is not None else None

    return call


def _starlette(count: int) -> Callable[[], Any]:
    from starlette.routing import Match, Route, Router

    paths = _paths(count)
    router = Router([Route(f"/service{at}/items/{{id}}", _endpoint) for at in range(count)])

    def call() -> Any:
        scope = {"type": "http", "method": "GET", "path": next(paths), "headers": []}
        for route in router.routes:  # what Router.app does
            match, child = route.matches(scope)
            if match == Match.FULL:
                return child["path_params"]["id"]
        return None

    return call


async def _endpoint(request: Any) -> None:
    """Never called."""
