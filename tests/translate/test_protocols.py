"""What the ports of Services declare, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.translate.support import EDGE, MESH, ROUTE, codes, hosts, run, verdict

if TYPE_CHECKING:
    from kgw.translate import Translation

WEB = '{group: "", kind: Service, name: web}'


def service(port: str, name: str = "web") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: 10.0.0.1, ports: [{port}]}}
"""


def edge(port: str, route: str = ROUTE) -> Translation:
    return run(EDGE.partition("---")[0], service(port), route)


def waypoint(port: str, *more: str) -> Translation:
    gateway, namespace, *_ = MESH.split("---")
    return run(gateway, namespace, service(port), *more)


def destination(found: Translation) -> dict[str, Any]:
    (only,) = found.ir["listeners"][0]["traffic"]["destinations"]
    return dict(only)


def tcp_route(parent: str = WEB, name: str = "tcp") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {{name: {name}}}
spec: {{parentRefs: [{parent}], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}
"""


# === Gateways ===


@pytest.mark.parametrize(
    ("port", "protocol", "upgrades"),
    [
        ("{port: 80}", None, None),
        ("{name: web, port: 80}", None, None),
        ("{name: http, port: 80}", None, None),
        ("{name: http2, port: 80}", "http2", None),
        ("{name: grpc-api, port: 80}", "http2", None),
        ("{name: grpc-web-api, port: 80}", "http2", None),
        ("{name: grpc, port: 80, appProtocol: HTTP}", None, None),
        ("{port: 80, appProtocol: kubernetes.io/h2c}", "http2", None),
        ("{port: 80, appProtocol: grpc-web}", "http2", None),
        ("{port: 80, appProtocol: kubernetes.io/ws}", None, ["websocket"]),
        ("{name: grpc, port: 80, appProtocol: example.org/own}", None, None),
    ],
)
def test_a_gateway_speaks_what_a_port_declares(
    port: str, protocol: str | None, upgrades: list[str] | None
) -> None:
    found = edge(port)
    assert found.ir["clusters"]["kube_default_web_80"].get("protocol") == protocol
    (route,) = found.ir["routes"].values()
    assert route["action"].get("upgrades") == upgrades
    assert codes(found) == []


@pytest.mark.parametrize("port", ["{name: mysql, port: 80}", "{port: 80, appProtocol: https}"])
def test_http_goes_to_whatever_a_port_declares_with_a_warning(port: str) -> None:
    found = edge(port)
    assert "protocol" not in found.ir["clusters"]["kube_default_web_80"]
    assert verdict(found, "HTTPRoute default/route", "ResolvedRefs")[0] == "True"
    assert codes(found) == ["KGW422"]


def test_each_rule_is_warned_of_although_they_say_the_same() -> None:
    backend = "{backendRefs: [{name: web, port: 80}]}"
    route = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route}}
spec: {{parentRefs: [{{name: edge}}], rules: [{backend}, {backend}]}}
"""
    found = edge("{name: mysql, port: 80}", route)
    assert [one.field for one in found.findings if one.code == "KGW422"] == [
        "spec.rules[0].backendRefs[0].port",
        "spec.rules[1].backendRefs[0].port",
    ]


def test_a_port_of_a_web_socket_behind_tls_is_one() -> None:
    (route,) = edge("{port: 80, appProtocol: kubernetes.io/wss}").ir["routes"].values()
    assert route["action"]["upgrades"] == ["websocket"]


# === Waypoints ===


@pytest.mark.parametrize(
    ("port", "table", "stream", "protocol"),
    [
        ("{name: http, port: 80}", True, False, None),
        ("{name: grpc, port: 80}", True, False, "http2"),
        ("{port: 80, appProtocol: kubernetes.io/h2c}", True, False, "http2"),
        ("{port: 80}", True, True, "auto"),
        ("{name: listener-80, port: 80}", True, True, "auto"),
        ("{name: tcp-x, port: 80}", False, True, None),
        ("{name: tls, port: 80}", False, True, None),
        ("{name: x, port: 80, appProtocol: https}", False, True, None),
        ("{name: mysql, port: 80}", False, True, None),
        ("{name: tcp, port: 80, appProtocol: http}", True, False, None),
        ("{port: 3306}", False, True, None),
        ("{name: http, port: 3306}", True, False, None),
    ],
)
def test_a_waypoint_serves_every_tcp_port(
    port: str, table: bool, stream: bool, protocol: str | None
) -> None:
    found = waypoint(port)
    only = destination(found)
    number = only["port"]
    ((cluster, content),) = found.ir["clusters"].items()
    assert ("route_table" in only, "tcp" in only) == (table, stream)
    assert content.get("protocol") == protocol
    assert cluster == f"kube_default_web_{number}{'_auto' if protocol == 'auto' else ''}"
    if stream:
        assert only["tcp"] == {
            "name": f"default/web:{number}",
            "backends": [{"cluster": cluster, "weight": 1}],
        }
    assert codes(found) == []


def test_a_udp_port_is_not_served() -> None:
    found = waypoint("{name: dns, port: 53, protocol: UDP}")
    assert found.ir["listeners"][0]["traffic"]["destinations"] == []


def test_a_waypoint_passes_web_sockets_on() -> None:
    assert waypoint("{port: 80}").ir["listeners"][0]["http"]["upgrades"] == ["websocket"]
    assert edge("{port: 80}").ir["listeners"][0]["http"] == {}


def test_a_route_says_that_a_port_carries_http() -> None:
    found = waypoint("{port: 80}", ROUTE.replace("{name: edge}", WEB))
    assert "tcp" not in destination(found)
    assert hosts(found, "service/default/web/80") == {"*": ["httproute/default/route/0/0"]}


def test_bytes_do_not_get_past_a_policy_that_cannot_be_used() -> None:
    policy = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: a}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: way}]
  headerModifiers: {request: {set: [{name: x-a, secretRef: {name: missing, key: a}}]}}
