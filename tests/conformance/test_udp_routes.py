"""UDPRoutes."""

from __future__ import annotations

import socket
import struct

from tests.conformance.infra import APP, INFRA, Infra, conditions, route
from tests.conformance.streams import (
    ask_at,
    ask_datagrams,
    created,
    datagrams,
    gateway,
    grant,
    listener,
    shares,
    within,
)
from tests.conformance.suite import conformance
from tests.engine.harness import eventually

ACCEPTED = ("True", "Accepted")


def udp(*names: tuple[str, int], name: str = "udp-gateway") -> str:
    return gateway(name, [listener(one, port, "UDP") for one, port in names or [("udp", 5300)]])


def udp_route(backends: str, *parents: str, name: str = "udp-route") -> str:
    refs = parents or ("{name: udp-gateway, sectionName: udp}",)
    text = route(f"- backendRefs: [{backends}]", *refs, name=name, kind="UDPRoute")
    # The suite's are of this version.
    return text.replace("/v1\n", "/v1alpha2\n", 1)


def to(name: str, weight: int = 1) -> str:
    return f"{{name: {name}, port: 8080, weight: {weight}}}"


def drops(infra: Infra, counter: str) -> None:
    """Datagrams to the Gateway are dropped, for the reason that a counter is for."""
    before = infra.proxy.stats()[counter]  # type: ignore[literal-required]  # the callers' are
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", infra.address("udp-gateway", 5300))
    eventually(lambda: infra.proxy.stats()[counter] == before + 1, counter)  # type: ignore[literal-required]  # as above


@conformance("UDPRoute")
def test_UDPRoute(infra: Infra) -> None:
    with datagrams(infra, "dns", port=53):
        infra.apply(
            udp(("dns", 5300)),
            udp_route("{name: dns, port: 53}", "{name: udp-gateway, sectionName: dns}"),
        )
        infra.accepted("udp-gateway", "udp-route", kind="UDPRoute", sections=["dns"])
        # A query for foo.bar.com, type A (RFC 1035 4.1); any answer will do.
        header = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0)
        query = header + b"\3foo\3bar\3com\0" + struct.pack("!2H", 1, 1)
        assert ask_datagrams(infra, "udp-gateway", 5300, query.decode())["backend"] == "dns"


@conformance("UDPRouteInvalidBackendRefNonexistent")
def test_UDPRouteInvalidBackendRefNonexistent(infra: Infra) -> None:
    infra.apply(udp(), udp_route(to("nonexistent-service")))

    parent = infra.parent("UDPRoute", "udp-route", name="udp-gateway")
    assert conditions(parent)["ResolvedRefs"] == ("False", "BackendNotFound")
    drops(infra, "udp_sess_no_route")


@conformance("UDPRouteInvalidCrossNamespaceBackendRef")
def test_UDPRouteInvalidCrossNamespaceBackendRef(infra: Infra) -> None:
    with datagrams(infra, "elsewhere", namespace=APP):
        # Whether the Service exists is not for the route to know.
        for backend in ("elsewhere", "nonexistent"):
            infra.apply(udp(), udp_route(f"{{name: {backend}, namespace: {APP}, port: 8080}}"))

            infra.accepted(
                "udp-gateway", "udp-route", kind="UDPRoute", sections=["udp"], resolved=False
            )
            parent = infra.parent("UDPRoute", "udp-route", name="udp-gateway")
            assert conditions(parent)["ResolvedRefs"] == ("False", "RefNotPermitted")
            drops(infra, "udp_sess_no_route")


@conformance("UDPRouteMultipleRoutesAttachment")
def test_UDPRouteMultipleRoutesAttachment(infra: Infra) -> None:
    older = created(udp_route(to("first"), name="z-older"), "2026-01-01T00:00:00Z")
    newer = created(udp_route(to("second"), name="a-newer"), "2026-01-01T00:00:01Z")
    with datagrams(infra, "first", "second"):
        infra.apply(udp(), older)
        infra.accepted("udp-gateway", "z-older", kind="UDPRoute", sections=["udp"])
        assert ask_datagrams(infra, "udp-gateway", 5300)["backend"] == "first"
        infra.apply(newer, name="newer")

        for name in ("z-older", "a-newer"):
            assert conditions(infra.parent("UDPRoute", name))["Accepted"] == ACCEPTED
        status = infra.listener("udp-gateway", "udp")
        assert status["attachedRoutes"] == 2
        assert status["supportedKinds"] == [
            {"group": "gateway.networking.k8s.io", "kind": "UDPRoute"}
        ]
        assert conditions(status)["Accepted"] == ACCEPTED
        found = shares(lambda: str(ask_datagrams(infra, "udp-gateway", 5300)["backend"]), 20)
        assert found == {"first": 20}


