"""Which of several policies counts: on one target, and on objects above one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, extension, policy

import kgw
from kgw._native import manifest
from kgw.translate import Options, PolicyOptions

if TYPE_CHECKING:
    from kgw.testing import Gateway, GatewayFactory

pytestmark = pytest.mark.fields(
    "TrafficPolicy.spec.rateLimit",
    "TrafficPolicy.spec.targetSelectors",
    without=(
        "TrafficPolicy.spec.rateLimit.global.descriptors.entries.generic",
        "TrafficPolicy.spec.rateLimit.global.descriptors.entries.header",
        "TrafficPolicy.spec.rateLimit.local.percentEnabled",
        "TrafficPolicy.spec.rateLimit.local.percentEnforced",
        "TrafficPolicy.spec.rateLimit.local.tokenBucket.tokensPerFill",
    ),
)

PRIORITY = "kgateway.dev/inherited-policy-priority"
WEIGHT = "kgateway.dev/policy-weight"


def base(strategy: str | None = None) -> str:
    """The Gateway, which hands down its policies in some way."""
    if strategy is None:
        return BASE
    return BASE.replace(
        "{name: edge}\n", f"{{name: edge, annotations: {{{PRIORITY}: {strategy}}}}}\n", 1
    )


def sets(name: str, value: str) -> dict[str, Any]:
    """A header modifier that says who has set it."""
    return {"headerModifiers": {"response": {"set": [{"name": name, "value": value}]}}}


def shapes(*values: str) -> dict[str, Any]:
    """A transformation that appends values to a field of requests."""
    return {
        "transformation": {"request": {"add": [{"name": "x-by", "value": one} for one in values]}}
    }


def by(gateway: Gateway, url: str = "/") -> list[str]:
    """The values of the field that the backend got, in their order."""
    received = gateway.get(url).expect(status=200).received
    assert received is not None
    return [value for name, value in received.headers.pairs if name.lower() == "x-by"]


def attached(
    config: kgw.Config, name: str, kind: str = "TrafficPolicy"
) -> dict[str, tuple[str, str]]:
    """The condition `Attached` of a policy, by what the entry is about."""
    statuses = {str(key): one for key, one in config.statuses.items()}
    found = {}
    for entry in statuses[f"{kind} default/{name}"].ancestors:
        (one,) = (one for one in entry.conditions if one.type == "Attached")
        where = "/".join(
            str(entry.ref[part]) for part in ("kind", "name", "sectionName") if part in entry.ref
        )
        found[where] = (one.reason, one.message)
    return found


MERGED = ("Merged", "Merged with other policies in target(s) and attached")
ALONE = ("Attached", "Attached to all targets")
LOST = ("Overridden", "Overridden due to conflict with higher priority policy in target(s)")


# === On one target ===


def test_on_one_target_each_field_is_the_first_policys_that_sets_it(
    kgw_proxy: GatewayFactory,
) -> None:
    heavy = policy(sets("x-by", "heavy"), "z", annotations={WEIGHT: "1"})
    light = policy({**sets("x-by", "light"), "timeouts": {"request": "2s"}}, "a")
    gateway = kgw_proxy([BASE, heavy, light])
    assert gateway.get("/").headers["x-by"] == "heavy"
    gateway.backend("api").hangs()
    gateway.get("/").expect(status=504)
    assert attached(gateway.config, "a") == {"Gateway/edge": MERGED}
    assert attached(gateway.config, "z") == {"Gateway/edge": MERGED}


def test_the_most_specific_reference_of_a_route_counts(kgw_proxy: GatewayFactory) -> None:
    rule = policy(sets("x-by", "rule"), "rule", section="api")
    gateway = kgw_proxy([BASE, rule, policy(sets("x-by", "route"), "route")])
    assert gateway.get("/api").headers["x-by"] == "rule"
    assert gateway.get("/").headers["x-by"] == "route"


def test_fields_of_one_target_merge_deeply_if_the_operator_says_so(
    kgw_proxy: GatewayFactory,
) -> None:
    first = policy(shapes("first"), "first", annotations={WEIGHT: "1"})
    manifests: list[str | dict[str, Any]] = [BASE, first, policy(shapes("second"), "second")]
    assert by(kgw_proxy(manifests)) == ["first"]
    options = PolicyOptions.of(merge='{"trafficPolicy": {"transformation": "DeepMerge"}}')
    deep = kgw_proxy(manifests, policies=options)
    assert by(deep) == ["first", "second"]
    assert attached(deep.config, "second") == {"Gateway/edge": MERGED}


def test_a_field_that_no_policy_may_merge_deeply_stays_the_firsts(
    kgw_proxy: GatewayFactory,
) -> None:
    options = PolicyOptions.of(merge='{"trafficPolicy": {"extAuth": "DeepMerge"}}')
    first = policy(sets("x-by", "first"), "first", annotations={WEIGHT: "1"})
    second = policy(sets("x-by", "second"), "second")
    gateway = kgw_proxy([BASE, first, second], policies=options)
    assert gateway.get("/").headers["x-by"] == "first"
    assert attached(gateway.config, "second") == {"Gateway/edge": LOST}


# === What a Gateway hands down ===


@pytest.mark.parametrize(
    ("strategy", "header", "added"),
    [
        (None, "route", ["route"]),
        ("ShallowMergePreferChild", "route", ["route"]),
        ("ShallowMergePreferParent", "gateway", ["gateway"]),
        ("DeepMergePreferChild", "route", ["route", "gateway"]),
        ("DeepMergePreferParent", "gateway", ["gateway", "route"]),
    ],
)
def test_a_gateway_says_how_its_policies_merge_with_those_of_routes(
    strategy: str | None, header: str, added: list[str], kgw_proxy: GatewayFactory
) -> None:
    wide = {**sets("x-by", "gateway"), **shapes("gateway"), "buffer": {"maxRequestSize": 10}}
    above = policy(wide, "above", kind="Gateway", target="edge")
    below = policy({**sets("x-by", "route"), **shapes("route")}, "below")
    gateway = kgw_proxy([base(strategy), above, below])
    assert gateway.get("/").headers["x-by"] == header
    assert by(gateway) == added
    # What the route says nothing about is the Gateway's, whatever goes first.
    gateway.post("/", body=b"01234567890").expect(status=413)


def test_listeners_and_rules_are_parts_of_their_gateway_and_route(
    kgw_proxy: GatewayFactory,
) -> None:
    manifests: list[str | dict[str, Any]] = [
        base("DeepMergePreferParent"),
        policy(shapes("gateway"), "a", kind="Gateway", target="edge"),
        policy(shapes("listener"), "b", kind="Gateway", target="edge", section="http"),
        policy(shapes("route"), "c"),
        policy(shapes("rule"), "d", section="rest"),
    ]
    assert by(kgw_proxy(manifests)) == ["listener", "rule"]


LISTENER_SET = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, annotations: {{{PRIORITY}: DeepMergePreferParent}}}}
spec:
  gatewayClassName: kgateway
  allowedListeners: {{namespaces: {{from: Same}}}}
  listeners: [{{name: none, port: 8081, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: team, annotations: {{{PRIORITY}: DeepMergePreferChild}}}}
spec:
  parentRef: {{name: edge}}
  listeners: [{{name: http, port: 8080, protocol: HTTP}}]
---
""" + BASE[BASE.index("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute") :].replace(
    "parentRefs: [{name: edge}]", "parentRefs: [{kind: ListenerSet, name: team}]"
)


