"""HTTPRoutes and listeners: which listener has a request, and which routes a listener has."""

from __future__ import annotations

import json
import ssl
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from tests.conformance.infra import GROUP, INFRA, WEB, Infra, conditions, route
from tests.conformance.suite import conformance
from tests.engine.h2peer import H2Peer
from tests.translate.certificates import authority, secret

if TYPE_CHECKING:
    from collections.abc import Iterable

SAME = "allowedRoutes: {namespaces: {from: Same}}"
TO_V1 = "- backendRefs: [{name: infra-backend-v1, port: 8080}]"

#: The Gateway of the suite that has HTTPS listeners.
HTTPS = "same-namespace-with-https-listener"
HTTPS_HOSTS = {
    "https": "",
    "https-with-hostname": "second-example.org",
    "https-with-wildcard-hostname": "*.wildcard.org",
    "https-with-hostname-matching-wildcard": "fourth-example.wildcard.org",
}


def gateway(name: str, *listeners: str) -> str:
    lines = "".join(f"  - {one}\n" for one in listeners)
    return f"""apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: {name}, namespace: {INFRA}}}
spec:
  gatewayClassName: kgateway
  listeners:
{lines}"""


def http(name: str, hostname: str = "", port: int = 80) -> str:
    host = f"hostname: '{hostname}', " if hostname else ""
    return f"{{name: {name}, port: {port}, protocol: HTTP, {host}{SAME}}}"


def https_gateway() -> list[str]:
    """The Gateway with HTTPS listeners, and its certificate for all their hosts and others."""
    ref = "{group: '', kind: Secret, name: tls-validity-checks-certificate}"
    listeners = [
        f"{{name: {name}, port: 443, protocol: HTTPS, "
        + (f"hostname: '{host}', " if host else "")
        + f"tls: {{certificateRefs: [{ref}]}}, {SAME}}}"
        for name, host in HTTPS_HOSTS.items()
    ]
    names = ("example.org", "second-example.org", "unknown-example.org", "*.wildcard.org")
    certificate = secret("tls-validity-checks-certificate", *names, namespace=INFRA)
    return [gateway(HTTPS, *listeners), certificate]


def trusting(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority())
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def to(backend: str, path: str) -> str:
    match = f"[{{path: {{type: PathPrefix, value: {path}}}}}]"
    return f"- {{matches: {match}, backendRefs: [{{name: {backend}, port: 8080}}]}}"


def answers(
    infra: Infra, gateway: str, cases: Iterable[tuple[str, str, str | int]], *, port: int = 80
) -> None:
    for host, path, expected in cases:
        reply = infra.request(gateway, path, host=host, port=port)
        assert reply.outcome == expected, (host, path)
        reply.passed(path, host)


# === Hostnames ===


