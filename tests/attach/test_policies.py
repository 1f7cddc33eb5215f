"""Which policy applies, and what its status says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.translate.support import (
    EDGE,
    MESH,
    ROUTE,
    actions,
    codes,
    condition,
    filters,
    run,
    run_all,
    status,
    verdict,
)

if TYPE_CHECKING:
    from kgw.translate import Translation

pytestmark = pytest.mark.fields(
    "ListenerPolicy.spec.default.httpSettings.idleTimeout",
    "ListenerPolicy.spec.default.httpSettings.maxHeadersCount",
    "ListenerPolicy.spec.default.httpSettings.maxRequestHeadersKb",
    "ListenerPolicy.spec.default.httpSettings.streamIdleTimeout",
    "ListenerPolicy.spec.default.httpSettings.useRemoteAddress",
)

ROUTES = ROUTE.replace(
    "rules: [{backendRefs: [{name: web, port: 80}]}]",
    "rules: [{name: one, backendRefs: [{name: web, port: 80}]}, "
    "{name: two, matches: [{path: {value: /two}}], backendRefs: [{name: web, port: 80}]}]",
)
REPLACED = "invalid route configuration detected and replaced with a direct response."


def policy(
    name: str,
    target: str,
    tokens: int | None = 3,
    *,
    created: str = "2024-01-01",
    annotations: str = "{}",
    local: str = "",
) -> str:
    limit = local or f"{{tokenBucket: {{maxTokens: {tokens}, fillInterval: 1s}}}}"
    refs = "" if not target else f"targetRefs: [{{group: gateway.networking.k8s.io, {target}}}],"
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata:
  name: {name}
  creationTimestamp: {created}T00:00:00Z
  annotations: {annotations}
spec: {{{refs} rateLimit: {{local: {limit}}}}}
"""


GATEWAY = "kind: Gateway, name: edge"
LISTENER = "kind: Gateway, name: edge, sectionName: http"
WHOLE = "kind: HTTPRoute, name: route"
RULE = "kind: HTTPRoute, name: route, sectionName: two"


def limits(found: Translation) -> dict[str, int | None]:
    """The tokens of each rule's limit."""
    return {
        name.split("/")[2]: next(
            (one["max_tokens"] for one in chain if one["type"] == "local_rate_limit"), None
        )
        for name, chain in filters(found).items()
    }


def buckets(found: Translation) -> list[str]:
    return [one["bucket"] for chain in filters(found).values() for one in chain]


# === Precedence ===


@pytest.mark.parametrize(
    ("targets", "one", "two"),
    [
        ([GATEWAY], 1, 1),
        ([GATEWAY, LISTENER], 2, 2),
        ([GATEWAY, LISTENER, WHOLE], 3, 3),
        ([GATEWAY, LISTENER, WHOLE, RULE], 3, 4),
        ([RULE], None, 1),
    ],
)
def test_the_more_specific_target_wins(targets: list[str], one: int | None, two: int) -> None:
    texts = [policy(f"p{n}", target, n) for n, target in enumerate(targets, 1)]
    assert limits(run(EDGE, ROUTES, *texts)) == {"one": one, "two": two}


def test_of_two_on_one_target_the_older_wins() -> None:
    old = policy("z", WHOLE, 1, created="2023-01-01")
    new = policy("a", WHOLE, 2, created="2024-01-01")
    found = run(EDGE, ROUTES, old, new)
    assert limits(found) == {"one": 1, "two": 1}
    assert verdict(found, "TrafficPolicy default/z", "Attached") == ("True", "Attached")
    assert verdict(found, "TrafficPolicy default/a", "Attached") == ("False", "Overridden")
    assert verdict(found, "TrafficPolicy default/a", "Accepted") == ("True", "Valid")
    assert codes(found) == ["KGW411"]


def test_of_two_of_one_age_the_first_by_name_wins() -> None:
    assert limits(run(EDGE, ROUTES, policy("b", WHOLE, 2), policy("a", WHOLE, 1)))["one"] == 1


