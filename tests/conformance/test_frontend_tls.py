"""Certificates that Gateways ask of clients."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.conformance.certificates import authority_of, certificate, client
from tests.conformance.infra import INFRA, WEB, Infra, conditions, route
from tests.conformance.streams import gateway
from tests.conformance.suite import conformance

if TYPE_CHECKING:
    from collections.abc import Iterable

ACCEPTED = ("True", "Accepted")
RESOLVED = ("True", "ResolvedRefs")
PROGRAMMED = ("True", "Programmed")

FIRST = trustme.CA(organization_name="first")
SECOND = trustme.CA(organization_name="second")
OF_FIRST = FIRST.issue_cert("client.first.example")
OF_SECOND = SECOND.issue_cert("client.second.example")


def https(name: str, port: int, hostname: str | None = None) -> str:
    host = f"hostname: {hostname}, " if hostname else ""
    tls = "tls: {certificateRefs: [{name: cert}]}"
    return f"{{name: {name}, port: {port}, protocol: HTTPS, {host}{tls}}}"


def validation(ref: str, mode: str | None = None) -> str:
    how = f"mode: {mode}, " if mode else ""
    return f"{{validation: {{{how}caCertificateRefs: [{{{ref}}}]}}}}"


def config(name: str, more: str = "") -> str:
    return f'kind: ConfigMap, group: "", name: {name}{more}'


def frontend(listeners: Iterable[str], default: str, ports: dict[int, str] | None = None) -> str:
    per_port = ", ".join(f"{{port: {port}, tls: {tls}}}" for port, tls in (ports or {}).items())
    more = f"perPort: [{per_port}], " if per_port else ""
    tls = f"  tls: {{frontend: {{{more}default: {default}}}}}\n"
    return gateway("edge", listeners, more=tls)


def base() -> tuple[str, ...]:
    """What all have: certificates, authorities and routes to two backends."""
    return (
        certificate("cert", "example.org", "second-example.org"),
        authority_of("first", FIRST),
        authority_of("second", SECOND),
        route(
            "- backendRefs: [{name: infra-backend-v1, port: 8080}]",
            "edge",
            hostnames=["example.org"],
        ),
        route(
            "- backendRefs: [{name: infra-backend-v2, port: 8080}]",
            "{name: edge, sectionName: second}",
            name="second",
        ),
    )


SEVERAL = (https("first", 443), https("second", 8443, "second-example.org"))


def asked(infra: Infra, host: str, port: int, shows: trustme.LeafCert | None) -> str:
    return infra.request("edge", host=host, port=port, tls=client(shows)).backend


def refused(infra: Infra, host: str, port: int, shows: trustme.LeafCert | None) -> bool:
    """Whether a client is refused, in the handshake or with what follows it (TLS 1.3)."""
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        asked(infra, host, port, shows)
    return True


@conformance("GatewayFrontendClientCertificateValidation")
def test_GatewayFrontendClientCertificateValidation(infra: Infra) -> None:
    per_port = {8443: validation(config("second"))}
    infra.apply(frontend(SEVERAL, validation(config("first")), per_port), *base())

    infra.accepted("edge", "route", "second")
    assert asked(infra, "example.org", 443, OF_FIRST) == "infra-backend-v1"
    assert refused(infra, "example.org", 443, OF_SECOND)
    assert refused(infra, "example.org", 443, None)
    assert asked(infra, "second-example.org", 8443, OF_SECOND) == "infra-backend-v2"
    assert refused(infra, "second-example.org", 8443, OF_FIRST)
    assert refused(infra, "second-example.org", 8443, None)
    assert "InsecureFrontendValidationMode" not in conditions(infra.status("Gateway", "edge"))


@conformance("GatewayFrontendClientCertificateValidationInsecureFallback")
def test_GatewayFrontendClientCertificateValidationInsecureFallback(infra: Infra) -> None:
    mode = "AllowInsecureFallback"
    per_port = {8443: validation(config("second"), mode)}
    infra.apply(frontend(SEVERAL, validation(config("first"), mode), per_port), *base())

    infra.accepted("edge", "route", "second")
    status = conditions(infra.status("Gateway", "edge"))
    assert status["InsecureFrontendValidationMode"] == ("True", "ConfigurationChanged")
    for host, port, backend in (
        ("example.org", 443, "infra-backend-v1"),
        ("second-example.org", 8443, "infra-backend-v2"),
    ):
        for shows in (OF_FIRST, OF_SECOND, None):
            assert asked(infra, host, port, shows) == backend
        # All the same, it is asked for.
        assert _requests_certificate(infra, host, port)


def _requests_certificate(infra: Infra, host: str, port: int) -> bool:
    """Whether the server sends CertificateRequest (RFC 5246 7.4.4, readable in TLS 1.2)."""
    context = client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    peer = infra.connect("edge", port)
    peer.send(outgoing.read())
    found: set[int] = set()
    handshake = b""
    while 14 not in found:  # ServerHelloDone
        kind, _, length = peer.read_exactly(1), peer.read_exactly(2), peer.read_exactly(2)
        record = peer.read_exactly(int.from_bytes(length))
        assert kind == b"\x16", record
        handshake += record
        while len(handshake) >= 4 and len(handshake) >= 4 + int.from_bytes(handshake[1:4]):
            found.add(handshake[0])
            handshake = handshake[4 + int.from_bytes(handshake[1:4]) :]
    peer.close()
    return 13 in found


@conformance("GatewayFrontendInvalidDefaultClientCertificateValidation")
def test_GatewayFrontendInvalidDefaultClientCertificateValidation(infra: Infra) -> None:
    http = "{name: http, port: 80, protocol: HTTP}"
    per_port = {80: validation(config("second"))}
    default = validation(config("does-not-exist"))
    infra.apply(frontend([https("first", 443), http], default, per_port), *base())

    status = conditions(infra.listener("edge", "http"))
    assert [status[one] for one in ("Accepted", "ResolvedRefs", "Programmed")] == [
        ACCEPTED,
        RESOLVED,
        PROGRAMMED,
    ]
    assert infra.request("edge", host="example.org").backend == "infra-backend-v1"
    status = conditions(infra.listener("edge", "first"))
    assert status["ResolvedRefs"] == ("False", "InvalidCACertificateRef")
    assert status["Accepted"] == ("False", "NoValidCACertificate")
    assert status["Programmed"][0] == "False"
    # Nothing listens there; if something did, it would have to refuse.
    with pytest.raises((LookupError, OSError)):
        infra.connect("edge", 443, sni="example.org", tls=client(OF_FIRST))


@conformance("GatewayInvalidFrontendClientCertificateValidation")
def test_GatewayInvalidFrontendClientCertificateValidation(infra: Infra) -> None:
    listeners = (
        https("good", 443),
        https("unresolved", 7443, "first-example.org"),
        https("invalid-kind", 8443, "second-example.org"),
        https("grant-missing", 6443, "fourth-example.org"),
    )
    per_port = {
        7443: validation(config("nonexistent")),
        8443: validation('kind: Service, group: "", name: infra-backend-v2'),
        6443: validation(config("elsewhere", f", namespace: {WEB}")),
    }
    infra.apply(
        frontend(listeners, validation(config("first")), per_port),
        authority_of("elsewhere", FIRST, WEB),
        *base(),
    )

    good = conditions(infra.listener("edge", "good"))
    assert (good["Accepted"], good["ResolvedRefs"]) == (ACCEPTED, RESOLVED)
    assert good["Programmed"] == PROGRAMMED
    assert asked(infra, "example.org", 443, OF_FIRST) == "infra-backend-v1"
    for name, reason in {
        "unresolved": "InvalidCACertificateRef",
        "invalid-kind": "InvalidCACertificateKind",
        "grant-missing": "RefNotPermitted",
    }.items():
        status = conditions(infra.listener("edge", name))
        assert status["ResolvedRefs"] == ("False", reason)
        assert status["Accepted"] == ("False", "NoValidCACertificate")
        assert status["Programmed"][0] == "False"

    grant = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {{name: grant, namespace: {WEB}}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: Gateway, namespace: {INFRA}}}]
  to: [{{group: "", kind: ConfigMap, name: elsewhere}}]
"""
    infra.apply(grant, name="grant")
    status = conditions(infra.listener("edge", "grant-missing"))
    assert (status["Accepted"], status["ResolvedRefs"]) == (ACCEPTED, RESOLVED)