@conformance("HTTPRouteHostnameIntersection")
def test_HTTPRouteHostnameIntersection(infra: Infra) -> None:
    own = "hostname-intersection"
    infra.apply(
        gateway(
            own,
            http("listener-1", "very.specific.com"),
            http("listener-2", "*.wildcard.io"),
            http("listener-3", "*.anotherwildcard.io"),
        ),
        gateway(f"{own}-all", http("listener-1")),
        route(
            to("infra-backend-v1", "/s1"),
            own,
            name="specific-specific",
            hostnames=["non.matching.com", "*.nonmatchingwildcard.io", "very.specific.com"],
        ),
        route(
            to("infra-backend-v2", "/s2"),
            own,
            name="specific-wildcard",
            hostnames=[
                "non.matching.com",
                "wildcard.io",
                "foo.wildcard.io",
                "bar.wildcard.io",
                "foo.bar.wildcard.io",
            ],
        ),
        route(
            to("infra-backend-v3", "/s3"),
            own,
            name="wildcard-specific",
            hostnames=["non.matching.com", "*.specific.com"],
        ),
        route(
            to("infra-backend-v1", "/s4"),
            own,
            name="wildcard-wildcard",
            hostnames=["*.anotherwildcard.io"],
        ),
        route(
            to("infra-backend-v2", "/s5"),
            own,
            name="none",
            hostnames=["specific.but.wrong.com", "wildcard.io"],
        ),
        route(
            to("infra-backend-v2", "/"),
            f"{own}-all",
            name="all",
            hostnames=["first.com", "sub.first.com", "second.com", "sub.second.com"],
        ),
    )
    kinds = ("specific", "wildcard")
    infra.accepted(own, *(f"{one}-{other}" for one in kinds for other in kinds))
    infra.accepted(f"{own}-all", "all")
    answers(
        infra,
        own,
        [
            ("very.specific.com", "/s1", "infra-backend-v1"),
            ("very.specific.com:1234", "/s1", "infra-backend-v1"),
            ("non.matching.com", "/s1", 404),
            ("foo.nonmatchingwildcard.io", "/s1", 404),
            ("foo.wildcard.io", "/s1", 404),
            ("very.specific.com", "/non-matching-prefix", 404),
            ("foo.wildcard.io", "/s2", "infra-backend-v2"),
            ("bar.wildcard.io", "/s2", "infra-backend-v2"),
            ("foo.bar.wildcard.io", "/s2", "infra-backend-v2"),
            ("non.matching.com", "/s2", 404),
            ("wildcard.io", "/s2", 404),
            ("very.specific.com", "/s2", 404),
            ("foo.wildcard.io", "/non-matching-prefix", 404),
            ("very.specific.com", "/s3", "infra-backend-v3"),
            ("non.matching.com", "/s3", 404),
            ("foo.specific.com", "/s3", 404),
            ("foo.wildcard.io", "/s3", 404),
            ("foo.anotherwildcard.io", "/s4", "infra-backend-v1"),
            ("bar.anotherwildcard.io", "/s4", "infra-backend-v1"),
            ("foo.bar.anotherwildcard.io", "/s4", "infra-backend-v1"),
            ("anotherwildcard.io", "/s4", 404),
            ("foo.wildcard.io", "/s4", 404),
            ("very.specific.com", "/s4", 404),
            ("foo.anotherwildcard.io", "/non-matching-prefix", 404),
            ("specific.but.wrong.com", "/s5", 404),
            ("wildcard.io", "/s5", 404),
        ],
    )
    found = infra.parent("HTTPRoute", "none", name=own)
    assert conditions(found)["Accepted"] == ("False", "NoMatchingListenerHostname")
    listeners = infra.status("Gateway", own)["listeners"]
    assert [one["attachedRoutes"] for one in listeners] == [2, 1, 1]
    for one in listeners:
        assert {"group": GROUP, "kind": "HTTPRoute"} in one["supportedKinds"]
    answers(
        infra,
        f"{own}-all",
        [
            ("first.com", "/", "infra-backend-v2"),
            ("sub.first.com", "/", "infra-backend-v2"),
            ("second.com", "/", "infra-backend-v2"),
            ("sub.second.com", "/", "infra-backend-v2"),
            ("third.com", "/", 404),
            ("sub.third.com", "/", 404),
        ],
    )


@conformance("HTTPRouteListenerHostnameMatching")
def test_HTTPRouteListenerHostnameMatching(infra: Infra) -> None:
    own = "hostname-matching"
    infra.apply(
        gateway(
            own,
            http("listener-1", "bar.com"),
            http("listener-2", "foo.bar.com"),
            http("listener-3", "*.bar.com"),
            http("listener-4", "*.foo.com"),
        ),
        route(TO_V1, f"{{name: {own}, sectionName: listener-1}}", name="v1"),
        route(TO_V1.replace("v1", "v2"), f"{{name: {own}, sectionName: listener-2}}", name="v2"),
        route(
            TO_V1.replace("v1", "v3"),
            f"{{name: {own}, sectionName: listener-3}}",
            f"{{name: {own}, sectionName: listener-4}}",
            name="v3",
        ),
    )
    infra.accepted(own, "v1", sections=["listener-1"])
    infra.accepted(own, "v2", sections=["listener-2"])
    infra.accepted(own, "v3", sections=["listener-3", "listener-4"])
    answers(
        infra,
        own,
        [
            ("bar.com", "/", "infra-backend-v1"),
            ("foo.bar.com", "/", "infra-backend-v2"),
            ("baz.bar.com", "/", "infra-backend-v3"),
            ("boo.bar.com", "/", "infra-backend-v3"),
            ("multiple.prefixes.bar.com", "/", "infra-backend-v3"),
            ("multiple.prefixes.foo.com", "/", "infra-backend-v3"),
            ("foo.com", "/", 404),
            ("no.matching.host", "/", 404),
        ],
    )


# === TLS ===


@conformance("HTTPRouteHTTPSListener")
def test_HTTPRouteHTTPSListener(infra: Infra) -> None:
    infra.apply(
        *https_gateway(),
        route(TO_V1, HTTPS, name="first", hostnames=["example.org"]),
        route(
            TO_V1.replace("v1", "v2"),
            f"{{name: {HTTPS}, sectionName: https-with-hostname}}",
            name="second",
        ),
    )
    infra.accepted(HTTPS, "first", "second")
    for host, expected in (
        ("example.org", "infra-backend-v1"),
        ("second-example.org", "infra-backend-v2"),
        ("unknown-example.org", 404),
    ):
        reply = infra.request(HTTPS, host=host, port=443, tls=trusting())
        assert reply.outcome == expected, host
        reply.passed("/", host)