def test_a_listener_set_is_between_its_gateway_and_routes(kgw_proxy: GatewayFactory) -> None:
    manifests: list[str | dict[str, Any]] = [
        LISTENER_SET,
        policy(shapes("gateway"), "a", kind="Gateway", target="edge"),
        policy(shapes("set"), "b", kind="ListenerSet", target="team"),
        policy(shapes("route"), "c"),
    ]
    gateway = kgw_proxy(manifests)
    assert by(gateway, "http://example:8080/") == ["gateway", "route", "set"]
    assert attached(gateway.config, "b") == {"ListenerSet/team": ALONE}
    assert list(attached(gateway.config, "c")) == ["ListenerSet/team"]


def test_a_way_to_merge_that_there_is_not_is_the_usual_one_and_reported(
    kgw_proxy: GatewayFactory,
) -> None:
    above = policy(sets("x-by", "gateway"), "above", kind="Gateway", target="edge")
    gateway = kgw_proxy([base("PreferParents"), above, policy(sets("x-by", "route"), "below")])
    assert gateway.get("/").headers["x-by"] == "route"
    (found,) = gateway.config.findings
    assert (found.code, found.resource) == ("KGW432", "Gateway default/edge")
    assert found.path[-1] == PRIORITY
    assert "ShallowMergePreferChild" in (found.legal or "")


