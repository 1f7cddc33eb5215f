"""circuitBreakers of a BackendConfigPolicy: how much may be under way to a backend at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import eventually, ok
from tests.policies.held import Held
from tests.scenario.stage import EDGE, Answer, ask, request, route

if TYPE_CHECKING:
    from tests.engine.harness import Peer
    from tests.scenario.stage import Scene, Stage

TO_WEB = route("- backendRefs: [{name: web, port: 80}]")
CLUSTER = "kube_default_web_80"
pytestmark = pytest.mark.fields("BackendConfigPolicy.spec.circuitBreakers")

OVERFLOW = b"upstream connect error or disconnect/reset before headers. reset reason: overflow"


def limits(text: str, *more: str) -> str:
    lines = "".join(f"  {line}\n" for line in more)
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: BackendConfigPolicy
metadata: {{name: web}}
spec:
  targetRefs: [{{group: "", kind: Service, name: web}}]
  circuitBreakers: {{{text}}}
{lines}"""


def begin(scene: Scene, path: str = "/", *fields: str) -> Peer:
    peer = scene.connect()
    peer.send(request(path, *fields))
    return peer


def end(peer: Peer) -> Answer:
    return Answer(peer.read_response())


def refused(answer: Answer) -> None:
    assert answer.status == 503
    assert answer.body == OVERFLOW
    assert answer.sent("x-envoy-overloaded") == ["true"]


def gauges(scene: Scene) -> dict[str, object]:
    return dict(scene.proxy.stats()["circuit_breakers"][CLUSTER])


def test_no_more_requests_than_may_be_are_under_way(stage: Stage) -> None:
    held = Held()
    stage.service("web", script=held)
    scene = stage.serve(EDGE, TO_WEB, limits("maxRequests: 2"))
    first, second = begin(scene), begin(scene)
    asked = [held.next(), held.next()]
    refused(scene.get())
    assert scene.stat("upstream_rq_pending_overflow") == 1
    assert gauges(scene)["rq_open"] == 1
    asked[0].answer()
    asked[1].answer()
    assert (end(first).status, end(second).status) == (200, 200)
    third = begin(scene)
    held.next().answer()
    assert end(third).status == 200


def test_requests_wait_for_a_connection_in_the_order_in_which_they_came(stage: Stage) -> None:
    held = Held()
    web = stage.service("web", script=held)
    scene = stage.serve(EDGE, TO_WEB, limits("maxConnections: 1"))
    peers = [begin(scene, "/0")]
    first = held.next()
    for number in (1, 2):
        peers.append(begin(scene, f"/{number}"))
        scene.reaches("upstream_cx_overflow", number)
    assert held.is_quiet()
    assert gauges(scene)["cx_open"] == 1
    first.answer()
    assert end(peers[0]).status == 200
    second = held.next()
    assert second.line.startswith("GET /1 ")
    second.answer()
    third = held.next()
    assert third.line.startswith("GET /2 ")
    third.answer()
    assert [end(peer).status for peer in peers[1:]] == [200, 200]
    assert web.connections == 1


def test_a_connection_that_ends_makes_room_for_who_waits(stage: Stage) -> None:
    held = Held()
    web = stage.service("web", script=held)
    scene = stage.serve(EDGE, TO_WEB, limits("maxConnections: 1"))
    first = begin(scene)
    asked = held.next()
    second = begin(scene, "/second")
    scene.reaches("upstream_cx_overflow", 1)
    asked.drop()
    assert end(first).status == 503
    held.next().answer()
    assert end(second).status == 200
    assert web.connections == 2


def test_who_waits_may_leave(stage: Stage) -> None:
    held = Held()
    stage.service("web", script=held)
    scene = stage.serve(EDGE, TO_WEB, limits("maxConnections: 1, maxPendingRequests: 1"))
    first = begin(scene)
    asked = held.next()
    second = begin(scene)
    scene.reaches("upstream_cx_overflow", 1)
    refused(scene.get())
    assert gauges(scene)["rq_pending_open"] == 1
    second.reset()
    eventually(lambda: gauges(scene)["rq_pending_open"] == 0, "nobody waits")
    third = begin(scene, "/third")
    scene.reaches("upstream_cx_overflow", 2)
    asked.answer()
    assert end(first).status == 200
    asked = held.next()
    assert asked.line.startswith("GET /third ")
    asked.answer()
    assert end(third).status == 200


def test_who_waits_has_the_time_of_its_route(stage: Stage) -> None:
    held = Held()
    stage.service("web", script=held)
    to_web = route("- {backendRefs: [{name: web, port: 80}], timeouts: {request: 20s}}")
    policy = limits("maxConnections: 1", "connectTimeout: 1s")
    scene = stage.serve(EDGE, to_web, policy)
    first = begin(scene)
    asked = held.next()
    scene.clock.advance(15)
    second = begin(scene)
    scene.reaches("upstream_cx_overflow", 1)
    # The time to connect is not that of waiting.
    scene.clock.advance(4)
    asked.answer()
    assert end(first).status == 200
    asked = held.next()
    third = begin(scene)
    scene.reaches("upstream_cx_overflow", 2)
    scene.clock.advance(20)
    assert end(third).status == 504
    assert end(second).status == 504
    asked.drop()
    eventually(lambda: gauges(scene)["rq_pending_open"] == 0 == gauges(scene)["rq_open"])


