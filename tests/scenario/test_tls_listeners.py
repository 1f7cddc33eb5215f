"""HTTPS and TLS listeners: certificates, what is asked of clients, edits, passthrough by name."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.scenario.load import Run
from tests.scenario.stage import EDGE, Answer, ask, named, route
from tests.scenario.tls import CLIENTS, behind, handshake, names, session, trusting
from tests.translate.certificates import CA, config_map, secret

if TYPE_CHECKING:
    from tests.cli.conftest import Running
    from tests.engine.harness import Peer
    from tests.scenario.stage import Scene, Stage

SECURE = "default/secure/a"
TO_WEB = route("- backendRefs: [{name: web, port: 80}]", parent="{name: secure}")


def gateway(*listeners: str, more: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: secure}}
spec:
  gatewayClassName: kgateway
  listeners: [{", ".join(listeners)}]
  {more}
"""


def https(name: str = "a", options: str = "") -> str:
    """A listener for a server name, with the Secret that has the listener's own name."""
    tls = f"certificateRefs: [{{name: {name}}}], options: {{{options}}}"
    return (
        f"{{name: {name}, hostname: {name}.example, port: 8443, protocol: HTTPS, tls: {{{tls}}}}}"
    )


def connect(scene: Scene, name: str, context: ssl.SSLContext | None = None) -> Peer:
    return handshake(scene.connect(SECURE), name, context)


def asked(peer: Peer, host: str = "a.example") -> Answer:
    return ask(peer, host=host)


def test_the_server_name_chooses_certificate_and_routes(stage: Stage) -> None:
    for name in ("one", "two"):
        stage.service(name)
    to_one = route(
        "- backendRefs: [{name: one, port: 80}]", parent="{name: secure, sectionName: a}", name="a"
    )
    to_two = route(
        "- backendRefs: [{name: two, port: 80}]", parent="{name: secure, sectionName: b}", name="b"
    )
    certificates = secret("a", "a.example"), secret("b", "b.example")
    scene = stage.serve(gateway(https("a"), https("b")), *certificates, to_one, to_two)
    for host, backend in (("a.example", "one"), ("b.example", "two")):
        peer = connect(scene, host)
        assert names(peer) == [host]
        answer = asked(peer, host)
        assert answer.backend == backend
        assert answer.received("x-forwarded-proto") == ["https"]
    # What one listener has certificates for is not asked of another.
    assert asked(connect(scene, "a.example"), "b.example").status == 421
    with pytest.raises(ssl.SSLEOFError):
        connect(scene, "c.example")
    scene.reaches("downstream_tls_no_chain", 1)


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_a_client_library_negotiates_its_version(stage: Stage, version: str) -> None:
    stage.service("web")
    scene = stage.serve(gateway(https()), secret("a", "a.example"), TO_WEB)
    address = "https://{}:{}".format(*scene.proxy.addresses[SECURE][0])
    with httpx.Client(base_url=address, verify=trusting(), http2=version == "HTTP/2") as client:
        for _ in range(2):
            answer = client.get(
                "/", headers={"host": "a.example"}, extensions={"sni_hostname": "a.example"}
            )
            assert (answer.status_code, answer.http_version) == (200, version)
            assert answer.json()["backend"] == "web"


def test_an_edited_secret_is_shown_to_new_connections_and_disturbs_nothing(stage: Stage) -> None:
    stage.service("web")
    to_all = route(
        "- backendRefs: [{name: web, port: 80}]", parent="{name: secure}, {name: edge}", name="all"
    )
    others = EDGE, gateway(https("a"), https("b")), to_all, secret("b", "b.example")
    scene = stage.serve(*others, secret("a", "a.example"))
    addresses = scene.proxy.addresses
    plain = scene.connect()
    old = connect(scene, "a.example")
    beside = connect(scene, "b.example")
    for _ in range(2):
        assert ask(plain).backend == "web"
        assert asked(old).backend == "web"
        assert asked(beside, "b.example").backend == "web"
        scene.apply(*others, secret("a", "a.example", "renewed.example"))
    assert names(connect(scene, "a.example")) == ["a.example", "renewed.example"]
    assert names(connect(scene, "b.example")) == ["b.example"]
    assert scene.proxy.addresses == addresses
    assert names(old) == ["a.example"]


def test_kgw_run_follows_the_file_of_a_secret(running: type[Running], stage: Stage) -> None:
    stage.service("web")
    stage.write(gateway(https()), TO_WEB)
    file = stage.directory / "zz-secret.yaml"
    file.write_text(secret("a", "a.example"))
    run = Run(running, stage.directory)

    def shown() -> list[str]:
        peer = handshake(run.connect(), "a.example")
        found = names(peer)
        peer.close()
        return found

    old = handshake(run.connect(), "a.example")
    assert shown() == ["a.example"]
    beside = file.with_name(".zz-secret.yaml.swp")
    beside.write_text(secret("a", "a.example", "renewed.example"))
    beside.rename(file)
    run.live()
    assert shown() == ["a.example", "renewed.example"]
    assert asked(old).backend == "web"
    old.close()


