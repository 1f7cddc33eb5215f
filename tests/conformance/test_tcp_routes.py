"""TCPRoutes."""

from __future__ import annotations

import socket

import pytest
from tests.conformance.infra import INFRA, WEB, Infra, conditions, route
from tests.conformance.streams import (
    ask,
    created,
    gateway,
    grant,
    is_closed,
    lines,
    listener,
    shares,
    within,
)
from tests.conformance.suite import conformance
from tests.engine.harness import WAIT, Peer

ACCEPTED = ("True", "Accepted")


def tcp(*names: tuple[str, int], name: str = "tcp-gateway") -> str:
    return gateway(name, [listener(one, port, "TCP") for one, port in names or [("tcp", 9300)]])


def tcp_route(backends: str, *parents: str, name: str = "tcp-route") -> str:
    refs = parents or ("{name: tcp-gateway, sectionName: tcp}",)
    return route(f"- backendRefs: [{backends}]", *refs, name=name, kind="TCPRoute")


def to(name: str, weight: int = 1) -> str:
    return f"{{name: {name}, port: 3000, weight: {weight}}}"


@conformance("TCPRouteInvalidBackendRefNonexistent")
def test_TCPRouteInvalidBackendRefNonexistent(infra: Infra) -> None:
    infra.apply(tcp(), tcp_route(to("nonexistent-service")))

    parent = infra.parent("TCPRoute", "tcp-route", name="tcp-gateway")
    assert conditions(parent)["ResolvedRefs"] == ("False", "BackendNotFound")
    assert conditions(parent)["Accepted"] == ACCEPTED
    assert is_closed(infra.connect("tcp-gateway", 9300))


@conformance("TCPRouteInvalidCrossNamespaceBackendRef")
def test_TCPRouteInvalidCrossNamespaceBackendRef(infra: Infra) -> None:
    lines(infra, "elsewhere", namespace=WEB)
    infra.apply(tcp(), tcp_route(f"{{name: elsewhere, namespace: {WEB}, port: 3000}}"))

    infra.accepted("tcp-gateway", "tcp-route", kind="TCPRoute", sections=["tcp"], resolved=False)
    parent = infra.parent("TCPRoute", "tcp-route", name="tcp-gateway")
    assert conditions(parent)["ResolvedRefs"] == ("False", "RefNotPermitted")
    assert is_closed(infra.connect("tcp-gateway", 9300))


@conformance("TCPRouteInvalidNonTCPListener")
def test_TCPRouteInvalidNonTCPListener(infra: Infra) -> None:
    lines(infra, "echo")
    infra.apply(
        gateway("tcp-gateway", [listener("web", 5300, "HTTP")]),
        tcp_route(to("echo"), "{name: tcp-gateway, sectionName: web}"),
    )

    parent = infra.parent("TCPRoute", "tcp-route", name="tcp-gateway")
    assert conditions(parent)["Accepted"] == ("False", "NotAllowedByListeners")
    (only,) = infra.status("Gateway", "tcp-gateway")["listeners"]
    assert only["attachedRoutes"] == 0


@conformance("TCPRouteMultipleRoutesAttachment")
def test_TCPRouteMultipleRoutesAttachment(infra: Infra) -> None:
    lines(infra, "first", "second")
    older = created(tcp_route(to("first"), name="z-older"), "2026-01-01T00:00:00Z")
    newer = created(tcp_route(to("second"), name="a-newer"), "2026-01-01T00:00:01Z")
    infra.apply(tcp(), older)
    infra.accepted("tcp-gateway", "z-older", kind="TCPRoute", sections=["tcp"])
    assert ask(infra.connect("tcp-gateway", 9300))["backend"] == "first"
    infra.apply(newer, name="newer")

    for name in ("z-older", "a-newer"):
        assert conditions(infra.parent("TCPRoute", name))["Accepted"] == ACCEPTED
    status = infra.listener("tcp-gateway", "tcp")
    assert status["attachedRoutes"] == 2
    assert status["supportedKinds"] == [{"group": "gateway.networking.k8s.io", "kind": "TCPRoute"}]
    assert conditions(status)["Accepted"] == ACCEPTED
    found = shares(lambda: str(ask(infra.connect("tcp-gateway", 9300))["backend"]), 100)
    assert found == {"first": 100}