def test_a_weight_beats_age() -> None:
    old = policy("old", WHOLE, 1, created="2023-01-01")
    heavy = policy("new", WHOLE, 2, annotations="{kgateway.dev/policy-weight: '10'}")
    assert limits(run(EDGE, ROUTES, old, heavy))["one"] == 2


def test_an_empty_limit_turns_an_inherited_one_off() -> None:
    assert limits(run(EDGE, ROUTES, policy("a", GATEWAY, 1), policy("b", RULE, local="{}"))) == {
        "one": 1,
        "two": None,
    }


@pytest.mark.parametrize("name", ["percentEnabled", "percentEnforced"])
def test_a_limit_for_no_request_is_none(name: str) -> None:
    local = f"{{tokenBucket: {{maxTokens: 1, fillInterval: 1s}}, {name}: 0}}"
    assert limits(run(EDGE, ROUTES, policy("a", WHOLE, local=local)))["one"] is None


@pytest.mark.parametrize("name", ["percentEnabled", "percentEnforced"])
def test_a_limit_for_some_requests_is_one(name: str) -> None:
    local = f"{{tokenBucket: {{maxTokens: 1, fillInterval: 1s}}, {name}: 50}}"
    found = run(EDGE, ROUTES, policy("a", WHOLE, local=local))
    assert verdict(found, "TrafficPolicy default/a", "Accepted") == ("True", "Valid")
    assert limits(found)["one"] == 1


def test_a_filter_that_refers_to_a_policy_beats_its_targets() -> None:
    route = ROUTES.replace(
        "{name: one,",
        "{name: one, filters: [{type: ExtensionRef, extensionRef: "
        "{group: gateway.kgateway.dev, kind: TrafficPolicy, name: ref}}],",
    )
    found = run(EDGE, route, policy("ref", "", 9), policy("a", WHOLE, 1))
    assert limits(found) == {"one": 9, "two": 1}
    assert verdict(found, "TrafficPolicy default/ref", "Attached") == ("True", "Attached")


def test_a_filter_that_refers_to_no_policy_answers_500() -> None:
    route = ROUTES.replace(
        "{name: one,",
        "{name: one, filters: [{type: ExtensionRef, extensionRef: "
        "{group: gateway.kgateway.dev, kind: TrafficPolicy, name: ref}}],",
    )
    found = run(EDGE, route)
    assert actions(found)["default/route/one/0"]["status"] == 500
    assert actions(found)["default/route/two/0"]["type"] == "forward"
    assert codes(found) == ["KGW307"]


# === Selectors ===


def selecting(labels: str, kind: str = "HTTPRoute") -> str:
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: a}}
spec:
  targetSelectors: [{{group: gateway.networking.k8s.io, kind: {kind}, matchLabels: {labels}}}]
  rateLimit: {{local: {{tokenBucket: {{maxTokens: 5, fillInterval: 1s}}}}}}
