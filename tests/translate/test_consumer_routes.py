"""Routes of Services: whose clients they are for, and which kind goes before which."""

from __future__ import annotations

from typing import Any

import pytest
from tests.translate.support import MESH, codes, hosts, run, verdict

PARENT = '{group: "", kind: Service, name: web, namespace: default, port: 80}'

BACKEND = "backendRefs: [{name: api, namespace: default, port: 80}]"


def route(kind: str, name: str, namespace: str = "default", more: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{PARENT}]
  rules: [{{{BACKEND}}}]
  {"hostnames: [a.example, '*.b.example']" if kind == "TLSRoute" else ""}
  {more}
"""


def destination(*texts: str) -> dict[str, Any]:
    """What becomes of the port of the Service, at its first address."""
    (listener,) = run(MESH, *texts).ir["listeners"]
    (found,) = (
        one
        for one in listener["traffic"]["destinations"]
        if (one["address"], one["port"]) == ("10.0.0.1", 80)
    )
    return {name: one for name, one in found.items() if name not in ("address", "port", "service")}


def forward(name: str) -> dict[str, Any]:
    backends = [{"cluster": "kube_default_api_80", "weight": 1}]
    return {"name": name, "backends": backends}


def test_a_route_of_another_namespace_is_for_the_clients_of_that_one() -> None:
    consumer = route("HTTPRoute", "theirs", "shop")
    assert destination(consumer) == {
        "route_table": "service/default/web/80",
        "clients": {"shop": {"route_table": "service/default/web/80/shop"}},
    }
    found = run(MESH, consumer)
    assert hosts(found, "service/default/web/80/shop") == {"*": ["httproute/shop/theirs/0/0"]}
    # For others the Service is as if it had no routes.
    assert hosts(found, "service/default/web/80") == {"*": ["default"]}
    assert verdict(found, "HTTPRoute shop/theirs", "Accepted") == ("True", "Accepted")
    assert verdict(found, "HTTPRoute shop/theirs", "ResolvedRefs") == ("True", "ResolvedRefs")
    assert codes(found) == []


def test_consumers_routes_take_the_place_of_producers() -> None:
    texts = [route("HTTPRoute", "ours"), route("HTTPRoute", "theirs", "shop")]
    found = run(MESH, *texts, route("HTTPRoute", "more", "shop"))
    assert hosts(found, "service/default/web/80") == {"*": ["httproute/default/ours/0/0"]}
    assert hosts(found, "service/default/web/80/shop") == {
        "*": ["httproute/shop/more/0/0", "httproute/shop/theirs/0/0"]
    }


def test_each_namespace_has_its_own() -> None:
    found = destination(route("HTTPRoute", "a", "one"), route("TCPRoute", "b", "two"))
    assert found["clients"] == {
        "one": {"route_table": "service/default/web/80/one"},
        "two": {"tcp": forward("two/b/0")},
    }


KINDS = ["GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute"]


@pytest.mark.parametrize("namespace", ["default", "shop"])
@pytest.mark.parametrize("winner", range(3))
def test_of_several_kinds_the_most_specific_is_served(winner: int, namespace: str) -> None:
    texts = [route(kind, kind.lower(), namespace) for kind in KINDS[winner:]]
    found = run(MESH, *texts)
    verdicts = [
        verdict(found, f"{kind} {namespace}/{kind.lower()}", "Accepted") for kind in KINDS[winner:]
    ]
    assert verdicts == [("True", "Accepted"), *[("False", "Conflicted")] * (3 - winner)]
    own = destination(*texts)
    own = own if namespace == "default" else own["clients"][namespace]
    assert list(own) == ["route_table" if winner < 2 else "tls"]


def test_a_kind_is_not_in_the_way_of_other_clients() -> None:
    found = run(MESH, route("GRPCRoute", "ours"), route("TCPRoute", "theirs", "shop"))
    for name in ("GRPCRoute default/ours", "TCPRoute shop/theirs"):
        assert verdict(found, name, "Accepted") == ("True", "Accepted")


def test_tls_goes_by_server_name() -> None:
    older = route("TLSRoute", "older").replace(
        "{name:", "{creationTimestamp: 2026-01-01T00:00:00Z, name:", 1
    )
    younger = route("TLSRoute", "younger").replace(
        "[a.example, '*.b.example']", "[a.example, c.example]"
    )
    younger = younger.replace("{name:", "{creationTimestamp: 2026-01-02T00:00:00Z, name:", 1)
    assert destination(older, younger) == {
        "tls": {
            "routes": [
                {
                    "server_names": ["a.example", "*.b.example"],
                    "forward": forward("default/older/0"),
                },
                {"server_names": ["c.example"], "forward": forward("default/younger/0")},
            ]
        }
    }
    assert codes(run(MESH, older, younger)) == []
    same = run(MESH, older, younger.replace(", c.example", ""))
    assert [(one.code, one.resource) for one in same.findings] == [
        ("KGW420", "TLSRoute default/younger")
    ]


def test_a_port_is_also_meant_by_its_name() -> None:
    by_name = route("HTTPRoute", "r").replace("port: 80}]", "sectionName: http}]", 1)
    found = run(MESH, by_name)
    assert hosts(found, "service/default/web/80") == {"*": ["httproute/default/r/0/0"]}
    assert hosts(found, "service/default/web/81") == {"*": ["default"]}
