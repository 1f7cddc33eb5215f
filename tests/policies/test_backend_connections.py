"""Connections to backends as BackendConfigPolicies want them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.h2peer import H2Peer, h2_script
from tests.engine.harness import WAIT, eventually, ok
from tests.policies.held import Held
from tests.scenario.stage import EDGE, Answer, ask, request, route
from tests.scenario.tls import CLIENTS, behind
from tests.translate.certificates import authority

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.harness import Peer
    from tests.scenario.stage import Stage

    import kgw

pytestmark = pytest.mark.fields(
    "BackendConfigPolicy.spec.commonHttpProtocolOptions.idleTimeout",
    "BackendConfigPolicy.spec.commonHttpProtocolOptions.maxHeadersCount",
    "BackendConfigPolicy.spec.commonHttpProtocolOptions.maxStreamDuration",
    "BackendConfigPolicy.spec.dns",
    "BackendConfigPolicy.spec.http2ProtocolOptions",
    "BackendConfigPolicy.spec.perConnectionBufferLimitBytes",
    "BackendConfigPolicy.spec.tcpKeepalive",
    "BackendConfigPolicy.spec.tls.files",
    "BackendConfigPolicy.spec.tls.parameters.ecdhCurves",
    "BackendConfigPolicy.spec.tls.parameters.signatureAlgorithms",
    without=(
        "BackendConfigPolicy.spec.http2ProtocolOptions.overrideStreamErrorOnInvalidHttpMessage",
    ),
)

TO_WEB = route("- backendRefs: [{name: web, port: 80}]")
CLUSTER = "kube_default_web_80"
H2C = "kubernetes.io/h2c"


def policy(spec: str) -> str:
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: BackendConfigPolicy
metadata: {{name: web}}
spec:
  targetRefs: [{{group: "", kind: Service, name: web}}]
  {spec}
"""


def cluster(stage: Stage, spec: str) -> dict[str, Any]:
    stage.service("web")
    config = stage.config(EDGE, TO_WEB, policy(spec))
    config.raise_for_errors()
    found: dict[str, Any] = config.ir["clusters"][CLUSTER]
    return found


def codes(stage: Stage, spec: str) -> list[tuple[str, str]]:
    stage.service("web")
    config = stage.config(EDGE, TO_WEB, policy(spec))
    return [(one.code, one.severity.name) for one in config.findings]


# === commonHttpProtocolOptions ===


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(stage: Stage) -> None:
    web = stage.service("web")
    scene = stage.serve(EDGE, TO_WEB, policy("commonHttpProtocolOptions: {idleTimeout: 90s}"))
    peer = scene.connect()
    assert ask(peer).status == 200
    scene.clock.advance(80)
    assert ask(peer).status == 200
    assert web.connections == 1
    # A client may have its answer before the connection is idle.
    scene.settle()
    scene.clock.advance(91)
    assert ask(peer).status == 200
    assert web.connections == 2


def test_an_answer_has_no_more_fields_than_it_may(stage: Stage) -> None:
    def script(peer: Peer) -> None:
        while True:
            line, _, _ = peer.read_request()
            count = int(line.split()[1].removeprefix("/"))
            # `content-length` is one of them.
            peer.send(ok(b"", *[f"x-{number}: 1" for number in range(count - 1)]))

    stage.service("web", script=script)
    scene = stage.serve(EDGE, TO_WEB, policy("commonHttpProtocolOptions: {maxHeadersCount: 5}"))
    assert scene.get("/5").status == 200
    assert scene.get("/6").status == 502


def test_a_stream_of_http2_has_no_more_fields_than_it_may(stage: Stage) -> None:
    def answer(server: H2Peer, stream: int) -> None:
        path = dict(server.message(stream).headers)[":path"]
        fields = [(f"x-{number}", "1") for number in range(int(path.removeprefix("/")))]
        server.respond(stream, *fields, body=b"ok")

    stage.service("web", script=h2_script(answer), protocol=H2C)
    scene = stage.serve(EDGE, TO_WEB, policy("commonHttpProtocolOptions: {maxHeadersCount: 5}"))
    assert scene.get("/4").status == 200
    assert scene.get("/6").status == 502


