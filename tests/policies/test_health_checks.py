"""healthCheck of a BackendConfigPolicy: endpoints are asked whether they are in order."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.engine.harness import eventually, ok
from tests.policies.cluster_of import service
from tests.scenario.stage import EDGE, route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.harness import Peer
    from tests.scenario.stage import Scene, Stage

TO_WEB = route("- backendRefs: [{name: web, port: 80}]")
CLUSTER = "kube_default_web_80"
TIMES = "timeout: 1s, interval: 10s, unhealthyThreshold: 2, healthyThreshold: 2"
#: Longer than an interval, whatever chance adds.
INTERVAL = 10.5
pytestmark = pytest.mark.fields("BackendConfigPolicy.spec.healthCheck")


def policy(text: str, *more: str) -> str:
    lines = "".join(f"  {line}\n" for line in more)
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: BackendConfigPolicy
metadata: {{name: web}}
spec:
  targetRefs: [{{group: "", kind: Service, name: web}}]
  healthCheck: {{{TIMES}, {text}}}
{lines}"""


HTTP = policy("http: {path: /healthz}")


class Web:
    """A backend whose health is in the test's hand."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: The status of checks; 0 is no answer.
        self.status = 200
        self.checks: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        while True:
            line, headers, _ = peer.read_request()
            if "/healthz" not in line:
                peer.send(ok(self.name.encode()))
                continue
            with self._lock:
                self.checks.append((line, {name.lower(): value for name, value in headers}))
            if self.status == 0:
                peer.read_to_end()
                return
            peer.send(f"HTTP/1.1 {self.status} X\r\ncontent-length: 0\r\n\r\n".encode())


@pytest.fixture
def webs() -> list[Web]:
    return [Web("a"), Web("b"), Web("c")]


def serve(stage: Stage, webs: list[Web], *manifests: str) -> tuple[Scene, str]:
    web = service([stage.backend(one.name, one) for one in webs])
    return stage.serve(EDGE, web, TO_WEB, *manifests), web


def stat(scene: Scene, name: str) -> int:
    value = dict(scene.proxy.stats()["health_check"][CLUSTER])[name]
    assert isinstance(value, int)
    return value


def reaches(scene: Scene, name: str, value: int) -> None:
    eventually(lambda: stat(scene, name) == value, f"{name} == {value}")


def wait_for(web: Web, count: int) -> None:
    eventually(lambda: len(web.checks) >= count, f"{count} checks of {web.name}")


def next_round(scene: Scene, webs: list[Web]) -> None:
    """Has each of them checked once more, unless it gives no answer."""
    wanted = stat(scene, "success") + stat(scene, "failure") + len(webs)
    scene.clock.advance(INTERVAL)
    eventually(lambda: stat(scene, "success") + stat(scene, "failure") == wanted, "a round")


def backends(scene: Scene) -> set[str]:
    return {scene.get().body.decode() for _ in range(6)}


def test_an_endpoint_that_is_not_in_order_is_not_used(stage: Stage, webs: list[Web]) -> None:
    webs[0].status = 503
    scene, _ = serve(stage, webs, HTTP)
    reaches(scene, "success", 2)
    reaches(scene, "failure", 1)
    assert stat(scene, "healthy") == 2
    assert backends(scene) == {"b", "c"}
    webs[0].status = 200
    next_round(scene, webs)
    assert backends(scene) == {"b", "c"}
    next_round(scene, webs)
    assert backends(scene) == {"a", "b", "c"}
    # An answer that says so needs no threshold.
    webs[1].status = 500
    next_round(scene, webs)
    assert backends(scene) == {"a", "c"}
    assert stat(scene, "network_failure") == 0


def test_what_is_asked(stage: Stage, webs: list[Web]) -> None:
    http = "http: {path: /healthz?a=b, host: health.example, method: HEAD}"
    scene, _ = serve(stage, webs[:1], policy(http))
    reaches(scene, "success", 1)
    line, headers = webs[0].checks[0]
    assert line == "HEAD /healthz?a=b HTTP/1.1"
    assert headers["host"] == "health.example"
    assert headers["user-agent"] == "Envoy/HC"
    scene, _ = serve(stage, webs[1:2], HTTP)
    eventually(lambda: webs[1].checks, "a check")
    line, headers = webs[1].checks[0]
    assert line == "GET /healthz HTTP/1.1"
    assert headers["host"] == CLUSTER


def test_an_endpoint_that_gives_no_answer_has_so_many_chances(
    stage: Stage, webs: list[Web]
) -> None:
    scene, _ = serve(stage, webs, HTTP)
    reaches(scene, "success", 3)
    webs[2].status = 0
    for failures in (1, 2):
        assert backends(scene) == {"a", "b", "c"}
        attempts = stat(scene, "attempt")
        scene.clock.advance(INTERVAL)
        reaches(scene, "attempt", attempts + 3)
        reaches(scene, "success", 3 + 2 * failures)
        wait_for(webs[2], failures + 1)
        scene.clock.advance(1)
        reaches(scene, "network_failure", failures)
    assert backends(scene) == {"a", "b"}


def test_if_less_than_half_is_in_order_all_are_used(stage: Stage, webs: list[Web]) -> None:
    webs[0].status = webs[1].status = 500
    scene, _ = serve(stage, webs, HTTP)
    reaches(scene, "failure", 2)
    assert stat(scene, "healthy") == 1
    assert backends(scene) == {"a", "b", "c"}


def test_reloads_keep_it_and_the_end_of_the_policy_ends_it(stage: Stage, webs: list[Web]) -> None:
    webs[0].status = 500
    scene, web = serve(stage, webs, HTTP)
    reaches(scene, "failure", 1)
    scene.apply(EDGE, web, TO_WEB, policy("http: {path: /healthz/other}", "connectTimeout: 2s"))
    assert backends(scene) == {"b", "c"}
    next_round(scene, webs)
    assert webs[0].checks[-1][0] == "GET /healthz/other HTTP/1.1"
    scene.apply(EDGE, web, TO_WEB)
    assert scene.proxy.stats()["health_check"] == {}
    assert backends(scene) == {"a", "b", "c"}
    asked = len(webs[0].checks)
    scene.clock.advance(60)
    scene.settle()
    assert len(webs[0].checks) == asked


def test_who_joins_is_used_once_it_was_found_in_order(stage: Stage, webs: list[Web]) -> None:
    webs[2].status = 500
    upstreams = [stage.backend(one.name, one) for one in webs]
    scene = stage.serve(EDGE, service(upstreams[:2]), TO_WEB, HTTP)
    reaches(scene, "success", 2)
    scene.apply(EDGE, service(upstreams), TO_WEB, HTTP)
    assert backends(scene) == {"a", "b"}
    reaches(scene, "failure", 1)
    webs[2].status = 200
    for _ in range(2):
        next_round(scene, webs)
    assert backends(scene) == {"a", "b", "c"}


def test_a_success_ends_an_ejection(stage: Stage, webs: list[Web]) -> None:
    def failing(peer: Peer) -> None:
        while True:
            line, _, _ = peer.read_request()
            status = 200 if "/healthz" in line else 500
            peer.send(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())

    web = service([stage.backend("bad", failing), stage.backend("a", webs[0])])
    ejections = "outlierDetection: {consecutive5xx: 1, maxEjectionPercent: 50}"
    scene = stage.serve(EDGE, web, TO_WEB, policy("http: {path: /healthz}", ejections))
    reaches(scene, "success", 2)
    scene.statuses(2)

    def ejected() -> int:
        return scene.proxy.stats()["outlier_detection"][CLUSTER]["ejections_active"]

    assert ejected() == 1
    scene.clock.advance(INTERVAL)
    eventually(lambda: ejected() == 0, "it is back")


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """`grpc.health.v1.Health` of one server."""

    def __init__(self) -> None:
        self.status = 1
        self.asked: list[bytes] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(self._check)

    def _check(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked.append(message)
        return bytes([0x08, self.status])


@pytest.fixture
def health() -> Iterator[tuple[Health, str]]:
    handler = Health()
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_calls_of_grpc(stage: Stage, health: tuple[Health, str]) -> None:
    handler, address = health
    grpc_ = "grpc: {serviceName: shop.Cart, authority: cart.example}"
    web = service([address])
    scene = stage.serve(EDGE, web, TO_WEB, policy(grpc_))
    reaches(scene, "success", 1)
    assert handler.asked[0] == bytes([0x0A, 9]) + b"shop.Cart"
    handler.status = 2
    scene.clock.advance(INTERVAL)
    reaches(scene, "failure", 1)
    assert stat(scene, "healthy") == 0
    handler.status = 1
    for count in (2, 3):
        scene.clock.advance(INTERVAL)
        reaches(scene, "success", count)
    assert stat(scene, "healthy") == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http: {path: /}, grpc: {}", "exactly one of the fields in [http grpc] must be set"),
        ("http: {path: healthz}", "does not have the required form"),
        ("http: {path: /, method: CONNECT}", "is not a legal value"),
    ],
)
def test_what_is_not_valid_is_said(stage: Stage, text: str, problem: str) -> None:
    stage.service("web")
    config = stage.config(EDGE, TO_WEB, policy(text))
    assert any(problem in one.message for one in config.findings), config.findings
