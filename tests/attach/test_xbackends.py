"""XBackends: references to them, what they come to, and their statuses."""

from __future__ import annotations

import pytest
from tests.translate.certificates import config_map, issued, secret
from tests.translate.support import EDGE, actions, codes, condition, load, run, status, verdict

HTTP_ROUTE = "HTTPRoute default/route"
XBACKEND = "XBackend default/api"
REF = "{group: gateway.networking.x-k8s.io, kind: XBackend, name: api}"


def xbackend(more: str = "", port: int = 443, namespace: str = "default") -> str:
    return f"""
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {{name: api, namespace: {namespace}, generation: 3}}
spec:
  type: ExternalHostname
  externalHostname: {{hostname: api.example}}
  port: {{port: {port}}}
  {more}
"""


def route(ref: str = REF, kind: str = "HTTPRoute") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: route}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{ref}]}}]
"""


SERVER_ONLY = "tls: {mode: ServerOnly}"

VERIFIED = """tls:
    mode: ServerOnly
    validation:
      hostname: own.example
      caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]
      subjectAltNames: [{type: Hostname, hostname: other.example}]"""

MUTUAL = "tls: {mode: ClientAndServer, clientCertificateRef: {name: own}}"


def test_a_destination_is_a_name() -> None:
    found = run(EDGE, xbackend(port=8080), route())
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("True", "ResolvedRefs")
    assert codes(found) == []
    cluster = "external_default_api_8080"
    assert found.ir["clusters"][cluster] == {"dns": {"hostname": "api.example", "port": 8080}}
    [backend] = actions(found)["default/route/0/0"]["backends"]
    assert backend == {
        "cluster": cluster,
        "weight": 1,
        "filters": [{"type": "rewrite", "hostname": "api.example:8080"}],
    }


def test_its_status_has_the_gateways_that_use_it() -> None:
    found = run(EDGE, xbackend(SERVER_ONLY), route())
    [parent] = status(found, XBACKEND).to_json()["parents"]
    assert parent["parentRef"] == {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": "default",
        "name": "edge",
    }
    assert parent["controllerName"] == "kgateway.dev/kgateway"
    assert verdict(found, XBACKEND, "Accepted") == ("True", "Accepted")
    assert condition(found, XBACKEND, "Accepted").observed_generation == 3
    unused = run(EDGE, xbackend(SERVER_ONLY))
    assert status(unused, XBACKEND).to_json() == {}


@pytest.mark.parametrize(
    ("protocol", "plain", "encrypted"),
    [
        (None, None, "auto"),
        ("HTTP", None, "auto"),
        ("MCP", None, "auto"),
        ("HTTP11", None, None),
        ("HTTP2", "http2", "http2"),
        ("H2C", "http2", "refused"),
    ],
)
def test_protocols(protocol: str | None, plain: str | None, encrypted: str | None) -> None:
    line = "" if protocol is None else f"protocol: {protocol}\n  "
    found = run(EDGE, xbackend(line), route())
    assert found.ir["clusters"]["external_default_api_443"].get("protocol") == plain
    found = run(EDGE, xbackend(line + SERVER_ONLY), route())
    if encrypted == "refused":
        assert verdict(found, XBACKEND, "Accepted") == ("False", "Invalid")
        assert codes(found) == ["KGW423"]
        [backend] = actions(found)["default/route/0/0"]["backends"]
        assert backend["cluster"] is None
    else:
        assert found.ir["clusters"]["external_default_api_443"].get("protocol") == encrypted


def test_tls_by_itself_is_for_the_name() -> None:
    found = run(EDGE, xbackend(SERVER_ONLY), route())
    assert found.ir["clusters"]["external_default_api_443"]["tls"] == {
        "trust": {"type": "system"},
        "sni": "api.example",
    }


def test_tls_as_it_is_verified() -> None:
    found = run(EDGE, xbackend(VERIFIED), route(), config_map("ca"))
    tls = found.ir["clusters"]["external_default_api_443"]["tls"]
    assert tls["trust"]["type"] == "ca"
    assert tls["sni"] == "own.example"
    assert tls["subject_alt_names"] == [{"type": "dns", "value": "other.example"}]


def test_tls_with_a_client_certificate() -> None:
    found = run(EDGE, xbackend(MUTUAL), route(), secret("own", "gateway.example"))
    chain, key = issued("gateway.example")
    tls = found.ir["clusters"]["external_default_api_443"]["tls"]
    assert tls["certificate"] == {"chain": chain, "key": key}


@pytest.mark.parametrize(
    ("tls", "code", "reason"),
    [
        (VERIFIED, "KGW312", "NoValidCACertificate"),
        (MUTUAL, "KGW312", "InvalidClientCertificateRef"),
    ],
)
def test_tls_that_cannot_be_used_leaves_it_without_connections(
    tls: str, code: str, reason: str
) -> None:
    found = run(EDGE, xbackend(tls), route())
    assert verdict(found, XBACKEND, "Accepted") == ("False", reason)
    assert verdict(found, XBACKEND, "ResolvedRefs")[0] == "False"
    assert code in codes(found)
    [backend] = actions(found)["default/route/0/0"]["backends"]
    assert backend["cluster"] is None


@pytest.mark.parametrize(
    ("ref", "code", "reason"),
    [
        (REF.replace("name: api", "name: ap"), "KGW307", "BackendNotFound"),
        (REF.replace("name: api", "name: api, port: 80"), "KGW307", "BackendNotFound"),
        (REF.replace("name: api", "name: api, namespace: other"), "KGW308", "RefNotPermitted"),
    ],
)
def test_references_that_lead_nowhere(ref: str, code: str, reason: str) -> None:
    grant = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: gateway.networking.x-k8s.io, kind: XBackend}]
"""
    found = run(EDGE, xbackend(), xbackend(namespace="other"), grant, route(ref))
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("False", reason)
    assert codes(found) == [code]


