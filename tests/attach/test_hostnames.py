"""What hostnames have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgw.attach.hostnames import covers, intersect, intersection, wider


@pytest.mark.parametrize(
    ("listener", "route", "expected"),
    [
        ("*", "a.example", "a.example"),
        ("*", "*.example", "*.example"),
        ("a.example", "a.example", "a.example"),
        ("a.example", "b.example", None),
        ("*.example", "a.example", "a.example"),
        ("*.example", "a.b.example", "a.b.example"),
        ("*.example", "example", None),
        ("*.example", "xexample", None),
        ("a.example", "*.example", "a.example"),
        ("*.foo.example", "*.example", "*.foo.example"),
        ("*.example", "*.foo.example", "*.foo.example"),
        ("*.foo.example", "*.bar.example", None),
        ("example", "*.example", None),
    ],
)
def test_intersection_of_two(listener: str, route: str, expected: str | None) -> None:
    assert intersect(listener, route) == expected


def test_a_route_without_hostnames_has_those_of_the_listener() -> None:
    assert intersection("*.example", ()) == ("*.example",)


def test_hostnames_of_others_are_left_out() -> None:
    assert intersection("*.example", ("a.example", "a.test", "b.example")) == (
        "a.example",
        "b.example",
    )


LABELS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(st.just("*"), LABELS, LABELS.map("*.{}".format))


def is_host_of(host: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    return (
        host.endswith(pattern[1:]) and host != pattern[2:]
        if pattern[0] == "*"
        else (host == pattern)
    )


@given(PATTERNS, PATTERNS, LABELS)
def test_a_host_of_both_is_a_host_of_the_intersection(one: str, other: str, host: str) -> None:
    common = intersect(one, other)
    both = is_host_of(host, one) and is_host_of(host, other)
    assert both == (common is not None and is_host_of(host, common))
    if covers(one, other) and is_host_of(host, other):
        assert is_host_of(host, one)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("*", ["*"]),
        ("a", ["a", "*"]),
        ("a.b.c", ["a.b.c", "*.b.c", "*.c", "*"]),
        ("*.b.c", ["*.b.c", "*.c", "*"]),
        ("*.c", ["*.c", "*"]),
    ],
)
def test_wider_hostnames_cover_the_given_one(host: str, expected: list[str]) -> None:
    found = list(wider(host))
    assert found == expected
    assert all(covers(one, host) for one in found)
