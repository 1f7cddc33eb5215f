"""The walkthrough: its four manifests unchanged, ztunnel's bytes, the document's answers."""

from __future__ import annotations

import json
import re
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import Peer, Response, Upstream, eventually, ok
from tests.scenario.stage import EXAMPLES, Scene, Stage

import kgw

if TYPE_CHECKING:
    from pathlib import Path

WAYPOINT = "default/kgateway-waypoint/proxy"

#: What ztunnel sends: IPv4, from 10.244.0.24:46238 to ollama's VIP 10.96.238.187:80, and TLV 0xD0
#: with the identity spiffe://cluster.local/ns/default/sa/curl.
HEADER = bytes.fromhex(
    "0d0a0d0a000d0a515549540a"
    "21110038"
    "0af40018" "0a60eebb" "b49e" "0050"
    "d00029"
    "7370696666653a2f2f636c75737465722e6c6f63616c2f6e732f64656661756c742f73612f6375726c"
)  # fmt: skip

#: The same to the VIP of `client`, 10.96.143.111, which has no HTTPRoute.
TO_CLIENT = HEADER.replace(bytes.fromhex("0a60eebb"), bytes.fromhex("0a608f6f"))

#: To the waypoint's own Service, 10.96.235.185:15088: forwarding would go in circles.
TO_ITSELF = HEADER.replace(bytes.fromhex("0a60eebbb49e0050"), bytes.fromhex("0a60ebb9b49e3af0"))

#: What curl sends in the document.
CURL = b"GET / HTTP/1.1\r\nHost: ollama\r\nUser-Agent: curl/8.12.1\r\nAccept: */*\r\n\r\n"


class Held:
    """A backend that keeps requests waiting until it is told to answer."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.answer = threading.Event()

    def __call__(self, peer: Peer) -> None:
        while True:
            peer.read_request()
            self.arrived.set()
            self.answer.wait()
            peer.send(ok(b"at last"))


@pytest.fixture
def directory(stage: Stage) -> Path:
    """The example as it is, and a last file that puts the endpoints onto free ports."""
    shutil.copytree(EXAMPLES, stage.directory)
    return stage.directory


def endpoints(**upstreams: Upstream) -> str:
    """EndpointSlices in place of those of `cluster.yaml`: on ports that are surely free."""
    return "---".join(
        f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
ports: [{{name: http, port: {upstream.address.rpartition(":")[2]}}}]
"""
        for name, upstream in upstreams.items()
    )


def serve(stage: Stage, directory: Path, **upstreams: Upstream) -> Scene:
    (directory / "zz-endpoints.yaml").write_text(endpoints(**upstreams))
    config = kgw.load(directory)
    config.raise_for_errors()
    assert {one.code for one in config.warnings} == {"KGW301"}, "only the slices are there twice"
    return stage.run(config)


def curl(scene: Scene, header: bytes = HEADER) -> Response:
    """What the document's `curl` does, through ztunnel."""
    peer = scene.connect(WAYPOINT)
    peer.send(header + CURL)
    response = peer.read_response()
    peer.close()
    return response


def greeting(stage: Stage) -> Upstream:
    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.send(ok(b"Ollama is running", "content-type: text/plain; charset=utf-8"))

    return stage.backend("ollama", script)


def test_the_header_is_the_one_ztunnel_sends() -> None:
    header = kgw.parse_proxy_header(HEADER)
    assert len(HEADER) == header.length == 72
    assert header.destination == ("10.96.238.187", 80)
    assert str(header.identity) == "spiffe://cluster.local/ns/default/sa/curl"


def test_the_manifests_are_served_as_they_are(stage: Stage, directory: Path) -> None:
    files = {one.name for one in directory.iterdir()}
    assert files == {
        "cluster.yaml",
        "gateway-waypoint.yaml",
        "httplistenerpolicy-accesslog.yaml",
        "httproute-timeout.yaml",
        "trafficpolicy-ratelimit.yaml",
    }
    scene = serve(stage, directory, ollama=greeting(stage))
    response = curl(scene)
    assert (response.status, response.body) == (200, b"Ollama is running")


