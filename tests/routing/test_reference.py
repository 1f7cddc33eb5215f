"""Random tables and requests against a linear matcher of the same rules in Python."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kgw.routing import Route, RouteTable

Request = tuple[str, str, str, str, list[tuple[str, str]]]


def host_matches(pattern: str, host: str) -> bool:
    host = host.lower().partition(":")[0].removesuffix(".")
    if pattern.startswith("*"):
        return pattern == "*" or (host.endswith(pattern[1:]) and len(host) > len(pattern) - 1)
    return host == pattern


def matches(route: Route[int], request: Request) -> bool:
    _, path, query, method, headers = request
    if route.kind == "exact":
        path_matches = path == route.path
    elif route.kind == "regex":
        path_matches = re.fullmatch(route.path, path) is not None
    else:
        path_matches = f"{path}/".startswith(f"{route.path.rstrip('/')}/")
    parameters: dict[str, str] = {}
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        parameters.setdefault(name, value)
    return (
        path_matches
        and route.method in (None, method)
        and all((name, value) in headers for name, value in dict(route.headers).items())  # type: ignore[arg-type]
        and all(parameters.get(name) == value for name, value in dict(route.query).items())  # type: ignore[arg-type]
    )


def sort_key(route: Route[int]) -> Any:
    return (
        ["exact", "regex", "prefix"].index(route.kind),
        -len(route.path.rstrip("/")) if route.kind == "prefix" else 0,
        route.method is None,
        -len(route.headers),
        -len(route.query),
        float("inf") if route.created is None else route.created,
        route.name,
    )


def reference(routes: list[Route[int]], request: Request) -> int | None:
    hosts = [h for route in routes for h in route.hosts if host_matches(h, request[0])]
    if not hosts:
        return None
    best = max(hosts, key=lambda host: (not host.startswith("*"), len(host)))
    serving = [route for route in routes if best in route.hosts and matches(route, request)]
    return min(serving, key=sort_key).value if serving else None


paths = st.lists(st.sampled_from(["/a", "/b", "/ab", "/"]), min_size=1, max_size=4).map("".join)
regexes = st.sampled_from(["/a/.*", "/.*", "/[ab]+", "/a|/b", "/a/b/?", "/a/[ab]"])
hosts = st.lists(st.sampled_from(["*", "*.x", "*.a.x", "a.x", "b.x"]), min_size=1, unique=True)
values = st.sampled_from(["1", "2", ""])
routes: st.SearchStrategy[Route[int]] = st.one_of(
    [
        st.builds(
            Route,
            path=path,
            value=st.just(0),
            kind=st.just(kind),
            hosts=hosts,
            method=st.sampled_from([None, None, "GET", "POST"]),
            headers=st.dictionaries(st.sampled_from(["x-a", "x-b"]), values, max_size=2),
            query=st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2),
            created=st.sampled_from([None, 1, 2]),
            name=st.sampled_from(["n/a", "n/b"]),
        )
        for kind, path in [("exact", paths), ("prefix", paths), ("regex", regexes)]
    ]
)
requests: st.SearchStrategy[Request] = st.tuples(
    st.sampled_from(["a.x", "A.X:80", "b.x.", "c.x", "b.a.x", "x", "z", ""]),
    paths,
    st.sampled_from(["", "a=1", "a=1&b=2", "b=2&a=1&a=2", "a", "b=&a=2"]),
    st.sampled_from(["GET", "POST"]),
    st.lists(st.tuples(st.sampled_from(["x-a", "x-b"]), values), max_size=3),
)


@given(given_routes=st.lists(routes, max_size=12), given_requests=st.lists(requests, max_size=6))
def test_finds_what_the_reference_finds(
    given_routes: list[Route[int]], given_requests: list[Request]
) -> None:
    numbered = [
        Route(
            route.path,
            index,
            route.kind,
            route.hosts,
            route.method,
            route.headers,
            route.query,
            route.created,
            route.name,
        )
        for index, route in enumerate(given_routes)
    ]
    table = RouteTable(numbered)
    for request in given_requests:
        host, path, query, method, headers = request
        found = table.match(f"{path}?{query}", host=host, method=method, headers=headers)
        assert (None if found is None else found.index) == reference(numbered, request)
