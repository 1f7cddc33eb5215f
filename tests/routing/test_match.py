"""What a match tells: the rest of the path, parameters, the route, and why."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from kgw.routing import Route, RouteMatch, RouteTable, canonical_path


def matched(table: RouteTable[str], path: str | bytes, host: str | None = None) -> RouteMatch[str]:
    found = table.match(path, host=host)
    assert found is not None
    return found


def test_prefix_and_suffix_make_the_path() -> None:
    table = RouteTable([Route("/", "root"), Route("/api/", "api"), Route("/x", "exact", "exact")])
    for path, prefix, suffix in [
        ("/api/users/1", "/api", "/users/1"),
        ("/api/", "/api", "/"),
        ("/api", "/api", ""),
        ("/a?b=/c", "", "/a"),
        ("", "", "/"),
    ]:
        found = matched(table, path)
        assert (found.matched_prefix, found.suffix, found.params) == (prefix, suffix, {})
    exact = matched(table, "/x")
    assert (exact.matched_prefix, exact.suffix, exact.params) == (None, None, {})


def test_named_groups_are_path_parameters() -> None:
    table = RouteTable(
        [
            Route(r"/users/(?P<user>[0-9]+)(?:/posts/(?<post>[^/]*))?", "user", "regex"),
            Route(r"/(a|b)/(?:x|y)", "unnamed", "regex"),
        ]
    )
    assert matched(table, "/users/42?q=1").params == {"user": "42"}
    assert matched(table, "/users/42/posts/a%20b").params == {"user": "42", "post": "a%20b"}
    assert matched(table, "/b/x").params == {}


def test_bytes_that_are_not_utf8_can_be_had_back() -> None:
    table = RouteTable([Route("/p", "prefix"), Route("/r/(?<name>.*)", "regex", "regex")])
    suffix = matched(table, b"/p/\xff\xc3\xa9").suffix
    assert suffix is not None
    assert suffix.encode("utf-8", "surrogateescape") == b"/\xff\xc3\xa9"
    assert matched(table, b"/r/\xfe").params == {"name": "\udcfe"}


def test_the_route_and_its_hostname() -> None:
    routes: list[Route[str] | tuple[str, str]] = [
        Route("/", "a", hosts=("*.example", "b.example")),
        ("/", "t"),
    ]
    table = RouteTable(routes)
    assert matched(table, "/", "A.Example:80").route is routes[0]
    assert matched(table, "/", "A.Example:80").hostname == "*.example"
    assert matched(table, "/", "b.example").hostname == "b.example"
    assert matched(table, "/").route is routes[1]
    assert matched(table, "/").hostname == "*"


def test_why_is_structured_and_printable() -> None:
    table = RouteTable(
        [
            Route("/", "root", name="default/root"),
            Route("/a", "post", method="POST"),
            Route("/a", "header", headers={"X-Version": "2"}),
            Route("/a", "query", query={"v": "2"}),
            Route("/a/b", "chosen", headers={"x-a": "1"}),
            Route("/a/b", "outranked"),
            Route("/c", "other path"),
        ]
    )
    found = table.match("/a/b?x", host="h.example", headers={"x-a": "1"})
    assert found is not None
    why = found.why
    assert {one.value: (one.outcome, one.detail) for one in why} == {
        "chosen": ("selected", None),
        "outranked": ("outranked", "headers"),
        "post": ("method", None),
        "header": ("header", "X-Version"),
        "query": ("query", "v"),
        "other path": ("path", None),
        "root": ("outranked", "prefix_length"),
    }
    assert why.selected is not None
    assert why.selected.index == found.index == 4
    assert why.selected.route == found.route
    assert [one.index for one in why] == [4, 5, 1, 2, 3, 6, 0], "in order of precedence"
    assert {one.hostname for one in why} == {"*"}
    assert why[-1].value == "root"
    assert str(why).splitlines()[0] == "GET h.example/a/b?x"
    assert "  routes[4]: prefix /a/b on *: selected" in str(why).splitlines()
    assert (
        "  routes[0] default/root: prefix / on *: matches, but the selected rule has a longer "
        "path prefix" in str(why).splitlines()
    )
    assert repr(why) == "<Explanation of 7 routes for GET h.example/a/b?x>"
    with pytest.raises(IndexError):
        why[7]


def test_why_no_route() -> None:
    table = RouteTable([Route("/a", "a", hosts="a.example")])
    nothing = table.explain("/b", host="a.example")
    assert nothing.selected is None
    assert str(nothing) == (
        "GET a.example/b: no route matches\n"
        "  routes[0]: prefix /a on a.example: the path does not match"
    )
    assert str(table.explain("/", host="x", method="PUT")) == (
        "PUT x/: no route has a hostname that matches"
    )
    assert len(table.explain("/", host="x")) == 0


def test_a_less_specific_hostname_is_a_reason() -> None:
    table = RouteTable([Route("/", "any"), Route("/a", "own", hosts="a.example")])
    outcomes = [(one.value, one.outcome) for one in table.explain("/b", host="a.example")]
    assert outcomes == [("own", "path"), ("any", "hostname")]


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/a//b/./c/../d", "/a/b/d"),
        ("/%7euser?x=%7e//", "/~user?x=%7e//"),
        ("/a%2fb", "/a%2Fb"),
        ("\\a", "/a"),
    ],
)
def test_the_form_of_a_path_that_the_proxy_matches(path: str, canonical: str) -> None:
    assert canonical_path(path) == canonical
    assert canonical_path(canonical) == canonical


@pytest.mark.parametrize("path", ["", "a", "/a%00", "/#", "/..%2f"])
def test_a_path_that_the_proxy_refuses(path: str) -> None:
    with pytest.raises(ValueError, match="has no canonical form"):
        canonical_path(path)


def test_a_match_keeps_its_table_and_no_longer() -> None:
    class Value:
        match: object = None

    value = Value()
    table = RouteTable([("/", value)])
    value.match = table.match("/")
    explained = table.explain("/")
    gone = weakref.ref(value)
    del table
    gc.collect()
    assert explained.selected is not None
    assert explained.selected.value is value
    del value, explained
    gc.collect()
    assert gone() is None


def test_threads_share_a_table() -> None:
    """Regular expressions and their groups are compiled, and caches filled, by whoever is first."""
    threads = 8
    routes = [Route(rf"/r{at}/(?P<id>[a-z0-9]+)/(x|y)", f"regex {at}", "regex") for at in range(40)]
    routes += [Route(f"/p{at}", f"prefix {at}", headers={"n": str(at)}) for at in range(40)]
    table = RouteTable(routes)
    start = threading.Barrier(threads)

    def hammer(number: int) -> None:
        start.wait()
        for step in range(2_000):
            at = (step * 7 + number) % 40
            found = table.match(f"/r{at}/u{number}/x")
            assert found is not None
            assert found.params == {"id": f"u{number}"}
            assert found.value == f"regex {at}"
            found = table.match(f"/p{at}/s", headers={"N": str(at)})
            assert found is not None
            assert (found.value, found.suffix) == (f"prefix {at}", "/s")
            if step % 100 == 0:
                assert found.why.selected is not None
                assert found.why.selected.index == found.index

    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(hammer, number) for number in range(threads)]:
            job.result()