@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_ends_when_its_time_is_over(stage: Stage, begun: bool) -> None:
    held = Held()
    stage.service("web", script=held)
    spec = "commonHttpProtocolOptions: {maxStreamDuration: 5s}"
    scene = stage.serve(EDGE, TO_WEB, policy(spec))
    peer = scene.connect()
    peer.send(request())
    asked = held.next()
    if begun:
        asked.peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ")
        assert peer.read_until(b"half ").endswith(b"half ")
    scene.clock.advance(4.9)
    scene.settle()
    assert not peer.is_readable()
    scene.clock.advance(0.2)
    if begun:
        assert peer.read_to_end() == b""
    else:
        answer = Answer(peer.read_response())
        assert answer.status == 408
        assert answer.body == b"upstream max stream duration reached"
    scene.reaches("upstream_rq_max_duration_reached", 1)
    asked.drop()


# === http2ProtocolOptions ===


def test_windows_of_http2(stage: Stage) -> None:
    seen: list[H2Peer] = []

    def script(peer: Peer) -> None:
        server = H2Peer(peer, client=False)
        stream = server.accept()
        server.response(stream)
        seen.append(server)
        server.respond(stream, body=b"ok")
        server.read_to_end()

    stage.service("web", script=script, protocol=H2C)
    sizes = "initialStreamWindowSize: 128Ki, initialConnectionWindowSize: 2Mi"
    scene = stage.serve(EDGE, TO_WEB, policy(f"http2ProtocolOptions: {{{sizes}}}"))
    assert scene.get().status == 200
    assert seen[0].settings[4] == 128 * 1024  # SETTINGS_INITIAL_WINDOW_SIZE
    updates = [one for one in seen[0].seen if (one.kind, one.stream) == (8, 0)]
    assert [one.number() for one in updates] == [2 * 1024 * 1024 - 65_535]  # WINDOW_UPDATE


def test_a_connection_has_no_more_streams_than_it_may(stage: Stage) -> None:
    held: list[tuple[H2Peer, int]] = []

    def serve(server: H2Peer, stream: int) -> None:
        held.append((server, stream))

    web = stage.service("web", script=h2_script(serve), protocol=H2C)
    scene = stage.serve(EDGE, TO_WEB, policy("http2ProtocolOptions: {maxConcurrentStreams: 2}"))
    peers = []
    for number in range(1, 4):
        peers.append(scene.connect())
        peers[-1].send(request())
        eventually(lambda: len(held) == number, "a request")  # noqa: B023 - called at once
    assert web.connections == 2
    for server, stream in held:
        server.respond(stream, body=b"ok")
    assert [Answer(peer.read_response()).status for peer in peers] == [200] * 3


def test_a_peer_that_does_not_answer_pings_is_left(stage: Stage) -> None:
    left = threading.Event()

    def deaf(peer: Peer) -> None:
        server = H2Peer(peer, client=False)
        stream = server.accept()
        server.response(stream)
        server.respond(stream, body=b"ok")
        # From here on nothing is read, and so no PING is answered.
        left.wait(WAIT)

    web = stage.service("web", script=deaf, protocol=H2C)
    spec = "http2ProtocolOptions: {connectionKeepalive: {interval: 10s, timeout: 2s}}"
    scene = stage.serve(EDGE, TO_WEB, policy(spec))
    assert scene.get().status == 200
    # The interval has a jitter of 15 percent.
    scene.clock.advance(12)
    scene.settle()
    assert scene.stat("upstream_http2_keepalive_timeout") == 0
    scene.clock.advance(2)
    scene.reaches("upstream_http2_keepalive_timeout", 1)
    assert scene.get().status == 200
    assert web.connections == 2
    left.set()


