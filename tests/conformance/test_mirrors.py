"""Copies of requests to other backends."""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Any

from tests.conformance import rules
from tests.conformance.infra import INFRA, Infra, route
from tests.conformance.suite import conformance
from tests.engine.harness import eventually

CHANGES = rules.request_headers(
    set={"X-Header-Set": "set-overwrites-values"},
    add={"X-Header-Add": "header-val-1", "X-Header-Add-Append": "header-val-2"},
    remove=["X-Header-Remove"],
)

SENT = {"X-Header-Remove": "remove-val", "X-Header-Add-Append": "append-val-1"}

RECEIVED = {
    "x-header-set": ["set-overwrites-values"],
    "x-header-add": ["header-val-1"],
    "x-header-add-append": ["append-val-1", "header-val-2"],
    "x-header-remove": None,
}


def copies(infra: Infra, backend: str, path: str) -> list[dict[str, Any]]:
    """What a mirror got for a path."""
    return [one for one in infra.requests[f"{INFRA}/{backend}"] if one["path"] == path]


def check_copies(infra: Infra, path: str, changed: str, *mirrors: str) -> None:
    """Checks that each mirror gets copies, with changes of header fields below `changed`."""
    infra.accepted("same-namespace", "route")
    for asked in (f"{path}?id=1", f"{changed}?id=2"):
        reply = infra.request("same-namespace", asked, headers=SENT)
        assert reply.backend == "infra-backend-v1"
        reply.passed(asked, "example.com")
        if changed in asked:
            assert {name: reply.seen["headers"].get(name) for name in RECEIVED} == RECEIVED
        for mirror in mirrors:
            eventually(partial(copies, infra, mirror, asked), asked)
            (copy,) = copies(infra, mirror, asked)
            assert copy["method"] == "GET"
            if changed in asked:
                assert {name: copy["headers"].get(name) for name in RECEIVED} == RECEIVED


@conformance("HTTPRouteRequestMirror")
def test_HTTPRouteRequestMirror(infra: Infra) -> None:
    v2 = rules.mirror("infra-backend-v2")
    infra.apply(
        route(
            rules.text(
                rules.rule("/mirror", v2),
                rules.rule("/mirror-and-modify-headers", CHANGES, v2),
            )
        )
    )

    check_copies(infra, "/mirror", "/mirror-and-modify-headers", "infra-backend-v2")


@conformance("HTTPRouteRequestMultipleMirrors")
def test_HTTPRouteRequestMultipleMirrors(infra: Infra) -> None:
    both = rules.mirror("infra-backend-v2"), rules.mirror("infra-backend-v3")
    infra.apply(
        route(
            rules.text(
                rules.rule("/multi-mirror", *both),
                rules.rule("/multi-mirror-and-modify-request-headers", CHANGES, *both),
            )
        )
    )

    check_copies(
        infra,
        "/multi-mirror",
        "/multi-mirror-and-modify-request-headers",
        "infra-backend-v2",
        "infra-backend-v3",
    )


@conformance("HTTPRouteRequestPercentageMirror")
def test_HTTPRouteRequestPercentageMirror(infra: Infra) -> None:
    v2 = "infra-backend-v2"
    cases = (
        ("/percent-mirror", 0.2, [rules.mirror(v2, percent=20)]),
        (
            "/percent-mirror-fraction",
            0.5,
            [rules.mirror(v2, fraction={"numerator": 25, "denominator": 50})],
        ),
        ("/percent-mirror-and-modify-headers", 0.35, [CHANGES, rules.mirror(v2, percent=35)]),
    )
    infra.apply(route(rules.text(*(rules.rule(path, *ones) for path, _, ones in cases))))

    infra.accepted("same-namespace", "route")
    for path, share, filters in cases:
        found = infra.shares("same-namespace", 500, path, headers=SENT)
        assert found == {"infra-backend-v1": 500}
        # All copies have ended, and there is nothing else that could still come.
        eventually(lambda: infra.proxy.stats()["mirror_rq_active"] == 0, "the end of all copies")
        seen = copies(infra, v2, path)
        # Five standard deviations: chance is no reason to fail.
        assert abs(len(seen) - 500 * share) <= 5 * sqrt(500 * share * (1 - share)), path
        if CHANGES in filters:
            for copy in seen:
                assert {name: copy["headers"].get(name) for name in RECEIVED} == RECEIVED
