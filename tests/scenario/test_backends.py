"""Where a rule's requests go: shares, references across namespaces, faults of single backends."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.scenario.stage import EDGE, MESH_NAMESPACE, WAYPOINT, route

if TYPE_CHECKING:
    from tests.scenario.stage import Scene, Stage

GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: "", kind: Service}]
"""

ACROSS = "- backendRefs: [{name: web, namespace: other, port: 80}]"


def shares(scene: Scene, count: int) -> Counter[str | int]:
    return Counter(scene.get().outcome for _ in range(count))


def condition(stage: Stage, *manifests: str, kind: str = "ResolvedRefs") -> tuple[str, str]:
    """Status and reason of a condition of the one HTTPRoute."""
    statuses = stage.config(*manifests).statuses
    [status] = [one for key, one in statuses.items() if key.kind == "HTTPRoute"]
    [found] = [one for _, one in status.all_conditions() if one.type == kind]
    return found.status, found.reason


def test_weights_are_shares(stage: Stage) -> None:
    """With the odds given, a share is out of these bounds once in more than a million runs."""
    for name in ("heavy", "light", "never"):
        stage.service(name)
    rules = """
    - backendRefs:
      - {name: heavy, port: 80, weight: 70}
      - {name: light, port: 80, weight: 30}
      - {name: never, port: 80, weight: 0}
    """
    found = shares(stage.serve(EDGE, route(rules)), 400)
    assert set(found) == {"heavy", "light"}
    assert 70 <= found["light"] <= 170


def test_without_weights_backends_share_equally(stage: Stage) -> None:
    for name in ("one", "two"):
        stage.service(name)
    rules = "- backendRefs: [{name: one, port: 80}, {name: two, port: 80}]"
    found = shares(stage.serve(EDGE, route(rules)), 400)
    assert set(found) == {"one", "two"}
    assert 145 <= found["one"] <= 255


@pytest.mark.parametrize(
    "rules",
    [
        "- backendRefs: [{name: web, port: 80, weight: 0}]",
        "- matches: [{path: {value: /}}]",
        "- backendRefs: []",
    ],
    ids=["all weights zero", "no backends", "an empty list"],
)
def test_without_a_backend_the_answer_is_500(stage: Stage, rules: str) -> None:
    stage.service("web")
    assert stage.serve(EDGE, route(rules), strict=False).get().status == 500


def test_endpoints_take_turns(stage: Stage) -> None:
    stage.service("web")
    other = stage.backend("twin")
    twin = f"""
    apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata: {{name: web-2, labels: {{kubernetes.io/service-name: web}}}}
    addressType: IPv4
    endpoints: [{{addresses: [127.0.0.1]}}]
    ports: [{{name: http-80, port: {other.address.rpartition(":")[2]}}}]
    """
    scene = stage.serve(EDGE, route("- backendRefs: [{name: web, port: 80}]"), twin)
    assert shares(scene, 10) == {"web": 5, "twin": 5}


# === Other namespaces ===


def test_a_backend_of_another_namespace_needs_a_grant(stage: Stage) -> None:
    stage.service("web", namespace="other")
    scene = stage.serve(EDGE, route(ACROSS), strict=False)
    assert scene.get().status == 500
    assert condition(stage, EDGE, route(ACROSS)) == ("False", "RefNotPermitted")

    scene.apply(EDGE, route(ACROSS), GRANT)
    assert scene.get().backend == "web"
    assert condition(stage, EDGE, route(ACROSS), GRANT) == ("True", "ResolvedRefs")

    scene.apply(EDGE, route(ACROSS), strict=False)
    assert scene.get().status == 500, "a grant that is taken away counts at once"


@pytest.mark.parametrize(
    "changed",
    [
        GRANT.replace("namespace: other", "namespace: default"),
        GRANT.replace("namespace: default}]", "namespace: stranger}]"),
        GRANT.replace("kind: HTTPRoute", "kind: GRPCRoute"),
        GRANT.replace("kind: Service}", "kind: Service, name: elsewhere}"),
        GRANT.replace("kind: Service}", "kind: Secret}"),
    ],
    ids=["granted elsewhere", "to another", "to another kind", "another service", "a secret"],
)
def test_a_grant_of_something_else_does_not_help(stage: Stage, changed: str) -> None:
    assert changed != GRANT
    stage.service("web", namespace="other")
    scene = stage.serve(EDGE, route(ACROSS), changed, strict=False)
    assert scene.get().status == 500


def test_a_backend_that_is_not_granted_keeps_its_share(stage: Stage) -> None:
    stage.service("web", namespace="other")
    stage.service("own")
    rules = "- backendRefs: [{name: own, port: 80}, {name: web, namespace: other, port: 80}]"
    scene = stage.serve(EDGE, route(rules), strict=False)
    found = shares(scene, 400)
    assert set(found) == {"own", 500}
    assert 145 <= found[500] <= 255


def test_routes_of_a_service_need_no_grant(stage: Stage) -> None:
    stage.service("front", "10.0.0.1")
    stage.service("web", namespace="other")
    parent = '{group: "", kind: Service, name: front}'
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE, route(ACROSS, parent=parent))
    assert scene.call("10.0.0.1").backend == "web"


# === Faults ===


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("{name: nobody, port: 80}", "BackendNotFound"),
        ("{name: web, port: 81}", "BackendNotFound"),
        ("{name: web, port: 80, kind: Pod}", "InvalidKind"),
    ],
)
def test_a_backend_that_does_not_resolve_answers_500_and_says_why(
    stage: Stage, backend: str, reason: str
) -> None:
    stage.service("web")
    rules = f"""
    - matches: [{{path: {{value: /broken}}}}]
      backendRefs: [{backend}]
    - backendRefs: [{{name: web, port: 80}}]
    """
    scene = stage.serve(EDGE, route(rules), strict=False)
    assert scene.get("/broken").status == 500
    assert scene.get("/").backend == "web", "the other rule lives"
    assert condition(stage, EDGE, route(rules)) == ("False", reason)
    assert condition(stage, EDGE, route(rules), kind="Accepted") == ("True", "Accepted")


def test_a_backend_that_nobody_runs_is_unavailable(stage: Stage) -> None:
    upstream = stage.service("web")
    scene = stage.serve(EDGE, route("- backendRefs: [{name: web, port: 80}]"))
    assert scene.get().backend == "web"
    upstream.close()
    answer = scene.get()
    assert answer.status == 503
    assert answer.body.startswith(b"upstream connect error or disconnect/reset before headers.")
