"""ListenerPolicy `httpSettings`: what is done to requests before they are routed."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.policies.manifests import BASE, listener_policy, policy

import kgw
from kgw.testing.configuration import configuration

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgw.testing import Gateway, GatewayFactory

pytestmark = pytest.mark.fields(
    "HTTPListenerPolicy.spec.targetSelectors",
    "ListenerPolicy.spec.targetSelectors",
    "ListenerPolicy.spec.default.httpSettings.localReplies.defaultBodyFormat.contentType",
    "ListenerPolicy.spec.default.httpSettings.localReplies.defaultBodyFormat.json",
    "ListenerPolicy.spec.default.httpSettings.localReplies.mappers.bodyFormatOverride.text",
    "ListenerPolicy.spec.default",
    without=(
        "ListenerPolicy.spec.default.httpSettings.acceptHttp10",
        "ListenerPolicy.spec.default.httpSettings.accessLog",
        "ListenerPolicy.spec.default.httpSettings.defaultHostForHttp10",
        "ListenerPolicy.spec.default.httpSettings.forwardClientCertDetails.details.chain",
        "ListenerPolicy.spec.default.httpSettings.generateRequestId",
        "ListenerPolicy.spec.default.httpSettings.http2ProtocolOptions",
        "ListenerPolicy.spec.default.httpSettings.idleTimeout",
        "ListenerPolicy.spec.default.httpSettings.localReplies",
        "ListenerPolicy.spec.default.httpSettings.maxHeadersCount",
        "ListenerPolicy.spec.default.httpSettings.maxRequestHeadersKb",
        "ListenerPolicy.spec.default.httpSettings.maxRequestsPerConnection",
        "ListenerPolicy.spec.default.httpSettings.preserveExternalRequestId",
        "ListenerPolicy.spec.default.httpSettings.preserveHttp1HeaderCase",
        "ListenerPolicy.spec.default.httpSettings.serverHeaderTransformation",
        "ListenerPolicy.spec.default.httpSettings.serverName",
        "ListenerPolicy.spec.default.httpSettings.skipXFFAppend",
        "ListenerPolicy.spec.default.httpSettings.streamIdleTimeout",
        "ListenerPolicy.spec.default.httpSettings.tracing",
        "ListenerPolicy.spec.default.httpSettings.upgradeConfig",
        "ListenerPolicy.spec.default.httpSettings.useRemoteAddress",
        "ListenerPolicy.spec.default.httpSettings.uuidRequestIdConfig",
        "ListenerPolicy.spec.default.httpSettings.xffNumTrustedHops",
        "ListenerPolicy.spec.default.httpSettings.xffTrustedCIDRs",
        "ListenerPolicy.spec.default.proxyProtocol",
        "ListenerPolicy.spec.default.transportSocketConnectTimeout",
    ),
)

HOSTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example]
  rules: [{name: shop, backendRefs: [{name: api, port: 80}]}]
"""


def _listener(http: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    default = {**more, **({} if http is None else {"httpSettings": http})}
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "ListenerPolicy",
        "metadata": {"name": "settings"},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
            ],
            "default": default,
        },
    }


def _address(gateway: Gateway) -> tuple[str, int]:
    ((address,),) = gateway.addresses.values()
    return address


# === Header fields ===


def test_fields_are_changed_before_requests_are_routed(kgw_proxy: GatewayFactory) -> None:
    route = BASE.replace("value: /api}}]", "value: /api}, headers: [{name: x-tier, value: gold}]}]")
    early = {
        "set": [{"name": "x-tier", "value": "gold"}],
        "add": [{"name": "x-more", "value": "2"}],
        "remove": ["x-gone"],
    }
    gateway = kgw_proxy([route, _listener({"earlyRequestHeaderModifier": early})])
    answer = gateway.get("/api", headers={"x-gone": "1", "x-tier": "none"})
    answer.expect(status=200, route="default/web/api/0")
    assert answer.received is not None
    assert answer.received.headers["x-more"] == "2"
    assert "x-gone" not in answer.received.headers


def test_fields_of_the_proxy_may_not_be_changed() -> None:
    early = {"remove": ["transfer-encoding"]}
    config = kgw.Config.from_objects([_listener({"earlyRequestHeaderModifier": early})])
    assert "KGW407" in {one.code for one in config.findings}


# === Health ===


def test_the_proxy_tells_its_own_health(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, _listener({"healthCheck": {"path": "/healthz"}})])
    answer = gateway.get("/healthz").expect(status=200, backend=None)
    assert answer.body == b""
    assert answer.details == "health_check_ok"
    gateway.get("/healthz/more").expect(status=200, backend="api")


# === Hosts ===


