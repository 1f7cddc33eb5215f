"""Header modifiers of rules and of backends."""

from __future__ import annotations

from typing import Any

from tests.conformance import rules
from tests.conformance.infra import Infra, route
from tests.conformance.suite import conformance

#: Changes by path.
CHANGES: dict[str, dict[str, Any]] = {
    "/set": {"set": {"X-Header-Set": "set-overwrites-values"}},
    "/add": {"add": {"X-Header-Add": "add-appends-values"}},
    "/remove": {"remove": ["X-Header-Remove"]},
    "/multiple": {
        "set": {"X-Header-Set-1": "header-set-1", "X-Header-Set-2": "header-set-2"},
        "add": {
            "X-Header-Add-1": "header-add-1",
            "X-Header-Add-2": "header-add-2",
            "X-Header-Add-3": "header-add-3",
        },
        "remove": ["X-Header-Remove-1", "X-Header-Remove-2"],
    },
    "/case-insensitivity": {
        "set": {"X-Header-Set": "header-set"},
        "add": {
            "X-Header-Add": "header-add",
            "x-lowercase-add": "lowercase-add",
            "x-Mixedcase-ADD-1": "mixedcase-add-1",
            "X-mixeDcase-add-2": "mixedcase-add-2",
            "X-UPPERCASE-ADD": "uppercase-add",
        },
        "remove": ["X-Header-Remove"],
    },
}

#: Path, fields before, and fields after; `None` is one that must not be there.
CASES: list[tuple[str, dict[str, str], dict[str, str | None]]] = [
    ("/set", {"Other": "val"}, {"other": "val", "x-header-set": "set-overwrites-values"}),
    ("/set", {"X-Header-Set": "old"}, {"x-header-set": "set-overwrites-values"}),
    ("/add", {"Other": "val"}, {"other": "val", "x-header-add": "add-appends-values"}),
    ("/add", {"X-Header-Add": "old"}, {"x-header-add": "old,add-appends-values"}),
    ("/remove", {"X-Header-Remove": "val"}, {"x-header-remove": None}),
    (
        "/multiple",
        {
            "X-Header-Set-2": "set-val-2",
            "X-Header-Add-2": "add-val-2",
            "X-Header-Remove-1": "remove-val-1",
            "X-Header-Remove-2": "remove-val-2",
            "Another-Header": "another-header-val",
        },
        {
            "x-header-set-1": "header-set-1",
            "x-header-set-2": "header-set-2",
            "x-header-add-1": "header-add-1",
            "x-header-add-2": "add-val-2,header-add-2",
            "x-header-add-3": "header-add-3",
            "another-header": "another-header-val",
            "x-header-remove-1": None,
            "x-header-remove-2": None,
        },
    ),
    (
        "/case-insensitivity",
        {
            "x-header-set": "original-set",
            "x-header-add": "original-add",
            "x-header-remove": "original-remove",
            "Another-Header": "another-header-val",
        },
        {
            "x-header-set": "header-set",
            "x-header-add": "original-add,header-add",
            "x-lowercase-add": "lowercase-add",
            "x-mixedcase-add-1": "mixedcase-add-1",
            "x-mixedcase-add-2": "mixedcase-add-2",
            "x-uppercase-add": "uppercase-add",
            "another-header": "another-header-val",
            "x-header-remove": None,
        },
    ),
]


def answering(fields: dict[str, str]) -> dict[str, str]:
    """What makes the backend answer with fields."""
    return {"X-Echo-Set-Header": ",".join(f"{name}:{value}" for name, value in fields.items())}


def check_requests(infra: Infra) -> None:
    for path, before, after in CASES:
        reply = infra.request("same-namespace", path, headers=before)
        assert reply.backend == "infra-backend-v1"
        reply.passed(path, "example.com")
        assert {name: reply.received(name) for name in after} == after, (path, before)


@conformance("HTTPRouteRequestHeaderModifier")
def test_HTTPRouteRequestHeaderModifier(infra: Infra) -> None:
    ones = (rules.rule(path, rules.request_headers(**changes)) for path, changes in CHANGES.items())
    infra.apply(route(rules.text(*ones)))

    infra.accepted("same-namespace", "route")
    check_requests(infra)


@conformance("HTTPRouteBackendRequestHeaderModifier")
def test_HTTPRouteBackendRequestHeaderModifier(infra: Infra) -> None:
    ones = (
        rules.rule(path, to=rules.backend(filters=[rules.request_headers(**changes)]))
        for path, changes in CHANGES.items()
    )
    infra.apply(route(rules.text(*ones)))

    infra.accepted("same-namespace", "route")
    check_requests(infra)


@conformance("HTTPRouteRequestHeaderModifierBackendWeights")
def test_HTTPRouteRequestHeaderModifierBackendWeights(infra: Infra) -> None:
    names = ("infra-backend-v1", "infra-backend-v2")
    refs = [
        rules.backend(name, weight=10, filters=[rules.request_headers(set={"Backend": name})])
        for name in names
    ]
    infra.apply(route(rules.text(rules.rule(to=refs))))

    infra.accepted("same-namespace", "route")
    replies = [infra.request("same-namespace") for _ in range(100)]
    assert {one.backend for one in replies} == set(names)
    assert all(one.received("backend") == one.backend for one in replies)


@conformance("HTTPRouteResponseHeaderModifier")
def test_HTTPRouteResponseHeaderModifier(infra: Infra) -> None:
    both = rules.rule(
        "/response-and-request-header-modifiers",
        rules.response_headers(**CHANGES["/multiple"]),
        rules.request_headers(
            set={"X-Header-Set": "set-overwrites-values"},
            add={"X-Header-Add": "header-val-1", "X-Header-Add-Append": "header-val-2"},
            remove=["X-Header-Remove"],
        ),
    )
    ones = (
        rules.rule(path, rules.response_headers(**changes)) for path, changes in CHANGES.items()
    )
    infra.apply(route(rules.text(*ones, both)))

    infra.accepted("same-namespace", "route")
    for path, before, after in CASES:
        reply = infra.request("same-namespace", path, headers=answering(before))
        assert reply.backend == "infra-backend-v1"
        assert {name: reply.header(name) for name in after} == after, (path, before)

    _, before, after = next(one for one in CASES if one[0] == "/multiple")
    sent = {
        **answering({**before, "X-Header-Echo": "echo"}),
        "X-Header-Remove": "remove-val",
        "X-Header-Add-Append": "append-val-1",
        "X-Header-Echo": "echo",
    }
    reply = infra.request("same-namespace", "/response-and-request-header-modifiers", headers=sent)
    assert {name: reply.header(name) for name in after} == after
    assert reply.header("x-header-echo") == "echo"
    assert {
        name: reply.received(f"x-header-{name}")
        for name in ("add", "set", "add-append", "echo", "remove")
    } == {
        "add": "header-val-1",
        "set": "set-overwrites-values",
        "add-append": "append-val-1,header-val-2",
        "echo": "echo",
        "remove": None,
    }