@pytest.mark.parametrize(
    ("options", "version", "suite"),
    [
        ("kgateway.dev/min-tls-version: '1.3'", "TLSv1.3", None),
        ("kgateway.dev/max-tls-version: '1.2'", "TLSv1.2", None),
        (
            "kgateway.dev/max-tls-version: '1.2', "
            "kgateway.dev/cipher-suites: ECDHE-ECDSA-AES128-GCM-SHA256",
            "TLSv1.2",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
    ],
)
def test_options_narrow_what_is_negotiated(
    stage: Stage, options: str, version: str, suite: str | None
) -> None:
    stage.service("web")
    scene = stage.serve(gateway(https(options=options)), secret("a", "a.example"), TO_WEB)
    peer = connect(scene, "a.example")
    found = session(peer).cipher()
    assert found is not None
    assert session(peer).version() == version
    assert suite in (None, found[0])
    assert asked(peer).backend == "web"
    other = trusting()
    if version == "TLSv1.3":
        other.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        other.minimum_version = ssl.TLSVersion.TLSv1_3
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        connect(scene, "a.example", other)


def test_protocols_are_those_of_the_listener(stage: Stage) -> None:
    stage.service("web")
    options = "kgateway.dev/alpn-protocols: http/1.1"
    scene = stage.serve(gateway(https(options=options)), secret("a", "a.example"), TO_WEB)
    peer = connect(scene, "a.example", trusting("h2", "http/1.1"))
    assert session(peer).selected_alpn_protocol() == "http/1.1"
    assert asked(peer).backend == "web"


FRONTEND = (
    "tls: {frontend: {default: {validation: {mode: MODE, "
    "caCertificateRefs: [{group: '', kind: ConfigMap, name: clients}]}}}}"
)


@pytest.mark.parametrize("issuer", ["clients", "somebody", None])
@pytest.mark.parametrize("mode", ["AllowValidOnly", "AllowInsecureFallback"])
def test_clients_show_certificates(stage: Stage, mode: str, issuer: str | None) -> None:
    web = stage.service("web")
    scene = stage.serve(
        gateway(https(), more=FRONTEND.replace("MODE", mode)),
        secret("a", "a.example"),
        config_map("clients", text=CLIENTS.cert_pem.bytes().decode()),
        TO_WEB,
    )
    context = trusting()
    if issuer is not None:
        authority = CLIENTS if issuer == "clients" else CA
        authority.issue_cert("me@client.example").configure_cert(context)
    if issuer == "clients" or mode == "AllowInsecureFallback":
        assert asked(connect(scene, "a.example", context)).backend == "web"
        return
    # A client of TLS 1.3 is done before the server has looked at its certificate.
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        asked(connect(scene, "a.example", context))
    assert web.connections == 0


def test_tls_is_passed_through_by_name(stage: Stage) -> None:
    routes = []
    for name in ("one", "two"):
        stage.service(name, script=behind(named(name), f"{name}.example"), protocol="tls")
        routes.append(
            f"""
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: secure}}]
  hostnames: [{name}.example]
  rules: [{{backendRefs: [{{name: {name}, port: 80}}]}}]
"""
        )
    listener = "{name: a, port: 8443, protocol: TLS, tls: {mode: Passthrough}}"
    scene = stage.serve(gateway(listener), *routes)
    for name in ("one", "two"):
        peer = connect(scene, f"{name}.example")
        assert names(peer) == [f"{name}.example"]
        assert asked(peer).backend == name
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(scene, "three.example")
    assert scene.stat("downstream_tls_handshake") == 0


def test_what_is_inside_may_be_bytes(stage: Stage) -> None:
    stage.service("db", protocol="tcp", script=lambda peer: peer.send(peer.read_exactly(3) * 2))
    listener = (
        "{name: a, port: 8443, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: a}]}}"
    )
    tcp = """
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: db}
spec: {parentRefs: [{name: secure}], rules: [{backendRefs: [{name: db, port: 80}]}]}
"""
    scene = stage.serve(gateway(listener), secret("a", "a.example"), tcp)
    peer = connect(scene, "a.example")
    peer.send(b"\x00a\xff")
    assert peer.read_exactly(6) == b"\x00a\xff\x00a\xff"


def test_a_certificate_that_is_missing_closes_its_own_name_alone(stage: Stage) -> None:
    stage.service("web")
    manifests = gateway(https("a"), https("b")), secret("b", "b.example"), TO_WEB
    scene = stage.serve(*manifests, strict=False)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(scene, "a.example")
    assert asked(connect(scene, "b.example"), "b.example").backend == "web"


def test_a_handshake_has_the_time_of_the_policy(stage: Stage) -> None:
    stage.service("web")
    policy = {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "ListenerPolicy",
        "metadata": {"name": "a"},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "secure"}
            ],
            "default": {"transportSocketConnectTimeout": "3s"},
        },
    }
    scene = stage.serve(gateway(https()), secret("a", "a.example"), TO_WEB, json.dumps(policy))
    silent = scene.connect(SECURE)
    assert asked(connect(scene, "a.example")).backend == "web"
    scene.clock.advance(2.9)
    assert asked(connect(scene, "a.example")).backend == "web"
    assert not silent.is_readable()
    scene.clock.advance(0.2)
    assert silent.is_closed()
    scene.reaches("downstream_tls_timeout", 1)