@pytest.mark.parametrize(
    ("settings", "host", "route", "passed_on"),
    [
        ({}, "shop.example.", "shop/shop", "shop.example."),
        ({"stripTrailingHostDot": True}, "shop.example.", "shop/shop", "shop.example"),
        ({"stripTrailingHostDot": True}, "shop.example.:81", "shop/shop", "shop.example:81"),
        ({"stripHostPortMode": "AnyPort"}, "shop.example:81", "shop/shop", "shop.example"),
        ({"stripHostPortMode": "MatchingPort"}, "shop.example:81", "shop/shop", "shop.example:81"),
        ({"stripHostPortMode": "MatchingPort"}, "shop.example:PORT", "shop/shop", "shop.example"),
    ],
)
def test_hosts_are_brought_into_form(
    kgw_proxy: GatewayFactory, settings: dict[str, Any], host: str, route: str, passed_on: str
) -> None:
    gateway = kgw_proxy([BASE, HOSTS, _listener(settings)])
    host = host.replace("PORT", str(_address(gateway)[1]))
    answer = gateway.get("/", host=host).expect(status=200, route=f"default/{route}/0")
    assert answer.received is not None
    assert answer.received.headers["host"] == passed_on


# === Expect: 100-continue ===


def test_whether_a_body_is_wanted_is_for_the_endpoint_to_say() -> None:
    # The endpoint says no: the body is not sent.
    refusal = b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n"
    answer, request = _expecting(True, lambda endpoint: endpoint.sendall(refusal))
    assert b"\r\nexpect: 100-continue\r\n" in request.lower()
    assert answer.startswith(b"HTTP/1.1 417 ")
    # The endpoint says yes: the client hears of it.
    goes_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    answer, _ = _expecting(True, lambda endpoint: endpoint.sendall(goes_on))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    # By itself the proxy says yes, and does not ask.
    answer, request = _expecting(False, lambda _: None)
    assert b"\r\nexpect:" not in request.lower()
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")


def _expecting(passes_on: bool, answers: Callable[[socket.socket], None]) -> tuple[bytes, bytes]:
    """What a client gets that waits to be told to go on, and what the endpoint got."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = configuration(
            [
                BASE.rpartition("---")[0],
                *_service(server),
                _listener({"proxy100Continue": passes_on}),
            ]
        )
        with kgw.Proxy(config, bind="127.0.0.1:0") as proxy:
            ((address,),) = proxy.addresses.values()
            with socket.create_connection(address, timeout=10) as client:
                client.sendall(
                    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n"
                    b"expect: 100-continue\r\n\r\n"
                )
                endpoint, _ = server.accept()
                with endpoint:
                    endpoint.settimeout(10)
                    request = endpoint.recv(65536)
                    answers(endpoint)
                    return client.recv(65536), request


def _service(server: socket.socket) -> list[dict[str, Any]]:
    """The service whose endpoint is a socket."""
    host, port = server.getsockname()
    models = kgw.api.Service.at("api", f"{host}:{port}")
    return [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in models]


# === x-forwarded-client-cert ===

AUTHORITY = trustme.CA(organization_name="clients")
CLIENT = AUTHORITY.issue_cert("client.example", common_name="client")
SERVER = AUTHORITY.issue_cert("edge.example")

SECURE = BASE.rpartition("---")[0].replace(
    "{name: http, port: 8080, protocol: HTTP}",
    "{name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: edge}]}}",
)


def _secret(name: str, data: dict[str, bytes]) -> dict[str, Any]:
    texts = {key: value.decode() for key, value in data.items()}
    metadata = {"name": name}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": texts}


def _told(details: dict[str, Any], *, shows: bool) -> tuple[str | None, dict[str, str]]:
    """What an endpoint is told of a client's certificate, and what there is to tell."""
    policy = _listener(
        {"forwardClientCertDetails": details},
        clientCertificateValidation={
            "mode": "Optional",
            "caCertificateRefs": [{"group": "", "kind": "Secret", "name": "clients"}],
        },
    )
    chain, key = SERVER.cert_chain_pems[0].bytes(), SERVER.private_key_pem.bytes()
    secret = _secret("edge", {"tls.crt": chain, "tls.key": key})
    authorities = _secret("clients", {"ca.crt": AUTHORITY.cert_pem.bytes()})
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if shows:
        CLIENT.configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = configuration([SECURE, *_service(server), policy, secret, authorities])
        config.raise_for_errors()
        with kgw.Proxy(config, bind="127.0.0.1:0") as proxy:
            ((address,),) = proxy.addresses.values()
            with (
                socket.create_connection(address, timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="edge.example") as client,
            ):
                client.sendall(
                    b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: By=a\r\n\r\n"
                )
                endpoint, _ = server.accept()
                with endpoint:
                    endpoint.settimeout(10)
                    head = endpoint.recv(65536).decode()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    certificate = x509.load_pem_x509_certificate(CLIENT.cert_chain_pems[0].bytes())
    der = certificate.public_bytes(serialization.Encoding.DER)
    facts = {
        "hash": hashlib.sha256(der).hexdigest(),
        "subject": certificate.subject.rfc4514_string(),
        "pem": quote(certificate.public_bytes(serialization.Encoding.PEM).decode(), safe=""),
    }
    return fields.get("x-forwarded-client-cert"), facts


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"mode": "Sanitize"}, None),
        ({"mode": "ForwardOnly"}, "By=a"),
        ({"mode": "AlwaysForwardOnly"}, "By=a"),
        ({"mode": "SanitizeSet"}, "Hash={hash}"),
        (
            {"details": {"subject": True, "uri": True, "dns": True}},
            'Hash={hash};Subject="{subject}";URI=;DNS=client.example',
        ),
        (
            {"mode": "AppendForward", "details": {"dns": True}},
            "By=a,Hash={hash};DNS=client.example",
        ),
        ({"mode": "SanitizeSet", "details": {"cert": True}}, 'Hash={hash};Cert="{pem}"'),
    ],
)
def test_the_certificate_of_a_client_is_told(details: dict[str, Any], expected: str | None) -> None:
    got, facts = _told(details, shows=True)
    if expected is not None:
        for name, value in facts.items():
            expected = expected.replace(f"{{{name}}}", value)
    assert got == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("ForwardOnly", None),
        ("AlwaysForwardOnly", "By=a"),
        ("AppendForward", None),
        ("SanitizeSet", None),
    ],
)
def test_without_a_certificate_nothing_is_told(mode: str, expected: str | None) -> None:
    assert _told({"mode": mode}, shows=False)[0] == expected