"""


def test_a_selector_attaches_to_what_has_the_labels() -> None:
    route = ROUTES.replace("{name: route}", "{name: route, labels: {team: a}}")
    assert limits(run(EDGE, route, selecting("{team: a}"))) == {"one": 5, "two": 5}


def test_a_selector_that_selects_nothing_is_warned_about() -> None:
    found = run(EDGE, ROUTES, selecting("{team: a}"))
    assert limits(found) == {"one": None, "two": None}
    assert codes(found) == ["KGW304"]


def test_a_policy_without_a_target_is_warned_about() -> None:
    found = run(EDGE, ROUTES, policy("a", ""))
    assert codes(found) == ["KGW304"]
    assert status(found, "TrafficPolicy default/a").ancestors == ()


# === Targets that do not exist ===


@pytest.mark.parametrize(
    ("target", "code", "reason", "hint"),
    [
        ("kind: HTTPRoute, name: rout", "KGW302", "TargetNotFound", "did you mean `route`?"),
        ("kind: Gateway, name: none", "KGW302", "TargetNotFound", None),
        (
            "kind: HTTPRoute, name: route, sectionName: twoo",
            "KGW303",
            "TargetNotFound",
            "did you mean `two`?",
        ),
        ("kind: Gateway, name: edge, sectionName: https", "KGW303", "TargetNotFound", None),
        ("kind: GRPCRoute, name: route", "KGW302", "TargetNotFound", None),
        ("kind: XListenerSet, name: more", "KGW309", "Invalid", None),
    ],
)
def test_a_missing_target_is_told_on_the_policy_itself(
    target: str, code: str, reason: str, hint: str | None
) -> None:
    found = run(EDGE, ROUTES, policy("a", target))
    assert verdict(found, "TrafficPolicy default/a", "Accepted") == ("False", reason)
    assert verdict(found, "TrafficPolicy default/a", "Attached") == ("False", "Pending")
    (finding,) = found.findings
    assert (finding.code, finding.resource) == (code, "TrafficPolicy default/a")
    assert hint is None or finding.hint == hint


def test_a_target_of_the_wrong_group_is_told() -> None:
    wrong = policy("a", WHOLE).replace("group: gateway.networking.k8s.io", "group: ''")
    (finding,) = run(EDGE, ROUTES, wrong).findings
    assert (finding.code, finding.legal) == ("KGW309", "gateway.networking.k8s.io")


def test_each_target_has_its_own_condition() -> None:
    text = policy("a", WHOLE).replace(
        "targetRefs: [",
        "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: none}, ",
    )
    found = run(EDGE, ROUTES, text)
    assert verdict(found, "TrafficPolicy default/a", "Accepted", "Gateway") == ("True", "Valid")
    assert verdict(found, "TrafficPolicy default/a", "Accepted", "HTTPRoute") == (
        "False",
        "TargetNotFound",
    )
    assert limits(found)["one"] == 3


# === Ancestors ===


def test_the_ancestor_of_a_route_policy_is_the_routes_gateway() -> None:
    (entry,) = status(run(EDGE, ROUTES, policy("a", WHOLE)), "TrafficPolicy default/a").ancestors
    assert entry.to_json("ancestorRef")["ancestorRef"] == {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": "default",
        "name": "edge",
    }


def test_a_policy_of_a_route_that_is_attached_nowhere_is_pending_on_the_route() -> None:
    route = ROUTES.replace("{name: edge}", "{name: none}")
    found = run(EDGE, route, policy("a", WHOLE))
    (entry,) = status(found, "TrafficPolicy default/a").ancestors
    assert entry.ref["kind"] == "HTTPRoute"


def test_the_ancestor_of_a_policy_for_a_service_route_is_the_waypoint() -> None:
    route = ROUTES.replace("{name: edge}", '{group: "", kind: Service, name: web}')
    found = run(MESH, route, policy("a", WHOLE))
    (entry,) = status(found, "TrafficPolicy default/a").ancestors
    assert entry.ref["name"] == "way"


# === Policies that cannot be used ===


def test_a_policy_with_a_field_that_is_not_enforced_closes_its_targets() -> None:
    text = policy("a", RULE).replace("rateLimit:", "ai: {}, rateLimit:")
    found, findings = run_all(EDGE, ROUTES, text)
    assert [one.code for one in findings] == ["KGW501"]
    accepted = condition(found, "TrafficPolicy default/a", "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "Invalid")
    assert "`ai` is not supported" in accepted.message
    assert verdict(found, "TrafficPolicy default/a", "Attached") == ("False", "Pending")
    assert actions(found)["default/route/two/0"] == {
        "type": "direct",
        "status": 500,
        "body": REPLACED,
    }
    assert actions(found)["default/route/one/0"]["type"] == "forward"
    programmed = condition(found, "HTTPRoute default/route", "kgateway.dev/Programmed")
    assert (programmed.status, programmed.reason) == ("False", "RouteRuleReplaced")
    assert verdict(found, "HTTPRoute default/route", "Accepted") == ("True", "Accepted")


def test_a_policy_that_cannot_be_read_closes_its_targets() -> None:
    text = policy("a", RULE).replace("maxTokens: 3", "maxTokens: three")
    found, findings = run_all(EDGE, ROUTES, text)
    assert [one.code for one in findings] == ["KGW205"]
    assert verdict(found, "TrafficPolicy default/a", "Accepted") == ("False", "Invalid")
    assert actions(found)["default/route/two/0"]["status"] == 500
    assert actions(found)["default/route/one/0"]["type"] == "forward"


def test_a_broken_policy_of_a_waypoint_closes_default_routes_too() -> None:
    text = policy("a", "kind: Gateway, name: way").replace("rateLimit:", "rbac: {}, rateLimit:")
    found, _ = run_all(MESH, text)
    assert {one["status"] for one in actions(found).values()} == {500}


# === Buckets ===


def test_each_match_has_a_bucket_of_its_own() -> None:
    route = ROUTE.replace(
        "rules: [{", "rules: [{matches: [{path: {value: /a}}, {path: {value: /b}}], "
    )
    found = buckets(run(EDGE, route, policy("a", WHOLE)))
    assert len(set(found)) == 2


def test_a_gateway_policy_is_one_bucket_for_all_its_routes() -> None:
    found = buckets(run(EDGE, ROUTES, policy("a", GATEWAY)))
    assert len(found) == 2
    assert len(set(found)) == 1


def test_a_gateway_policy_holds_for_default_routes_of_a_waypoint() -> None:
    found = buckets(run(MESH, policy("a", "kind: Gateway, name: way")))
    assert len(set(found)) == 3  # one for each service port


def test_a_bucket_changes_with_its_configuration_and_nothing_else() -> None:
    before = buckets(run(EDGE, ROUTE, policy("a", WHOLE)))
    other = ROUTE.replace("{name: route}", "{name: another}")
    after = run(EDGE, ROUTE, other, policy("a", WHOLE), policy("b", GATEWAY))
    assert before[0] in buckets(after)
    assert before != buckets(run(EDGE, ROUTE, policy("a", WHOLE, 4)))


# === Listener policies ===


def listener_policy(name: str, kind: str, spec: str, created: str = "2024-01-01") -> str:
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: {kind}
metadata: {{name: {name}, creationTimestamp: {created}T00:00:00Z}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge}}]
  {spec}
"""


