"""TLSRoutes: passed on or ended, by server name."""

from __future__ import annotations

import pytest
from tests.conformance.certificates import authorities, certificate, client, policy, server
from tests.conformance.infra import APP, INFRA, Infra, conditions, route
from tests.conformance.streams import REJECTED, ask, gateway, grant, lines
from tests.conformance.suite import conformance

ACCEPTED = ("True", "Accepted")
RESOLVED = ("True", "ResolvedRefs")
KINDS = [{"group": "gateway.networking.k8s.io", "kind": "TLSRoute"}]
END = "mode: Terminate, certificateRefs: [{name: cert}]"


def tls(
    name: str = "tls",
    hostname: str | None = None,
    *,
    mode: str = "mode: Passthrough",
    port: int = 443,
    kinds: str | None = "[{kind: TLSRoute}]",
) -> str:
    host = f"hostname: '{hostname}', " if hostname else ""
    stated = f", kinds: {kinds}" if kinds else ""
    allowed = f"allowedRoutes: {{namespaces: {{from: Same}}{stated}}}"
    return f"{{name: {name}, port: {port}, protocol: TLS, {host}{allowed}, tls: {{{mode}}}}}"


def tls_route(
    name: str, parent: str, *hostnames: str, backend: str = "name: tls-backend", port: int = 443
) -> str:
    backends = f"- backendRefs: [{{{backend}, port: {port}}}]"
    return route(backends, parent, name=name, hostnames=hostnames, kind="TLSRoute")


def rejected(infra: Infra, gateway: str, sni: str, port: int = 443) -> bool:
    """Whether a connection for a name is closed before there is a session."""
    with pytest.raises(REJECTED):
        infra.connect(gateway, port, sni=sni, tls=client())
    return True


def has(infra: Infra, name: str) -> dict[str, tuple[str, str]]:
    """The conditions of a TLSRoute for its only parent."""
    (parent,) = infra.status("TLSRoute", name)["parents"]
    return conditions(parent)


@conformance("TLSRouteSimpleSameNamespace")
def test_TLSRouteSimpleSameNamespace(infra: Infra) -> None:
    lines(infra, "tls-backend", port=443, tls=server("abc.example.com"))
    infra.apply(
        gateway("gw", [tls(hostname="*.example.com")]), tls_route("route", "gw", "abc.example.com")
    )

    infra.accepted("gw", "route", kind="TLSRoute")
    assert has(infra, "route") == {"Accepted": ACCEPTED, "ResolvedRefs": RESOLVED}
    answer = ask(infra.connect("gw", 443, sni="abc.example.com", tls=client()))
    assert (answer["backend"], answer["namespace"]) == ("tls-backend", INFRA)
    assert (answer["tls"], answer["sni"]) == (True, "abc.example.com")


@conformance("TLSRouteHostnameIntersection")
def test_TLSRouteHostnameIntersection(infra: Infra) -> None:
    for name in ("tls-backend", "tls-backend-2"):
        lines(infra, name, port=443, tls=server("abc.example.com", "other.example.com"))
    second = "name: tls-backend-2"
    infra.apply(
        gateway("exact", [tls(hostname="abc.example.com")]),
        gateway("narrow", [tls(hostname="*.example.com")]),
        gateway("wide", [tls(hostname="*.com")]),
        gateway("any", [tls()]),
        tls_route("r1", "exact", "*.example.com"),
        tls_route("r2-exact", "narrow", "abc.example.com"),
        tls_route("r2-wide", "narrow", "*.com", backend=second),
        tls_route("r3-exact", "wide", "abc.example.com"),
        tls_route("r3-narrow", "wide", "*.example.com", backend=second),
        tls_route("r4-exact", "any", "abc.example.com"),
        tls_route("r4-wide", "any", "*.com", backend=second),
    )

    infra.accepted("exact", "r1", kind="TLSRoute")
    infra.accepted("narrow", "r2-exact", "r2-wide", kind="TLSRoute")
    infra.accepted("wide", "r3-exact", "r3-narrow", kind="TLSRoute")
    infra.accepted("any", "r4-exact", "r4-wide", kind="TLSRoute")
    for place in ("exact", "narrow", "wide", "any"):
        answer = ask(infra.connect(place, 443, sni="abc.example.com", tls=client()))
        assert answer["backend"] == "tls-backend"
        assert rejected(infra, place, f"non.matching.{'org' if place == 'any' else 'com'}")
    for place in ("narrow", "wide", "any"):
        answer = ask(infra.connect(place, 443, sni="other.example.com", tls=client()))
        assert answer["backend"] == "tls-backend-2"
    assert rejected(infra, "exact", "other.example.com")


