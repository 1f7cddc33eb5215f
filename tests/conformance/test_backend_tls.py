"""TLS to backends: BackendTLSPolicies, and the certificate that a Gateway shows."""

from __future__ import annotations

from typing import Any

import trustme
from tests.conformance.certificates import (
    SPIFFE,
    authorities,
    certificate,
    client,
    client_certificate,
    identified,
    policy,
    server,
)
from tests.conformance.infra import INFRA, WEB, Infra, conditions, route
from tests.conformance.streams import gateway
from tests.conformance.suite import conformance
from tests.translate.certificates import config_map

ACCEPTED = ("True", "Accepted")
RESOLVED = ("True", "ResolvedRefs")
INVALID = {
    "Accepted": ("False", "NoValidCACertificate"),
    "ResolvedRefs": ("False", "InvalidCACertificateRef"),
}
BROKEN = {500, 502, 503}
"""Answers where TLS cannot be set up as asked."""


def secure(
    infra: Infra,
    *names: str,
    hosts: tuple[str, ...] = ("abc.example.com",),
    app_protocol: str | None = None,
) -> None:
    """Services whose pods speak TLS."""
    for name in names:
        infra.service(name, port=443, tls=server(*hosts), app_protocol=app_protocol)


def paths(*backends: str, parent: str = "same-namespace", name: str = "route", **more: Any) -> str:
    """A route to each backend by its path, which is its name."""
    rules = "".join(
        f"- matches: [{{path: {{type: Exact, value: /{one}}}}}]\n"
        f"  backendRefs: [{{name: {one}, port: 443}}]\n"
        for one in backends
    )
    return route(rules, parent, name=name, **more)


def ancestor(infra: Infra, name: str, gateway: str = "same-namespace") -> Any:
    """The conditions of a policy for a Gateway."""
    found = infra.status("BackendTLSPolicy", name)["ancestors"]
    (only,) = (one for one in found if one["ancestorRef"]["name"] == gateway)
    assert only["ancestorRef"]["kind"] == "Gateway"
    assert only["ancestorRef"]["group"] == "gateway.networking.k8s.io"
    assert only["ancestorRef"]["namespace"] == INFRA
    return only


def has(infra: Infra, name: str, gateway: str = "same-namespace") -> dict[str, tuple[str, str]]:
    return conditions(ancestor(infra, name, gateway))


FINE = {"Accepted": ACCEPTED, "ResolvedRefs": RESOLVED}


@conformance("BackendTLSPolicy")
def test_BackendTLSPolicy(infra: Infra) -> None:
    secure(infra, "good", "reconciled")
    secure(infra, "host-mismatch", "cert-mismatch", app_protocol="HTTPS")
    https = "{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}"
    infra.write("authorities", authorities())
    infra.apply(
        gateway("secure-edge", [https]),
        certificate("cert", "https-listener.org"),
        paths("good", "host-mismatch", "cert-mismatch", "reconciled"),
        paths("good", parent="secure-edge", name="reencrypt", hostnames=["https-listener.org"]),
        policy("good", "good"),
        policy("host-mismatch", "host-mismatch", host="mismatch.example.com"),
        policy("cert-mismatch", "cert-mismatch", ca="mismatch-ca-certificate"),
    )
    infra.apply(policy("reconciled", "reconciled"), name="reconciled")

    infra.accepted("secure-edge", "reencrypt")
    infra.accepted("same-namespace", "route")
    for name in ("good", "host-mismatch", "cert-mismatch", "reconciled"):
        assert has(infra, name) == FINE
    assert has(infra, "good", "secure-edge") == FINE
    again = infra.request("secure-edge", "/good", host="https-listener.org", port=443, tls=client())
    assert (again.backend, again.seen["sni"]) == ("good", "abc.example.com")
    plain = infra.request("same-namespace", "/good", host="abc.example.com")
    assert (plain.backend, plain.seen["sni"]) == ("good", "abc.example.com")
    for name in ("host-mismatch", "cert-mismatch"):
        assert infra.request("same-namespace", f"/{name}").status in BROKEN
    assert infra.request("same-namespace", "/reconciled").status == 200

    # Edits of what a policy refers to are followed.
    infra.apply(policy("reconciled", "reconciled", ca="own"), name="reconciled")
    assert has(infra, "reconciled") == INVALID
    assert infra.request("same-namespace", "/reconciled").status in BROKEN
    infra.apply(config_map("own", namespace=INFRA), name="own")
    assert has(infra, "reconciled") == FINE
    assert infra.request("same-namespace", "/reconciled").status == 200
    infra.apply(config_map("own", namespace=INFRA, text=""), name="own")
    assert has(infra, "reconciled") == INVALID
    assert infra.request("same-namespace", "/reconciled").status in BROKEN
    infra.apply(config_map("own", namespace=INFRA), name="own")
    assert has(infra, "reconciled") == FINE
    assert infra.request("same-namespace", "/reconciled").status == 200