def test_what_is_tried_out_is_merged_apart(kgw_proxy: GatewayFactory) -> None:
    limit = {"rateLimit": {"local": {"tokenBucket": {"maxTokens": 1, "fillInterval": "60s"}}}}
    above = policy(
        limit, "above", kind="Gateway", target="edge", annotations={"kgw.dev/shadow": "true"}
    )
    wide = {"rateLimit": {"local": {"tokenBucket": {"maxTokens": 2, "fillInterval": "60s"}}}}
    gateway = kgw_proxy([base("ShallowMergePreferParent"), above, policy(wide, "below")])
    assert [gateway.get("/").status for _ in range(3)] == [200, 200, 429]
    assert gateway.stats()["shadow_denied"] == 1
    assert attached(gateway.config, "below") == {"Gateway/edge": ALONE}


# === Statuses ===


def test_a_route_that_the_gateway_leaves_nothing_is_overridden() -> None:
    above = policy(sets("x-by", "gateway"), "above", kind="Gateway", target="edge")
    below = policy(sets("x-by", "route"), "below")
    config = kgw.Config.from_objects([*_objects(base("ShallowMergePreferParent")), above, below])
    assert attached(config, "below") == {"Gateway/edge": LOST}
    assert attached(config, "above") == {"Gateway/edge": ALONE}
    assert [one.code for one in config.findings] == ["KGW411"]


def test_what_is_merged_deeply_across_levels_is_merged() -> None:
    above = policy(shapes("gateway"), "above", kind="Gateway", target="edge")
    below = policy(shapes("route"), "below")
    config = kgw.Config.from_objects([*_objects(base("DeepMergePreferParent")), above, below])
    assert attached(config, "below") == {"Gateway/edge": MERGED}
    assert attached(config, "above") == {"Gateway/edge": MERGED}


SECOND = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: other}
spec:
  hostnames: [other.example]
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: api, port: 80}]}]
"""


def test_each_target_has_a_status_of_its_own() -> None:
    both = policy(sets("x-by", "both"), "both")
    both["spec"]["targetRefs"] += [
        {**both["spec"]["targetRefs"][0], "name": "other"},
        {**both["spec"]["targetRefs"][0], "name": "othr"},
    ]
    first = policy(sets("x-by", "first"), "first", annotations={WEIGHT: "1"})
    config = kgw.Config.from_objects([*_objects(BASE, SECOND), both, first])
    assert attached(config, "both") == {
        "Gateway/edge": ALONE,
        "HTTPRoute/web": LOST,
        "HTTPRoute/othr": ("Pending", ""),
    }
    (missing,) = config.errors
    assert (missing.code, missing.field) == ("KGW302", "spec.targetRefs[2].name")
    assert missing.hint == "did you mean `other`?"


# === Global policies ===


def _of_all(namespace: str = "global") -> dict[str, Any]:
    found = policy(sets("x-by", "global"), "all")
    found["metadata"]["namespace"] = namespace
    found["spec"]["targetSelectors"] = [
        {
            "group": "gateway.networking.k8s.io",
            "kind": "HTTPRoute",
            "matchLabels": {"team": "a"},
        }
    ]
    del found["spec"]["targetRefs"]
    return found


LABELLED = BASE.replace("metadata: {name: web}", "metadata: {name: web, labels: {team: a}}")


def test_policies_of_the_global_namespace_select_in_all(kgw_proxy: GatewayFactory) -> None:
    options = PolicyOptions(global_namespace="global")
    gateway = kgw_proxy([LABELLED, _of_all()], policies=options)
    assert gateway.get("/").headers["x-by"] == "global"
    own = policy(sets("x-by", "own"), "own", annotations={WEIGHT: "1"})
    gateway = kgw_proxy([LABELLED, _of_all(), own], policies=options)
    assert gateway.get("/").headers["x-by"] == "own"


@pytest.mark.parametrize("options", [None, PolicyOptions(global_namespace="elsewhere")])
def test_policies_of_other_namespaces_select_in_their_own(
    options: PolicyOptions | None, kgw_proxy: GatewayFactory
) -> None:
    gateway = kgw_proxy([LABELLED, _of_all()], policies=options)
    assert "x-by" not in gateway.get("/").headers
    (found,) = gateway.config.findings
    assert (found.code, found.message) == (
        "KGW304",
        "no HTTPRoute in namespace global has the labels",
    )


# === Reference grants ===

LIMITER = """
apiVersion: v1
kind: Service
metadata: {name: limiter, namespace: infra}
spec: {ports: [{name: grpc, port: 81}]}
"""

GRANT = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: limits, namespace: infra}
spec:
  from: [{group: gateway.kgateway.dev, kind: TrafficPolicy, namespace: default}]
  to: [{group: gateway.kgateway.dev, kind: GatewayExtension}]
"""