@conformance("TLSRouteInvalidNoMatchingListener")
def test_TLSRouteInvalidNoMatchingListener(infra: Infra) -> None:
    https = "{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}"
    infra.apply(
        certificate("cert", "a.example"),
        gateway("only-tls", [tls(kinds=None)]),
        gateway("only-http", ["{name: http, port: 80, protocol: HTTP}"]),
        gateway("only-https", [https]),
        tls_route("http", "only-http", "abc.example.com"),
        tls_route("https", "only-https", "abc.example.com"),
        tls_route("section", "{name: only-tls, sectionName: other}", "abc.example.com"),
    )

    assert has(infra, "http")["Accepted"] == ("False", "NotAllowedByListeners")
    assert has(infra, "https")["Accepted"] == ("False", "NotAllowedByListeners")
    assert has(infra, "section")["Accepted"] == ("False", "NoMatchingParent")
    for name in ("only-tls", "only-http", "only-https"):
        (only,) = infra.status("Gateway", name)["listeners"]
        assert only["attachedRoutes"] == 0


@conformance("TLSRouteInvalidNoMatchingListenerHostname")
def test_TLSRouteInvalidNoMatchingListenerHostname(infra: Infra) -> None:
    infra.apply(
        gateway("exact", [tls(hostname="abc.example.com")]),
        gateway("wildcard", [tls(hostname="*.example.com")]),
        tls_route("r1", "exact", "xyz.example.com", "abc.example.org", "*.example.org"),
        tls_route("r2", "wildcard", "abc.example.org", "*.example.org", "example.com"),
    )

    for name, place in (("r1", "exact"), ("r2", "wildcard")):
        assert has(infra, name)["Accepted"] == ("False", "NoMatchingListenerHostname")
        (only,) = infra.status("Gateway", place)["listeners"]
        assert only["attachedRoutes"] == 0


def rejects_unresolved(infra: Infra, backend: str, reason: str) -> None:
    """Connections that a route leads nowhere are closed, whichever way TLS would go."""
    for mode in ("mode: Passthrough", END):
        infra.apply(
            certificate("cert", "abc.example.com"),
            gateway("gw", [tls(mode=mode, kinds=None)]),
            tls_route("route", "gw", "abc.example.com", backend=backend),
        )
        infra.accepted("gw", "route", kind="TLSRoute", resolved=False)
        assert has(infra, "route") == {"Accepted": ACCEPTED, "ResolvedRefs": ("False", reason)}
        assert rejected(infra, "gw", "abc.example.com")


@conformance("TLSRouteInvalidBackendRefNonexistent")
def test_TLSRouteInvalidBackendRefNonexistent(infra: Infra) -> None:
    rejects_unresolved(infra, "name: nonexistent", "BackendNotFound")


@conformance("TLSRouteInvalidBackendRefUnknownKind")
def test_TLSRouteInvalidBackendRefUnknownKind(infra: Infra) -> None:
    unknown = "group: unknownkind.example.com, kind: NonExistent, name: convincing"
    rejects_unresolved(infra, unknown, "InvalidKind")