@conformance("TCPRouteParentRefAttachAll")
def test_TCPRouteParentRefAttachAll(infra: Infra) -> None:
    lines(infra, "echo")
    ports = {"one": 9310, "two": 9311, "three": 9312, "four": 9313}
    infra.apply(tcp(*ports.items()), tcp_route(to("echo"), "{name: tcp-gateway}"))

    (parent,) = infra.status("TCPRoute", "tcp-route")["parents"]
    assert "sectionName" not in parent["parentRef"]
    assert conditions(parent)["Accepted"] == ACCEPTED
    for name, port in ports.items():
        assert ask(infra.connect("tcp-gateway", port))["backend"] == "echo"
        assert infra.listener("tcp-gateway", name)["attachedRoutes"] == 1


@conformance("TCPRouteParentRefPortAndSectionName")
def test_TCPRouteParentRefPortAndSectionName(infra: Infra) -> None:
    lines(infra, "echo-one", "echo-two", "echo-three")
    ports = {"one": 9300, "two": 9301, "three": 9302}
    infra.apply(
        tcp(*ports.items()),
        tcp_route(to("echo-one"), "{name: tcp-gateway, port: 9300}", name="by-port"),
        tcp_route(to("echo-two"), "{name: tcp-gateway, sectionName: two}", name="by-section"),
        tcp_route(
            to("echo-three"), "{name: tcp-gateway, sectionName: three, port: 9302}", name="by-both"
        ),
    )

    for name, place in (("by-port", "one"), ("by-section", "two"), ("by-both", "three")):
        (parent,) = infra.status("TCPRoute", name)["parents"]
        assert conditions(parent)["Accepted"] == ACCEPTED
        answer = ask(infra.connect("tcp-gateway", ports[place]))
        assert (answer["backend"], answer["namespace"]) == (f"echo-{place}", INFRA)


@conformance("TCPRouteReferenceGrant")
def test_TCPRouteReferenceGrant(infra: Infra) -> None:
    lines(infra, "elsewhere", namespace=WEB)
    infra.write("grant", grant("TCPRoute", "elsewhere"))
    infra.apply(tcp(), tcp_route(f"{{name: elsewhere, namespace: {WEB}, port: 3000}}"))
    infra.accepted("tcp-gateway", "tcp-route", kind="TCPRoute", sections=["tcp"])
    answer = ask(infra.connect("tcp-gateway", 9300))
    assert (answer["backend"], answer["namespace"]) == ("elsewhere", WEB)

    infra.delete("grant")

    parent = infra.parent("TCPRoute", "tcp-route", name="tcp-gateway")
    assert conditions(parent)["ResolvedRefs"] == ("False", "RefNotPermitted")
    assert is_closed(infra.connect("tcp-gateway", 9300))


@conformance("TCPRouteWeightedRouting")
def test_TCPRouteWeightedRouting(infra: Infra) -> None:
    lines(infra, "backend-v1", "backend-v2", "backend-v3")
    infra.apply(
        tcp(),
        tcp_route(", ".join([to("backend-v1", 70), to("backend-v2", 30), to("backend-v3", 0)])),
    )

    infra.accepted("tcp-gateway", "tcp-route", kind="TCPRoute", sections=["tcp"])
    address = infra.address("tcp-gateway", 9300)

    def one() -> str:
        return str(ask(Peer(socket.create_connection(address, WAIT)))["backend"])

    # Chance: the suite tries as often.
    assert any(within(shares(one), backend_v1=0.7, backend_v2=0.3) for _ in range(10))


@pytest.mark.parametrize("kind", ["unresolved", "weightless"])
def test_the_share_of_what_cannot_be_reached_is_closed(infra: Infra, kind: str) -> None:
    lines(infra, "echo")
    backends = {
        "unresolved": f"{to('echo', 50)}, {to('nonexistent', 50)}",
        "weightless": to("echo", 0),
    }
    infra.apply(tcp(), tcp_route(backends[kind]))

    address = infra.address("tcp-gateway", 9300)

    def one() -> str:
        peer = Peer(socket.create_connection(address, WAIT))
        try:
            return str(ask(peer)["backend"])
        except (EOFError, OSError):
            return "closed"

    if kind == "weightless":
        assert shares(one, 20) == {"closed": 20}
    else:
        assert any(within(shares(one), echo=0.5, closed=0.5) for _ in range(10))
