"""How backends are connected to: BackendTLSPolicy, BackendConfigPolicy, what a port declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.engine.h2peer import H2Peer, h2_script
from tests.engine.harness import echo
from tests.scenario.stage import EDGE, MESH_NAMESPACE, WAYPOINT, ask, named, route
from tests.scenario.tls import CLIENTS, behind
from tests.translate.certificates import authority, config_map, secret

import kgw

if TYPE_CHECKING:
    from tests.engine.harness import Peer
    from tests.scenario.stage import Stage

TO_WEB = route("- backendRefs: [{name: web, port: 80}]")


def tls_policy(hostname: str = "web.example", ca: str = "ca") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: web}}
spec:
  targetRefs: [{{group: "", kind: Service, name: web}}]
  validation:
    hostname: {hostname}
    caCertificateRefs: [{{group: "", kind: ConfigMap, name: {ca}}}]
"""


def config_policy(spec: str) -> str:
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: BackendConfigPolicy
metadata: {{name: web}}
spec:
  targetRefs: [{{group: "", kind: Service, name: web}}]
  {spec}
"""


def test_a_backend_is_asked_over_tls(stage: Stage) -> None:
    stage.service("web", script=behind(named("web"), "web.example"))
    scene = stage.serve(EDGE, TO_WEB, tls_policy(), config_map("ca"))
    assert scene.get().backend == "web"
    scene.reaches("upstream_tls_handshake", 1)


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_backend_that_is_not_the_one_gets_no_request(stage: Stage, wrong: str) -> None:
    received: list[bytes] = []

    def record(peer: Peer) -> None:
        received.append(peer.read_until(b"\r\n\r\n"))

    stage.service("web", script=behind(record, "web.example"))
    text = CLIENTS.cert_pem.bytes().decode() if wrong == "authority" else authority()
    policy = tls_policy("web.example" if wrong == "authority" else "other.example")
    scene = stage.serve(EDGE, TO_WEB, policy, config_map("ca", text=text))
    assert scene.get().status == 503
    scene.reaches("upstream_tls_fail", 1)
    assert received == []


def test_plain_text_is_no_way_out(stage: Stage) -> None:
    received: list[bytes] = []

    def record(peer: Peer) -> None:
        received.append(peer.read_exactly(3))
        peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    web = stage.service("web", script=record)
    scene = stage.serve(EDGE, TO_WEB, tls_policy(), config_map("ca"))
    assert scene.get().status == 503
    assert received == [b"\x16\x03\x01"], "it is a ClientHello that it got"
    # Without authorities nobody can be verified, and nobody is connected to.
    scene.apply(EDGE, TO_WEB, tls_policy(), strict=False)
    assert scene.get().status == 500
    assert web.connections == 1


def test_a_gateway_shows_its_certificate_to_backends(stage: Stage) -> None:
    stage.service("web", script=behind(named("web"), "web.example", clients=CLIENTS))
    own = CLIENTS.issue_cert("edge.example")
    pair = secret(
        "own",
        chain=own.cert_chain_pems[0].bytes().decode(),
        key=own.private_key_pem.bytes().decode(),
    )
    edge = EDGE + "  tls: {backend: {clientCertificateRef: {name: own}}}\n"
    scene = stage.serve(edge, TO_WEB, tls_policy(), config_map("ca"), pair)
    assert scene.get().backend == "web"


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_a_backend_is_told_the_client_by_a_proxy_header(stage: Stage, version: str) -> None:
    headers: list[kgw.ProxyHeader] = []

    def script(peer: Peer) -> None:
        if version == "V1":
            data = peer.read_until(b"\r\n")
        else:
            data = peer.read_exactly(16)
            data += peer.read_exactly(int.from_bytes(data[14:]))
        headers.append(kgw.parse_proxy_header(data))
        named("web")(peer)

    stage.service("web", script=script)
    policy = config_policy(f"upstreamProxyProtocol: {{version: {version}}}")
    scene = stage.serve(EDGE, TO_WEB, policy)
    peer = scene.connect()
    assert ask(peer).backend == "web"
    assert ask(peer).backend == "web"
    # A connection that states a client serves one request.
    assert [one.source for one in headers] == [peer.sock.getsockname()] * 2


def test_the_version_is_what_the_port_declares(stage: Stage) -> None:
    def answer(server: H2Peer, stream: int) -> None:
        server.respond(stream, ("content-type", "text/plain"), body=b"over HTTP/2")

    stage.service("web", script=h2_script(answer), protocol="kubernetes.io/h2c")
    scene = stage.serve(EDGE, TO_WEB)
    assert scene.get().body == b"over HTTP/2"
    client = H2Peer(scene.connect())
    assert client.ask(host="example.org").body == b"over HTTP/2"


def switching(peer: Peer) -> None:
    """A server of WebSocket as far as bytes go: it switches, then sends back what it gets."""
    line, headers, _ = peer.read_head()
    assert line.startswith("GET ")
    fields = {name.lower(): value for name, value in headers}
    assert fields["upgrade"] == "websocket"
    # RFC 6455 1.3: the answer to the key below.
    peer.send(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    while True:
        peer.send(peer.read_exactly(4))


UPGRADE = (
    b"GET / HTTP/1.1\r\nhost: example.org\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

UPGRADES = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: settings}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  default: {httpSettings: {upgradeConfig: {enabledUpgrades: [websocket, CONNECT]}}}
"""