def options(found: Translation) -> dict[str, Any]:
    (listener,) = found.ir["listeners"]
    return dict(listener["http"])


OLD = "HTTPListenerPolicy"
NEW = "ListenerPolicy"


def test_settings_of_both_kinds_reach_the_listener() -> None:
    settings = (
        "idleTimeout: 1m, streamIdleTimeout: 500ms, maxHeadersCount: 50, maxRequestHeadersKb: 8, "
        "serverName: me, useRemoteAddress: false"
    )
    expected = {
        "idle_timeout_ms": 60_000,
        "stream_idle_timeout_ms": 500,
        "max_fields": 50,
        "max_head_bytes": 8192,
        "server_name": "me",
        "use_remote_address": False,
    }
    plain = "\n  ".join(settings.split(", "))
    assert options(run(EDGE, listener_policy("a", OLD, plain))) == expected
    new = f"default: {{httpSettings: {{{settings}}}}}"
    assert options(run(EDGE, listener_policy("a", NEW, new))) == expected


def test_the_settings_of_a_port_replace_the_default_ones() -> None:
    spec = (
        "default: {httpSettings: {idleTimeout: 1m, serverName: a}}\n"
        "  perPort: [{port: 80, listener: {httpSettings: {serverName: b}}}]"
    )
    assert options(run(EDGE, listener_policy("a", NEW, spec))) == {"server_name": "b"}


def test_two_policies_merge_field_by_field_the_older_first() -> None:
    old = listener_policy("z", OLD, "serverName: old", "2023-01-01")
    new = listener_policy("a", OLD, "serverName: new\n  idleTimeout: 1s")
    found = run(EDGE, old, new)
    assert options(found) == {"server_name": "old", "idle_timeout_ms": 1000}
    for name in ("z", "a"):
        attached = condition(found, f"HTTPListenerPolicy default/{name}", "Attached")
        assert (attached.status, attached.reason) == ("True", "Merged")


