"""Conditions of Gateways and their listeners, by reason."""

from __future__ import annotations

import pytest
from tests.translate.support import EDGE, MESH, codes, run, run_all, status, verdict

EDGE_GATEWAY = "Gateway default/edge"
WAY_GATEWAY = "Gateway default/way"


def edge(*listeners: str, role: str = "kgateway") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec: {{gatewayClassName: {role}, listeners: [{", ".join(listeners)}]}}
"""


HTTP = "{name: http, port: 80, protocol: HTTP}"
TLS = "certificateRefs: [{name: cert}]"


def test_a_good_gateway_is_accepted_and_programmed() -> None:
    found = run(EDGE)
    (listener,) = status(found, EDGE_GATEWAY).listeners
    assert [(one.type, one.status, one.reason) for one in listener.conditions] == [
        ("Accepted", "True", "Accepted"),
        ("Conflicted", "False", "NoConflicts"),
        ("ResolvedRefs", "True", "ResolvedRefs"),
        ("Programmed", "True", "Programmed"),
    ]
    assert listener.supported_kinds == (
        {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"},
        {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute"},
    )
    conditions = status(found, EDGE_GATEWAY).conditions
    assert [(one.type, one.status, one.reason) for one in conditions] == [
        ("Accepted", "True", "Accepted"),
        ("Programmed", "True", "Programmed"),
        ("ResolvedRefs", "True", "ResolvedRefs"),
    ]


def test_a_protocol_that_is_not_supported_takes_its_listener_out_only() -> None:
    found = run(edge(HTTP, "{name: udp, port: 53, protocol: SCTP}"))
    assert verdict(found, EDGE_GATEWAY, "Accepted", "listener udp") == (
        "False",
        "UnsupportedProtocol",
    )
    assert verdict(found, EDGE_GATEWAY, "Programmed", "listener udp") == ("False", "Invalid")
    (accepted, programmed, _) = status(found, EDGE_GATEWAY).conditions
    assert (accepted.status, accepted.reason) == ("True", "ListenersNotValid")
    assert programmed.status == "True"
    assert programmed.message == (
        "Some listeners are not programmed: udp: Protocol SCTP is unsupported."
    )
    assert [one["id"] for one in found.ir["listeners"]] == ["default/edge/http"]
    assert codes(found) == ["KGW503"]


def test_a_gateway_without_a_valid_listener_is_not_accepted() -> None:
    found = run(edge("{name: a, port: 53, protocol: SCTP}"))
    (accepted, programmed, _) = status(found, EDGE_GATEWAY).conditions
    assert (accepted.status, accepted.reason) == ("False", "ListenersNotValid")
    assert (programmed.status, programmed.reason) == ("False", "Invalid")
    assert accepted.message == "No valid listeners"
    assert status(found, EDGE_GATEWAY).listeners[0].supported_kinds == ()
    assert found.ir["listeners"] == []


def test_protocols_that_share_a_port_conflict_without_a_winner() -> None:
    found = run(edge(HTTP, f"{{name: https, port: 80, protocol: HTTPS, tls: {{{TLS}}}}}"))
    for name in ("listener http", "listener https"):
        rows = [
            (one.type, one.status, one.reason)
            for what, one in status(found, EDGE_GATEWAY).all_conditions()
            if what == name
        ]
        assert ("Conflicted", "True", "ProtocolConflict") in rows
        assert ("Programmed", "False", "ProtocolConflict") in rows
    assert "KGW404" in codes(found)
    assert found.ir["listeners"] == []


def test_tcp_and_udp_may_have_the_same_port() -> None:
    found = run(
        edge("{name: tcp, port: 53, protocol: TCP}", "{name: udp, port: 53, protocol: UDP}")
    )
    for name in ("tcp", "udp"):
        conflict = verdict(found, EDGE_GATEWAY, "Conflicted", f"listener {name}")
        assert conflict == ("False", "NoConflicts")
    assert verdict(found, EDGE_GATEWAY, "Programmed", "listener tcp")[0] == "True"


@pytest.mark.parametrize(("protocol", "hint"), [("Https", "did you mean `HTTPS`?"), ("SCTP", None)])
def test_protocols_are_compared_as_they_are_written(protocol: str, hint: str | None) -> None:
    found = run(edge(HTTP, f"{{name: other, port: 53, protocol: {protocol}}}"))
    (finding,) = found.findings
    assert (finding.code, finding.hint) == ("KGW503", hint)


def test_kinds_of_routes_that_a_listener_cannot_have_are_refused() -> None:
    kinds = "{kinds: [{kind: HTTPRoute}, {kind: TCPRoute}]}"
    found = run(edge(f"{{name: http, port: 80, protocol: HTTP, allowedRoutes: {kinds}}}"))
    assert verdict(found, EDGE_GATEWAY, "ResolvedRefs", "listener") == (
        "False",
        "InvalidRouteKinds",
    )
    (listener,) = status(found, EDGE_GATEWAY).listeners
    assert [one["kind"] for one in listener.supported_kinds] == ["HTTPRoute"]
    assert status(found, EDGE_GATEWAY).conditions[2].reason == "ListenersNotResolved"
    assert codes(found) == ["KGW309"]


def test_the_later_gateway_loses_an_address_that_both_want() -> None:
    first = EDGE.replace("{name: edge}", "{name: z, creationTimestamp: '2024-01-01T00:00:00Z'}")
    second = EDGE.replace("{name: edge}", "{name: a, creationTimestamp: '2024-01-02T00:00:00Z'}")
    found = run(first, second)
    assert verdict(found, "Gateway default/a", "Accepted", "listener") == (
        "False",
        "PortUnavailable",
    )
    assert status(found, "Gateway default/a").conditions[0].reason == "ListenersNotValid"
    assert [one["id"] for one in found.ir["listeners"]] == ["default/z/http"]
    assert codes(found) == ["KGW405"]


def test_a_setting_of_the_gateway_that_cannot_be_read_refuses_it() -> None:
    annotated = "{name: edge, annotations: {kgw.dev/max-connections: some}}"
    found, findings = run_all(EDGE.replace("{name: edge}", annotated))
    (accepted, programmed, _) = status(found, EDGE_GATEWAY).conditions
    assert (accepted.status, accepted.reason) == ("False", "InvalidParameters")
    assert (programmed.status, programmed.reason) == ("False", "Invalid")
    assert [one.code for one in findings] == ["KGW207"]
    assert found.ir["listeners"] == []


# === Waypoints ===


def test_a_waypoint_needs_a_proxy_listener() -> None:
    found = run(edge(HTTP, role="kgateway-waypoint"))
    (accepted, *_) = status(found, EDGE_GATEWAY).conditions
    assert (accepted.status, accepted.reason) == ("False", "ListenersNotValid")
    # The status has kgateway's words, the finding what they mean.
    assert accepted.message == "Must contain at one listener with the protocol 'istio.io/PROXY'"
    assert "Must contain at least one listener with the protocol 'istio.io/PROXY'" in [
        one.message for one in found.findings
    ]
    listener = status(found, EDGE_GATEWAY).listeners[0].conditions[0]
    assert (listener.status, listener.reason) == ("False", "Invalid")
    assert listener.message == (
        "Only a 'istio.io/PROXY' listener is allowed for kgateway-waypoint Gateways."
    )
    assert codes(found) == ["KGW412"]


def test_a_waypoint_uses_its_first_proxy_listener_only() -> None:
    text = MESH.replace(
        "[{name: proxy, port: 15088, protocol: istio.io/PROXY}]",
        "[{name: proxy, port: 15088, protocol: istio.io/PROXY}, "
        "{name: more, port: 15089, protocol: istio.io/PROXY}]",
    )
    found = run(text)
    assert verdict(found, WAY_GATEWAY, "Accepted", "listener more") == ("False", "Invalid")
    assert [one["id"] for one in found.ir["listeners"]] == ["default/way/proxy"]


def test_the_hbone_listener_of_older_meshes_is_left_to_the_mesh() -> None:
    text = MESH.replace(
        "[{name: proxy, port: 15088, protocol: istio.io/PROXY}]",
        "[{name: proxy, port: 15088, protocol: istio.io/PROXY}, "
        "{name: mesh, port: 15008, protocol: HBONE}]",
    )
    found = run(text)
    assert verdict(found, WAY_GATEWAY, "Accepted", "listener mesh") == ("True", "Accepted")
    assert [one["id"] for one in found.ir["listeners"]] == ["default/way/proxy"]
    assert codes(found) == []


# === Classes ===

CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: NAME, annotations: {ambient.istio.io/waypoint-inbound-binding: PROXY/15088}}
spec: {controllerName: CONTROLLER}
"""


def classes(name: str, controller: str) -> str:
    return CLASS.replace("NAME", name).replace("CONTROLLER", controller)


def test_a_class_of_this_controller_is_accepted_and_served() -> None:
    text = MESH.replace("gatewayClassName: kgateway-waypoint", "gatewayClassName: mine")
    found = run(classes("mine", "kgateway.dev/kgateway"), text)
    assert verdict(found, "GatewayClass mine", "Accepted") == ("True", "Accepted")
    assert found.ir["listeners"][0]["traffic"]["type"] == "waypoint"


def test_a_class_of_another_controller_is_not_ours() -> None:
    found = run(classes("kgateway-waypoint", "other.example/controller"), MESH)
    assert found.ir["listeners"] == []
    assert [str(key) for key in found.statuses] == []
    assert codes(found) == ["KGW310"]


def test_a_class_with_a_typo_gets_a_suggestion() -> None:
    found = run(EDGE.replace("gatewayClassName: kgateway", "gatewayClassName: kgatway"))
    (finding,) = found.findings
    assert (finding.code, finding.hint) == ("KGW310", "did you mean `kgateway`?")