@conformance("TLSRouteInvalidReferenceGrant")
def test_TLSRouteInvalidReferenceGrant(infra: Infra) -> None:
    lines(infra, "elsewhere", namespace=APP, port=443, tls=server("abc.example.com"))
    good = grant("TLSRoute", "elsewhere", APP)
    for number, (what, instead) in enumerate(
        [
            (f"namespace: {APP}", f"namespace: {INFRA}"),
            ("group: gateway.networking.k8s.io", "group: not-the-group"),
            ("kind: TLSRoute", "kind: HTTPRoute"),
            (f"namespace: {INFRA}}}", f"namespace: {APP}}}"),
            ('group: ""', "group: apps"),
            ("kind: Service", "kind: Secret"),
            ("name: elsewhere", "name: another"),
        ]
    ):
        assert what in good
        infra.write(
            f"grant-{number}",
            good.replace(what, instead).replace("name: grant", f"name: g{number}"),
        )
    infra.apply(
        gateway("gw", [tls(hostname="*.example.com")]),
        tls_route("route", "gw", "abc.example.com", backend=f"name: elsewhere, namespace: {APP}"),
    )

    infra.accepted("gw", "route", kind="TLSRoute", resolved=False)
    refused = {"Accepted": ACCEPTED, "ResolvedRefs": ("False", "RefNotPermitted")}
    assert has(infra, "route") == refused
    assert rejected(infra, "gw", "abc.example.com")
    # The one that is right is the difference.
    infra.apply(good, name="grant")
    assert has(infra, "route")["ResolvedRefs"] == RESOLVED
    answer = ask(infra.connect("gw", 443, sni="abc.example.com", tls=client()))
    assert answer["backend"] == "elsewhere"


@conformance("TLSRouteListenerPassthroughSupportedKinds")
def test_TLSRouteListenerPassthroughSupportedKinds(infra: Infra) -> None:
    infra.apply(gateway("gw", [tls(kinds="[{kind: TCPRoute}, {kind: TLSRoute}]")]))

    status = infra.listener("gw", "tls")
    assert status["supportedKinds"] == KINDS
    assert conditions(status)["ResolvedRefs"] == ("False", "InvalidRouteKinds")
    assert status["attachedRoutes"] == 0


@conformance("TLSRouteListenerTerminateNotSupported")
def test_TLSRouteListenerTerminateNotSupported(infra: Infra) -> None:
    """kgw ends TLS for TLSRoutes, so the listener is accepted, and nothing refuses its mode."""
    infra.apply(certificate("cert", "a.example"), gateway("gw", [tls(mode=END)]))

    status = infra.listener("gw", "tls")
    assert conditions(status)["Accepted"] == ACCEPTED
    assert conditions(status)["Programmed"] == ("True", "Programmed")


@conformance("TLSRouteListenerTerminateSupportedKinds")
def test_TLSRouteListenerTerminateSupportedKinds(infra: Infra) -> None:
    infra.apply(certificate("cert", "a.example"), gateway("gw", [tls(mode=END)]))

    status = infra.listener("gw", "tls")
    assert status["supportedKinds"] == KINDS
    assert conditions(status)["Accepted"] == ACCEPTED
    assert conditions(status)["ResolvedRefs"] == RESOLVED
    assert status["attachedRoutes"] == 0


@conformance("TLSRouteTerminateSimpleSameNamespace")
def test_TLSRouteTerminateSimpleSameNamespace(infra: Infra) -> None:
    lines(infra, "tcp-backend", port=3000)
    infra.apply(
        certificate("cert", "tls.example.com"),
        gateway("gw", [tls(hostname="tls.example.com", mode=END, port=8443)]),
        tls_route("route", "gw", "tls.example.com", backend="name: tcp-backend", port=3000),
    )

    assert has(infra, "route") == {"Accepted": ACCEPTED, "ResolvedRefs": RESOLVED}
    answer = ask(infra.connect("gw", 8443, sni="tls.example.com", tls=client()))
    assert (answer["backend"], answer["tls"], answer["sni"]) == ("tcp-backend", False, None)


