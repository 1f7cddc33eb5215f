"""Conditions of HTTPRoutes, by reason."""

from __future__ import annotations

import pytest
from tests.translate.support import EDGE, MESH, ROUTE, codes, condition, run, status, verdict

from kgw.api import parse_all
from kgw.source.memory import RawObject
from kgw.translate import translate

HTTP_ROUTE = "HTTPRoute default/route"


def route(parents: str, spec: str = "", backend: str = "{name: web, port: 80}") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route, generation: 7}}
spec:
  parentRefs: {parents}
  rules: [{{backendRefs: [{backend}]}}]
  {spec}
"""


def edge(listener: str) -> str:
    return EDGE.replace("{name: http, port: 80, protocol: HTTP}", listener)


def test_a_good_route_is_accepted_resolved_and_programmed() -> None:
    found = run(EDGE, route("[{name: edge}]"))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("True", "Accepted")
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("True", "ResolvedRefs")
    assert verdict(found, HTTP_ROUTE, "kgateway.dev/Programmed") == ("True", "Programmed")
    assert condition(found, HTTP_ROUTE, "Accepted").message == "Successfully accepted Route"
    assert condition(found, HTTP_ROUTE, "Accepted").observed_generation == 7
    assert codes(found) == []


def test_the_parent_is_echoed_with_the_defaults_that_an_api_server_adds() -> None:
    found = run(EDGE, route("[{name: edge, sectionName: http}]"))
    (parent,) = status(found, HTTP_ROUTE).to_json()["parents"]
    assert parent["parentRef"] == {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": "edge",
        "sectionName": "http",
    }


def test_the_parent_is_echoed_as_it_was_written() -> None:
    found = run(MESH, route('[{group: "", kind: Service, name: web, port: 80}]'))
    (parent,) = status(found, HTTP_ROUTE).to_json()["parents"]
    assert parent["parentRef"] == {"group": "", "kind": "Service", "name": "web", "port": 80}
    assert parent["controllerName"] == "kgateway.dev/kgateway"


@pytest.mark.parametrize(
    ("gateway", "parent", "code", "reason"),
    [
        ("{name: http, port: 80, protocol: HTTP}", "{name: edg}", "KGW305", "NoMatchingParent"),
        (
            "{name: http, port: 80, protocol: HTTP}",
            "{name: edge, sectionName: https}",
            "KGW306",
            "NoMatchingParent",
        ),
        (
            "{name: http, port: 80, protocol: HTTP}",
            "{name: edge, port: 81}",
            "KGW306",
            "NoMatchingParent",
        ),
        (
            "{name: http, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}",
            "{name: edge}",
            "KGW401",
            "NotAllowedByListeners",
        ),
        (
            "{name: http, port: 80, protocol: HTTP, hostname: other.example}",
            "{name: edge}",
            "KGW402",
            "NoMatchingListenerHostname",
        ),
        (
            "{name: http, port: 80, protocol: HTTP}",
            "{kind: Service, name: web}",
            "KGW309",
            "NoMatchingParent",
        ),
    ],
)
def test_a_route_that_no_listener_takes_says_why(
    gateway: str, parent: str, code: str, reason: str
) -> None:
    found = run(edge(gateway), route(f"[{parent}]", "hostnames: [a.example]"))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("False", reason)
    assert code in codes(found)
    # The references are judged all the same, as the Gateway API's conformance tests want it.
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("True", "ResolvedRefs")


def test_a_missing_gateway_is_told_with_a_suggestion() -> None:
    (finding,) = run(EDGE, route("[{name: edg}]")).findings
    assert finding.hint == "did you mean `edge`?"
    assert finding.field == "spec.parentRefs[0].name"


def test_one_listener_of_several_is_enough() -> None:
    listeners = (
        "{name: a, port: 80, protocol: HTTP, hostname: a.example}, "
        "{name: b, port: 80, protocol: HTTP, hostname: b.example}"
    )
    found = run(edge(listeners), route("[{name: edge}]", "hostnames: [b.example]"))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("True", "Accepted")
    counts = [one.attached_routes for one in status(found, "Gateway default/edge").listeners]
    assert counts == [0, 1]


def test_each_parent_has_its_own_condition() -> None:
    found = run(EDGE, route("[{name: edge}, {name: none}]"))
    assert verdict(found, HTTP_ROUTE, "Accepted", "Gateway edge") == ("True", "Accepted")
    assert verdict(found, HTTP_ROUTE, "Accepted", "Gateway none") == ("False", "NoMatchingParent")


def test_a_gateway_of_another_controller_is_left_to_it() -> None:
    other = EDGE.replace("gatewayClassName: kgateway", "gatewayClassName: istio")
    found = run(other, route("[{name: edge}]"))
    assert status(found, HTTP_ROUTE).parents == ()
    assert codes(found) == ["KGW310"]


@pytest.mark.parametrize(
    ("allowed", "labels", "reason"),
    [
        ("{from: Same}", "{}", "NotAllowedByListeners"),
        ("{from: All}", "{}", "Accepted"),
        ("{from: Selector, selector: {matchLabels: {team: a}}}", "{team: a}", "Accepted"),
        ("{from: Selector, selector: {matchLabels: {team: a}}}", "{}", "NotAllowedByListeners"),
        (
            "{from: Selector, selector: {matchExpressions: "
            "[{key: team, operator: In, values: [a, b]}]}}",
            "{team: b}",
            "Accepted",
        ),
        (
            "{from: Selector, selector: {matchExpressions: [{key: team, operator: Exists}]}}",
            "{}",
            "NotAllowedByListeners",
        ),
        (
            "{from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: other}}}",
            "{}",
            "Accepted",
        ),
    ],
)
def test_listeners_choose_the_namespaces_of_routes(allowed: str, labels: str, reason: str) -> None:
    namespace = f"{{apiVersion: v1, kind: Namespace, metadata: {{name: other, labels: {labels}}}}}"
    gateway = edge(
        f"{{name: http, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {allowed}}}}}"
    )
    other = route("[{name: edge, namespace: default}]").replace(
        "{name: route,", "{name: route, namespace: other,"
    )
    found = run(gateway, namespace, other)
    assert condition(found, "HTTPRoute other/route", "Accepted").reason == reason


@pytest.mark.parametrize(
    ("backend", "code", "reason"),
    [
        ("{name: wep, port: 80}", "KGW307", "BackendNotFound"),
        ("{name: web, port: 8080}", "KGW307", "BackendNotFound"),
        ("{kind: Bucket, group: x.example, name: web}", "KGW309", "InvalidKind"),
        ("{name: out, port: 80}", "KGW506", "UnsupportedValue"),
        ("{name: web, namespace: other, port: 80}", "KGW308", "RefNotPermitted"),
        ("{name: dns, port: 53}", "KGW504", "UnsupportedProtocol"),
    ],
)
def test_a_backend_that_does_not_resolve_says_why(backend: str, code: str, reason: str) -> None:
    services = """
