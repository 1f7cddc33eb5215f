"""GRPCRoutes in the representation, and beside HTTPRoutes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.translate.support import (
    EDGE,
    MESH,
    ROUTE,
    actions,
    codes,
    condition,
    filters,
    hosts,
    run,
    run_all,
    status,
    verdict,
)

GRPC = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
"""

NAME = "GRPCRoute default/calls"

#: A policy of one token a minute for the route.
LIMIT = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: limit}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: calls}]
  rateLimit: {local: {tokenBucket: {maxTokens: 1, fillInterval: 60s}}}
"""


def rule(text: str) -> str:
    return GRPC.replace("rules: [{", f"rules: [{{{text}, ")


def dated(text: str, stamp: str) -> str:
    return text.replace("metadata: {", f"metadata: {{creationTimestamp: '{stamp}', ")


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("{}", {"path": {"prefix": "/"}}),
        ("{method: {service: a.B, method: C}}", {"path": {"exact": "/a.B/C"}}),
        ("{method: {service: a.B}}", {"path": {"prefix": "/a.B"}}),
        ("{method: {service: a.B, method: ''}}", None),
        (
            "{method: {method: C}}",
            {
                "path": {"prefix": "/"},
                "method": "POST",
                "headers": [{"name": ":path", "value": {"regex": "/[^/]+/C"}}],
            },
        ),
        (
            "{method: {type: RegularExpression, service: 'a|b', method: 'C+'}}",
            {"path": {"regex": "/(?:a|b)/(?:C+)"}},
        ),
        (
            "{method: {type: RegularExpression, method: 'C+'}}",
            {"path": {"regex": "/[^/]+/(?:C+)"}},
        ),
        (
            "{headers: [{name: X-A, value: b}, {type: RegularExpression, name: x-b, value: 'c+'}]}",
            {
                "path": {"prefix": "/"},
                "headers": [
                    {"name": "x-a", "value": {"exact": "b"}},
                    {"name": "x-b", "value": {"regex": "c+"}},
                ],
            },
        ),
    ],
)
def test_calls_are_paths(match: str, expected: dict[str, Any] | None) -> None:
    translation, findings = run_all(EDGE, rule(f"matches: [{match}]"))
    if expected is None:  # an API server refuses it
        assert [one.code for one in findings if one.severity == "error"]
        return
    (table,) = translation.ir["route_tables"].values()
    (found,) = table["hosts"][0]["rules"]
    assert {name: one for name, one in found.items() if name not in ("rank", "route")} == expected
    assert found["route"] == "grpcroute/default/calls/0/0@gateway/default/edge/80"


def test_backends_get_http2_and_a_call_without_one_ends_as_unavailable() -> None:
    found = run(EDGE, GRPC)
    assert found.ir["clusters"] == {
        "kube_default_web_80_http2": {"endpoints": [], "protocol": "http2"}
    }
    action = actions(found)["default/calls/0/0"]
    assert (action["unresolved_status"], action["request_timeout_ms"]) == (503, 0)


def test_a_port_that_declares_http2_has_one_cluster_for_all_routes() -> None:
    edge = EDGE.replace("{name: http, port: 80}", "{name: grpc, port: 80}")
    route = ROUTE.replace("spec:", "spec:\n  hostnames: [a.example]")
    found = run(edge, GRPC.replace("spec:", "spec:\n  hostnames: [b.example]"), route)
    assert list(found.ir["clusters"]) == ["kube_default_web_80"]


def test_a_policy_for_the_route_holds_for_its_calls() -> None:
    found = run(EDGE, GRPC, LIMIT)
    (limit,) = filters(found)["default/calls/0/0"]
    assert limit["type"] == "local_rate_limit"
    ancestor = "Gateway default/edge"
    assert verdict(found, "TrafficPolicy default/limit", "Attached", ancestor) == (
        "True",
        "Attached",
    )


def test_header_filters_and_references_are_those_of_http_routes() -> None:
    modifier = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}"
    missing = "{type: ExtensionRef, extensionRef: {group: kgw.dev, kind: Nope, name: x}}"
    found = run(EDGE, rule(f"filters: [{modifier}]"))
    (one,) = filters(found)["default/calls/0/0"]
    assert (one["type"], one["set"]) == ("request_headers", [["a", "b"]])
    broken = run(EDGE, rule(f"filters: [{missing}]"))
    assert actions(broken)["default/calls/0/0"]["type"] == "direct"
    assert codes(broken) == ["KGW502"]


def test_a_broken_expression_drops_its_match() -> None:
    method = "{type: RegularExpression, service: 'a)(b', method: C}"
    found = run(EDGE, rule(f"matches: [{{method: {method}}}]"))
    (finding,) = found.findings
    assert (finding.code, finding.field) == (
        "KGW406",
        "spec.rules[0].matches[0].method.service",
    )
    assert verdict(found, NAME, "Accepted") == ("False", "UnsupportedValue")


def test_a_refused_route_answers_500_for_what_can_be_read_of_it() -> None:
    text = rule("matches: [{method: {service: a.B}}], filters: [{type: RequestRedirect}]")
    found, findings = run_all(EDGE, text)
    assert any(one.severity == "error" for one in findings)
    (table,) = found.ir["route_tables"].values()
    (one,) = table["hosts"][0]["rules"]
    assert one["path"] == {"prefix": "/a.B"}
    assert actions(found)["default/calls/0/0"]["status"] == 500


def test_a_grant_is_for_one_kind_of_route() -> None:
    service = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other}
spec: {clusterIP: 10.0.0.9, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: "", kind: Service}]
"""
    far = "{name: web, namespace: other, port: 80}"
    texts = [one.replace("{name: web, port: 80}", far) for one in (GRPC, ROUTE)]
    hosts = [f"spec:\n  hostnames: [{one}.example]" for one in "ab"]
    texts = [one.replace("spec:", host) for one, host in zip(texts, hosts, strict=True)]
    found = run(EDGE, service, *texts)
    assert verdict(found, NAME, "ResolvedRefs") == ("False", "RefNotPermitted")
    assert verdict(found, "HTTPRoute default/route", "ResolvedRefs") == ("True", "ResolvedRefs")