def test_a_peer_that_answers_pings_is_kept(stage: Stage) -> None:
    def answer(server: H2Peer, stream: int) -> None:
        server.respond(stream, body=b"ok")

    web = stage.service("web", script=h2_script(answer), protocol=H2C)
    spec = (
        "http2ProtocolOptions: {connectionKeepalive: "
        "{connectionIdleInterval: 5s, interval: 10s, timeout: 2s}}"
    )
    scene = stage.serve(EDGE, TO_WEB, policy(spec))
    peer = scene.connect()
    for _ in range(3):
        assert ask(peer).status == 200
        # The PING may follow the first request; its answer is there before that to the second.
        assert ask(peer).status == 200
        scene.clock.advance(6)
        scene.settle()
    assert web.connections == 1
    assert scene.stat("upstream_http2_keepalive_timeout") == 0


# === tcpKeepalive, perConnectionBufferLimitBytes, dns ===


def test_probes_of_tcp(stage: Stage) -> None:
    spec = "tcpKeepalive: {keepAliveProbes: 3, keepAliveTime: 30s, keepAliveInterval: 5s}"
    given = cluster(stage, spec)["connections"]
    assert given == {"tcp_keepalive": {"probes": 3, "time_s": 30, "interval_s": 5}}


def test_how_much_is_buffered(stage: Stage) -> None:
    given = cluster(stage, "perConnectionBufferLimitBytes: 32768")["connections"]
    assert given == {"buffer_bytes": 32_768}


def test_how_often_a_name_is_looked_up(stage: Stage) -> None:
    backend = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: Backend
metadata: {name: web}
spec: {static: {hosts: [{host: web.example, port: 80}]}}
"""
    settings = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: BackendConfigPolicy
metadata: {name: web}
spec:
  targetRefs: [{group: gateway.kgateway.dev, kind: Backend, name: web}]
  dns: {refreshRate: 10s, jitter: 2s, respectTTL: false}
"""
    to_web = route("- backendRefs: [{group: gateway.kgateway.dev, kind: Backend, name: web}]")
    config = stage.config(EDGE, to_web, backend, settings)
    config.raise_for_errors()
    (found,) = [one for name, one in config.ir["clusters"].items() if name.startswith("backend_")]
    expected = {"hostname": "web.example", "port": 80, "refresh_ms": 10_000, "jitter_ms": 2_000}
    assert found["dns"] == expected


def test_dns_of_what_has_addresses_changes_nothing(stage: Stage) -> None:
    assert "dns" not in cluster(stage, "dns: {refreshRate: 10s}")


def test_times_to_live_are_not_known(stage: Stage) -> None:
    assert ("KGW480", "WARNING") in codes(stage, "dns: {respectTTL: true}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dns: {refreshRate: 1s, jitter: 2s}", "jitter must be less than or equal to refreshRate"),
        ("dns: {refreshRate: 0s}", "refreshRate must be at least 1ms"),
        ("circuitBreakers: {trackRemaining: true}", "at least one of the fields in"),
        ("circuitBreakers: {maxConnections: 0}", "`0` is out of bounds"),
        ("http2ProtocolOptions: {connectionKeepalive: {timeout: 0s}}", "at least 1ms"),
        ("http2ProtocolOptions: {initialStreamWindowSize: 1Ki}", "out of bounds"),
        ("tcpKeepalive: {keepAliveTime: 1ms}", "keepAliveTime must be at least 1 second"),
        ("tls: {files: {}}", "At least one of tlsCertificate, tlsKey, or rootCA"),
    ],
)
def test_what_the_definition_forbids(stage: Stage, spec: str, message: str) -> None:
    stage.service("web")
    config = stage.config(EDGE, TO_WEB, policy(spec))
    assert any(message in one.message for one in config.findings), config.findings


# === tls ===


