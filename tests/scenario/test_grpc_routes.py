"""GRPCRoutes as real clients of gRPC meet them."""

from __future__ import annotations

import contextlib
import json
import queue
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.conformance.calls import backend
from tests.engine.harness import WAIT
from tests.rpc.calls import channel
from tests.rpc.calls import service as shapes
from tests.scenario.stage import EDGE, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenario.stage import Scene


def service(name: str, address: str, protocol: str = "") -> str:
    """A Service that has one endpoint and declares nothing, unless it says so."""
    host, _, port = address.rpartition(":")
    declared = f", appProtocol: {protocol}" if protocol else ""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: None, ports: [{{port: 50051{declared}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [{host}]}}]
ports: [{{port: {port}}}]
"""


def rule(match: str, to: str, more: str = "") -> str:
    return f"- {{matches: [{match}], backendRefs: [{{name: {to}, port: 50051}}]{more}}}"


def route(*rules: str, name: str = "calls") -> str:
    listed = "\n  ".join(rules)
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: edge}}]
  rules:
  {listed}
"""


@pytest.fixture
def pods(stage: Stage) -> Iterator[Stage]:
    """Services a, b and c that say who they are."""
    with contextlib.ExitStack() as exits:
        for name in "abc":
            stage.manifests.append(service(name, exits.enter_context(backend(name))))
        yield stage


@contextlib.contextmanager
def opened(scene: Scene) -> Iterator[grpc.Channel]:
    with channel(scene.proxy.addresses["default/edge/http"][0][1]) as found:
        yield found


def outcome(to: grpc.Channel, method: str, *metadata: tuple[str, str]) -> str:
    """Who answered a call, else its status."""
    try:
        answer = to.unary_unary(method)(b"", metadata=metadata, timeout=WAIT)
    except grpc.RpcError as error:
        return str(error.code().name)
    found: dict[str, Any] = json.loads(answer)
    return str(found["backend"])


def test_a_method_goes_before_its_service_and_that_before_a_method_of_any(pods: Stage) -> None:
    """The more characters of the service, then of the method, then headers."""
    scene = pods.serve(
        EDGE,
        route(
            rule("{headers: [{name: x, value: a}, {name: z, value: b}]}", "a"),
            rule("{method: {method: Check}}", "b"),
            rule("{method: {service: one.Health}}", "c"),
            rule("{method: {service: one.Health, method: Watch}}", "a"),
        ),
    )
    headers = (("x", "a"), ("z", "b"))
    with opened(scene) as to:
        assert outcome(to, "/one.Health/Watch") == "a"
        assert outcome(to, "/one.Health/Check") == "c"
        assert outcome(to, "/two.Health/Check") == "b"
        # A method that is named goes before any number of headers.
        assert outcome(to, "/two.Health/Check", *headers) == "b"
        assert outcome(to, "/two.Health/Watch", *headers) == "a"
        assert outcome(to, "/two.Health/Watch") == "UNIMPLEMENTED"
        assert outcome(to, "/one.Healthy/Watch") == "UNIMPLEMENTED"


def test_names_may_be_expressions(pods: Stage) -> None:
    kind = "type: RegularExpression"
    scene = pods.serve(
        EDGE,
        route(
            rule(
                f"{{method: {{{kind}, service: 'one|two[.]Three', method: '(Get|List)\\w+'}}}}", "a"
            ),
            rule(f"{{method: {{{kind}, method: 'Put.*'}}}}", "b"),
            rule(f"{{headers: [{{{kind}, name: user, value: 'a+'}}]}}", "c"),
        ),
    )
    with opened(scene) as to:
        assert outcome(to, "/one/GetThing") == "a"
        assert outcome(to, "/two.Three/ListThings") == "a"
        assert outcome(to, "/one/Get") == "UNIMPLEMENTED"
        assert outcome(to, "/any/PutThing") == "b"
        assert outcome(to, "/any/Other", ("user", "aaa")) == "c"
        assert outcome(to, "/any/Other", ("user", "ab")) == "UNIMPLEMENTED"


def test_what_has_no_backend_is_unavailable(pods: Stage) -> None:
    text = route(
        rule("{method: {service: a.Gone}}", "nope"),
        rule("{method: {service: a.None}}", "a").replace("{name: a, port: 50051}", ""),
        rule("{method: {service: a.Half}}", "a, weight: 0"),
    )
    scene = pods.serve(EDGE, text, strict=False)
    with opened(scene) as to:
        for name in ("Gone", "None", "Half"):
            assert outcome(to, f"/a.{name}/Call") == "UNAVAILABLE", name
    # A client of plain HTTP is told so in its own words.
    assert scene.get("/a.Gone/Call").status == 503


def test_a_call_that_takes_long_is_not_ended(stage: Stage) -> None:
    """kgateway would end it after the 15 s that are meant for requests."""
    with shapes() as (_, address):
        stage.manifests.append(service("s", address))
        scene = stage.serve(EDGE, route(rule("{}", "s")))
        with opened(scene) as to:
            chat = to.stream_stream("/test.Service/Chat")
            said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            # No deadline: the proxy would hold the client to it by its own clock.
            answers = chat(iter(said.get, None))
            said.put(b"1")
            assert next(answers) == b"1"
            # Less than the stream's idle time, over and over.
            for number in (b"2", b"3", b"4"):
                scene.clock.advance(200)
                said.put(number)
                assert next(answers) == number
            said.put(None)
            assert list(answers) == []


def test_a_policy_says_how_long_a_call_may_take(stage: Stage) -> None:
    policy = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: quick}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: calls}]
  timeouts: {request: 3s}
"""
    with shapes() as (handlers, address):
        stage.manifests.append(service("s", address))
        scene = stage.serve(EDGE, policy, route(rule("{}", "s")))
        with opened(scene) as to:
            waiting = to.unary_unary("/test.Service/Wait").future(b"", timeout=10 * WAIT)
            assert handlers.waiting.acquire(timeout=WAIT)
            scene.clock.advance(4)
            with pytest.raises(grpc.RpcError) as raised:
                waiting.result(timeout=WAIT)
    assert raised.value.code() in (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
    )