# === Beside HTTPRoutes ===


def test_routes_of_both_kinds_are_counted() -> None:
    texts = [
        text.replace("spec:", f"spec:\n  hostnames: [{host}]")
        for text, host in ((GRPC, "a.example"), (ROUTE, "b.example"))
    ]
    found = run(EDGE, *texts)
    assert status(found, "Gateway default/edge").listeners[0].attached_routes == 2
    assert codes(found) == []


@pytest.mark.parametrize(
    ("grpc", "http", "shared"),
    [
        ("[a.example]", "[a.example]", True),
        ("['*.example']", "[a.b.example]", True),
        ("[a.b.example]", "['*.b.example']", True),
        ("['*.b.example']", "['*.example']", True),
        ("[]", "[a.example]", True),
        ("[]", "[]", True),
        ("[a.example]", "[b.example]", False),
        ("['*.a.example']", "['*.b.example', a.example]", False),
        ("['*.example']", "[example]", False),
    ],
)
@pytest.mark.parametrize("first", ["GRPCRoute", "HTTPRoute"])
def test_of_routes_of_both_kinds_for_one_host_the_older_is_served(
    grpc: str, http: str, shared: bool, first: str
) -> None:
    stamps = {"GRPCRoute": "2026-01-02T00:00:00Z", "HTTPRoute": "2026-01-02T00:00:00Z"}
    stamps[first] = "2026-01-01T00:00:00Z"
    calls = dated(GRPC, stamps["GRPCRoute"]).replace("spec:", f"spec:\n  hostnames: {grpc}")
    route = dated(ROUTE, stamps["HTTPRoute"]).replace("spec:", f"spec:\n  hostnames: {http}")
    found = run(EDGE, calls, route)
    names = {"GRPCRoute": NAME, "HTTPRoute": "HTTPRoute default/route"}
    winner = names.pop(first)
    (loser,) = names.values()
    assert verdict(found, winner, "Accepted") == ("True", "Accepted")
    outcome = ("False", "Conflicted") if shared else ("True", "Accepted")
    assert verdict(found, loser, "Accepted") == outcome
    assert codes(found) == (["KGW420"] if shared else [])
    expected = 1 if shared else 2
    assert status(found, "Gateway default/edge").listeners[0].attached_routes == expected
    kinds = {one.partition("/")[0] for one in found.ir["routes"]}
    assert len(kinds) == expected