# === Connections ===


def test_the_system_looks_whether_idle_clients_are_there(kgw_proxy: GatewayFactory) -> None:
    probes = {"keepAliveProbes": 3, "keepAliveTime": "50s", "keepAliveInterval": "5s"}
    gateway = kgw_proxy([BASE, _listener(tcpKeepalive=probes)])
    with socket.create_connection(_address(gateway), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        timer, ticks = _timer(client.getpeername(), client.getsockname())
    assert timer == 2  # keepalive; proc(5)
    assert 0 < ticks / os.sysconf("SC_CLK_TCK") <= 50


def _timer(local: tuple[str, int], remote: tuple[str, int]) -> tuple[int, int]:
    """The timer of a connection of this machine: its kind, and how many ticks it has left."""
    ends = [
        f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}" for host, port in (local, remote)
    ]
    for line in Path("/proc/net/tcp").read_text().splitlines():
        words = line.split()
        if words[1:3] == ends:
            kind, _, left = words[5].partition(":")
            return int(kind, 16), int(left, 16)
    raise AssertionError(f"no connection {ends}")


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ({"keepAliveTime": "500ms"}, "keepAliveTime must be at least 1 second"),
        ({"keepAliveInterval": "0s"}, "keepAliveInterval must be at least 1 second"),
    ],
)
def test_probes_come_in_seconds(probes: dict[str, Any], message: str) -> None:
    config = kgw.Config.from_objects([_listener(tcpKeepalive=probes)])
    assert any(message in one.message for one in config.findings)


@pytest.mark.parametrize(
    ("limit", "expected"), [(65_536, 65_536), (0, 16_777_216), (4_000_000_000, 16_777_216)]
)
def test_what_may_wait_for_a_client_is_bounded(limit: int, expected: int) -> None:
    config = configuration([BASE, _listener(perConnectionBufferLimitBytes=limit)])
    (listener,) = config.ir["listeners"]
    assert listener["http"]["buffer_bytes"] == expected


def test_details_are_for_those_who_set_the_field() -> None:
    details = {"mode": "ForwardOnly", "details": {"uri": True}}
    config = kgw.Config.from_objects([_listener({"forwardClientCertDetails": details})])
    message = "forwardClientCertDetails.details requires mode to be AppendForward or SanitizeSet"
    assert any(message in one.message for one in config.findings)


@pytest.mark.parametrize("kind", ["ListenerPolicy", "HTTPListenerPolicy"])
def test_gateways_can_be_selected_by_labels(kgw_proxy: GatewayFactory, kind: str) -> None:
    settings: dict[str, Any] = {"serverName": "here"}
    selector = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "matchLabels": {"tier": "web"},
    }
    inner = settings if kind == "HTTPListenerPolicy" else {"default": {"httpSettings": settings}}
    spec = {"targetSelectors": [selector], **inner}
    selected = {**listener_policy({}), "kind": kind, "spec": spec}
    labelled = BASE.replace("metadata: {name: edge}", "metadata: {name: edge, labels: {tier: web}}")
    assert kgw_proxy([labelled, selected]).get("/").headers["server"] == "here"
    assert kgw_proxy([BASE, selected]).get("/").headers["server"] != "here"


def test_answers_of_the_proxy_have_the_formats_of_the_policy(kgw_proxy: GatewayFactory) -> None:
    replies = {
        "defaultBodyFormat": {
            "json": {"code": "%RESPONSE_CODE%"},
            "contentType": "application/problem+json",
        },
        "mappers": [
            {
                "filter": {"statusCodeFilter": {"op": "EQ", "value": 504}},
                "bodyFormatOverride": {"text": "late: %RESPONSE_CODE%"},
            }
        ],
    }
    gateway = kgw_proxy(
        [
            BASE,
            policy({"timeouts": {"request": "2s"}}),
            listener_policy({"httpSettings": {"localReplies": replies}}),
        ]
    )
    gateway.backend("api").resets()
    answer = gateway.get("/").expect(status=503)
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body) == {"code": 503}
    gateway.backend("api").hangs()
    answer = gateway.get("/").expect(status=504)
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.body == b"late: 504"
