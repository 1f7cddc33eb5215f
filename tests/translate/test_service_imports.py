"""ServiceImports: as backends, as parents, as targets, beside a Service of the same name."""

from __future__ import annotations

from tests.translate.support import EDGE, MESH, ROUTE, actions, codes, hosts, run, status, verdict

IMPORT = """
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: {name: web}
spec: {ips: [10.2.0.1], ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: far-1, labels: {multicluster.kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.3.0.1]}]
ports: [{name: http, port: 9000}]
"""

REF = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: web, port: 80}"

HTTP_ROUTE = "HTTPRoute default/route"


def test_requests_go_to_endpoints_of_all_clusters() -> None:
    found = run(
        EDGE, IMPORT, ROUTE.replace("{name: web, port: 80}", f"{REF}, {{name: web, port: 80}}")
    )
    backends = actions(found)["default/route/0/0"]["backends"]
    assert [one["cluster"] for one in backends] == ["import_default_web_80", "kube_default_web_80"]
    assert found.ir["clusters"]["import_default_web_80"] == {"endpoints": ["10.3.0.1:9000"]}
    assert found.ir["clusters"]["kube_default_web_80"] == {"endpoints": []}
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("True", "ResolvedRefs")
    assert codes(found) == []


def test_one_that_there_is_not_is_told() -> None:
    found = run(EDGE, ROUTE.replace("{name: web, port: 80}", REF))
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("False", "BackendNotFound")
    other = run(EDGE, IMPORT, ROUTE.replace("{name: web, port: 80}", REF.replace("80", "81")))
    assert verdict(other, HTTP_ROUTE, "ResolvedRefs") == ("False", "BackendNotFound")


def test_one_of_another_namespace_needs_a_grant() -> None:
    far = IMPORT.replace("metadata: {", "metadata: {namespace: other, ")
    route = ROUTE.replace("{name: web, port: 80}", REF.replace("name:", "namespace: other, name:"))
    grant = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: GROUP, kind: ServiceImport}]
"""
    found = run(EDGE, far, route, grant.replace("GROUP", '""'))
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("False", "RefNotPermitted")
    found = run(EDGE, far, route, grant.replace("GROUP", "multicluster.x-k8s.io"))
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("True", "ResolvedRefs")


def test_a_waypoint_serves_its_virtual_ip_with_its_routes() -> None:
    parent = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: web}"
    found = run(MESH, IMPORT, ROUTE.replace("{name: edge}", parent))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("True", "Accepted")
    (listener,) = found.ir["listeners"]
    (own,) = (one for one in listener["traffic"]["destinations"] if one["address"] == "10.2.0.1")
    assert own == {
        "address": "10.2.0.1",
        "port": 80,
        "service": "default/web",
        "cluster_set": True,
        "route_table": "serviceimport/default/web/80",
    }
    assert hosts(found, "serviceimport/default/web/80") == {"*": ["httproute/default/route/0/0"]}
    assert hosts(found, "service/default/web/80") == {"*": ["default"]}


def test_a_headless_one_is_no_parent() -> None:
    parent = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: web}"
    headless = IMPORT.replace("spec: {ips", "spec: {type: Headless, ips")
    found = run(MESH, headless, ROUTE.replace("{name: edge}", parent))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("False", "UnsupportedValue")


def test_a_policy_for_tls_holds_for_what_it_names_alone() -> None:
    policy = """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls}
spec:
  targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: web}]
  validation: {wellKnownCACertificates: System, hostname: web.example}
"""
    route = ROUTE.replace("{name: web, port: 80}", f"{REF}, {{name: web, port: 80}}")
    found = run(EDGE, IMPORT, route, policy)
    assert "tls" in found.ir["clusters"]["import_default_web_80"]
    assert "tls" not in found.ir["clusters"]["kube_default_web_80"]
    (ancestor,) = status(found, "BackendTLSPolicy default/tls").ancestors
    assert (ancestor.ref["kind"], ancestor.ref["name"]) == ("Gateway", "edge")
