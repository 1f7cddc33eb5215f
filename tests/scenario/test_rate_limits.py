"""Where a TrafficPolicy's limit applies, which of several counts, and what shares a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.scenario.stage import EDGE, MESH_NAMESPACE, WAYPOINT, route

if TYPE_CHECKING:
    from tests.scenario.stage import Scene, Stage

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: edge}]
  rules:
  - name: one
    matches: [{path: {value: /one}}]
    backendRefs: [{name: web, port: 80}]
  - name: two
    matches: [{path: {value: /two}}]
    backendRefs: [{name: web, port: 80}]
"""


def limit(tokens: int, target: str, *, name: str = "", created: str = "2024-01-01") -> str:
    """A policy that allows so many requests a minute."""
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: {name or f"limit-{tokens}"}, creationTimestamp: '{created}T00:00:00Z'}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]
  rateLimit: {{local: {{tokenBucket: {{
    maxTokens: {tokens}, tokensPerFill: {tokens}, fillInterval: 60s}}}}}}
"""


ON_GATEWAY = "kind: Gateway, name: edge"
ON_LISTENER = "kind: Gateway, name: edge, sectionName: http"
ON_ROUTE = "kind: HTTPRoute, name: shop"
ON_RULE = "kind: HTTPRoute, name: shop, sectionName: two"


def allowed(scene: Scene, path: str, most: int = 20) -> int:
    """How many requests pass before the first is limited."""
    for count in range(most):
        answer = scene.get(path)
        if answer.status == 429:
            assert answer.body == b"local_rate_limited"
            return count
        assert answer.backend == "web"
    return most


@pytest.mark.parametrize(
    ("targets", "one", "two"),
    [
        ([], 20, 20),
        ([ON_LISTENER, ON_GATEWAY], 1, 0),
        ([ON_ROUTE, ON_LISTENER, ON_GATEWAY], 1, 1),
        ([ON_RULE, ON_ROUTE, ON_LISTENER, ON_GATEWAY], 2, 1),
        ([ON_RULE], 20, 1),
        ([ON_GATEWAY], 1, 0),
    ],
    ids=["none", "listener", "route", "rule", "rule alone", "gateway"],
)
def test_the_most_specific_policy_counts(
    stage: Stage, targets: list[str], one: int, two: int
) -> None:
    """The first target allows one request, the next two, ...; a Gateway's bucket is shared."""
    stage.service("web")
    policies = [limit(number, target) for number, target in enumerate(targets, 1)]
    scene = stage.serve(EDGE, ROUTE, *policies)
    assert [allowed(scene, "/one"), allowed(scene, "/two")] == [one, two]


def test_a_limit_of_a_filter_counts_before_that_of_the_route(stage: Stage) -> None:
    stage.service("web")
    extension = """- name: one
    filters:
    - type: ExtensionRef
      extensionRef: {group: gateway.kgateway.dev, kind: TrafficPolicy, name: limit-2}
"""
    referring = ROUTE.replace("- name: one\n", extension)
    untargeted = limit(2, ON_ROUTE).replace(
        f"targetRefs: [{{group: gateway.networking.k8s.io, {ON_ROUTE}}}]", "targetRefs: []"
    )
    scene = stage.serve(EDGE, referring, untargeted, limit(4, ON_ROUTE))
    assert [allowed(scene, "/one"), allowed(scene, "/two")] == [2, 4]


def test_of_two_policies_on_one_target_the_older_counts_and_the_other_is_told(
    stage: Stage,
) -> None:
    stage.service("web")
    manifests = (
        EDGE,
        ROUTE,
        limit(5, ON_ROUTE, name="a", created="2025-01-01"),
        limit(2, ON_ROUTE, name="b", created="2024-01-01"),
    )
    scene = stage.serve(*manifests)
    assert allowed(scene, "/one") == 2
    [finding] = [one for one in stage.config(*manifests).findings if one.code == "KGW411"]
    assert finding.resource == "TrafficPolicy default/a"


def test_a_target_that_is_missing_is_told_on_the_policy(stage: Stage) -> None:
    stage.service("web")
    manifests = EDGE, ROUTE, limit(1, "kind: HTTPRoute, name: shp")
    config = stage.config(*manifests)
    [error] = config.errors
    assert (error.code, error.resource) == ("KGW302", "TrafficPolicy default/limit-1")
    assert "HTTPRoute default/shp not found" in error.message
    assert "did you mean `shop`" in str(error.hint)
    [status] = [one for key, one in config.statuses.items() if key.kind == "TrafficPolicy"]
    reasons = {one.type: one.reason for _, one in status.all_conditions()}
    assert reasons["Accepted"] == "TargetNotFound"
    assert allowed(stage.run(config), "/one") == 20


def test_a_waypoints_policy_holds_for_services_without_a_route(stage: Stage) -> None:
    stage.service("web", "10.0.0.1")
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE, limit(2, "kind: Gateway, name: way"))
    assert [scene.call("10.0.0.1").status for _ in range(3)] == [200, 200, 429]


def test_a_policy_that_cannot_be_used_closes_its_target_rather_than_leaving_it_open(
    stage: Stage,
) -> None:
    stage.service("web")
    unsupported = limit(3, ON_RULE) + "  basicAuth: {users: ['a:b']}\n"
    scene = stage.serve(EDGE, ROUTE, unsupported, strict=False)
    refused = scene.get("/two")
    assert refused.status == 500
    assert refused.body.startswith(b"invalid route configuration detected")
    assert scene.get("/one").backend == "web", "the other rule lives"


def test_a_bucket_refills_at_its_own_pace(stage: Stage) -> None:
    stage.service("web")
    slow = limit(4, ON_ROUTE).replace("tokensPerFill: 4", "tokensPerFill: 1")
    scene = stage.serve(EDGE, ROUTE, slow)
    assert allowed(scene, "/one") == 4
    scene.clock.advance(59)
    assert scene.get("/one").status == 429
    scene.clock.advance(1)
    assert allowed(scene, "/one") == 1
    scene.clock.advance(120)
    assert allowed(scene, "/one") == 2


# === Buckets and new configurations ===


def test_an_unrelated_edit_leaves_the_tokens_alone(stage: Stage) -> None:
    stage.service("web")
    stage.service("new")
    scene = stage.serve(EDGE, ROUTE, limit(3, ON_ROUTE))
    assert scene.statuses(2, "/one") == [200, 200]
    more = route("- backendRefs: [{name: new, port: 80}]", name="other", more="hostnames: [x.y]")
    scene.apply(EDGE, ROUTE, limit(3, ON_ROUTE), more)
    assert scene.get(host="x.y").backend == "new", "the edit is live"
    assert scene.statuses(2, "/one") == [200, 429]


def test_a_changed_limit_starts_full(stage: Stage) -> None:
    stage.service("web")
    scene = stage.serve(EDGE, ROUTE, limit(3, ON_ROUTE, name="l"))
    assert allowed(scene, "/one") == 3
    scene.apply(EDGE, ROUTE, limit(4, ON_ROUTE, name="l"))
    assert allowed(scene, "/one") == 4


def test_all_workers_share_a_bucket(stage: Stage) -> None:
    stage.service("web")
    stage.manifests += [EDGE, ROUTE, limit(5, ON_ROUTE)]
    scene = stage.serve(workers=4)
    assert sorted(scene.statuses(40, "/one")) == [200] * 5 + [429] * 35