def test_what_ends_early_gives_back_what_it_had(stage: Stage) -> None:
    held = Held()
    stage.service("web", script=held)
    tracked = "maxRequests: 3, maxConnections: 3, maxPendingRequests: 3, trackRemaining: true"
    to_web = route("- {backendRefs: [{name: web, port: 80}], timeouts: {request: 5s}}")
    scene = stage.serve(EDGE, to_web, limits(tracked))
    left, lost, late = begin(scene, "/left"), begin(scene, "/lost"), begin(scene, "/late")
    asked = {one.line.split()[1]: one for one in (held.next(), held.next(), held.next())}
    assert gauges(scene)["remaining_rq"] == 0 == gauges(scene)["remaining_cx"]
    left.reset()
    eventually(lambda: gauges(scene)["remaining_rq"] == 1, "the client is gone")
    asked["/lost"].drop()
    assert end(lost).status == 503
    scene.clock.advance(5)
    assert end(late).status == 504
    expected = {
        "remaining_cx": 3,
        "remaining_pending": 3,
        "remaining_rq": 3,
        "remaining_retries": 3,
    }
    eventually(lambda: expected.items() <= gauges(scene).items(), "all is given back")
    for one in asked.values():
        one.drop()


def test_what_is_left_is_told_only_if_that_is_asked_for(stage: Stage) -> None:
    stage.service("web")
    scene = stage.serve(EDGE, TO_WEB, limits("maxRequests: 3"))
    assert gauges(scene).keys() == {"cx_open", "rq_pending_open", "rq_open", "rq_retry_open"}


def test_a_retry_that_is_one_too_many_is_not_made(stage: Stage) -> None:
    held = Held()
    stage.service("web", script=held)
    to_web = route(
        "- {backendRefs: [{name: web, port: 80}], retry: {codes: [503], attempts: 3, backoff: 1s}}"
    )
    scene = stage.serve(EDGE, to_web, limits("maxRetries: 1"))
    first = begin(scene)
    failure = ok(b"broken", status="503 Service Unavailable")
    held.next().answer(failure)
    # Its retry waits for its time, and is counted.
    eventually(lambda: gauges(scene)["rq_retry_open"] == 1, "a retry is under way")
    second = begin(scene)
    held.next().answer(failure)
    answer = end(second)
    assert (answer.status, answer.body) == (503, b"broken")
    scene.reaches("upstream_rq_retry_overflow", 1)
    scene.clock.advance(2)
    held.next().answer()
    assert end(first).status == 200
    eventually(lambda: gauges(scene)["rq_retry_open"] == 0, "the retry is over")


def test_no_retries_at_all(stage: Stage) -> None:
    held = Held()
    stage.service("web", script=held)
    to_web = route("- {backendRefs: [{name: web, port: 80}], retry: {attempts: 3}}")
    scene = stage.serve(EDGE, to_web, limits("maxRetries: 0"))
    peer = begin(scene)
    held.next().drop()
    assert end(peer).status == 503
    assert scene.stat("upstream_rq_retry") == 0
    assert scene.stat("upstream_rq_retry_overflow") == 1


def test_limits_are_those_of_the_whole_proxy_and_outlive_reloads(stage: Stage) -> None:
    held = Held()
    stage.service("web", script=held)
    manifests = (EDGE, TO_WEB, limits("maxRequests: 4"))
    scene = stage.serve(*manifests, workers=2)
    peers = [begin(scene) for _ in range(4)]
    asked = [held.next() for _ in peers]
    assert {scene.get().status for _ in range(8)} == {503}
    other = route(
        "- backendRefs: [{name: web, port: 80}]", name="other", more="hostnames: [o.example]"
    )
    scene.apply(*manifests, other)
    refused(scene.get())
    refused(scene.get(host="o.example"))
    for one in asked:
        one.answer()
    assert [end(peer).status for peer in peers] == [200] * 4
    eventually(lambda: gauges(scene)["rq_open"] == 0, "all are over")


def test_a_session_of_tcp_is_a_connection(stage: Stage) -> None:
    def greet(peer: Peer) -> None:
        peer.send(b"hello")
        peer.read_exactly(1)

    stage.service("web", script=greet, protocol="tcp")
    edge = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: tcp, port: 9000, protocol: TCP}]
"""
    tcp = """
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
"""
    scene = stage.serve(edge, tcp, limits("maxConnections: 1"))
    first = scene.connect("default/edge/tcp")
    assert first.read_exactly(5) == b"hello"
    second = scene.connect("default/edge/tcp")
    assert second.read_to_end() == b""
    assert scene.stat("upstream_cx_overflow") == 1
    first.close()
    eventually(lambda: gauges(scene)["cx_open"] == 0, "the connection is over")
    third = scene.connect("default/edge/tcp")
    assert third.read_exactly(5) == b"hello"


def test_who_has_no_policy_has_no_limits(stage: Stage) -> None:
    stage.service("web")
    scene = stage.serve(EDGE, TO_WEB)
    assert scene.proxy.stats()["circuit_breakers"] == {}
    peer = scene.connect()
    assert ask(peer).status == 200