@conformance("BackendTLSPolicyConflictResolution")
def test_BackendTLSPolicyConflictResolution(infra: Infra) -> None:
    hosts = ("abc.example.com", "other.example.com")
    secure(infra, "whole", "part", hosts=hosts)
    upstream = infra.service("both", port=443, tls=server(*hosts))
    ports = [("https-1", 443), ("https-2", 8443)]
    _, _, at = upstream.address.rpartition(":")
    infra.write(
        f"service-{INFRA}-both",
        f"""
apiVersion: v1
kind: Service
metadata: {{name: both, namespace: {INFRA}}}
spec:
  clusterIP: 10.96.3.1
  ports: [{", ".join(f"{{name: {name}, port: {port}}}" for name, port in ports)}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: both-0, namespace: {INFRA}, labels: {{kubernetes.io/service-name: both}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
ports: [{", ".join(f"{{name: {name}, port: {at}}}" for name, _ in ports)}]
""",
    )
    second = """
- matches: [{path: {type: Exact, value: /both-whole}}]
  backendRefs: [{name: both, port: 8443}]
"""
    infra.write("authorities", authorities())
    infra.apply(
        paths("whole", "part", "both"),
        route(second, name="second"),
        policy("whole-1", "whole", section=None, host="other.example.com"),
        policy("whole-2", "whole", section=None, host="abc.example.com"),
        policy("part-1", "part", host="other.example.com"),
        policy("part-2", "part", host="abc.example.com"),
        policy("both-part", "both", section="https-1", host="other.example.com"),
        policy("both-whole", "both", section=None, host="abc.example.com"),
    )

    for name in ("whole-1", "part-1", "both-part", "both-whole"):
        assert has(infra, name)["Accepted"] == ACCEPTED
    for name in ("whole-2", "part-2"):
        assert has(infra, name)["Accepted"] == ("False", "Conflicted")
    for path, sni in {
        "/whole": "other.example.com",
        "/part": "other.example.com",
        "/both": "other.example.com",
        "/both-whole": "abc.example.com",
    }.items():
        assert infra.request("same-namespace", path).seen["sni"] == sni

    # Age goes before names.
    infra.apply(
        policy("whole-9", "whole", section=None, creationTimestamp="2020-01-01T00:00:00Z"),
        name="older",
    )
    assert has(infra, "whole-9")["Accepted"] == ACCEPTED
    assert has(infra, "whole-1")["Accepted"] == ("False", "Conflicted")
    assert infra.request("same-namespace", "/whole").seen["sni"] == "abc.example.com"


@conformance("BackendTLSPolicyInvalidCACertificateRef")
def test_BackendTLSPolicyInvalidCACertificateRef(infra: Infra) -> None:
    names = ("nonexistent", "malformed", "without-data")
    secure(infra, *names, app_protocol="HTTPS")
    infra.apply(
        config_map("malformed", namespace=INFRA, text="Hello world"),
        f"{{apiVersion: v1, kind: ConfigMap, data: {{}}, metadata: {{name: without-data, "
        f"namespace: {INFRA}}}}}",
        paths(*names),
        policy("nonexistent", "nonexistent", section=None, ca="nowhere"),
        policy("malformed", "malformed", section=None, ca="malformed"),
        policy("without-data", "without-data", section=None, ca="without-data"),
    )

    infra.accepted("same-namespace", "route", resolved=False)
    for name in names:
        assert has(infra, name) == INVALID
        assert infra.request("same-namespace", f"/{name}").status in BROKEN
        assert infra.requests[f"{INFRA}/{name}"] == []


@conformance("BackendTLSPolicyInvalidKind")
def test_BackendTLSPolicyInvalidKind(infra: Infra) -> None:
    kinds = {"core": ("", "Service"), "other": ("invalid.example", "InvalidKind")}
    secure(infra, *kinds, app_protocol="HTTPS")
    infra.apply(
        paths(*kinds),
        *(
            policy(name, name, section=None, group=group, kind=kind, ca=name)
            for name, (group, kind) in kinds.items()
        ),
    )

    for name in kinds:
        assert has(infra, name) == {
            "Accepted": ("False", "NoValidCACertificate"),
            "ResolvedRefs": ("False", "InvalidKind"),
        }
        assert infra.request("same-namespace", f"/{name}").status in BROKEN


@conformance("BackendTLSPolicyObservedGenerationBump")
def test_BackendTLSPolicyObservedGenerationBump(infra: Infra) -> None:
    infra.endpoints("empty", INFRA, [], port=443)
    infra.write("authorities", authorities())
    infra.apply(paths("empty"))
    for generation, host in ((1, "abc.example.com"), (2, "foo.example.com")):
        infra.apply(policy("bump", "empty", host=host, generation=generation), name="bump")
        found = ancestor(infra, "bump")
        assert conditions(found)["Accepted"][0] == "True"
        assert {one["observedGeneration"] for one in found["conditions"]} == {generation}