MIXED = (
    tls("tls-terminate", "terminate.example.com", mode=END, port=8883),
    tls("tls-passthrough", "passthrough.example.com", port=8883),
)


@conformance("TLSRouteListenerMixedTerminationNotSupported")
def test_TLSRouteListenerMixedTerminationNotSupported(infra: Infra) -> None:
    """kgw has both modes on one port, so both listeners are accepted, and neither in conflict."""
    infra.apply(certificate("cert", "terminate.example.com"), gateway("gw", MIXED))

    for name in ("tls-terminate", "tls-passthrough"):
        status = infra.listener("gw", name)
        assert conditions(status)["Accepted"] == ACCEPTED
        assert conditions(status)["Conflicted"] == ("False", "NoConflicts")


@conformance("TLSRouteMixedTerminationSameNamespace")
def test_TLSRouteMixedTerminationSameNamespace(infra: Infra) -> None:
    lines(infra, "plain", port=3000)
    lines(infra, "secure", port=8443, tls=server("passthrough.example.com"))
    infra.apply(
        certificate("cert", "terminate.example.com"),
        gateway("gw", MIXED),
        tls_route(
            "terminated",
            "gw",
            "terminate.example.com",
            backend="name: plain",
            port=3000,
        ),
        tls_route(
            "passed-on",
            "gw",
            "passthrough.example.com",
            backend="name: secure",
            port=8443,
        ),
    )

    for name in ("tls-terminate", "tls-passthrough"):
        status = infra.listener("gw", name)
        assert conditions(status)["Accepted"] == ACCEPTED
        assert (status["attachedRoutes"], status["supportedKinds"]) == (1, KINDS)
    # Neither names its listener: their hosts tell which one it is.
    infra.accepted("gw", "terminated", "passed-on", kind="TLSRoute")
    answer = ask(infra.connect("gw", 8883, sni="terminate.example.com", tls=client()))
    assert (answer["backend"], answer["tls"]) == ("plain", False)
    answer = ask(infra.connect("gw", 8883, sni="passthrough.example.com", tls=client()))
    assert (answer["backend"], answer["tls"]) == ("secure", True)
    assert answer["sni"] == "passthrough.example.com"
    assert rejected(infra, "gw", "neither.example.com", 8883)


@conformance("BackendTLSPolicyTLSRouteTerminate")
def test_BackendTLSPolicyTLSRouteTerminate(infra: Infra) -> None:
    lines(infra, "secure", port=8443, tls=server("abc.example.com"))
    infra.apply(
        authorities(),
        certificate("cert", "tls.example.com"),
        gateway("gw", [tls(hostname="tls.example.com", mode=END, port=8443)]),
        tls_route("route", "gw", "tls.example.com", backend="name: secure", port=8443),
        policy("encrypted", "secure"),
    )

    (ancestor,) = infra.status("BackendTLSPolicy", "encrypted")["ancestors"]
    assert ancestor["ancestorRef"]["name"] == "gw"
    assert conditions(ancestor) == {"Accepted": ACCEPTED, "ResolvedRefs": RESOLVED}
    answer = ask(infra.connect("gw", 8443, sni="tls.example.com", tls=client()))
    assert (answer["backend"], answer["tls"]) == ("secure", True)
    assert answer["sni"] == "abc.example.com"


def test_what_passes_tls_on_puts_none_around_it(infra: Infra) -> None:
    """A policy of the Service is for who speaks to it in plain text."""
    lines(infra, "secure", port=443, tls=server("abc.example.com"))
    infra.apply(
        authorities(),
        gateway("gw", [tls()]),
        tls_route("route", "gw", "abc.example.com", backend="name: secure"),
        policy("encrypted", "secure"),
    )
    answer = ask(infra.connect("gw", 443, sni="abc.example.com", tls=client()))
    assert (answer["backend"], answer["sni"]) == ("secure", "abc.example.com")