def test_the_port_may_be_named_again() -> None:
    found = run(EDGE, xbackend(), route(REF.replace("name: api", "name: api, port: 443")))
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("True", "ResolvedRefs")


def test_requests_are_not_for_what_speaks_something_else() -> None:
    found = run(EDGE, xbackend("protocol: TCP"), route())
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("False", "UnsupportedProtocol")
    assert codes(found) == ["KGW504"]


def test_bytes_are_offered_no_protocol() -> None:
    edge = EDGE.replace("protocol: HTTP", "protocol: TCP")
    found = run(edge, xbackend(SERVER_ONLY), route(kind="TCPRoute"))
    assert codes(found) == []
    cluster = found.ir["clusters"]["external_default_api_443_tcp"]
    assert cluster["tls"]["alpn"] == []
    assert "protocol" not in cluster


def test_validation_without_tls_has_no_effect() -> None:
    tls = "tls: {mode: None, validation: {wellKnownCACertificates: System, hostname: a.example}}"
    found = run(EDGE, xbackend(tls.replace("None", '"None"')), route())
    assert codes(found) == ["KGW413"]
    assert "tls" not in found.ir["clusters"]["external_default_api_443"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("type: ExternalHostname, port: {port: 1}", "externalHostname must be set"),
        (
            "type: ExternalHostname, port: {port: 1}, "
            "externalHostname: {hostname: a.b.svc.cluster.local}",
            "cluster.local",
        ),
        (
            "type: ExternalHostname, port: {port: 1}, externalHostname: {hostname: 10.0.0.1}",
            "IP address",
        ),
        (
            "type: ExternalHostname, port: {port: 1}, externalHostname: {hostname: a.example}, "
            "tls: {mode: ServerOnly, clientCertificateRef: {name: own}}",
            "clientCertificateRef must be set if and only if",
        ),
        (
            "type: ExternalHostname, port: {port: 1}, externalHostname: {hostname: a.example}, "
            "tls: {mode: ClientAndServer}",
            "clientCertificateRef must be set if and only if",
        ),
        ("type: Other, port: {port: 1}", "`'Other'` is not a legal value"),
    ],
)
def test_what_an_api_server_would_refuse(spec: str, message: str) -> None:
    text = f"""
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {{name: api}}
spec: {{{spec}}}
"""
    errors = [str(one) for one in load(text).findings if one.severity == "error"]
    assert any(message in one for one in errors), errors
