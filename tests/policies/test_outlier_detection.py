"""outlierDetection of a BackendConfigPolicy: endpoints whose requests fail are out of use."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import eventually, ok
from tests.policies.cluster_of import service
from tests.scenario.stage import EDGE, route

if TYPE_CHECKING:
    from tests.engine.harness import Peer, Script, Upstream
    from tests.scenario.stage import Scene, Stage

TO_WEB = route("- backendRefs: [{name: web, port: 80}]")
CLUSTER = "kube_default_web_80"
pytestmark = pytest.mark.fields("BackendConfigPolicy.spec.outlierDetection")


def policy(text: str, *more: str) -> str:
    lines = "".join(f"  {line}\n" for line in more)
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: BackendConfigPolicy
metadata: {{name: web}}
spec:
  targetRefs: [{{group: "", kind: Service, name: web}}]
  outlierDetection: {{{text}}}
{lines}"""


def failing(status: str = "500 Internal Server Error", *fields: str) -> Script:
    def script(peer: Peer) -> None:
        lines = [f"HTTP/1.1 {status}", "content-length: 0", *fields, "", ""]
        while True:
            peer.read_request()
            peer.send("\r\n".join(lines).encode())

    return script


def fine(peer: Peer) -> None:
    while True:
        peer.read_request()
        peer.send(ok(b"fine"))


def rude(peer: Peer) -> None:
    """Ends connections in place of answers."""
    peer.read_request()


def stats(scene: Scene) -> dict[str, int]:
    found = scene.proxy.stats()["outlier_detection"][CLUSTER]
    return {name: value for name, value in found.items() if isinstance(value, int)}


def ejected(scene: Scene, count: int) -> None:
    eventually(lambda: stats(scene)["ejections_active"] == count, f"{count} are ejected")


def cluster(stage: Stage, *scripts: Script) -> tuple[str, list[Upstream]]:
    upstreams = [stage.backend(f"web-{number}", script) for number, script in enumerate(scripts)]
    return service(upstreams), upstreams


def dead() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_failures_in_a_row_eject_an_endpoint_until_its_time_is_over(stage: Stage) -> None:
    web, upstreams = cluster(stage, failing(), fine)
    limits = "consecutive5xx: 3, maxEjectionPercent: 50, baseEjectionTime: 20s, interval: 5s"
    scene = stage.serve(EDGE, web, TO_WEB, policy(limits))
    assert scene.statuses(6).count(500) == 3
    ejected(scene, 1)
    assert scene.statuses(6) == [200] * 6
    asked = upstreams[0].connections
    scene.clock.advance(19.9)
    assert scene.statuses(2) == [200, 200]
    assert upstreams[0].connections == asked
    scene.clock.advance(5)
    ejected(scene, 0)
    assert scene.statuses(6).count(500) == 3
    ejected(scene, 1)
    # The second time takes twice as long.
    scene.clock.advance(39)
    scene.settle()
    assert stats(scene)["ejections_active"] == 1
    scene.clock.advance(6)
    ejected(scene, 0)
    found = stats(scene)
    assert found["ejections_enforced_total"] == 2
    assert found["ejections_enforced_consecutive_5xx"] == 2


def test_an_answer_in_between_begins_anew(stage: Stage) -> None:
    answers = iter([500, 500, 404, 500, 500, 200] * 5)

    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.send(f"HTTP/1.1 {next(answers)} X\r\ncontent-length: 0\r\n\r\n".encode())

    web, _ = cluster(stage, script)
    scene = stage.serve(EDGE, web, TO_WEB, policy("consecutive5xx: 3, maxEjectionPercent: 100"))
    scene.statuses(12)
    assert stats(scene)["ejections_detected_consecutive_5xx"] == 0


def test_no_more_than_the_share_and_of_few_that_is_none(stage: Stage) -> None:
    web, _ = cluster(stage, failing(), fine)
    scene = stage.serve(EDGE, web, TO_WEB, policy("consecutive5xx: 1"))
    assert scene.statuses(4).count(500) == 2
    found = stats(scene)
    assert (found["ejections_active"], found["ejections_overflow"]) == (0, 2)


def test_if_less_than_half_is_left_all_are_used(stage: Stage) -> None:
    web, _ = cluster(stage, failing(), failing(), fine)
    limits = "consecutive5xx: 2, maxEjectionPercent: 100"
    scene = stage.serve(EDGE, web, TO_WEB, policy(limits))
    scene.statuses(6)
    ejected(scene, 2)
    assert scene.statuses(3).count(500) == 2


@pytest.mark.parametrize("split", [False, True])
def test_endpoints_that_nobody_listens_at(stage: Stage, split: bool) -> None:
    up = stage.backend("up", fine)
    limits = "consecutive5xx: 2, maxEjectionPercent: 50"
    if split:
        limits += ", splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailure: 3"
    scene = stage.serve(EDGE, service([up, dead()]), TO_WEB, policy(limits))
    assert scene.statuses(8).count(503) == (3 if split else 2)
    ejected(scene, 1)
    found = stats(scene)
    assert found["ejections_enforced_consecutive_5xx"] == (0 if split else 1)
    assert found["ejections_enforced_consecutive_local_origin_failure"] == (1 if split else 0)


