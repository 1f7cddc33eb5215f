"""Which Services a waypoint serves."""

from __future__ import annotations

import pytest
from tests.translate.support import codes, load, run

from kgw.attach import services

WAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way, namespace: NAMESPACE, labels: LABELS}
spec:
  gatewayClassName: kgateway-waypoint
  listeners:
  - {name: proxy, port: 15088, protocol: istio.io/PROXY, allowedRoutes: {namespaces: ALLOWED}}
"""


def way(namespace: str = "default", allowed: str = "{from: Same}", labels: str = "{}") -> str:
    text = WAY.replace("NAMESPACE", namespace).replace("ALLOWED", allowed)
    return text.replace("LABELS", labels)


def service(labels: str = "{}", extra: str = "clusterIP: 10.0.0.1") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: web, labels: {labels}}}
spec: {{ports: [{{name: http, port: 80}}], {extra}}}
"""


def namespace(labels: str) -> str:
    return f"{{apiVersion: v1, kind: Namespace, metadata: {{name: default, labels: {labels}}}}}"


def served(*texts: str) -> list[str]:
    return [
        f"{one['address']}:{one['port']}"
        for listener in run(*texts).ir["listeners"]
        for one in listener["traffic"]["destinations"]
    ]


USE = "{istio.io/use-waypoint: way}"


def test_the_label_of_the_service_counts() -> None:
    assert served(way(), service(USE)) == ["10.0.0.1:80"]


def test_the_label_of_the_namespace_counts_for_all_its_services() -> None:
    assert served(way(), namespace(USE), service()) == ["10.0.0.1:80"]


def test_without_a_label_there_is_no_waypoint() -> None:
    assert served(way(), namespace("{}"), service()) == []


def test_a_service_can_opt_out() -> None:
    assert served(way(), namespace(USE), service("{istio.io/use-waypoint: none}")) == []


def test_a_service_can_use_another_waypoint_than_its_namespace() -> None:
    texts = (way(), namespace("{istio.io/use-waypoint: elsewhere}"), service(USE))
    assert served(*texts) == ["10.0.0.1:80"]


def test_a_missing_waypoint_is_not_replaced_by_that_of_the_namespace() -> None:
    texts = (way(), namespace(USE), service("{istio.io/use-waypoint: wai}"))
    assert served(*texts) == []
    assert codes(run(*texts)) == ["KGW311"]


def test_the_label_that_names_no_waypoint_is_told_once() -> None:
    services = [service().replace("name: web", f"name: web-{n}") for n in range(3)]
    (finding,) = run(way(), namespace("{istio.io/use-waypoint: wayy}"), *services).findings
    assert (finding.code, finding.resource) == ("KGW311", "Namespace default")
    assert finding.path == ("metadata", "labels", "istio.io/use-waypoint")
    assert finding.message == (
        "waypoint default/wayy does not exist; the traffic of its Services passes no waypoint"
    )
    assert finding.hint == "did you mean `way`?"


def test_a_label_of_a_service_is_told_where_it_is() -> None:
    texts = (way(), namespace(USE), service("{istio.io/use-waypoint: wayy}"))
    (finding,) = run(*texts).findings
    assert finding.resource == "Service default/web"
    assert finding.path == ("metadata", "labels", "istio.io/use-waypoint")
    assert finding.hint == "did you mean `way`?"


def test_a_waypoint_that_is_in_another_namespace_is_found() -> None:
    (finding,) = run(way("infra", "{from: All}"), service(USE)).findings
    assert finding.hint == (
        "namespace `infra` has it: add `istio.io/use-waypoint-namespace: infra`"
    )


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ("{from: Same}", []),
        ("{from: All}", ["10.0.0.1:80"]),
        ("{from: Selector, selector: {matchLabels: {mesh: 'on'}}}", ["10.0.0.1:80"]),
        ("{from: Selector, selector: {matchLabels: {mesh: 'off'}}}", []),
    ],
)
def test_a_waypoint_of_another_namespace_must_allow_it(allowed: str, expected: list[str]) -> None:
    labels = "{istio.io/use-waypoint: way, istio.io/use-waypoint-namespace: infra}"
    texts = (way("infra", allowed), namespace("{mesh: 'on'}"), service(labels))
    assert served(*texts) == expected
    assert codes(run(*texts)) == ([] if expected else ["KGW311"])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("service", ["10.0.0.1:80"]),
        ("all", ["10.0.0.1:80"]),
        ("workload", []),
        ("none", []),
    ],
)
def test_a_waypoint_can_be_for_workloads_only(kind: str, expected: list[str]) -> None:
    texts = (way(labels=f"{{istio.io/waypoint-for: {kind}}}"), service(USE))
    assert served(*texts) == expected


def test_an_ingress_gateway_is_no_waypoint() -> None:
    ingress = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way}
spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
    assert codes(run(ingress, service(USE))) == ["KGW311"]


def test_both_address_families_are_served() -> None:
    both = 'clusterIPs: [10.0.0.1, "fd00::1"]'
    assert served(way(), service(USE, both)) == ["10.0.0.1:80", "fd00::1:80"]


def test_a_headless_service_has_nothing_to_serve() -> None:
    assert served(way(), service(USE, "clusterIP: None")) == []


def test_the_waypoints_own_service_is_not_served_but_listed() -> None:
    own = service(
        USE, "clusterIP: 10.0.0.1, selector: {gateway.networking.k8s.io/gateway-name: way}"
    )
    assert served(way(), own) == []
    (row,) = services(load(way(), own).resources)
    assert (row.waypoint, row.endpoints) == ("way", "1/1")


def test_the_table_shows_waypoints_of_others_too() -> None:
    other = way().replace("kgateway-waypoint", "istio-waypoint")
    (row,) = services(load(other, service(USE)).resources)
    assert (row.waypoint, row.endpoints) == ("way", "0/0")
    assert served(other, service(USE)) == []


def test_endpoints_are_counted_once_for_both_families() -> None:
    slices = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-NUMBER, labels: {kubernetes.io/service-name: web}}
addressType: FAMILY
endpoints: [{addresses: [ADDRESS]}, {addresses: [ADDRESS], conditions: {ready: false}}]
ports: [{name: http, port: 80}]
"""
    four = slices.replace("NUMBER", "4").replace("FAMILY", "IPv4").replace("ADDRESS", "10.1.0.1")
    six = slices.replace("NUMBER", "6").replace("FAMILY", "IPv6").replace("ADDRESS", '"fd00::1"')
    (row,) = services(load(service(), four, six).resources)
    assert (row.waypoint, row.endpoints) == (None, "1/2")