apiVersion: v1
kind: Service
metadata: {name: out}
spec: {type: ExternalName, externalName: a.example, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other}
spec: {clusterIP: 10.0.0.9, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: dns}
spec: {clusterIP: 10.0.0.7, ports: [{port: 53, protocol: UDP}]}
"""
    found = run(EDGE, services, route("[{name: edge}]", backend=backend))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("True", "Accepted")
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("False", reason)
    assert code in codes(found)


def test_the_worst_reason_is_told() -> None:
    backends = "{name: none, port: 80}, {kind: Bucket, group: x.example, name: web}"
    found = run(EDGE, route("[{name: edge}]", backend=backends))
    assert condition(found, HTTP_ROUTE, "ResolvedRefs").reason == "InvalidKind"


GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: FROM}]
  to: [{group: "", kind: Service, name: NAME}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other}
spec: {clusterIP: 10.0.0.9, ports: [{port: 80}]}
"""


@pytest.mark.parametrize(
    ("namespace", "name", "reason"),
    [
        ("default", "web", "ResolvedRefs"),
        ("default", "api", "RefNotPermitted"),
        ("elsewhere", "web", "RefNotPermitted"),
    ],
)
def test_a_grant_permits_what_it_names(namespace: str, name: str, reason: str) -> None:
    grant = GRANT.replace("FROM", namespace).replace("NAME", name)
    backend = "{name: web, namespace: other, port: 80}"
    found = run(EDGE, grant, route("[{name: edge}]", backend=backend))
    assert condition(found, HTTP_ROUTE, "ResolvedRefs").reason == reason


