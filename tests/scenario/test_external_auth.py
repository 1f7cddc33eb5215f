"""``ExternalAuth``: services that decide about the requests of a rule (GEP-1494)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer, always, ok, post
from tests.rpc.authorizer import Authorizer, allowed, denied, field
from tests.rpc.authorizer import serving as authorizing
from tests.scenario.stage import EDGE, Answer, named, route
from tests.scenario.tls import behind
from tests.translate.certificates import config_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.scenario.stage import Stage

BACKEND = "backendRefs: [{name: web, port: 80}]"


def guarded(auth: str, before: str = "") -> str:
    """A route whose requests a service decides about."""
    return route(f"- filters: [{before}{{type: ExternalAuth, externalAuth: {auth}}}]\n  {BACKEND}")


def over_http(more: str = "", http: str = "") -> str:
    ref = "backendRef: {name: auth, port: 80}"
    return guarded(f"{{protocol: HTTP, {ref}, http: {{{http}}}{more}}}")


def deciding(seen: list[tuple[str, dict[str, str], bytes]]) -> Callable[[Peer], None]:
    """A service that lets pass who says ``authorization: let me in``."""

    def script(peer: Peer) -> None:
        while True:
            line, headers, body = peer.read_request()
            seen.append((line, dict(headers), body))
            if dict(headers).get("authorization") == "let me in":
                peer.send(ok(b"", "x-user: me", "x-group: all"))
            else:
                peer.send(ok(b"who?", "x-why: so", status="401 Unauthorized"))

    return script


def test_a_service_decides_about_the_requests_of_a_rule(stage: Stage) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []
    stage.service("web")
    stage.service("auth", script=deciding(seen))
    scene = stage.serve(EDGE, over_http())
    refused = scene.get("/a?b=c", "x-a: 1")
    assert (refused.status, refused.body, refused.sent("x-why")) == (401, b"who?", ["so"])
    [(line, headers, body)] = seen
    assert line == "GET /a?b=c HTTP/1.1"
    assert headers == {"host": "example.org", "content-length": "0"}
    assert body == b""
    passed = scene.get("/a?b=c", "authorization: let me in", "x-user: admin")
    assert passed.backend == "web"
    assert passed.target == "/a?b=c"
    assert passed.received("x-user") == ["me"]
    assert passed.received("x-group") == ["all"]


def test_what_the_service_is_told_and_what_of_it_is_taken(stage: Stage) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []
    stage.service("web")
    stage.service("auth", script=deciding(seen))
    http = "path: /check, allowedHeaders: [X-A], allowedResponseHeaders: [x-user]"
    scene = stage.serve(EDGE, over_http(http=http))
    passed = scene.get("/a", "authorization: let me in", "x-a: 1", "x-b: 2")
    assert passed.received("x-user") == ["me"]
    assert passed.received("x-group") == []
    [(line, headers, _)] = seen
    assert line == "GET /check/a HTTP/1.1"
    assert headers.keys() == {"host", "authorization", "x-a", "content-length"}


def test_bodies_are_told_up_to_a_size(stage: Stage) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []
    stage.service("web")
    stage.service("auth", script=deciding(seen))
    scene = stage.serve(EDGE, over_http(", forwardBody: {maxSize: 4}"))

    def send(body: bytes) -> Answer:
        peer = scene.connect()
        peer.send(post(body, "authorization: let me in"))
        return Answer(peer.read_response())

    assert send(b"four").backend == "web"
    assert seen[0][2] == b"four"
    assert send(b"fives").status == 413
    assert len(seen) == 1


def test_a_size_of_zero_tells_no_body(stage: Stage) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []
    stage.service("web")
    stage.service("auth", script=deciding(seen))
    scene = stage.serve(EDGE, over_http(", forwardBody: {maxSize: 0}"))
    peer = scene.connect()
    peer.send(post(b"body", "authorization: let me in"))
    assert Answer(peer.read_response()).backend == "web"
    assert (seen[0][1]["content-length"], seen[0][2]) == ("0", b"")


def test_modifiers_are_applied_in_their_order(stage: Stage) -> None:
    """What stands in front of the filter is what the service is told; what follows is not."""
    seen: list[tuple[str, dict[str, str], bytes]] = []
    stage.service("web")
    stage.service("auth", script=deciding(seen))
    before = (
        "{type: RequestHeaderModifier, "
        "requestHeaderModifier: {set: [{name: authorization, value: let me in}]}}, "
    )
    auth = "{protocol: HTTP, backendRef: {name: auth, port: 80}, http: {}}"
    scene = stage.serve(EDGE, guarded(auth, before))
    assert scene.get().backend == "web"
    after = f"- filters: [{{type: ExternalAuth, externalAuth: {auth}}}, {before}]\n  {BACKEND}"
    scene.apply(EDGE, route(after))
    assert scene.get().status == 401


def test_without_the_service_nothing_passes(stage: Stage) -> None:
    stage.service("web")
    stage.service("auth", ready=False)
    scene = stage.serve(EDGE, over_http())
    assert scene.get().status == 403
    scene.reaches("ext_authz_error", 1)


@pytest.mark.parametrize(
    "auth",
    [
        "{protocol: HTTP, backendRef: {name: nobody, port: 80}, http: {}}",
        "{protocol: GRPC, backendRef: {name: auth, port: 81}, grpc: {}}",
        "{protocol: HTTP, backendRef: {group: a.example, kind: A, name: auth}, http: {}}",
        "{protocol: HTTP, backendRef: {name: auth, namespace: other, port: 80}, http: {}}",
    ],
    ids=["name", "port", "kind", "namespace"],
)
def test_a_service_that_there_is_not_refuses_all(stage: Stage, auth: str) -> None:
    web = stage.service("web")
    stage.service("auth")
    stage.service("auth", "10.96.2.1", namespace="other")
    scene = stage.serve(EDGE, guarded(auth), strict=False)
    assert scene.get().status == 500
    assert web.connections == 0


def test_a_service_of_another_namespace_needs_a_grant(stage: Stage) -> None:
    stage.service("web")
    stage.service("auth", namespace="other", script=always(ok()))
    auth = "{protocol: HTTP, backendRef: {name: auth, namespace: other, port: 80}, http: {}}"
    grant = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: "", kind: Service, name: auth}]
"""
    scene = stage.serve(EDGE, guarded(auth), grant)
    assert scene.get().backend == "web"
    scene.apply(EDGE, guarded(auth), strict=False)
    assert scene.get().status == 500