@conformance("BackendTLSPolicySANValidation")
def test_BackendTLSPolicySANValidation(infra: Infra) -> None:
    def dns(name: str) -> dict[str, str]:
        return {"type": "Hostname", "hostname": name}

    def uri(name: str) -> dict[str, str]:
        return {"type": "URI", "uri": name}

    good = {
        "dns": [dns("abc.example.com")],
        "uri": [uri(SPIFFE)],
        "several": [dns("not.example.com"), uri(SPIFFE), uri("https://not.example.com")],
    }
    bad = {
        "dns-mismatch": [dns("mismatch.example.com")],
        "uri-mismatch": [uri("spiffe://mismatch.example.com/test-identity")],
        "several-mismatch": [dns("mismatch.example.com"), uri("spiffe://a/b")],
    }
    for name in (*good, *bad):
        # The suite declares the protocol of all but the first.
        declared = None if name == "dns" else "HTTPS"
        tls = identified(SPIFFE, "abc.example.com")
        infra.service(name, port=443, tls=tls, app_protocol=declared)
    infra.write("authorities", authorities())
    infra.apply(
        paths(*good, *bad),
        *(policy(name, name, names=names) for name, names in {**good, **bad}.items()),
    )

    infra.accepted("same-namespace", "route")
    for name in (*good, *bad):
        assert has(infra, name)["Accepted"] == ACCEPTED
    for name in good:
        reply = infra.request("same-namespace", f"/{name}")
        assert (reply.backend, reply.seen["sni"]) == (name, "abc.example.com")
    for name in bad:
        assert infra.request("same-namespace", f"/{name}").status in BROKEN


def test_the_hostname_is_only_asked_for_where_there_are_names(infra: Infra) -> None:
    secure(infra, "backend", hosts=("abc.example.com",))
    infra.write("authorities", authorities())
    infra.apply(
        paths("backend"),
        policy(
            "named",
            "backend",
            host="asked.example.com",
            names=[{"type": "Hostname", "hostname": "abc.example.com"}],
        ),
    )
    reply = infra.request("same-namespace", "/backend")
    assert (reply.backend, reply.seen["sni"]) == ("backend", "asked.example.com")


# === The certificate that a Gateway shows ===

CLIENTS = trustme.CA(organization_name="clients")


def with_certificate(name: str, ref: str) -> str:
    http = "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Same}}}"
    tls = f"  tls: {{backend: {{clientCertificateRef: {{{ref}}}}}}}\n"
    return gateway(name, [http], more=tls)


@conformance("GatewayTLSBackendClientCertificate")
def test_GatewayTLSBackendClientCertificate(infra: Infra) -> None:
    infra.service("asking", port=443, tls=server("abc.example.com", clients=CLIENTS))
    infra.write("authorities", authorities())
    infra.apply(
        client_certificate("shown", CLIENTS, "gateway.example.com"),
        with_certificate("edge", 'group: "", kind: Secret, name: shown'),
        paths("asking", parent="edge"),
        paths("asking", name="without"),
        policy("asking", "asking", section=None),
    )

    infra.accepted("edge", "route")
    assert conditions(infra.status("Gateway", "edge"))["ResolvedRefs"] == RESOLVED
    assert has(infra, "asking", "edge")["Accepted"] == ACCEPTED
    seen = infra.request("edge", "/asking").seen
    assert seen["backend"] == "asking"
    assert seen["certificate"]["subjectAltName"] == [["DNS", "gateway.example.com"]]
    # Another Gateway has none to show.
    assert infra.request("same-namespace", "/asking").status in BROKEN


@conformance("GatewayInvalidTLSBackendConfiguration")
def test_GatewayInvalidTLSBackendConfiguration(infra: Infra) -> None:
    invalid = ("False", "InvalidClientCertificateRef")
    cases = {
        "nonexistent-secret": ('group: "", kind: Secret, name: nonexistent', invalid),
        "unsupported-group": ("group: wrong.example.io, kind: Secret, name: shown", invalid),
        "unsupported-kind": ('group: "", kind: WrongKind, name: shown', invalid),
        "malformed-secret": ('group: "", kind: Secret, name: malformed', invalid),
        "missing-grant": (
            f'group: "", kind: Secret, name: shown, namespace: {WEB}',
            ("False", "RefNotPermitted"),
        ),
    }
    malformed = f"""
apiVersion: v1
kind: Secret
metadata: {{name: malformed, namespace: {INFRA}}}
type: Opaque
data: {{}}
"""
    secure(infra, "backend")
    infra.write("authorities", authorities())
    infra.apply(
        malformed,
        client_certificate("shown", CLIENTS, "gateway.example.com"),
        certificate("shown", "gateway.example.com", namespace=WEB),
        *(with_certificate(name, ref) for name, (ref, _) in cases.items()),
        paths("backend", parent="unsupported-kind"),
        policy("backend", "backend"),
    )

    for name, (_, expected) in cases.items():
        status = infra.status("Gateway", name)
        assert conditions(status)["ResolvedRefs"] == expected
        assert conditions(status)["Accepted"] == ACCEPTED
        assert conditions(status)["Programmed"] == ("True", "Programmed")
    # What is to be shown and cannot be is not left out.
    assert infra.request("unsupported-kind", "/backend").status in BROKEN
    assert infra.requests[f"{INFRA}/backend"] == []