def test_a_policy_of_a_listener_comes_before_those_of_its_gateway() -> None:
    gateway = EDGE.replace(
        "protocol: HTTP}]", "protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]"
    )
    of_gateway = listener_policy("a", OLD, "serverName: gateway\n  idleTimeout: 1s", "2023-01-01")
    of_listener = listener_policy("b", OLD, "serverName: listener").replace(
        "name: edge", "name: edge, sectionName: b"
    )
    found = run(gateway, of_gateway, of_listener)
    assert {one["id"]: one["http"] for one in found.ir["listeners"]} == {
        "default/edge/http": {"server_name": "gateway", "idle_timeout_ms": 1000},
        "default/edge/b": {"server_name": "listener", "idle_timeout_ms": 1000},
    }
    alone = run(gateway, of_listener)
    assert verdict(alone, "HTTPListenerPolicy default/b", "Attached") == ("True", "Attached")


def test_a_listener_policy_that_sets_nothing_new_is_overridden() -> None:
    old = listener_policy("z", OLD, "serverName: old", "2023-01-01")
    new = listener_policy("a", OLD, "serverName: new")
    found = run(EDGE, old, new)
    assert verdict(found, "HTTPListenerPolicy default/a", "Attached") == ("False", "Overridden")


def test_access_logs_of_both_kinds_are_written() -> None:
    log = "accessLog: [{fileSink: {path: /dev/stdout, stringFormat: '%PROTOCOL%'}}]"
    expected = [{"path": "/dev/stdout", "format": {"text": "%PROTOCOL%"}}]
    found = run(EDGE, listener_policy("a", OLD, log))
    assert found.ir["listeners"][0]["access_logs"] == expected
    assert codes(found) == ["KGW601"]
    found = run(EDGE, listener_policy("a", NEW, f"default: {{httpSettings: {{{log}}}}}"))
    assert found.ir["listeners"][0]["access_logs"] == expected
    assert codes(found) == []


def test_an_access_log_with_a_filter_is_not_written_unfiltered() -> None:
    log = (
        "accessLog: [{fileSink: {path: /a, stringFormat: a}, filter: {}}, "
        "{fileSink: {path: /b, stringFormat: b}}]"
    )
    found, findings = run_all(EDGE, listener_policy("a", OLD, log))
    assert found.ir["listeners"][0]["access_logs"] == []
    assert [one.severity for one in findings if one.code != "KGW601"] == ["error"]
    assert verdict(found, "HTTPListenerPolicy default/a", "Accepted") == ("False", "Invalid")


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("jsonFormat: {a: '%PROTOCOL%', b: {c: ['%PROTOKOL%']}}", "jsonFormat.b.c[0]"),
        ("stringFormat: 'x %PROTOKOL% y'", "stringFormat"),
    ],
)
def test_an_unknown_operator_is_an_error_that_names_it(line: str, field: str) -> None:
    log = (
        f"accessLog: [{{fileSink: {{path: /a, {line}}}}}, "
        "{fileSink: {path: /b, stringFormat: b}}]"
    )
    found = run(EDGE, listener_policy("a", NEW, f"default: {{httpSettings: {{{log}}}}}"))
    (finding,) = found.findings
    assert finding.code == "KGW408"
    assert "PROTOKOL" in finding.message
    assert finding.field == f"spec.default.httpSettings.accessLog[0].fileSink.{field}"
    accepted = condition(found, "ListenerPolicy default/a", "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "Invalid")
    assert "PROTOKOL" in accepted.message
    assert found.ir["listeners"][0]["access_logs"] == []


def test_one_broken_log_of_a_gateway_with_two_ports_is_one_error() -> None:
    gateway = EDGE.replace(
        "protocol: HTTP}]", "protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]"
    )
    log = "accessLog: [{fileSink: {path: /a, stringFormat: '%NONE%'}}]"
    found = run(gateway, listener_policy("a", NEW, f"default: {{httpSettings: {{{log}}}}}"))
    assert [one.code for one in found.findings] == ["KGW408"]