def test_a_service_is_asked_over_tls(stage: Stage) -> None:
    stage.service("web")
    stage.service("auth", script=behind(always(ok(b"", "x-user: me")), "auth.example"))
    policy = """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: auth}
spec:
  targetRefs: [{group: "", kind: Service, name: auth}]
  validation:
    hostname: auth.example
    caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]
"""
    scene = stage.serve(EDGE, over_http(), policy, config_map("ca"))
    # The clock stands still, so the handshake may take its time.
    assert scene.get().received("x-user") == ["me"]


def called(stage: Stage, address: str, grpc: str = "", more: str = "") -> str:
    """A route whose requests a service decides about that is called over gRPC."""
    stage.manifests.append(
        f"""
apiVersion: v1
kind: Service
metadata: {{name: auth}}
spec: {{clusterIP: 10.96.3.1, ports: [{{name: whatever, port: 9000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: auth-1, labels: {{kubernetes.io/service-name: auth}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: whatever, port: {address.rpartition(":")[2]}}}]
"""
    )
    ref = "backendRef: {name: auth, port: 9000}"
    return guarded(f"{{protocol: GRPC, {ref}, grpc: {{{grpc}}}{more}}}")


def test_a_service_is_called_over_grpc(stage: Stage) -> None:
    """Whatever its port declares."""
    stage.service("web")
    authorizer = Authorizer(allowed(headers=[field("x-user", "me")]))
    with authorizing(authorizer) as address:
        scene = stage.serve(EDGE, called(stage, address))
        passed = scene.get("/a", "x-a: 1")
        assert (passed.backend, passed.received("x-user")) == ("web", ["me"])
        check = authorizer.question()
        assert (check.text(2), check.text(4), check.text(5)) == ("GET", "/a", "example.org")
        assert check.headers["x-a"] == "1"
        authorizer.answer = denied(401, "who?", [field("x-why", "so")])
        refused = scene.get()
        assert (refused.status, refused.body, refused.sent("x-why")) == (401, b"who?", ["so"])


def test_a_service_that_is_called_is_told_some_fields(stage: Stage) -> None:
    stage.service("web")
    authorizer = Authorizer(allowed())
    with authorizing(authorizer) as address:
        more = ", forwardBody: {maxSize: 10}"
        scene = stage.serve(EDGE, called(stage, address, "allowedHeaders: [x-a]", more))
        peer = scene.connect()
        peer.send(post(b"body", "x-a: 1", "x-b: 2"))
        assert Answer(peer.read_response()).backend == "web"
        check = authorizer.question()
        assert check.headers == {"x-a": "1", "x-envoy-auth-partial-body": "false"}
        assert check.text(11) == "body"


def test_a_filter_of_a_backend_is_not_supported(stage: Stage) -> None:
    """It is not ignored: the backend's share is refused."""
    web = stage.service("web", script=named("web"))
    auth = "{protocol: HTTP, backendRef: {name: web, port: 80}, http: {}}"
    ref = f"{{name: web, port: 80, filters: [{{type: ExternalAuth, externalAuth: {auth}}}]}}"
    scene = stage.serve(EDGE, route(f"- backendRefs: [{ref}]"), strict=False)
    assert scene.get().status == 500
    assert web.connections == 0
