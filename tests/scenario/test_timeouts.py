"""Time-outs of routes, in the durations of GEP-2257, by a clock that is turned by hand."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer, ok
from tests.scenario.stage import EDGE, request, route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenario.stage import Scene, Stage


class Held:
    """A backend that answers when it is let."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.answer = threading.Event()
        self.expected: list[str] = []

    def __call__(self, peer: Peer) -> None:
        while True:
            _, fields, _ = peer.read_request()
            self.expected += [
                value for name, value in fields if name == "x-envoy-expected-rq-timeout-ms"
            ]
            self.arrived.release()
            self.answer.wait()
            peer.send(ok())


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.answer.set()


def serve(stage: Stage, held: Held, timeouts: str) -> Scene:
    stage.service("web", script=held)
    return stage.serve(
        EDGE, route(f"- backendRefs: [{{name: web, port: 80}}]\n  timeouts: {{{timeouts}}}")
    )


def in_flight(scene: Scene, held: Held) -> Peer:
    peer = scene.connect()
    peer.send(request())
    assert held.arrived.acquire(timeout=30)
    return peer


@pytest.mark.parametrize(
    ("timeouts", "seconds"),
    [
        ("", 15),
        ("request: 1s", 1),
        ("request: 500ms", 0.5),
        ("request: 2m", 120),
        ("request: 1m30s10s20ms", 100.02),
        ("request: 100ms200ms300ms", 0.6),
        ("request: 10s, backendRequest: 2s", 2),
        ("backendRequest: 30s", 30),
    ],
)
def test_a_request_lasts_as_long_as_its_route_allows(
    stage: Stage, held: Held, timeouts: str, seconds: float
) -> None:
    scene = serve(stage, held, timeouts)
    late = in_flight(scene, held)
    scene.clock.advance(seconds - 0.005)
    scene.settle()
    held.answer.set()
    assert late.read_response().status == 200
    assert held.expected == [str(round(seconds * 1000))]

    held.answer.clear()
    too_late = in_flight(scene, held)
    scene.clock.advance(seconds)
    response = too_late.read_response()
    assert (response.status, response.body) == (504, b"upstream request timeout")


def test_zero_turns_the_time_out_off(stage: Stage, held: Held) -> None:
    scene = serve(stage, held, "request: 0s")
    peer = in_flight(scene, held)
    scene.clock.advance(120)
    scene.settle()
    held.answer.set()
    assert peer.read_response().status == 200


IDLE = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: idle}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  default: {httpSettings: {streamIdleTimeout: 0s}}
"""


def test_five_minutes_without_a_byte_end_a_request_unless_the_listener_says_otherwise(
    stage: Stage, held: Held
) -> None:
    """As in Envoy, whatever the route allows."""
    scene = serve(stage, held, "request: 1h30m")
    peer = in_flight(scene, held)
    scene.clock.advance(300)
    response = peer.read_response()
    assert (response.status, response.body) == (504, b"stream timeout")

    rules = "- backendRefs: [{name: web, port: 80}]\n  timeouts: {request: 1h30m}"
    scene.apply(EDGE, IDLE, route(rules))
    peer = in_flight(scene, held)
    scene.clock.advance(5399)
    scene.settle()
    held.answer.set()
    assert peer.read_response().status == 200


@pytest.mark.parametrize(
    "wrong", ["1", "1.5h", "-15m", "1d", "1m1", "999999h", "1h30m10s20ms50h", '""']
)
def test_what_is_no_duration_is_refused_where_it_stands(stage: Stage, wrong: str) -> None:
    stage.service("web")
    config = stage.config(
        EDGE,
        route(f"- backendRefs: [{{name: web, port: 80}}]\n  timeouts: {{request: {wrong}}}"),
    )
    [error] = [one for one in config.errors if one.code.startswith("KGW2")]
    assert error.resource == "HTTPRoute default/r"
    assert error.field == "spec.rules[0].timeouts.request"


def test_an_attempt_may_not_last_longer_than_the_request(stage: Stage) -> None:
    stage.service("web")
    config = stage.config(
        EDGE,
        route(
            "- backendRefs: [{name: web, port: 80}]\n  timeouts: {request: 1s, backendRequest: 2s}"
        ),
    )
    assert any("backendRequest" in one.message for one in config.errors)