def _elsewhere() -> list[dict[str, Any]]:
    """A policy, and a GatewayExtension of another namespace that it refers to."""
    service = {"grpcService": {"backendRef": {"name": "limiter", "port": 81}}, "domain": "web"}
    limits = extension("limits", {"rateLimit": service})
    limits["metadata"]["namespace"] = "infra"
    ref = {"name": "limits", "namespace": "infra"}
    entries = [{"entries": [{"type": "RemoteAddress"}]}]
    return [
        limits,
        policy({"rateLimit": {"global": {"extensionRef": ref, "descriptors": entries}}}),
    ]


@pytest.mark.parametrize(
    ("mode", "grant", "accepted"),
    [
        ("PERMISSIVE", False, True),
        ("STRICT", False, False),
        ("STRICT", True, True),
        ("OFF", False, True),
    ],
)
def test_the_strict_mode_asks_for_a_grant_for_extensions(
    mode: str, grant: bool, accepted: bool
) -> None:
    options = Options(policies=PolicyOptions.of(reference_grants=mode))
    given = [*_objects(BASE, LIMITER, *([GRANT] if grant else [])), *_elsewhere()]
    config = kgw.Config.from_objects(given, options=options)
    statuses = {str(key): one for key, one in config.statuses.items()}
    (entry,) = statuses["TrafficPolicy default/policy"].ancestors
    (one,) = (one for one in entry.conditions if one.type == "Accepted")
    assert one.status == str(accepted)
    assert ("missing reference grant" in one.message) is not accepted
    replaced = [route["action"]["type"] for route in config.ir["routes"].values()]
    assert replaced == (["forward"] * 2 if accepted else ["direct"] * 2)


def test_without_grants_every_backend_may_be_referred_to() -> None:
    far = BASE.replace("{name: api, port: 80}", "{name: limiter, namespace: infra, port: 81}")
    for options, codes in ((None, ["KGW308"] * 2), (PolicyOptions(reference_grants="OFF"), [])):
        given = Options(policies=options or PolicyOptions())
        config = kgw.Config.from_objects(_objects(far, LIMITER), options=given)
        assert [one.code for one in config.findings] == codes


# === The operator's options ===


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"merge": "{"}, "no JSON"),
        ({"merge": "[]"}, "policies merge is written"),
        ({"merge": '{"listenerPolicy": {}}'}, "policies merge is written"),
        ({"merge": '{"trafficPolicy": {"cors": "DeepMerge"}}'}, "cors cannot be merged deeply"),
        ({"merge": '{"trafficPolicy": {"acl": "Deep"}}'}, "acl: policies merge by DeepMerge or"),
        ({"reference_grants": "strict"}, "no mode of reference grants"),
    ],
)
def test_options_that_cannot_be_read_are_refused(given: dict[str, str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        PolicyOptions.of(**given)


def test_options_are_read_from_kgateways_variables() -> None:
    environ = {
        "KGW_GLOBAL_POLICY_NAMESPACE": "global",
        "KGW_POLICY_MERGE": '{"trafficPolicy": {"acl": "DeepMerge", "extAuth": "ShallowMerge"}}',
        "KGW_REFERENCE_GRANT_MODE": "STRICT",
    }
    assert PolicyOptions.from_environment(environ) == PolicyOptions(
        "global", frozenset({"acl"}), "STRICT"
    )
    assert PolicyOptions.from_environment({}) == PolicyOptions()


def _objects(*texts: str) -> list[dict[str, Any]]:
    return [one.value for text in texts for one in manifest.parse(text)[0]]


def test_a_selector_can_be_about_a_rule(kgw_proxy: GatewayFactory) -> None:
    selected = policy({"headerModifiers": {"response": {"set": [{"name": "x-a", "value": "1"}]}}})
    selected["spec"]["targetSelectors"] = [
        {
            "group": "gateway.networking.k8s.io",
            "kind": "HTTPRoute",
            "matchLabels": {"app": "web"},
            "sectionName": "api",
        }
    ]
    del selected["spec"]["targetRefs"]
    base = BASE.replace("metadata: {name: web}", "metadata: {name: web, labels: {app: web}}")
    gateway = kgw_proxy([base, selected])
    assert gateway.get("/api").headers["x-a"] == "1"
    assert "x-a" not in gateway.get("/").headers