def test_the_fourth_call_gets_the_429_of_the_document(stage: Stage, directory: Path) -> None:
    upstream = greeting(stage)
    scene = serve(stage, directory, ollama=upstream)
    assert [curl(scene).status for _ in range(3)] == [200, 200, 200]

    refused = curl(scene)

    assert refused.raw_head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert refused.body == b"local_rate_limited"
    fields = dict(refused.headers)
    assert len(fields) == len(refused.headers)
    date = fields.pop("date")
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date), date
    # The document's fields, with the server's own name, and the time until the next token.
    assert fields == {
        "content-length": "18",
        "content-type": "text/plain",
        "retry-after": "20",
        "server": "kgw",
    }


def test_tokens_come_back_one_each_20_seconds(stage: Stage, directory: Path) -> None:
    scene = serve(stage, directory, ollama=greeting(stage))
    assert [curl(scene).status for _ in range(4)] == [200, 200, 200, 429]

    scene.clock.advance(19)
    assert curl(scene).status == 429
    scene.clock.advance(1)
    assert [curl(scene).status for _ in range(2)] == [200, 429]
    scene.clock.advance(60)
    assert [curl(scene).status for _ in range(4)] == [200, 200, 200, 429]
    scene.clock.advance(3600)
    assert [curl(scene).status for _ in range(4)] == [200, 200, 200, 429], "never more than three"


def test_a_refused_call_does_not_reach_the_backend_and_keeps_its_connection(
    stage: Stage, directory: Path
) -> None:
    served: list[str] = []

    def script(peer: Peer) -> None:
        while True:
            served.append(peer.read_request()[0])
            peer.send(ok())

    scene = serve(stage, directory, ollama=stage.backend("ollama", script))
    peer = scene.connect(WAYPOINT)
    peer.send(HEADER)
    statuses = []
    for _ in range(5):
        peer.send(CURL)
        statuses.append(peer.read_response().status)
    assert statuses == [200, 200, 200, 429, 429]
    assert served == ["GET / HTTP/1.1"] * 3
    scene.clock.advance(20)
    peer.send(CURL)
    assert peer.read_response().status == 200


def test_the_limit_is_the_routes_and_not_its_neighbours(stage: Stage, directory: Path) -> None:
    scene = serve(stage, directory, ollama=greeting(stage), client=stage.backend("client"))
    assert [curl(scene).status for _ in range(4)][-1] == 429
    assert [curl(scene, TO_CLIENT).status for _ in range(6)] == [200] * 6


