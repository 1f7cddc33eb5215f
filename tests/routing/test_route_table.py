"""What a route table finds, from Python."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from kgw.errors import ConfigError
from kgw.routing import HeaderMatch, QueryMatch, Route, RouteTable, check_regex


def value(table: RouteTable[Any], path: str | bytes, **request: Any) -> Any:
    found = table.match(path, **request)
    return None if found is None else found.value


def test_a_match_tells_value_index_and_prefix() -> None:
    target = object()
    table = RouteTable([Route("/other", object()), Route("/api/", target)])
    found = table.match("/api/users?page=1")
    assert found is not None
    assert found.value is target
    assert found.index == 1
    assert found.matched_prefix == "/api"
    assert repr(found) == f"RouteMatch(index=1, value={target!r})"


def test_only_prefix_routes_have_a_matched_prefix() -> None:
    table = RouteTable(
        [Route("/", "root"), Route("/a", "exact", "exact"), Route("/b.*", "regex", "regex")]
    )
    prefixes = {path: table.match(path) for path in ("/x", "/a", "/bb")}
    assert {path: found and found.matched_prefix for path, found in prefixes.items()} == {
        "/x": "",
        "/a": None,
        "/bb": None,
    }


def test_tuples_are_prefix_routes_of_any_host() -> None:
    table = RouteTable([("/", 1), ("/api", 2)])
    assert value(table, "/api/x", host="any.example") == 2
    assert value(table, "/apis") == 1
    assert len(table) == 2
    assert repr(table) == "<RouteTable of 2 routes>"


def test_hosts_from_most_to_least_specific() -> None:
    table = RouteTable(
        [
            Route("/", "any"),
            Route("/", "wild", hosts="*.example"),
            Route("/a", "exact", hosts=["a.example", "b.example"]),
        ]
    )
    assert value(table, "/a", host="A.Example.:8080") == "exact"
    assert value(table, "/a", host=b"b.example") == "exact"
    assert value(table, "/", host="a.example") is None
    assert value(table, "/", host="c.d.example") == "wild"
    assert value(table, "/", host="example") == "any"
    assert value(table, "/") == "any"


def test_fall_through_tries_less_specific_hosts() -> None:
    routes = [Route("/", "any"), Route("/a", "exact", hosts=("a.example",))]
    assert value(RouteTable(routes), "/b", host="a.example") is None
    assert value(RouteTable(routes, fall_through=True), "/b", host="a.example") == "any"


def test_method_headers_and_query() -> None:
    table = RouteTable(
        [
            Route("/", "plain"),
            Route("/", "post", method="POST"),
            Route("/", "header", headers={"X-Version": "2"}),
            Route("/", "query", query={"animal": "whale"}),
            Route(
                "/",
                "all",
                headers=[HeaderMatch("x-a", kind="present"), HeaderMatch("x-b", r"v\d+", "regex")],
                query=[QueryMatch("q", kind="present"), QueryMatch("r", "[ab]*", "regex")],
            ),
        ]
    )
    assert value(table, "/") == "plain"
    assert value(table, "/", method="POST") == "post"
    assert value(table, "/", headers={"x-version": "2"}) == "header"
    assert value(table, "/", headers=[("X-VERSION", "1"), ("x-version", " 2 ")]) == "header"
    assert value(table, "/", headers=[(b"x-version", b"2")]) == "header"
    assert value(table, "/?animal=whale&animal=dog") == "query"
    assert value(table, "/?animal=dog&animal=whale") == "plain"
    assert value(table, "/?animal=Whale") == "plain"
    both = {"x-a": "", "x-b": "v12"}
    assert value(table, b"/?q&r=abba", headers=both) == "all"
    assert value(table, "/?q&r=abc", headers=both) == "plain"


def test_age_then_name_then_order_break_ties() -> None:
    assert (
        value(RouteTable([Route("/", 0, name="a"), Route("/", 1, name="z", created=5)]), "/") == 1
    )
    assert value(RouteTable([Route("/", 0, name="b"), Route("/", 1, name="a")]), "/") == 1
    assert value(RouteTable([Route("/", 0), Route("/", 1)]), "/") == 0


def test_bytes_that_are_not_utf8_are_only_bytes() -> None:
    table = RouteTable([Route("/[^/]+", "regex", "regex")])
    assert value(table, b"/\xff\xfe", host=b"\xff") == "regex"


def test_explain_gives_each_route_its_reason() -> None:
    table = RouteTable(
        [
            Route("/", "root"),
            Route("/a", "a", hosts=("*", "x.example")),
            Route("/a", "post", method="POST"),
            Route("/a", "new", query={"v": "2"}),
        ]
    )
    assert [str(one) for one in table.explain("/a/b", host="y.example")] == [
        "routes[2]: prefix /a on *: the method does not match",
        'routes[3]: prefix /a on *: query parameter "v" is absent or does not match',
        "routes[1]: prefix /a on *: selected",
        "routes[0]: prefix / on *: matches, but the selected rule has a longer path prefix",
    ]
    assert str(table.explain("/b", host="x.example")[0]) == (
        "routes[1]: prefix /a on x.example: the path does not match"
    )


@pytest.mark.parametrize(
    ("route", "path", "message"),
    [
        (Route("api", 0), "routes[1].path", "\"api\" does not start with '/'"),
        (Route("/(", 0, "regex"), "routes[1].path", "at byte 1: unclosed group"),
        (Route("/", 0, hosts="a:80"), "routes[1].hosts", '"a:80" is not a hostname'),
        (Route("/", 0, headers={"a": "1", "b c": ""}), "routes[1].headers[1]", '"b c" is not'),
        (
            Route("/", 0, query=[QueryMatch("q", "[z-a]", "regex")]),
            "routes[1].query[0]",
            "at byte 1: invalid character class range",
        ),
        (Route("(a{1000}){1000}", 0, "regex"), "routes[1].path", "too large"),
    ],
)
def test_a_bad_route_is_a_config_error_with_its_place(
    route: Route[int], path: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        RouteTable([Route("/", 0), route])
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_wrong_kinds_and_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"routes\[0\]\.kind: \"glob\" is not prefix"):
        RouteTable([Route("/", 0, kind="glob")])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='x: kind "glob" is not exact'):
        RouteTable([Route("/", 0, headers=[HeaderMatch("x", "", "glob")])])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        RouteTable([Route("/", 0, headers={"x": 1})])  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        RouteTable([Route("/", 0, headers={"x": "1"})]).match("/", headers="x: 1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        RouteTable([("/", 0)]).match(1)  # type: ignore[arg-type]


def test_check_regex() -> None:
    assert check_regex(r"/users/\d+") is None
    assert check_regex("/(a") == "invalid regular expression at byte 1: unclosed group"
    assert check_regex(r"(a)\1") == (
        "invalid regular expression at byte 3: backreferences are not supported"
    )


def test_threads_share_a_table() -> None:
    table = RouteTable([Route(f"/{i}/[0-9]+", i, "regex") for i in range(50)])
    wrong: list[int] = []

    def look_up() -> None:
        wrong.extend(i for i in range(50) for n in range(20) if value(table, f"/{i}/{n}") != i)

    threads = [threading.Thread(target=look_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class Holder:
    table: RouteTable[Holder]


def test_a_table_and_its_values_are_collected() -> None:
    holder = Holder()
    holder.table = RouteTable([("/", holder)])
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None
