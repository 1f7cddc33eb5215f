"""Statuses of listeners of protocols HTTPS, TLS and TCP: certificates, conflicts, kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.translate.certificates import config_map, issued, secret
from tests.translate.support import codes, condition, run, run_all, status, verdict

from kgw import diagnostics

if TYPE_CHECKING:
    from kgw.translate import Translation

GATEWAY = "Gateway default/edge"
HTTP = "{name: http, port: 80, protocol: HTTP}"
CERT = "certificateRefs: [{name: cert}]"


def gateway(*listeners: str, tls: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: kgateway
  listeners: [{", ".join(listeners)}]
  {tls and f"tls: {tls}"}
"""


def https(name: str = "https", tls: str = CERT, hostname: str = "", port: int = 443) -> str:
    host = f", hostname: '{hostname}'" if hostname else ""
    return f"{{name: {name}, port: {port}, protocol: HTTPS, tls: {{{tls}}}{host}}}"


def tls(name: str, mode: str = "Passthrough", hostname: str = "", more: str = "") -> str:
    host = f", hostname: '{hostname}'" if hostname else ""
    refs = f", {CERT}" if mode == "Terminate" else ""
    return f"{{name: {name}, port: 443, protocol: TLS, tls: {{mode: {mode}{refs}}}{host}{more}}}"


def grant(source: str = "Gateway", kind: str = "Secret", name: str = "cert") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {{name: grant, namespace: other}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {source}, namespace: default}}]
  to: [{{group: "", kind: {kind}, name: {name}}}]