def test_routes_of_the_mesh_need_no_grant() -> None:
    service = GRANT.partition("---")[2]
    backend = "{name: web, namespace: other, port: 80}"
    parent = '[{group: "", kind: Service, name: web}]'
    found = run(MESH, service, route(parent, backend=backend))
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("True", "ResolvedRefs")


# === Parents that are Services ===


@pytest.mark.parametrize(
    ("parent", "code", "reason"),
    [
        ("name: wep", "KGW305", "NoMatchingParent"),
        ("name: web, port: 82", "KGW306", "NoMatchingParent"),
        ("name: web, sectionName: grpc", "KGW306", "NoMatchingParent"),
        ("name: web, namespace: other", "KGW305", "NoMatchingParent"),
        ("name: headless", "KGW410", "UnsupportedValue"),
        ("name: free", "KGW410", "Pending"),
    ],
)
def test_a_service_that_cannot_be_a_parent_says_why(parent: str, code: str, reason: str) -> None:
    services = """
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: free, labels: {istio.io/use-waypoint: none}}
spec: {clusterIP: 10.0.0.8, ports: [{port: 80}]}
"""
    found = run(MESH, services, route(f'[{{group: "", kind: Service, {parent}}}]'))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("False", reason)
    assert code in codes(found)


def test_hostnames_of_a_route_for_a_service_are_warned_about() -> None:
    parent = '[{group: "", kind: Service, name: web}]'
    found = run(MESH, route(parent, "hostnames: [a.example]"))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("True", "Accepted")
    assert codes(found) == ["KGW403"]


def test_a_route_for_a_service_counts_for_its_waypoint() -> None:
    found = run(MESH, route('[{group: "", kind: Service, name: web}]'))
    assert status(found, "Gateway default/way").listeners[0].attached_routes == 1


def test_a_route_without_a_parent_is_warned_about() -> None:
    found = run(EDGE, route("[]"))
    assert codes(found) == ["KGW305"]
    assert status(found, HTTP_ROUTE).parents == ()


# === Rules that cannot be used ===

#: A filter that nobody knows.
UNUSABLE = "{type: ExtensionRef, extensionRef: {group: x.example, kind: Thing, name: z}}"


def rules(text: str) -> str:
    return ROUTE.replace("rules: [{backendRefs: [{name: web, port: 80}]}]", f"rules: {text}")


def test_a_rule_that_cannot_be_used_makes_the_route_partially_invalid() -> None:
    found = run(
        EDGE,
        rules(
            f"[{{filters: [{UNUSABLE}], backendRefs: [{{name: web, port: 80}}]}}, "
            "{matches: [{path: {value: /ok}}], backendRefs: [{name: web, port: 80}]}]"
        ),
    )
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("True", "Accepted")
    assert verdict(found, HTTP_ROUTE, "PartiallyInvalid") == ("True", "UnsupportedValue")
    programmed = condition(found, HTTP_ROUTE, "kgateway.dev/Programmed")
    assert (programmed.status, programmed.reason) == ("False", "RouteRuleReplaced")
    assert programmed.message.startswith("Replaced Rule (0): extension")


def test_a_route_without_a_usable_rule_is_not_accepted() -> None:
    found = run(EDGE, rules(f"[{{filters: [{UNUSABLE}], backendRefs: [{{name: web, port: 80}}]}}]"))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("False", "UnsupportedValue")
    assert status(found, "Gateway default/edge").listeners[0].attached_routes == 0


def test_objects_made_in_python_need_no_file() -> None:
    raw = RawObject(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "route"},
            "spec": {"parentRefs": [{"name": "edge"}]},
        }
    )
    (finding,) = translate(parse_all([raw]).resources).findings
    assert (finding.code, finding.source) == ("KGW305", None)


def test_a_route_of_the_mesh_needs_no_grant_even_where_no_waypoint_serves_it() -> None:
    elsewhere = """
apiVersion: v1
kind: Service
metadata: {name: other, namespace: elsewhere}
spec: {clusterIP: 10.96.7.7, ports: [{name: http, port: 80}]}
"""
    backend = "{name: other, namespace: elsewhere, port: 80}"
    parents = '[{group: "", kind: Service, name: web}]'
    found = run(EDGE, elsewhere, route(parents, backend=backend))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("False", "Pending")
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("True", "ResolvedRefs")