def test_the_access_log_has_the_lines_of_the_document(
    stage: Stage, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scene = serve(stage, directory, ollama=greeting(stage))
    for _ in range(4):
        curl(scene)
    lines = standard_output(capfd, 4)

    for line, status, flags, sent in zip(
        lines, (200, 200, 200, 429), ("-", "-", "-", "RL"), (17, 17, 17, 18), strict=True
    ):
        entry: dict[str, Any] = json.loads(line)
        assert list(entry) == [
            "authority",
            "bytes_received",
            "bytes_sent",
            "method",
            "path",
            "protocol",
            "request_id",
            "response_code",
            "response_flags",
            "start_time",
        ]
        start, ident = entry.pop("start_time"), entry.pop("request_id")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", start), start
        assert re.fullmatch(
            r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", ident
        ), ident
        assert entry == {
            "authority": "ollama",
            "bytes_received": 0,
            "bytes_sent": sent,
            "method": "GET",
            "path": "/",
            "protocol": "HTTP/1.1",
            "response_code": status,
            "response_flags": flags,
        }
        assert [type(entry[key]) for key in ("bytes_received", "bytes_sent")] == [int, int]
    assert len({json.loads(line)["request_id"] for line in lines}) == 4


def standard_output(capfd: pytest.CaptureFixture[str], count: int) -> list[str]:
    """The lines that this process wrote, once there are so many."""
    text = ""

    def enough() -> bool:
        nonlocal text
        text += capfd.readouterr().out
        return text.count("\n") >= count

    eventually(enough, f"{count} lines on standard output")
    lines = text.splitlines()
    assert len(lines) == count, lines
    return lines


# === Time-outs ===


def in_flight(scene: Scene, header: bytes, held: Held) -> Peer:
    peer = scene.connect(WAYPOINT)
    peer.send(header + CURL)
    assert held.arrived.wait(30)
    return peer


def settle(scene: Scene) -> None:
    """Returns when the one worker has run what the clock's last turn made due."""
    peer = scene.connect(WAYPOINT)
    peer.send(b"not a PROXY header, and longer than its signature")
    assert peer.is_closed()


def test_the_route_gets_its_180_seconds(stage: Stage, directory: Path) -> None:
    held = Held()
    scene = serve(stage, directory, ollama=stage.backend("ollama", held))
    peer = in_flight(scene, HEADER, held)
    scene.clock.advance(179)
    settle(scene)
    held.answer.set()
    response = peer.read_response()
    assert (response.status, response.body) == (200, b"at last")


def test_after_180_seconds_the_client_is_told(
    stage: Stage, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    held = Held()
    scene = serve(stage, directory, ollama=stage.backend("ollama", held))
    peer = in_flight(scene, HEADER, held)
    scene.clock.advance(180)
    response = peer.read_response()
    assert (response.status, response.body) == (504, b"upstream request timeout")
    [line] = standard_output(capfd, 1)
    assert json.loads(line)["response_flags"] == "UT"
    held.answer.set()


def test_elsewhere_15_seconds_are_the_default(stage: Stage, directory: Path) -> None:
    held = Held()
    scene = serve(stage, directory, client=stage.backend("client", held))
    peer = in_flight(scene, TO_CLIENT, held)
    scene.clock.advance(14)
    settle(scene)
    held.answer.set()
    assert peer.read_response().status == 200

    held.arrived.clear()
    held.answer.clear()
    peer = in_flight(scene, TO_CLIENT, held)
    scene.clock.advance(15)
    assert peer.read_response().status == 504
    held.answer.set()


# === Connections that are no mesh connections ===


@pytest.mark.parametrize(
    ("header", "counter"),
    [
        (HEADER.replace(b"\x0a\x60\xee\xbb", b"\x0a\x60\x00\x63"), "no_destination"),
        (HEADER.replace(b"\x00\x50\xd0", b"\x00\x51\xd0"), "no_destination"),
        (TO_ITSELF, "no_destination"),
        (b"", "malformed"),
        (HEADER.replace(b"\xd0\x00\x29", b"\xd0\x00\x30"), "malformed"),
        (HEADER[:12] + b"\x20" + HEADER[13:], "local"),
    ],
    ids=[
        "an unknown VIP",
        "a port that the service does not have",
        "the waypoint's own VIP",
        "no header",
        "a header with a broken TLV",
        "a connection of the sender's own",
    ],
)
def test_what_is_not_for_the_waypoint_is_closed_without_an_answer(
    stage: Stage, directory: Path, header: bytes, counter: str
) -> None:
    upstream = greeting(stage)
    scene = serve(stage, directory, ollama=upstream)
    peer = scene.connect(WAYPOINT)
    peer.send(header + CURL)
    assert peer.is_closed()
    eventually(lambda: scene.stat(f"proxy_header_{counter}") == 1, f"a connection {counter}")
    assert upstream.connections == 0


def test_without_a_header_a_connection_lasts_15_seconds(stage: Stage, directory: Path) -> None:
    scene = serve(stage, directory, ollama=greeting(stage))
    late, silent = scene.connect(WAYPOINT), scene.connect(WAYPOINT)
    late.send(HEADER[:30])
    eventually(lambda: scene.stat("downstream_cx_active") == 2, "both connections")
    scene.clock.advance(14)
    settle(scene)
    late.send(HEADER[30:] + CURL)
    assert late.read_response().status == 200
    scene.clock.advance(1)
    assert silent.is_closed()
    late.send(CURL)
    assert late.read_response().status == 200


def test_the_header_may_come_byte_by_byte(stage: Stage, directory: Path) -> None:
    scene = serve(stage, directory, ollama=greeting(stage))
    peer = scene.connect(WAYPOINT)
    for byte in HEADER + CURL:
        peer.send(bytes([byte]))
    assert peer.read_response().status == 200