def test_a_route_that_lost_to_none_that_is_served_is_served() -> None:
    """The middle one loses to the oldest, so it takes nothing from the youngest."""
    old = dated(GRPC, "2026-01-01T00:00:00Z").replace("spec:", "spec:\n  hostnames: [a.example]")
    middle = dated(ROUTE, "2026-01-02T00:00:00Z").replace(
        "spec:", "spec:\n  hostnames: [a.example, b.example]"
    )
    young = dated(GRPC, "2026-01-03T00:00:00Z").replace("calls", "more")
    young = young.replace("spec:", "spec:\n  hostnames: [b.example]")
    found = run(EDGE, old, middle, young)
    assert verdict(found, "HTTPRoute default/route", "Accepted") == ("False", "Conflicted")
    assert verdict(found, "GRPCRoute default/more", "Accepted") == ("True", "Accepted")
    assert hosts(found, "gateway/default/edge/80") == {
        "*": [],
        "a.example": ["grpcroute/default/calls/0/0"],
        "b.example": ["grpcroute/default/more/0/0"],
    }


def test_a_route_keeps_the_listeners_that_it_did_not_lose() -> None:
    edge = EDGE.replace(
        "{name: http, port: 80, protocol: HTTP}",
        "{name: http, port: 80, protocol: HTTP}, {name: more, port: 81, protocol: HTTP}",
    )
    old = dated(GRPC, "2026-01-01T00:00:00Z").replace("{name: edge}", "{name: edge, port: 81}")
    found = run(edge, old, dated(ROUTE, "2026-01-02T00:00:00Z"))
    assert verdict(found, "HTTPRoute default/route", "Accepted") == ("True", "Accepted")
    (finding,) = found.findings
    assert (finding.code, finding.resource) == ("KGW420", "HTTPRoute default/route")
    assert hosts(found, "gateway/default/edge/80") == {"*": ["httproute/default/route/0/0"]}
    assert hosts(found, "gateway/default/edge/81") == {"*": ["grpcroute/default/calls/0/0"]}


def test_on_a_service_calls_go_before_requests_whatever_the_ages() -> None:
    parent = '{group: "", kind: Service, name: web}'
    calls = dated(GRPC, "2026-01-02T00:00:00Z").replace("{name: edge}", parent[:-1] + ", port: 80}")
    route = dated(ROUTE, "2026-01-01T00:00:00Z").replace("{name: edge}", parent)
    found = run(MESH, calls, route)
    assert verdict(found, NAME, "Accepted") == ("True", "Accepted")
    # Port 81 is left to it.
    assert verdict(found, "HTTPRoute default/route", "Accepted") == ("True", "Accepted")
    assert hosts(found, "service/default/web/80") == {"*": ["grpcroute/default/calls/0/0"]}
    assert hosts(found, "service/default/web/81") == {"*": ["httproute/default/route/0/0"]}
    whole = run(MESH, calls.replace("web, port: 80}]\n", "web}]\n"), route)
    assert verdict(whole, "HTTPRoute default/route", "Accepted") == ("False", "Conflicted")
    message = condition(whole, "HTTPRoute default/route", "Accepted").message
    assert "GRPCRoute" in message
