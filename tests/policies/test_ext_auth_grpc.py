"""TrafficPolicy `extAuth` with a service that is called over gRPC: a real grpcio server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.engine.harness import post
from tests.policies.manifests import extension, listener_policy, policy
from tests.rpc.authorizer import Authorizer, Check, allowed, denied, encode, field, inside
from tests.rpc.authorizer import serving as authorizing
from tests.scenario.stage import EDGE, Answer, Stage, log_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.fields(
    "GatewayExtension.spec.extAuth.grpcService",
    "GatewayExtension.spec.extAuth.withRequestBody.packAsBytes",
    "TrafficPolicy.spec.extAuth.contextExtensions",
)

WEB = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  rules:
  - name: api
    matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: web, port: 80}]
  - name: rest
    backendRefs: [{name: web, port: 80}]
"""

USE = {"extAuth": {"extensionRef": {"name": "auth"}}}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage with a backend."""
    with Stage(tmp_path / "manifests") as stage:
        stage.service("web")
        yield stage


def service(name: str, address: str) -> str:
    """A Service whose endpoint is a server of this process."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: 10.96.3.1, ports: [{{name: whatever, port: 9000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: whatever, port: {address.rpartition(":")[2]}}}]
"""


def provider(
    name: str = "auth",
    *,
    grpc: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    **more: Any,
) -> str:
    """A GatewayExtension whose service has the same name."""
    called = {"backendRef": {"name": name, "port": 9000}, **(grpc or {})}
    made = extension(name, {"extAuth": {"grpcService": called, **more}})
    made["metadata"]["annotations"] = annotations or {}
    return json.dumps(made)


def using(spec: dict[str, Any] = USE, name: str = "policy", **more: Any) -> str:
    """A TrafficPolicy."""
    return json.dumps(policy(spec, name, **more))


def test_a_service_is_told_the_request_and_decides(stage: Stage) -> None:
    authorizer = Authorizer(
        allowed(
            headers=[field("x-user", "me")],
            remove=["x-secret"],
            response=[field("x-out", "1")],
        )
    )
    with authorizing(authorizer) as address:
        scene = stage.serve(EDGE, WEB, service("auth", address), provider(), using())
        passed = scene.get("/a?b=c", "x-a: 1", "x-secret: 2", "x-user: root")
        assert passed.backend == "web"
        assert passed.received("x-user") == ["me"]
        assert passed.received("x-secret") == []
        assert passed.sent("x-out") == ["1"]
        check = authorizer.question()
        assert (check.text(2), check.text(4), check.text(5)) == ("GET", "/a?b=c", "example.org")
        assert check.headers["x-a"] == "1"
        authorizer.answer = denied(401, "who?", [field("x-why", "so")])
        refused = scene.get("/")
        assert (refused.status, refused.body, refused.sent("x-why")) == (401, b"who?", ["so"])


def test_what_it_is_told_is_configured(stage: Stage) -> None:
    called = {"authority": "auth.internal", "requestTimeout": "1500ms"}
    own = {**USE["extAuth"], "contextExtensions": {"tier": "gold", "a": "b"}}
    times = []

    def answer(_: Check, context: grpc.ServicerContext) -> bytes:
        times.append(context.time_remaining())
        return allowed()

    with authorizing(authorizer := Authorizer(answer)) as address:
        scene = stage.serve(
            EDGE,
            WEB,
            service("auth", address),
            provider(grpc=called, headersToForward=["X-A"]),
            using({"extAuth": own}),
        )
        assert scene.get("/", "x-a: 1", "x-b: 2").status == 200
        check = authorizer.question()
        assert check.headers == {"x-a": "1"}
        assert check.map(check.attributes, 10) == {"tier": "gold", "a": "b"}
        scene.apply(EDGE, WEB, service("auth", address), provider(), using())
        assert scene.get("/").status == 200
    # What the service knows of it: what it is told, and Envoy's 200 ms where nothing is said.
    assert 0.2 < times[0] <= 1.5
    assert times[1] <= 0.2


def test_bodies_are_text_or_bytes(stage: Stage) -> None:
    text = {**USE["extAuth"], "withRequestBody": {"maxRequestBytes": 10}}
    packed = {"maxRequestBytes": 10, "packAsBytes": True}
    with authorizing(authorizer := Authorizer(allowed())) as address:
        scene = stage.serve(
            EDGE,
            WEB,
            service("auth", address),
            provider(withRequestBody=packed),
            using(),
            using({"extAuth": text}, "api", section="api"),
        )

        def send(path: str, body: bytes) -> Answer:
            peer = scene.connect()
            peer.send(post(body, path=path))
            return Answer(peer.read_response())

        assert send("/", b"hello").backend == "web"
        check = authorizer.question()
        assert (check.text(11), inside(check.http, 12)) == ("", b"hello")
        assert send("/api", b"hello").backend == "web"
        check = authorizer.question()
        assert (check.text(11), inside(check.http, 12)) == ("hello", b"")
        assert send("/", b"longer than ten").status == 413


def test_a_call_that_fails_is_made_once_more(stage: Stage) -> None:
    calls = 0

    def answer(_: Check, context: grpc.ServicerContext) -> bytes:
        nonlocal calls
        calls += 1
        if calls < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return allowed()

    backoff = {"baseInterval": "1ms", "maxInterval": "1ms"}
    again = {"retry": {"attempts": 2, "backoff": backoff}, "requestTimeout": "60s"}
    with authorizing(Authorizer(answer)) as address:
        config = (EDGE, WEB, service("auth", address))
        scene = stage.serve(*config, provider(grpc=again), using())
        peer = scene.connect()
        peer.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        while not peer.is_readable():
            scene.clock.advance(0.001)
        assert Answer(peer.read_response()).backend == "web"
        assert calls == 3
        calls = 0
        scene.apply(*config, provider(), using())
        assert scene.get("/").status == 403
        assert calls == 1


def test_what_it_notes_is_in_access_logs_also_of_refusals(stage: Stage, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    shape = {"user": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:user)%"}
    sink = {"accessLog": [{"fileSink": {"path": str(log), "jsonFormat": shape}}]}
    logs = json.dumps(listener_policy({"httpSettings": sink}))
    noted = {1: [{1: "user", 2: {3: "me"}}]}
    with authorizing(authorizer := Authorizer(encode({1: {1: 0}, 4: noted}))) as address:
        scene = stage.serve(EDGE, WEB, logs, service("auth", address), provider(), using())
        assert scene.get("/").status == 200
        authorizer.answer = encode({1: {1: 7}, 2: {1: {1: 401}}, 4: noted})
        assert scene.get("/").status == 401
    assert [json.loads(line) for line in log_lines(log, 2)] == [{"user": "me"}] * 2


def test_decisions_are_remembered_with_all_that_they_do(stage: Stage) -> None:
    cached = {"kgw.dev/ext-auth-cache": "ttl=10s; key=header:authorization"}
    answer = allowed(headers=[field("x-user", "me")], response=[field("x-out", "1")])
    with authorizing(authorizer := Authorizer(answer)) as address:
        scene = stage.serve(
            EDGE, WEB, service("auth", address), provider(annotations=cached), using()
        )
        for _ in range(3):
            passed = scene.get("/", "authorization: a")
            assert (passed.received("x-user"), passed.sent("x-out")) == (["me"], ["1"])
        assert authorizer.asked.qsize() == 1
        # What is not let pass is asked about each time, unless that is to be remembered too.
        authorizer.answer = denied(401)
        for _ in range(3):
            assert scene.get("/", "authorization: b").status == 401
        assert authorizer.asked.qsize() == 4
        scene.clock.advance(10.1)
        assert scene.get("/", "authorization: a").status == 401
