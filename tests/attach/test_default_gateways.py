"""Default Gateways, and routes that ask for one (GEP-3793)."""

from __future__ import annotations

import pytest
from tests.translate.support import EDGE, ROUTE, codes, run, run_all, status, verdict

DEFAULT = EDGE.replace(
    "gatewayClassName: kgateway\n", "gatewayClassName: kgateway\n  defaultScope: All\n"
)
ROUTES = "HTTPRoute default/route"


def asking(parents: str = "", namespace: str = "default") -> str:
    text = ROUTE.replace("{name: route}", f"{{name: route, namespace: {namespace}}}")
    return text.replace("parentRefs: [{name: edge}]", f"useDefaultGateways: All\n{parents}")


def test_a_route_is_attached_to_the_gateway_that_it_does_not_name() -> None:
    found = run(DEFAULT, asking())
    (parent,) = status(found, ROUTES).parents
    assert parent.ref == {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": "default",
        "name": "edge",
    }
    accepted = parent.conditions[0]
    assert (accepted.status, accepted.message) == ("True", "Route is bound to default Gateway")
    assert status(found, "Gateway default/edge").listeners[0].attached_routes == 1
    assert verdict(found, "Gateway default/edge", "DefaultGateway") == ("True", "DefaultGateway")
    assert codes(found) == []
    assert "default/route/0/0" in {one["name"] for one in found.ir["routes"].values()}


def test_every_default_gateway_takes_the_route() -> None:
    second = (
        DEFAULT.partition("---")[0].replace("name: edge", "name: b").replace("port: 80", "port: 81")
    )
    parents = status(run(DEFAULT, second, asking()), ROUTES).parents
    assert [one.ref["name"] for one in parents] == ["b", "edge"]


def test_a_gateway_that_is_named_too_is_there_once() -> None:
    (parent,) = status(run(DEFAULT, asking("  parentRefs: [{name: edge}]")), ROUTES).parents
    assert (parent.ref["kind"], parent.ref["name"]) == ("Gateway", "edge")


def test_parents_that_are_named_count_beside_default_ones() -> None:
    other = (
        EDGE.partition("---")[0].replace("name: edge", "name: b").replace("port: 80", "port: 81")
    )
    found = run(DEFAULT, other, asking("  parentRefs: [{name: b}]"))
    assert [one.ref["name"] for one in status(found, ROUTES).parents] == ["b", "edge"]


@pytest.mark.parametrize(
    "gateway", [EDGE, DEFAULT.replace("defaultScope: All", "defaultScope: None")]
)
def test_without_a_default_gateway_the_route_has_no_effect(gateway: str) -> None:
    found = run(gateway, asking())
    assert status(found, ROUTES).parents == ()
    (finding,) = found.findings
    assert (finding.code, finding.field) == ("KGW305", "spec.useDefaultGateways")


def test_a_default_gateway_allows_what_its_listeners_do() -> None:
    found = run(DEFAULT, asking(namespace="other"))
    assert status(found, "HTTPRoute other/route").parents == ()
    assert status(found, "Gateway default/edge").listeners[0].attached_routes == 0


def test_a_route_that_does_not_ask_is_not_taken() -> None:
    found = run(DEFAULT, ROUTE.replace("parentRefs: [{name: edge}]", "useDefaultGateways: None"))
    assert status(found, ROUTES).parents == ()
    assert codes(found) == ["KGW305"]


@pytest.mark.parametrize("kind", ["GRPCRoute", "TCPRoute", "TLSRoute"])
def test_every_kind_of_route_may_ask(kind: str) -> None:
    listener = {
        "GRPCRoute": "{name: http, port: 80, protocol: HTTP}",
        "TCPRoute": "{name: tcp, port: 90, protocol: TCP}",
        "TLSRoute": "{name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}",
    }[kind]
    hostnames = "hostnames: [a.example]" if kind == "TLSRoute" else ""
    found = run(
        DEFAULT.replace("{name: http, port: 80, protocol: HTTP}", listener),
        f"""
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: route}}
spec:
  useDefaultGateways: All
  {hostnames}
  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]
""",
    )
    (parent,) = status(found, f"{kind} default/route").parents
    assert parent.ref["name"] == "edge"
    assert parent.conditions[0].status == "True"


def test_a_refused_route_is_answered_where_it_would_be() -> None:
    broken = asking().replace("port: 80}", "port: 80, weight: -1}")
    found, findings = run_all(DEFAULT, broken)
    assert [one for one in findings if one.severity == "error"]
    (action,) = [one["action"] for one in found.ir["routes"].values()]
    assert (action["type"], action["status"]) == ("direct", 500)


def test_a_status_has_no_more_parents_than_an_api_server_takes() -> None:
    gateway, _, rest = DEFAULT.partition("---")
    many = [
        gateway.replace("name: edge", f"name: e-{number}").replace("port: 80", f"port: {number}")
        for number in range(81, 121)
    ]
    found = run(*many, rest, asking())
    assert len(status(found, ROUTES).parents) == 32