@conformance("UDPRouteNotAllowedByListeners")
def test_UDPRouteNotAllowedByListeners(infra: Infra) -> None:
    tls = "{name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}"
    infra.apply(
        gateway("udp-gateway", [tls]),
        udp_route(to("any"), "{name: udp-gateway, sectionName: tls}"),
    )

    parent = infra.parent("UDPRoute", "udp-route", name="udp-gateway")
    assert conditions(parent)["Accepted"] == ("False", "NotAllowedByListeners")
    (only,) = infra.status("Gateway", "udp-gateway")["listeners"]
    assert only["attachedRoutes"] == 0


@conformance("UDPRouteParentRefAttachAllListeners")
def test_UDPRouteParentRefAttachAllListeners(infra: Infra) -> None:
    ports = {"udp-1": 5310, "udp-2": 5311, "udp-3": 5312}
    with datagrams(infra, "echo"):
        infra.apply(udp(*ports.items()), udp_route(to("echo"), "{name: udp-gateway}"))

        (parent,) = infra.status("UDPRoute", "udp-route")["parents"]
        assert "sectionName" not in parent["parentRef"]
        assert conditions(parent)["Accepted"] == ACCEPTED
        for name, port in ports.items():
            status = infra.listener("udp-gateway", name)
            assert status["attachedRoutes"] == 1
            assert [one["kind"] for one in status["supportedKinds"]] == ["UDPRoute"]
            assert conditions(status)["Accepted"][0] == "True"
            assert conditions(status)["ResolvedRefs"][0] == "True"
            assert ask_datagrams(infra, "udp-gateway", port)["backend"] == "echo"


@conformance("UDPRouteParentRefPortAndSectionName")
def test_UDPRouteParentRefPortAndSectionName(infra: Infra) -> None:
    ports = {"by-port": 5301, "by-section": 5302, "by-both": 5303}
    with datagrams(infra, *(f"echo-{name}" for name in ports)):
        infra.apply(
            udp(*ports.items()),
            udp_route(to("echo-by-port"), "{name: udp-gateway, port: 5301}", name="by-port"),
            udp_route(
                to("echo-by-section"),
                "{name: udp-gateway, sectionName: by-section}",
                name="section",
            ),
            udp_route(
                to("echo-by-both"),
                "{name: udp-gateway, sectionName: by-both, port: 5303}",
                name="both",
            ),
        )

        for name in ("by-port", "section", "both"):
            (parent,) = infra.status("UDPRoute", name)["parents"]
            assert conditions(parent)["Accepted"] == ACCEPTED
        for place, port in ports.items():
            answer = ask_datagrams(infra, "udp-gateway", port)
            assert (answer["backend"], answer["namespace"]) == (f"echo-{place}", INFRA)


@conformance("UDPRouteReferenceGrant")
def test_UDPRouteReferenceGrant(infra: Infra) -> None:
    with datagrams(infra, "elsewhere", namespace=APP):
        infra.write("grant", grant("UDPRoute", "elsewhere", APP))
        infra.apply(udp(), udp_route(f"{{name: elsewhere, namespace: {APP}, port: 8080}}"))
        infra.accepted("udp-gateway", "udp-route", kind="UDPRoute", sections=["udp"])
        answer = ask_datagrams(infra, "udp-gateway", 5300)
        assert (answer["backend"], answer["namespace"]) == ("elsewhere", APP)

        infra.delete("grant")

        parent = infra.parent("UDPRoute", "udp-route", name="udp-gateway")
        assert conditions(parent)["ResolvedRefs"] == ("False", "RefNotPermitted")
        drops(infra, "udp_sess_no_route")


@conformance("UDPRouteWeightedRouting")
def test_UDPRouteWeightedRouting(infra: Infra) -> None:
    weights = ", ".join([to("backend-v1", 70), to("backend-v2", 30), to("backend-v3", 0)])
    with datagrams(infra, "backend-v1", "backend-v2", "backend-v3"):
        infra.apply(udp(), udp_route(weights))
        infra.accepted("udp-gateway", "udp-route", kind="UDPRoute", sections=["udp"])

        address = infra.address("udp-gateway", 5300)

        def one() -> str:
            return str(ask_at(address)["backend"])

        # Chance: the suite tries as often.
        assert any(within(shares(one), backend_v1=0.7, backend_v2=0.3) for _ in range(10))