"""
    assert "tcp" not in destination(waypoint("{port: 80}", policy))
    assert "tcp" in destination(waypoint("{name: tcp, port: 80}", policy))


def test_a_route_of_http_does_not_count_for_a_port_that_carries_none() -> None:
    found = waypoint("{name: tcp, port: 80}", ROUTE.replace("{name: edge}", WEB))
    assert verdict(found, "HTTPRoute default/route", "Accepted") == (
        "False",
        "NotAllowedByListeners",
    )
    assert "route_table" not in destination(found)
    assert codes(found) == ["KGW421"]


# === TCPRoutes of Services ===


@pytest.mark.parametrize("port", ["{port: 80}", "{name: tcp, port: 80}", "{name: http, port: 80}"])
def test_a_tcp_route_takes_the_connections_of_a_service(port: str) -> None:
    found = waypoint(port, tcp_route())
    only = destination(found)
    assert "route_table" not in only
    assert only["tcp"]["name"] == "default/tcp/0"
    assert [one["weight"] for one in only["tcp"]["backends"]] == [1]
    assert verdict(found, "TCPRoute default/tcp", "Accepted") == ("True", "Accepted")
    assert verdict(found, "TCPRoute default/tcp", "ResolvedRefs") == ("True", "ResolvedRefs")
    assert codes(found) == []


def test_a_tcp_route_of_a_port_is_on_that_port_only() -> None:
    ports = "{name: tcp, port: 80}, {name: tcp-b, port: 81}"
    found = waypoint(ports, tcp_route(WEB.replace("web", "web, port: 81")))
    served = found.ir["listeners"][0]["traffic"]["destinations"]
    assert [one["tcp"]["name"] for one in served] == ["default/web:80", "default/tcp/0"]


def test_an_http_route_goes_before_a_tcp_route() -> None:
    found = waypoint("{port: 80}", tcp_route(), ROUTE.replace("{name: edge}", WEB))
    assert verdict(found, "TCPRoute default/tcp", "Accepted") == ("False", "Conflicted")
    assert verdict(found, "HTTPRoute default/route", "Accepted") == ("True", "Accepted")
    assert "tcp" not in destination(found)
    assert codes(found) == ["KGW420"]


def test_of_two_tcp_routes_the_first_is_served() -> None:
    found = waypoint("{port: 80}", tcp_route(name="b"), tcp_route(name="a"))
    assert destination(found)["tcp"]["name"] == "default/a/0"
    assert verdict(found, "TCPRoute default/b", "Accepted") == ("True", "Accepted")
    (finding,) = found.findings
    assert (finding.code, finding.resource) == ("KGW420", "TCPRoute default/b")
