"""UDP listeners in the representation, and what UDPRoutes cannot have."""

from __future__ import annotations

import json

import pytest
from tests.attach.test_tls_listeners import gateway
from tests.translate.certificates import config_map
from tests.translate.support import codes, run, run_all, status, verdict
from tests.translate.test_tls import stream_route

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: dns}
spec:
  clusterIP: 10.0.0.1
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
  - {name: web, port: 80}
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-1, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}]
ports: [{name: dns, port: 1053, protocol: UDP}, {name: dns-tcp, port: 2053}]
"""
UDP_LISTENER = "{name: udp, port: 53, protocol: UDP}"
TCP_LISTENER = "{name: tcp, port: 53, protocol: TCP}"


def udp_route(name: str = "a", backends: str = "{name: dns, port: 53}", **more: str) -> str:
    return stream_route(name, backends=backends, kind="UDPRoute", **more)


def test_a_udp_listener_passes_datagrams_on_to_ports_of_udp() -> None:
    found = run(gateway(UDP_LISTENER), SERVICE, SLICE, udp_route())
    (listener,) = found.ir["listeners"]
    assert listener["traffic"] == {
        "type": "udp",
        "forward": {
            "name": "default/a/0",
            "backends": [{"cluster": "kube_default_dns_53_udp", "weight": 1}],
        },
    }
    assert found.ir["clusters"]["kube_default_dns_53_udp"]["endpoints"] == ["10.1.0.1:1053"]
    assert codes(found) == []


def test_a_udp_listener_without_a_route_has_no_backends() -> None:
    (listener,) = run(gateway(UDP_LISTENER)).ir["listeners"]
    assert listener["traffic"] == {"type": "udp", "forward": {"name": "", "backends": []}}


def test_listeners_of_tcp_and_udp_may_have_one_port() -> None:
    found = run(
        gateway(UDP_LISTENER, TCP_LISTENER),
        SERVICE,
        SLICE,
        udp_route(),
        stream_route("b", kind="TCPRoute", backends="{name: dns, port: 53}"),
    )
    traffic = {one["id"]: one["traffic"] for one in found.ir["listeners"]}
    assert {name: one["type"] for name, one in traffic.items()} == {
        "default/edge/udp": "udp",
        "default/edge/tcp": "tcp",
    }
    assert found.ir["clusters"]["kube_default_dns_53"]["endpoints"] == ["10.1.0.1:2053"]
    assert found.ir["clusters"]["kube_default_dns_53_udp"]["endpoints"] == ["10.1.0.1:1053"]
    for one in status(found, "Gateway default/edge").listeners:
        assert one.attached_routes == 1
        assert all(
            condition.status == "True"
            for condition in one.conditions
            if condition.type in ("Accepted", "Programmed")
        )
    assert codes(found) == []


def test_two_gateways_compete_for_a_port_of_udp_and_not_for_one_of_tcp() -> None:
    one, other = gateway(UDP_LISTENER), gateway(TCP_LISTENER).replace("name: edge", "name: other")
    assert codes(run(one, other)) == []
    same = gateway(UDP_LISTENER).replace("name: edge", "name: other")
    assert codes(run(one, same)) == ["KGW405"]


def test_the_oldest_route_is_served_and_all_are_attached() -> None:
    found = run(gateway(UDP_LISTENER), SERVICE, udp_route("b"), udp_route("a"))
    assert found.ir["listeners"][0]["traffic"]["forward"]["name"] == "default/a/0"
    assert [one.attached_routes for one in status(found, "Gateway default/edge").listeners] == [2]
    assert [(one.code, one.resource) for one in found.findings] == [
        ("KGW420", "UDPRoute default/b")
    ]


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("{name: dns, port: 80}", "UnsupportedProtocol"),
        ("{name: dns, port: 54}", "BackendNotFound"),
        ("{name: nowhere, port: 53}", "BackendNotFound"),
        ("{name: dns, port: 53, kind: Other, group: x.example}", "InvalidKind"),
    ],
)
def test_backends_are_ports_of_udp(backend: str, reason: str) -> None:
    found = run(gateway(UDP_LISTENER), SERVICE, udp_route(backends=backend))
    assert verdict(found, "UDPRoute default/a", "Accepted") == ("True", "Accepted")
    assert verdict(found, "UDPRoute default/a", "ResolvedRefs") == ("False", reason)
    forward = found.ir["listeners"][0]["traffic"]["forward"]
    assert forward["backends"] == [{"cluster": None, "weight": 1}]


def test_routes_of_connections_have_no_ports_of_udp() -> None:
    service = SERVICE.replace("  - {name: dns-tcp, port: 53, protocol: TCP}\n", "")
    route = stream_route("a", kind="TCPRoute", backends="{name: dns, port: 53}")
    found = run(gateway(TCP_LISTENER), service, route)
    expected = ("False", "UnsupportedProtocol")
    assert verdict(found, "TCPRoute default/a", "ResolvedRefs") == expected


def test_a_udp_route_cannot_be_for_a_service() -> None:
    parent = '{group: "", kind: Service, name: dns}'
    found = run(SERVICE, udp_route(parent=parent))
    assert verdict(found, "UDPRoute default/a", "Accepted") == ("False", "UnsupportedValue")
    assert "KGW309" in codes(found)


def test_version_1_has_exactly_one_rule() -> None:
    two = udp_route(version="v1").replace(
        "rules: [", "rules: [{name: first, backendRefs: [{name: dns, port: 53}]}, "
    )
    found, _ = run_all(gateway(UDP_LISTENER), SERVICE, two)
    assert verdict(found, "UDPRoute default/a", "Accepted") == ("False", "UnsupportedValue")
    # What it is for is dropped, and not another route's.
    forward = found.ir["listeners"][0]["traffic"]["forward"]
    assert forward["backends"] == []
    older = two.replace("/v1\n", "/v1alpha2\n")
    found, _ = run_all(gateway(UDP_LISTENER), SERVICE, SLICE, older)
    assert found.ir["listeners"][0]["traffic"]["forward"]["name"] == "default/a/first"
    assert codes(found) == ["KGW420"]


def test_what_is_meant_for_tls_is_not_sent_as_datagrams() -> None:
    policy = json.dumps(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "BackendTLSPolicy",
            "metadata": {"name": "tls"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "dns"}],
                "validation": {
                    "hostname": "a.example",
                    "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
                },
            },
        }
    )
    found = run(gateway(UDP_LISTENER), SERVICE, SLICE, udp_route(), config_map("ca"), policy)
    forward = found.ir["listeners"][0]["traffic"]["forward"]
    assert forward["backends"] == [{"cluster": None, "weight": 1}]
    (finding,) = found.findings
    assert (finding.code, finding.resource) == ("KGW504", "UDPRoute default/a")
    assert finding.field == "spec.rules[0].backendRefs[0]"


def test_sessions_have_an_idle_time_and_a_bound_of_their_own() -> None:
    text = gateway(UDP_LISTENER).replace(
        "metadata: {",
        'metadata: {annotations: {kgw.dev/udp-idle-timeout: "5s", kgw.dev/max-connections: "7"}, ',
    )
    found = run(text, SERVICE, SLICE, udp_route())
    (listener,) = found.ir["listeners"]
    assert listener["traffic"]["forward"]["idle_timeout_ms"] == 5_000
    assert listener["max_connections"] == 7
    assert codes(found) == []
    for option, listeners in (("udp", TCP_LISTENER), ("tcp", UDP_LISTENER)):
        text = gateway(listeners).replace(
            "metadata: {",
            f'metadata: {{annotations: {{kgw.dev/{option}-idle-timeout: "5s"}}, ',
        )
        assert codes(run(text)) == ["KGW413"]