def test_authorities_in_a_file(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(authority())
    stage.service("web", script=behind(_ok, "web.default.svc"))
    spec = f"tls: {{files: {{rootCA: {file}}}, sni: web.default.svc}}"
    scene = stage.serve(EDGE, TO_WEB, policy(spec))
    assert scene.get().status == 200
    scene.reaches("upstream_tls_handshake", 1)


def test_a_certificate_in_files(stage: Stage, tmp_path: Path) -> None:
    own = CLIENTS.issue_cert("edge.example")
    (tmp_path / "ca.pem").write_text(authority())
    (tmp_path / "own.pem").write_bytes(own.cert_chain_pems[0].bytes())
    (tmp_path / "own.key").write_bytes(own.private_key_pem.bytes())
    files = f"rootCA: {tmp_path}/ca.pem, tlsCertificate: {tmp_path}/own.pem"
    spec = f"tls: {{files: {{{files}, tlsKey: {tmp_path}/own.key}}, sni: web.default.svc}}"
    stage.service("web", script=behind(_ok, "web.default.svc", clients=CLIENTS))
    scene = stage.serve(EDGE, TO_WEB, policy(spec))
    assert scene.get().status == 200


def _ok(peer: Peer) -> None:
    while True:
        peer.read_request()
        peer.send(ok())


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(stage: Stage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca")
    stage.service("web")
    config = stage.config(EDGE, TO_WEB, policy(f"tls: {{files: {{rootCA: {tmp_path}/ca}}}}"))
    (found,) = [one for one in config.findings if one.code == "KGW482"]
    assert found.message.endswith("/ca cannot be read: it is no regular file")


@pytest.mark.parametrize("field", ["rootCA", "tlsCertificate"])
def test_a_file_that_cannot_be_read_leaves_no_way(stage: Stage, tmp_path: Path, field: str) -> None:
    stage.service("web")
    spec = f"tls: {{files: {{{field}: {tmp_path}/none.pem}}}}"
    scene = stage.serve(EDGE, TO_WEB, policy(spec), strict=False)
    assert scene.get().status == 500
    config = stage.config(EDGE, TO_WEB, policy(spec))
    assert ("KGW482", "ERROR") in [(one.code, one.severity.name) for one in config.findings]


def test_a_certificate_without_its_key(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_text(authority())
    spec = f"tls: {{files: {{tlsCertificate: {tmp_path}/own.pem}}}}"
    assert ("KGW482", "ERROR") in codes(stage, spec)


def test_curves_and_algorithms_of_signatures(stage: Stage) -> None:
    spec = (
        "tls: {insecureSkipVerify: true, parameters: {ecdhCurves: [P-521, prime256v1, X25519], "
        "signatureAlgorithms: [ecdsa_secp256r1_sha256]}}"
    )
    stage.service("web")
    config = stage.config(EDGE, TO_WEB, policy(spec))
    tls = config.ir["clusters"][CLUSTER]["tls"]
    assert tls["parameters"] == {"curves": ["P-256", "X25519"]}
    assert tls["signature_algorithms"] == ["ecdsa_secp256r1_sha256"]
    assert ("KGW481", "WARNING") in [(one.code, one.severity.name) for one in config.findings]


def test_none_of_the_curves_is_known(stage: Stage) -> None:
    spec = "tls: {insecureSkipVerify: true, parameters: {ecdhCurves: [P-521]}}"
    assert ("KGW481", "ERROR") in codes(stage, spec)


def test_fields_of_several_policies_come_together_the_oldest_first(stage: Stage) -> None:
    stage.service("web")
    policies = [
        policy("commonHttpProtocolOptions: {idleTimeout: 7s}"),
        policy("commonHttpProtocolOptions: {idleTimeout: 9s}\n  connectTimeout: 3s").replace(
            "name: web}\nspec", "name: wec}\nspec"
        ),
    ]
    config: kgw.Config = stage.config(EDGE, TO_WEB, *policies)
    found = config.ir["clusters"][CLUSTER]
    assert found["connections"] == {"idle_timeout_ms": 7_000}
    assert found["connect_timeout_ms"] == 3_000
