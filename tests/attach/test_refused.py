"""Objects that are not valid: what they are about is out of service, and their status says why."""

from __future__ import annotations

import pytest
from tests.attach.test_policies import (
    GATEWAY,
    NEW,
    OLD,
    REPLACED,
    ROUTES,
    listener_policy,
    options,
    policy,
    selecting,
)
from tests.translate.support import (
    EDGE,
    MESH,
    ROUTE,
    actions,
    codes,
    condition,
    hosts,
    run,
    run_all,
    status,
    verdict,
)

REPLACEMENT = {"type": "direct", "status": 500, "body": REPLACED}
HTTP_ROUTE = "HTTPRoute default/route"
BAD = "timeouts: {request: 180sec}, "
LABELLED = ROUTES.replace("{name: route}", "{name: route, labels: {team: a}}")


def refused_route(parents: str, spec: str = "", rule: str = "") -> str:
    """A route with a time-out that is none."""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route, generation: 7}}
spec:
  parentRefs: {parents}
  rules: [{{{BAD}{rule}backendRefs: [{{name: web, port: 80}}]}}]
  {spec}
"""


# === Policies ===


@pytest.mark.parametrize(
    ("kind", "labels"), [("HTTPRoute", "{team: a}"), ("Gateway", "{}")], ids=["route", "gateway"]
)
def test_a_refused_policy_closes_what_its_selectors_select(kind: str, labels: str) -> None:
    text = selecting(labels, kind).replace("maxTokens: 5", "maxTokens: five")
    found, _ = run_all(EDGE, LABELLED, text)
    assert list(actions(found).values()) == [REPLACEMENT] * 2
    accepted = condition(found, "TrafficPolicy default/a", "Accepted", "Gateway default/edge")
    assert (accepted.status, accepted.reason) == ("False", "Invalid")
    assert "spec.rateLimit.local.tokenBucket.maxTokens: " in accepted.message


def test_a_policy_that_is_not_enforced_closes_what_its_selectors_select() -> None:
    text = selecting("{team: a}").replace("rateLimit:", "ai: {promptGuard: {}}\n  rateLimit:")
    found, _ = run_all(EDGE, LABELLED, text)
    assert list(actions(found).values()) == [REPLACEMENT] * 2


def test_a_selector_of_a_refused_policy_leaves_others_alone() -> None:
    text = selecting("{team: b}").replace("maxTokens: 5", "maxTokens: five")
    found, _ = run_all(EDGE, LABELLED, text)
    assert {one["type"] for one in actions(found).values()} == {"forward"}


def test_a_section_of_a_refused_policy_that_cannot_be_read_is_the_whole() -> None:
    text = policy("a", "kind: HTTPRoute, name: route, sectionName: [two]")
    found, _ = run_all(EDGE, ROUTES, text)
    assert list(actions(found).values()) == [REPLACEMENT] * 2


def test_a_policy_whose_metadata_cannot_be_read_closes_its_targets() -> None:
    text = policy("a", GATEWAY).replace("annotations: {}", "annotations: {a: 1}")
    found, _ = run_all(EDGE, ROUTES, text)
    assert list(actions(found).values()) == [REPLACEMENT] * 2
    assert verdict(found, "TrafficPolicy default/a", "Accepted") == ("False", "Invalid")


def test_a_refused_policy_without_its_target_says_that_it_is_not_valid() -> None:
    text = policy("a", "kind: HTTPRoute, name: none").replace("maxTokens: 3", "maxTokens: three")
    found, _ = run_all(EDGE, ROUTES, text)
    assert verdict(found, "TrafficPolicy default/a", "Accepted") == ("False", "Invalid")


def test_a_filter_that_refers_to_a_refused_policy_answers_500() -> None:
    route = ROUTES.replace(
        "{name: one,",
        "{name: one, filters: [{type: ExtensionRef, extensionRef: "
        "{group: gateway.kgateway.dev, kind: TrafficPolicy, name: a}}],",
    )
    found, _ = run_all(EDGE, route, policy("a", "").replace("maxTokens: 3", "maxTokens: three"))
    assert actions(found)["default/route/one/0"] == REPLACEMENT
    assert codes(found) == []
    assert verdict(found, "TrafficPolicy default/a", "Accepted") == ("False", "Invalid")


# === Listener policies ===


LOG = "accessLog: [{fileSink: {path: /a, stringFormat: a}}]"


@pytest.mark.parametrize(
    "wrong",
    [
        "healthCheck: true",
        "idleTimeout: 1y",
        "accessLog: [{fileSink: {path: /b, stringFormat: '%NO%'}}]",
    ],
    ids=["unsupported", "refused", "operator"],
)
def test_a_listener_policy_that_is_not_valid_takes_no_field(wrong: str) -> None:
    log = "" if "accessLog" in wrong else f"\n  {LOG}"
    bad = listener_policy("z", OLD, f"serverName: bad\n  {wrong}{log}", "2023-01-01")
    good = listener_policy("a", OLD, f"serverName: good\n  {LOG}")
    found, _ = run_all(EDGE, bad, good)
    assert options(found) == {"server_name": "good"}
    (log_of_good,) = found.ir["listeners"][0]["access_logs"]
    assert log_of_good["path"] == "/a"
    assert verdict(found, "HTTPListenerPolicy default/a", "Attached") == ("True", "Attached")
    assert verdict(found, "HTTPListenerPolicy default/z", "Accepted") == ("False", "Invalid")
    assert verdict(found, "HTTPListenerPolicy default/z", "Attached") == ("False", "Pending")
    assert "KGW411" not in codes(found)


def test_an_invalid_listener_policy_leaves_its_targets_in_service() -> None:
    found, _ = run_all(EDGE, ROUTES, listener_policy("z", OLD, "healthCheck: true"))
    assert {one["type"] for one in actions(found).values()} == {"forward"}


def test_a_refused_listener_policy_may_name_what_it_cannot_target() -> None:
    text = listener_policy("z", NEW, "").replace(
        "kind: Gateway, name: edge", "kind: HTTPRoute, name: route"
    )
    found, _ = run_all(EDGE, ROUTES, text)
    assert verdict(found, "ListenerPolicy default/z", "Accepted") == ("False", "Invalid")
    assert {one["type"] for one in actions(found).values()} == {"forward"}


WRONG_LOG = "httpSettings: {accessLog: [{fileSink: {path: /a, stringFormat: '%NO%'}}]}"


@pytest.mark.parametrize(
    ("spec", "target", "field"),
    [
        (f"default: {{{WRONG_LOG}}}", "none", "default"),
        (f"perPort: [{{port: 9, listener: {{{WRONG_LOG}}}}}]", "edge", "perPort[0].listener"),
    ],
    ids=["missing-target", "unused-port"],
)
def test_a_wrong_format_is_told_though_nobody_uses_it(spec: str, target: str, field: str) -> None:
    text = listener_policy("a", NEW, spec).replace("name: edge", f"name: {target}")
    found = run(EDGE, text)
    (finding,) = [one for one in found.findings if one.code == "KGW408"]
    assert finding.resource == "ListenerPolicy default/a"
    place = "httpSettings.accessLog[0].fileSink.stringFormat"
    assert finding.field == f"spec.{field}.{place}"
    assert verdict(found, "ListenerPolicy default/a", "Accepted") == ("False", "Invalid")


def test_a_wrong_format_of_an_overridden_policy_is_told() -> None:
    old = listener_policy("z", OLD, LOG, "2023-01-01")
    new = listener_policy("a", OLD, LOG.replace("stringFormat: a", "stringFormat: '%NO%'"))
    found = run(EDGE, old, new)
    assert [one.resource for one in found.findings if one.code == "KGW408"] == [
        "HTTPListenerPolicy default/a"
    ]


# === Routes ===


def test_a_refused_route_of_a_service_is_no_reason_to_serve_it_by_default() -> None:
    found, findings = run_all(
        MESH, refused_route('[{group: "", kind: Service, name: web, port: 80}]')
    )
    assert [one.code for one in findings] == ["KGW207"]
    assert actions(found)["default/route/0/0"] == REPLACEMENT
    assert "default/web:80" not in actions(found)
    assert actions(found)["default/web:81"]["type"] == "forward"
    accepted = condition(found, HTTP_ROUTE, "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "UnsupportedValue")
    assert accepted.message.startswith("spec.rules[0].timeouts.request: ")
    assert accepted.observed_generation == 7
    programmed = condition(found, HTTP_ROUTE, "kgateway.dev/Programmed")
    assert (programmed.status, programmed.reason) == ("False", "RouteRuleReplaced")


def test_a_refused_route_of_the_waypoint_closes_its_services() -> None:
    found, _ = run_all(MESH, refused_route("[{name: way}]"))
    assert set(actions(found)) == {"default/route/0/0"}


def test_a_port_of_a_refused_route_that_cannot_be_read_is_every_port() -> None:
    found, _ = run_all(MESH, refused_route('[{group: "", kind: Service, name: web, port: "80"}]'))
    assert "default/web:80" not in actions(found)
    assert "default/web:81" not in actions(found)


def test_a_refused_route_of_a_gateway_answers_for_its_hostnames() -> None:
    bad = refused_route("[{name: edge}]", "hostnames: [a.example, NOT A HOST]")
    other = ROUTE.replace("{name: route}", "{name: other}")
    found, _ = run_all(EDGE, bad, other)
    assert hosts(found, "gateway/default/edge/80") == {
        "*": ["httproute/default/other/0/0"],
        "a.example": ["httproute/default/route/0/0"],
    }
    assert actions(found)["default/route/0/0"] == REPLACEMENT
    assert actions(found)["default/other/0/0"]["type"] == "forward"
    gateway = status(found, "Gateway default/edge")
    assert [one.attached_routes for one in gateway.listeners] == [1]


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("matches: [{path: {value: /a}}], ", {"prefix": "/a"}),
        ("matches: [{path: {value: a}}], ", {"prefix": "/"}),
        ("name: [], matches: [{path: {type: Exact, value: /a}, method: null}], ", {"exact": "/a"}),
    ],
)
def test_a_refused_route_answers_what_it_would_have_matched(
    rule: str, path: dict[str, str]
) -> None:
    found, _ = run_all(EDGE, refused_route("[{name: edge}]", rule=rule))
    (host,) = found.ir["route_tables"]["gateway/default/edge/80"]["hosts"]
    assert [one["path"] for one in host["rules"]] == [path]


@pytest.mark.parametrize("rules", ["[]", "none", "[1]"])
def test_a_refused_route_without_rules_answers_everything(rules: str) -> None:
    text = ROUTE.replace("[{backendRefs: [{name: web, port: 80}]}]", rules)
    found, _ = run_all(EDGE, text)
    assert actions(found) == {"default/route/0/0": REPLACEMENT}


def test_a_refused_route_whose_parents_cannot_be_read_serves_nothing() -> None:
    found, _ = run_all(EDGE, refused_route("{name: edge}"))
    assert actions(found) == {}
    assert status(found, HTTP_ROUTE).parents == ()
    assert codes(found) == []


def test_a_refused_route_says_what_else_is_wrong_with_its_parent() -> None:
    found, _ = run_all(EDGE, refused_route("[1, {name: edg}]"))
    (finding,) = found.findings
    assert (finding.code, finding.field) == ("KGW305", "spec.parentRefs[1].name")
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("False", "NoMatchingParent")


def test_a_refused_route_is_a_target_as_any() -> None:
    found, _ = run_all(
        EDGE, refused_route("[{name: edge}]"), policy("a", "kind: HTTPRoute, name: route")
    )
    assert codes(found) == []
    assert verdict(found, "TrafficPolicy default/a", "Accepted") == ("True", "Valid")


def test_a_route_of_a_version_that_is_not_read_is_refused_as_well() -> None:
    text = ROUTE.replace("k8s.io/v1", "k8s.io/v1alpha2")
    found, _ = run_all(EDGE, text)
    assert actions(found) == {"default/route/0/0": REPLACEMENT}


# === Gateways and classes ===


def test_a_refused_gateway_is_not_accepted() -> None:
    found, findings = run_all(EDGE.replace("port: 80, protocol", "port: 0, protocol", 1), ROUTE)
    accepted = condition(found, "Gateway default/edge", "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "Invalid")
    assert accepted.message.startswith("spec.listeners[0].port: ")
    assert verdict(found, "Gateway default/edge", "Programmed") == ("False", "Invalid")
    messages = [one.message for one in findings if one.code == "KGW305"]
    assert messages == ["Gateway default/edge is not valid (KGW207)"]


def test_a_policy_whose_target_is_refused_names_why_and_no_other_target() -> None:
    refused = EDGE.replace("port: 80, protocol", "port: 0, protocol", 1)
    other = EDGE.replace("name: edge", "name: edge2", 1).replace("port: 80,", "port: 81,")
    found, findings = run_all(refused, other, ROUTE, policy("a", GATEWAY))
    assert [one.hint for one in findings if one.code == "KGW305"] == [None]
    (finding,) = [one for one in findings if one.resource == "TrafficPolicy default/a"]
    assert (finding.code, finding.hint) == ("KGW302", None)
    assert finding.message == "Gateway default/edge is not valid (KGW207)"
    assert condition(found, "TrafficPolicy default/a", "Accepted").message == finding.message


def test_a_policy_whose_route_is_refused_has_no_finding_of_its_own() -> None:
    found, findings = run_all(
        EDGE, refused_route("[{name: edge}]"), policy("a", "kind: HTTPRoute, name: route")
    )
    assert [one.resource for one in findings] == [HTTP_ROUTE]
    assert verdict(found, "TrafficPolicy default/a", "Accepted") == ("True", "Valid")


@pytest.mark.parametrize("name", ["istio", "[]"])
def test_a_refused_gateway_of_others_has_no_status(name: str) -> None:
    text = EDGE.replace("gatewayClassName: kgateway", f"gatewayClassName: {name}")
    found, _ = run_all(text.replace("port: 80, protocol", "port: 0, protocol", 1))
    assert not any(key.kind == "Gateway" for key in found.statuses)


@pytest.mark.parametrize(
    ("controller", "rows"), [("kgateway.dev/kgateway", 1), ("istio.io/gateway-controller", 0)]
)
def test_a_refused_class_is_not_accepted(controller: str, rows: int) -> None:
    text = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: mine}}
spec: {{controllerName: {controller}, description: []}}
"""
    found, _ = run_all(text)
    assert len(found.statuses) == rows
    if rows:
        reason = verdict(found, "GatewayClass mine", "Accepted")
        assert reason == ("False", "InvalidParameters")


def test_a_label_that_names_a_refused_waypoint_says_so() -> None:
    found, _ = run_all(MESH.replace("port: 15088", "port: 0"))
    (finding,) = found.findings
    assert finding.code == "KGW311"
    assert finding.message.startswith("waypoint default/way is not valid; ")