def test_endpoints_that_close_or_take_too_long(stage: Stage) -> None:
    def silent(peer: Peer) -> None:
        peer.read_request()
        peer.read_to_end()

    to_web = route("- {backendRefs: [{name: web, port: 80}], timeouts: {request: 1s}}")
    web, _ = cluster(stage, rude, silent, fine, fine)
    limits = "consecutive5xx: 1, maxEjectionPercent: 50"
    scene = stage.serve(EDGE, web, to_web, policy(limits))
    found = []
    for _ in range(4):
        peer = scene.connect()
        peer.send(b"GET / HTTP/1.1\r\nhost: example.org\r\n\r\n")
        found.append(peer)
    scene.reaches("downstream_rq_total", 3)
    scene.clock.advance(1)
    assert sorted(peer.read_response().status for peer in found) == [200, 200, 503, 504]
    ejected(scene, 2)
    assert scene.statuses(4) == [200] * 4


def test_statuses_of_grpc_count_as_those_of_http(stage: Stage) -> None:
    head = ("content-type: application/grpc", "grpc-status: 14")
    web, _ = cluster(stage, failing("200 OK", *head), fine)
    limits = "consecutive5xx: 2, maxEjectionPercent: 50"
    scene = stage.serve(EDGE, web, TO_WEB, policy(limits))
    for _ in range(4):
        scene.get("/", "content-type: application/grpc", method="POST")
    ejected(scene, 1)


@pytest.mark.parametrize("split", [False, True])
def test_none_is_ejected_that_is_not_to_be(stage: Stage, split: bool) -> None:
    limits = "consecutive5xx: 1, enforcingConsecutive5xx: 0, maxEjectionPercent: 100"
    if split:
        limits = (
            "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailure: 1, "
            "enforcingConsecutiveLocalOriginFailure: 0, maxEjectionPercent: 100"
        )
    scene = stage.serve(EDGE, service([dead()]), TO_WEB, policy(limits))
    assert scene.statuses(3) == [503] * 3
    found = stats(scene)
    name = "consecutive_local_origin_failure" if split else "consecutive_5xx"
    assert found[f"ejections_detected_{name}"] == 3
    assert found["ejections_active"] == 0


def test_a_reload_keeps_ejections_and_the_end_of_the_policy_ends_them(stage: Stage) -> None:
    web, _ = cluster(stage, failing(), fine)
    limits = "consecutive5xx: 1, maxEjectionPercent: 50"
    scene = stage.serve(EDGE, web, TO_WEB, policy(limits))
    scene.statuses(2)
    ejected(scene, 1)
    scene.apply(EDGE, web, TO_WEB, policy(limits, "connectTimeout: 3s"))
    assert scene.statuses(4) == [200] * 4
    scene.apply(EDGE, web, TO_WEB, policy(f"{limits}, baseEjectionTime: 1s, interval: 1s"))
    assert scene.statuses(4) == [200] * 4
    assert stats(scene)["ejections_active"] == 1
    scene.clock.advance(2)
    ejected(scene, 0)
    scene.statuses(2)
    ejected(scene, 1)
    scene.apply(EDGE, web, TO_WEB)
    assert scene.proxy.stats()["outlier_detection"] == {}
    eventually(lambda: 500 in scene.statuses(2), "it is used again")


def test_connections_that_are_passed_on_as_bytes(stage: Stage) -> None:
    def echo(peer: Peer) -> None:
        peer.send(b"hello")
        peer.read_to_end()

    up = stage.backend("up", echo)
    gateway = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: tcp, port: 8080, protocol: TCP}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
"""
    limits = "consecutive5xx: 2, maxEjectionPercent: 50"
    web = service([up, dead()], port="tcp")
    scene = stage.serve(gateway, web, policy(limits))
    for _ in range(4):
        peer = scene.connect("default/edge/tcp")
        assert peer.read_exactly(5) == b"hello"
        peer.close()
    ejected(scene, 1)
    assert scene.stat("upstream_cx_connect_fail") == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("interval: 0s", "interval must be at least 1ms"),
        ("baseEjectionTime: 0s", "baseEjectionTime must be at least 1ms"),
        ("maxEjectionPercent: 101", "out of bounds"),
        ("consecutive5xx: -1", "out of bounds"),
        ("enforcingConsecutive5xx: 101", "out of bounds"),
    ],
)
def test_what_is_not_valid_is_said(stage: Stage, text: str, problem: str) -> None:
    stage.service("web")
    config = stage.config(EDGE, TO_WEB, policy(text))
    assert any(problem in one.message for one in config.findings), config.findings