@pytest.mark.parametrize("allowed_by", ["the port", "the listener", "the waypoint", None])
def test_web_sockets_are_for_those_who_may(stage: Stage, allowed_by: str | None) -> None:
    declared = "kubernetes.io/ws" if allowed_by == "the port" else "http"
    stage.service("web", "10.0.0.1", script=switching, protocol=declared)
    if allowed_by == "the waypoint":
        peer = stage.serve(WAYPOINT, MESH_NAMESPACE).mesh("10.0.0.1")
    else:
        more = [UPGRADES] if allowed_by == "the listener" else []
        peer = stage.serve(EDGE, TO_WEB, *more).connect()
    peer.send(UPGRADE)
    answer = peer.read_response(head=True)
    assert answer.status == (403 if allowed_by is None else 101)
    if allowed_by is not None:
        assert answer["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        peer.send(b"\x00\xff\x01\xfe")
        assert peer.read_exactly(4) == b"\x00\xff\x01\xfe"


@pytest.mark.parametrize("allowed", [True, False])
def test_connect_leads_to_a_backend_where_it_is_allowed(stage: Stage, allowed: bool) -> None:
    db = stage.service("db", script=lambda peer: peer.send(peer.read_exactly(4) * 2))
    to_db = route(
        "- matches: [{method: CONNECT}]\n  backendRefs: [{name: db, port: 80}]",
        more="hostnames: [db.example]",
    )
    peer = stage.serve(EDGE, to_db, *([UPGRADES] if allowed else [])).connect()
    peer.send(b"CONNECT db.example:5432 HTTP/1.1\r\nhost: db.example:5432\r\n\r\n")
    assert peer.read_response(head=True).status == (200 if allowed else 404)
    if allowed:
        peer.send(b"\x00\xff\x01\xfe")
        assert peer.read_exactly(8) == b"\x00\xff\x01\xfe" * 2
    assert db.connections == allowed


@pytest.mark.parametrize("protocol", [None, "tcp"])
def test_a_waypoint_passes_on_what_is_not_http(stage: Stage, protocol: str | None) -> None:
    stage.service(
        "db", "10.0.0.1", protocol=protocol, script=lambda peer: peer.send(peer.read_exactly(4) * 2)
    )
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE)
    peer = scene.mesh("10.0.0.1")
    peer.send(b"\x03\x00\x00\x01")
    assert peer.read_exactly(8) == b"\x03\x00\x00\x01" * 2


def test_a_waypoint_routes_requests_on_a_port_that_declares_nothing(stage: Stage) -> None:
    stage.service("web", "10.0.0.1", protocol=None, script=echo)
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE)
    answer = scene.call("10.0.0.1").response
    assert answer.status == 200
    assert answer["server"] == "kgw"