"""


def listener(found: Translation, name: str) -> dict[str, tuple[str, str]]:
    rows = [one for what, one in status(found, GATEWAY).all_conditions() if what.endswith(name)]
    return {one.type: (one.status, one.reason) for one in rows}


def kinds(found: Translation) -> dict[str, list[str]]:
    return {
        one.name: [kind["kind"] for kind in one.supported_kinds]
        for one in status(found, GATEWAY).listeners
    }


GOOD = {
    "Accepted": ("True", "Accepted"),
    "Conflicted": ("False", "NoConflicts"),
    "ResolvedRefs": ("True", "ResolvedRefs"),
    "Programmed": ("True", "Programmed"),
}


def test_a_listener_with_a_certificate_is_programmed() -> None:
    found = run(gateway(https()), secret("cert"))
    assert listener(found, "https") == GOOD
    assert codes(found) == []


def test_each_protocol_has_its_kinds_of_routes() -> None:
    found = run(
        gateway(
            HTTP,
            https(port=444),
            tls("pass", hostname="a.example"),
            tls("end", "Terminate", "b.example"),
            "{name: tcp, port: 90, protocol: TCP}",
        ),
        secret("cert"),
    )
    assert kinds(found) == {
        "http": ["HTTPRoute", "GRPCRoute"],
        "https": ["HTTPRoute", "GRPCRoute"],
        "pass": ["TLSRoute"],
        "end": ["TLSRoute", "TCPRoute"],
        "tcp": ["TCPRoute"],
    }
    assert codes(found) == []


@pytest.mark.parametrize(
    ("mode", "wanted"), [("Passthrough", ["TLSRoute"]), ("Terminate", ["TCPRoute", "TLSRoute"])]
)
def test_a_passthrough_listener_has_no_tcp_routes(mode: str, wanted: list[str]) -> None:
    more = ", allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: TLSRoute}]}"
    found = run(gateway(tls("a", mode, more=more)), secret("cert"))
    assert kinds(found) == {"a": wanted}
    reason = "InvalidRouteKinds" if mode == "Passthrough" else "ResolvedRefs"
    assert listener(found, "a")["ResolvedRefs"][1] == reason


# === Certificates ===

CHAIN, KEY = issued("a.example")


@pytest.mark.parametrize(
    ("ref", "more", "reason", "code"),
    [
        ("{name: none}", "", "InvalidCertificateRef", "KGW312"),
        ("{name: cert, kind: ConfigMap}", "", "InvalidCertificateRef", "KGW309"),
        ("{name: cert, group: x.example}", "", "InvalidCertificateRef", "KGW309"),
        ("{name: bad}", secret("bad", chain="Hello world"), "InvalidCertificateRef", "KGW313"),
        (
            "{name: bad}",
            secret("bad", chain=CHAIN.replace("M", "?", 1)),
            "InvalidCertificateRef",
            "KGW313",
        ),
        ("{name: bad}", secret("bad", key="Hello world"), "InvalidCertificateRef", "KGW313"),
        (
            "{name: bad}",
            secret("bad", key=KEY.replace("\n", "\n?", 1)),
            "InvalidCertificateRef",
            "KGW313",
        ),
        (
            "{name: bad}",
            secret("bad", key=issued("b.example")[1]),
            "InvalidCertificateRef",
            "KGW313",
        ),
        ("{name: bad}", config_map("x"), "InvalidCertificateRef", "KGW312"),
        ("{name: cert, namespace: other}", "", "RefNotPermitted", "KGW308"),
        ("{name: cert, namespace: other}", grant(name="crt"), "RefNotPermitted", "KGW308"),
        ("{name: cert, namespace: other}", grant("HTTPRoute"), "RefNotPermitted", "KGW308"),
        ("{name: cert, namespace: other}", grant(), "InvalidCertificateRef", "KGW312"),
    ],
)
def test_a_certificate_that_cannot_be_used_says_why(
    ref: str, more: str, reason: str, code: str
) -> None:
    broken = https("bad", f"certificateRefs: [{{name: cert}}, {ref}]", port=444)
    texts = [text for text in (gateway(https(), broken), secret("cert"), more) if text]
    found = run(*texts)
    assert listener(found, "bad") == {
        **GOOD,
        "ResolvedRefs": ("False", reason),
        "Programmed": ("False", "Invalid"),
    }
    assert listener(found, "https") == GOOD
    assert codes(found) == [code]
    assert [one["id"] for one in found.ir["listeners"]] == ["default/edge/https"]


@pytest.mark.parametrize(
    ("ref", "kind"),
    [("kind: ConfigMap", "ConfigMap"), ("group: x.example, kind: Vault", "x.example/Vault")],
)
def test_a_kind_that_holds_no_certificate_is_named(ref: str, kind: str) -> None:
    found = run(gateway(https(tls=f"certificateRefs: [{{name: cert, {ref}}}]")))
    (finding,) = found.findings
    assert finding.message == f"{kind} cannot hold a certificate"


def test_a_grant_permits_a_certificate_of_another_namespace() -> None:
    ref = https(tls="certificateRefs: [{name: cert, namespace: other}]")
    found = run(gateway(ref), secret("cert", namespace="other"), grant())
    assert listener(found, "https") == GOOD


def test_a_refused_secret_is_named_as_such() -> None:
    bad = secret("cert").replace('"tls.key": "', '"tls.key": "?')
    found, findings = run_all(gateway(https()), bad)
    assert listener(found, "https")["ResolvedRefs"] == ("False", "InvalidCertificateRef")
    assert "Secret default/cert is not valid (KGW207)" in [one.message for one in findings]


def test_a_listener_without_a_certificate_has_an_unresolved_one() -> None:
    found = run(gateway(HTTP, "{name: https, port: 443, protocol: HTTPS}"))
    assert listener(found, "https")["ResolvedRefs"] == ("False", "InvalidCertificateRef")
    assert codes(found) == ["KGW204"]


def test_a_key_is_in_no_finding() -> None:
    bad = "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n"
    found, findings = run_all(gateway(https()), secret("cert", key=bad))
    assert codes(found) == ["KGW313"]
    report = diagnostics.render_all(findings) + repr(found)
    assert "canary" not in report
    assert "Y2FuYXJ5" not in report
    good = repr(run(gateway(https()), secret("cert")))
    assert "PRIVATE" not in good


# === Conflicts ===


def test_https_and_tls_share_a_port_by_server_name() -> None:
    found = run(
        gateway(https(hostname="a.example"), tls("tls", hostname="b.example")), secret("cert")
    )
    assert listener(found, "https") == GOOD
    assert listener(found, "tls") == GOOD


def test_listeners_of_one_name_conflict_without_a_winner() -> None:
    found = run(
        gateway(
            https(hostname="a.example"),
            tls("tls", hostname="a.example"),
            https("other", hostname="b.example"),
        ),
        secret("cert"),
    )
    for name in ("https", "tls"):
        assert listener(found, name) == {
            "Accepted": ("False", "HostnameConflict"),
            "Conflicted": ("True", "HostnameConflict"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
            "Programmed": ("False", "HostnameConflict"),
        }
    assert listener(found, "other") == GOOD
    assert codes(found) == ["KGW404"]


@pytest.mark.parametrize("other", ["HTTP", "TCP"])
def test_tls_shares_a_port_with_nothing_else(other: str) -> None:
    found = run(gateway(https(), f"{{name: b, port: 443, protocol: {other}}}"), secret("cert"))
    assert listener(found, "https")["Conflicted"] == ("True", "ProtocolConflict")
    assert listener(found, "b")["Conflicted"] == ("True", "ProtocolConflict")
    assert found.ir["listeners"] == []


def test_hostnames_that_overlap_are_told() -> None:
    found = run(
        gateway(
            https("any"),
            https("wild", hostname="*.example"),
            https("one", hostname="a.test", port=444),
        ),
        secret("cert"),
    )
    overlap = ("True", "OverlappingHostnames")
    assert listener(found, "any") == {**GOOD, "OverlappingTLSConfig": overlap}
    assert listener(found, "wild") == {**GOOD, "OverlappingTLSConfig": overlap}
    assert listener(found, "one") == GOOD


def test_certificates_that_overlap_are_told() -> None:
    found = run(
        gateway(
            https("a", hostname="a.example"),
            https("b", hostname="b.example").replace("name: cert", "name: wide"),
            https("c", hostname="c.test").replace("name: cert", "name: other"),
        ),
        secret("cert", "a.example"),
        secret("wide", "*.example"),
        secret("other", "c.test"),
    )
    overlap = ("True", "OverlappingCertificates")
    assert listener(found, "a") == {**GOOD, "OverlappingTLSConfig": overlap}
    assert listener(found, "b") == {**GOOD, "OverlappingTLSConfig": overlap}
    assert listener(found, "c") == GOOD
    message = condition(found, "Gateway default/edge", "OverlappingTLSConfig", "listener a").message
    assert message == "the certificates overlap with those of listeners b"


# === Client certificates ===


def frontend(ref: str = "{group: '', kind: ConfigMap, name: ca}", more: str = "") -> str:
    return f"{{frontend: {{default: {{validation: {{caCertificateRefs: [{ref}]{more}}}}}}}}}"


def test_an_authority_for_clients_leaves_the_status_as_it_is() -> None:
    found = run(gateway(HTTP, https(), tls=frontend()), secret("cert"), config_map("ca"))
    assert listener(found, "https") == GOOD
    assert codes(found) == []


@pytest.mark.parametrize(
    ("ref", "reason", "code"),
    [
        ("{group: '', kind: ConfigMap, name: none}", "InvalidCACertificateRef", "KGW312"),
        ("{group: '', kind: ConfigMap, name: bad}", "InvalidCACertificateRef", "KGW313"),
        ("{group: '', kind: Service, name: ca}", "InvalidCACertificateKind", "KGW309"),
        ("{group: '', kind: ConfigMap, name: ca, namespace: other}", "RefNotPermitted", "KGW308"),
        ("{group: '', kind: Secret, name: cert}", "InvalidCACertificateRef", "KGW313"),
    ],
)
def test_without_an_authority_no_client_is_let_in(ref: str, reason: str, code: str) -> None:
    found = run(
        gateway(HTTP, https(), tls=frontend(ref)), secret("cert"), config_map("bad", text="no PEM")
    )
    assert listener(found, "https") == {
        **GOOD,
        "Accepted": ("False", "NoValidCACertificate"),
        "ResolvedRefs": ("False", reason),
        "Programmed": ("False", "Invalid"),
    }
    assert listener(found, "http") == GOOD
    assert codes(found) == [code]
    assert [one["id"] for one in found.ir["listeners"]] == ["default/edge/http"]


def test_letting_anybody_in_is_told() -> None:
    found = run(
        gateway(https(), tls=frontend(more=", mode: AllowInsecureFallback")),
        secret("cert"),
        config_map("ca"),
    )
    assert verdict(found, GATEWAY, "InsecureFrontendValidationMode") == (
        "True",
        "ConfigurationChanged",
    )
    assert codes(found) == ["KGW424"]


# === Options ===


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("min-tls-version", "1.4", "KGW423"),
        ("max-tls-version", "1.1", "KGW423"),
        ("verify-subject-alt-names", "a.example", "KGW423"),
        ("verify-certificate-hash", "abc", "KGW501"),
        ("cipher-suites", "NO_SUCH_SUITE", "KGW423"),
    ],
)
def test_an_option_that_cannot_be_enforced_takes_the_listener(
    option: str, value: str, code: str
) -> None:
    options = f"{CERT}, options: {{kgateway.dev/{option}: '{value}'}}"
    found = run(gateway(HTTP, https(tls=options)), secret("cert"))
    assert listener(found, "https")["Accepted"] == ("False", "UnsupportedValue")
    assert [one["id"] for one in found.ir["listeners"]] == ["default/edge/http"]
    assert codes(found) == [code]


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("min-tls-version", "1.0", "KGW423"),
        ("ecdh-curves", "X25519", "KGW501"),
        ("min-tls-versoin", "1.3", "KGW203"),
    ],
)
def test_an_option_whose_default_is_safe_is_warned_about(
    option: str, value: str, code: str
) -> None:
    options = f"{CERT}, options: {{kgateway.dev/{option}: '{value}'}}"
    found = run(gateway(https(tls=options)), secret("cert"))
    assert listener(found, "https") == GOOD
    assert [(one.code, str(one.severity)) for one in found.findings] == [(code, "warning")]