#: Server name, Host, and what the request comes to: a backend, 404, or 421 where the Host belongs
#: to another listener than the server name.
MISDIRECTED = [
    ("example.org", "example.org", "infra-backend-v1"),
    ("example.org", "second-example.org", 421),
    ("example.org", "unknown-example.org", 404),
    ("second-example.org", "second-example.org", "infra-backend-v2"),
    ("second-example.org", "example.org", 421),
    ("second-example.org", "unknown-example.org", 421),
    ("third-example.wildcard.org", "third-example.wildcard.org", "infra-backend-v3"),
    ("third-example.wildcard.org", "fith-example.wildcard.org", "infra-backend-v3"),
    ("third-example.wildcard.org", "fourth-example.wildcard.org", 421),
    ("third-example.wildcard.org", "second-example.org", 421),
    ("third-example.wildcard.org", "unknown-example.org", 421),
    ("fourth-example.wildcard.org", "fourth-example.wildcard.org", "infra-backend-v1"),
    ("fourth-example.wildcard.org", "fith-example.wildcard.org", 421),
    ("unknown-example.org", "example.org", "infra-backend-v1"),
    ("unknown-example.org", "unknown-example.org", 404),
]


@conformance("HTTPRouteHTTPSListenerDetectMisdirectedRequests")
def test_HTTPRouteHTTPSListenerDetectMisdirectedRequests(infra: Infra) -> None:
    path = "/detect-misdirected-requests"
    backends = ("infra-backend-v1", "infra-backend-v2", "infra-backend-v3", "infra-backend-v1")
    routes = [
        route(
            to(backend, path),
            f"{{name: {HTTPS}, sectionName: {section}}}",
            name=f"route-{section}",
            hostnames=["example.org"] if section == "https" else (),
        )
        for section, backend in zip(HTTPS_HOSTS, backends, strict=True)
    ]
    infra.apply(*https_gateway(), *routes)
    for name in HTTPS_HOSTS:
        infra.accepted(HTTPS, f"route-{name}", sections=[name])
        found = infra.listener(HTTPS, name)
        assert conditions(found)["OverlappingTLSConfig"] == ("True", "OverlappingHostnames")
    for sni, host, expected in MISDIRECTED:
        status = expected if isinstance(expected, int) else 200
        peer = infra.connect(HTTPS, 443, sni=sni, tls=trusting("h2"))
        with closing(H2Peer(peer)) as client:
            answer = client.ask(path, host=host)
            assert answer.status == status, (sni, host)
            if status == 200:
                seen = json.loads(answer.body)
                found = [seen[one] for one in ("backend", "host", "path")]
                assert found == [expected, host, path]
        # HTTP/1.1 answers the same.
        peer = infra.connect(HTTPS, 443, sni=sni, tls=trusting("http/1.1"))
        with closing(peer):
            peer.send(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
            assert peer.read_response().status == status, (sni, host)


# === Parents ===


@conformance("HTTPRouteMultipleGateways")
def test_HTTPRouteMultipleGateways(infra: Infra) -> None:
    infra.apply(
        route(to("infra-backend-v1", "/shared"), "same-namespace", "all-namespaces", name="shared"),
        route(to("infra-backend-v2", "/"), "same-namespace", name="of-same"),
        route(to("infra-backend-v3", "/"), "all-namespaces", name="of-all"),
    )
    for name, own in (
        ("same-namespace", "infra-backend-v2"),
        ("all-namespaces", "infra-backend-v3"),
    ):
        infra.accepted(name, "shared")
        answers(
            infra, name, [("example.com", "/shared", "infra-backend-v1"), ("example.com", "/", own)]
        )
    infra.accepted("same-namespace", "of-same")
    infra.accepted("all-namespaces", "of-all")


@conformance("HTTPRouteListenerPortMatching")
def test_HTTPRouteListenerPortMatching(infra: Infra) -> None:
    own = "port-matching"
    infra.apply(
        gateway(
            own,
            http("listener-1", "foo.com", 80),
            http("listener-2", "foo.com", 8080),
            http("listener-3", "bar.com", 8080),
            http("listener-4", "foo.com", 8090),
            http("listener-5", "bar.com", 8090),
        ),
        route(TO_V1, f"{{name: {own}, port: 80}}", name="v1"),
        route(TO_V1.replace("v1", "v2"), f"{{name: {own}, port: 8080}}", name="v2"),
        route(
            TO_V1.replace("v1", "v3"),
            f"{{name: {own}, port: 8090, sectionName: listener-4}}",
            name="v3",
        ),
    )
    infra.accepted(own, "v1", "v2", "v3")
    every: dict[int, dict[str, str | int]] = {
        80: {"foo.com": "infra-backend-v1", "bar.com": 404},
        8080: {"foo.com": "infra-backend-v2", "bar.com": "infra-backend-v2"},
        8090: {"foo.com": "infra-backend-v3", "bar.com": 404},
    }
    # With the port in the host, as clients write it, and without.
    for port, hosts in every.items():
        for host, expected in hosts.items():
            cases = [(one, "/", expected) for one in (host, f"{host}:{port}")]
            answers(infra, own, cases, port=port)


@conformance("HTTPRouteCrossNamespace")
def test_HTTPRouteCrossNamespace(infra: Infra) -> None:
    ref = f"{{name: backend-namespaces, namespace: {INFRA}}}"
    infra.apply(
        route("- backendRefs: [{name: web-backend, port: 8080}]", ref, namespace=WEB, name="cross")
    )
    infra.accepted("backend-namespaces", "cross", namespace=WEB)
    assert infra.request("backend-namespaces").backend == "web-backend"


def unattached(
    infra: Infra, name: str, reason: str, *, namespace: str = INFRA, of: str = "same-namespace"
) -> None:
    """A route that no listener has, but whose backends are there."""
    (found,) = infra.status("HTTPRoute", name, namespace)["parents"]
    assert conditions(found)["Accepted"] == ("False", reason)
    assert conditions(found)["ResolvedRefs"] == ("True", "ResolvedRefs")
    (listener,) = infra.status("Gateway", of)["listeners"]
    assert listener["attachedRoutes"] == 0


@conformance("HTTPRouteInvalidCrossNamespaceParentRef")
def test_HTTPRouteInvalidCrossNamespaceParentRef(infra: Infra) -> None:
    ref = f"{{name: same-namespace, namespace: {INFRA}}}"
    infra.apply(
        route("- backendRefs: [{name: web-backend, port: 8080}]", ref, namespace=WEB, name="cross")
    )
    unattached(infra, "cross", "NotAllowedByListeners", namespace=WEB)
    assert infra.request("same-namespace").status == 404


@conformance("HTTPRouteInvalidParentRefNotMatchingSectionName")
def test_HTTPRouteInvalidParentRefNotMatchingSectionName(infra: Infra) -> None:
    infra.apply(route(TO_V1, "{name: same-namespace, sectionName: nobody, port: 80}"))
    unattached(infra, "route", "NoMatchingParent")
    assert infra.request("same-namespace").status == 404


@conformance("HTTPRouteInvalidParentRefNotMatchingListenerPort")
def test_HTTPRouteInvalidParentRefNotMatchingListenerPort(infra: Infra) -> None:
    infra.apply(route(TO_V1, "{name: same-namespace, port: 81}"))
    unattached(infra, "route", "NoMatchingParent")
    assert infra.request("same-namespace").status == 404


@conformance("HTTPRouteInvalidParentRefSectionNameNotMatchingPort")
def test_HTTPRouteInvalidParentRefSectionNameNotMatchingPort(infra: Infra) -> None:
    infra.apply(route(TO_V1, "{name: same-namespace, sectionName: http, port: 81}"))
    unattached(infra, "route", "NoMatchingParent")
    assert infra.request("same-namespace").status == 404


@conformance("HTTPRouteDisallowedKind")
def test_HTTPRouteDisallowedKind(infra: Infra) -> None:
    infra.apply(
        gateway(
            "tlsroutes-only",
            "{name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}, "
            "allowedRoutes: {namespaces: {from: Same}, kinds: [{kind: TLSRoute}]}}",
        ),
        route(TO_V1, "tlsroutes-only", name="disallowed"),
    )
    unattached(infra, "disallowed", "NotAllowedByListeners", of="tlsroutes-only")


# === Redirects ===

#: Of the Gateways with a listener on a port: scheme and port of the filter, and the location.
REDIRECTS = {
    ("same-namespace", 80): [
        ("", 0, "http://example.org"),
        ("", 80, "http://example.org"),
        ("", 8080, "http://example.org:8080"),
        ("https", 0, "https://example.org"),
        ("https", 443, "https://example.org"),
        ("https", 8443, "https://example.org:8443"),
    ],
    ("http-on-8080", 8080): [
        ("", 0, "http://example.org:8080"),
        ("", 80, "http://example.org"),
        ("https", 0, "https://example.org"),
    ],
    (HTTPS, 443): [
        ("", 0, "https://example.org"),
        ("", 443, "https://example.org"),
        ("", 8443, "https://example.org:8443"),
        ("http", 0, "http://example.org"),
        ("http", 80, "http://example.org"),
        ("http", 8080, "http://example.org:8080"),
    ],
}


@conformance("HTTPRouteRedirectPortAndScheme")
def test_HTTPRouteRedirectPortAndScheme(infra: Infra) -> None:
    def rule(number: int, scheme: str, port: int) -> str:
        given = f"hostname: example.org{f', scheme: {scheme}' if scheme else ''}"
        given += f", port: {port}" if port else ""
        return (
            f"- matches: [{{path: {{type: PathPrefix, value: /{number}}}}}]\n"
            f"  filters: [{{type: RequestRedirect, requestRedirect: {{{given}}}}}]"
        )

    routes = [
        route(
            "\n".join(rule(number, *case[:2]) for number, case in enumerate(cases)),
            name,
            name=f"of-{name}",
        )
        for (name, _), cases in REDIRECTS.items()
    ]
    infra.apply(*https_gateway(), gateway("http-on-8080", http("http", port=8080)), *routes)
    for name, _ in REDIRECTS:
        infra.accepted(name, f"of-{name}")
    for (name, port), cases in REDIRECTS.items():
        for number, (_, _, location) in enumerate(cases):
            reply = infra.request(
                name,
                f"/{number}",
                # Without TLS the request is for another host than the one that it is sent to.
                host="example.org" if port == 443 else "127.0.0.1",
                port=port,
                tls=trusting() if port == 443 else None,
            )
            assert reply.status == 302
            assert reply.header("location") == f"{location}/{number}", (name, number)


# === TLS that nobody serves ===


def test_a_server_name_that_no_listener_has_is_closed_without_an_alert(infra: Infra) -> None:
    ref = "{group: '', kind: Secret, name: certificate}"
    infra.apply(
        gateway(
            "named",
            "{name: https, port: 443, protocol: HTTPS, hostname: a.example, "
            f"tls: {{certificateRefs: [{ref}]}}}}",
        ),
        secret("certificate", "a.example", namespace=INFRA),
    )
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        infra.connect("named", 443, sni="b.example", tls=trusting())
    infra.connect("named", 443, sni="a.example", tls=trusting()).close()


# === Listeners of ListenerSets ===


def test_tls_listeners_of_a_set_are_told_apart_from_the_gateways(infra: Infra) -> None:
    def https(name: str) -> str:
        ref = "{group: '', kind: Secret, name: certificate}"
        return (
            f"{{name: {name}, port: 443, protocol: HTTPS, hostname: {name}.example, "
            f"tls: {{certificateRefs: [{ref}]}}}}"
        )

    allowing = "  allowedListeners: {namespaces: {from: All}}\n  listeners:"
    infra.apply(
        gateway("shared", https("own")).replace("  listeners:", allowing),
        f"""apiVersion: {GROUP}/v1
kind: ListenerSet
metadata: {{name: team, namespace: {WEB}}}
spec:
  parentRef: {{name: shared, namespace: {INFRA}}}
  listeners:
  - {https("team")}
""",
        secret("certificate", "own.example", "team.example", namespace=INFRA),
        secret("certificate", "team.example", namespace=WEB),
        route(TO_V1, "shared", name="own"),
        route(
            "- backendRefs: [{name: web-backend, port: 8080}]",
            f"{{group: {GROUP}, kind: ListenerSet, name: team}}",
            name="team",
            namespace=WEB,
        ),
    )
    for sni, host, expected in (
        ("own.example", "own.example", "infra-backend-v1"),
        ("team.example", "team.example", "web-backend"),
        ("own.example", "team.example", 421),
        ("team.example", "own.example", 421),
    ):
        reply = infra.request("shared", host=host, port=443, sni=sni, tls=trusting())
        assert reply.outcome == expected, (sni, host)
    # Only the set's own certificate is shown for its name.
    peer = infra.connect("shared", 443, sni="team.example", tls=trusting())
    with closing(peer):
        assert isinstance(peer.sock, ssl.SSLSocket)
        names = (peer.sock.getpeercert() or {}).get("subjectAltName")
        assert names == (("DNS", "team.example"),)
