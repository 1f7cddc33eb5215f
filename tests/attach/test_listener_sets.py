"""ListenerSets: which join their Gateway, whose listeners win, and what routes reach."""

from __future__ import annotations

import pytest
from tests.translate.support import codes, hosts, run, run_all, status, verdict

GATEWAY = "Gateway default/edge"
BACKEND = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
"""


def gateway(*listeners: str, allowed: str = "{from: All}", more: str = "") -> str:
    own = ", ".join(listeners or ("{name: http, port: 80, protocol: HTTP}",))
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: kgateway
  allowedListeners: {{namespaces: {allowed}}}
  listeners: [{own}]
  {more}
"""


def listener_set(
    name: str, *listeners: str, namespace: str = "default", created: str = "", parent: str = "edge"
) -> str:
    stamp = f", creationTimestamp: '{created}'" if created else ""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}, generation: 3{stamp}}}
spec:
  parentRef: {{name: {parent}, namespace: default}}
  listeners: [{", ".join(listeners)}]
"""


def http(name: str, host: str = "", port: int = 80, more: str = "") -> str:
    hostname = f", hostname: '{host}'" if host else ""
    return f"{{name: {name}, port: {port}, protocol: HTTP{hostname}{more}}}"


def route(name: str, *parents: str, namespace: str = "default", hostnames: str = "[]") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{", ".join(parents)}]
  hostnames: {hostnames}
  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]
"""


SET = "{group: gateway.networking.k8s.io, kind: ListenerSet, name: team}"


@pytest.mark.parametrize(
    ("allowed", "joins"),
    [
        ("{from: All}", {"near", "far"}),
        ("{from: Same}", {"near"}),
        ("{from: None}", set()),
        ("{}", set()),
        ("{from: Selector, selector: {matchLabels: {team: b}}}", {"far"}),
        ("{from: Selector}", set()),
    ],
)
def test_a_gateway_says_which_may_join(allowed: str, joins: set[str]) -> None:
    found = run(
        gateway(allowed=allowed),
        listener_set("near", http("a", port=81)),
        listener_set("far", http("a", port=82), namespace="other"),
        "{apiVersion: v1, kind: Namespace, metadata: {name: other, labels: {team: b}}}",
    )
    for name, namespace in (("near", "default"), ("far", "other")):
        own = status(found, f"ListenerSet {namespace}/{name}")
        rows = [(one.type, one.status, one.reason) for one in own.conditions]
        if name in joins:
            assert rows == [("Accepted", "True", "Accepted"), ("Programmed", "True", "Programmed")]
            assert [one.name for one in own.listeners] == ["a"]
        else:
            assert rows == [
                ("Accepted", "False", "NotAllowed"),
                ("Programmed", "False", "NotAllowed"),
            ]
            assert own.listeners == ()
        assert {one.observed_generation for one in own.conditions} == {3}
    assert status(found, GATEWAY).attached_listener_sets == len(joins)
    assert codes(found) == (["KGW418"] if len(joins) < 2 else [])
    assert len(found.ir["listeners"]) == 1 + len(joins)


def test_without_any_a_gateway_says_so() -> None:
    found = run(gateway())
    assert status(found, GATEWAY).to_json()["attachedListenerSets"] == 0


def test_listeners_of_a_set_share_the_socket_of_the_gateways() -> None:
    found = run(
        gateway(http("http", "a.example")),
        listener_set("team", http("http", "b.example")),
        route("own", "{name: edge}"),
        route("teams", SET),
        BACKEND,
    )
    (listener,) = found.ir["listeners"]
    assert listener["id"] == "default/edge/http"
    assert hosts(found, "gateway/default/edge/80") == {
        "a.example": ["httproute/default/own/0/0"],
        "b.example": ["httproute/default/teams/0/0"],
    }
    assert status(found, GATEWAY).listeners[0].attached_routes == 1
    assert status(found, "ListenerSet default/team").listeners[0].attached_routes == 1


def test_a_port_that_only_a_set_has_is_bound_under_the_sets_name() -> None:
    found = run(gateway(), listener_set("team", http("http", port=81)))
    assert [one["id"] for one in found.ir["listeners"]] == [
        "default/edge/default/team/http",
        "default/edge/http",
    ]


def test_requests_are_isolated_between_the_gateway_and_its_sets() -> None:
    found = run(
        gateway(http("any")),
        listener_set("team", http("wild", "*.example")),
        route("own", "{name: edge}", hostnames="[a.example, b.test]"),
        route("teams", SET, hostnames="[c.example]"),
        BACKEND,
    )
    assert hosts(found, "gateway/default/edge/80") == {
        "*": [],
        "*.example": [],
        "b.test": ["httproute/default/own/0/0"],
        "c.example": ["httproute/default/teams/0/0"],
    }


# === Conflicts ===


def test_the_gateways_listener_wins_a_hostname() -> None:
    found = run(
        gateway(http("own", "a.example")),
        listener_set("team", http("loser", "a.example"), http("good", "b.example")),
        listener_set("later", http("loser", "a.example")),
    )
    for kind in ("Accepted", "Programmed"):
        assert verdict(found, GATEWAY, kind, "listener own")[0] == "True"
        for name in ("team", "later"):
            own = f"ListenerSet default/{name}"
            assert verdict(found, own, kind, "listener loser") == ("False", "HostnameConflict")
    assert verdict(found, "ListenerSet default/team", "Conflicted", "listener loser") == (
        "True",
        "HostnameConflict",
    )
    (accepted, programmed) = status(found, "ListenerSet default/team").conditions
    assert (accepted.status, accepted.reason) == ("True", "ListenersNotValid")
    assert (programmed.status, programmed.reason) == ("True", "Programmed")
    for one in status(found, "ListenerSet default/later").conditions:
        assert (one.status, one.reason) == ("False", "ListenersNotValid")
    assert status(found, GATEWAY).attached_listener_sets == 1
    assert status(found, GATEWAY).conditions[0].reason == "Accepted"
    assert codes(found) == ["KGW404"]


@pytest.mark.parametrize(
    ("created", "winner"),
    [
        (("2024-01-02T00:00:00Z", "2024-01-01T00:00:00Z"), "b"),
        (("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"), "a"),
        (("", "2024-01-01T00:00:00Z"), "b"),
        (("", ""), "a"),
    ],
)
def test_the_older_set_wins_then_the_first_by_name(created: tuple[str, str], winner: str) -> None:
    found = run(
        gateway(),
        listener_set("a", http("x", "x.example"), created=created[0]),
        listener_set("b", http("x", "x.example"), created=created[1]),
    )
    for name in ("a", "b"):
        outcome = verdict(found, f"ListenerSet default/{name}", "Accepted", "listener x")
        assert outcome[0] == ("True" if name == winner else "False")


def test_protocols_conflict_between_sets_even_if_one_is_not_supported() -> None:
    found = run(
        gateway(http("own", "a.example")),
        listener_set("tcp", "{name: tcp, port: 80, protocol: TCP}"),
        listener_set("odd", "{name: odd, port: 80, protocol: example.com/ODD}"),
        listener_set("good", http("good", "b.example")),
    )
    for name in ("tcp", "odd"):
        for kind in ("Accepted", "Programmed"):
            found_one = verdict(found, f"ListenerSet default/{name}", kind, "listener")
            assert found_one == ("False", "ProtocolConflict")
    assert verdict(found, "ListenerSet default/good", "Programmed", "listener")[0] == "True"
    assert set(hosts(found, "gateway/default/edge/80")) == {"a.example", "b.example"}


def test_two_sets_cannot_have_one_port_for_connections() -> None:
    tcp = "{name: tcp, port: 9000, protocol: TCP}"
    found = run(gateway(), listener_set("a", tcp), listener_set("b", tcp))
    assert verdict(found, "ListenerSet default/a", "Accepted", "listener")[0] == "True"
    assert verdict(found, "ListenerSet default/b", "Accepted", "listener") == (
        "False",
        "ProtocolConflict",
    )


def test_inside_of_one_set_nobody_wins_and_the_port_is_taken() -> None:
    found = run(
        gateway(),
        listener_set("a", http("http", port=81), "{name: tcp, port: 81, protocol: TCP}"),
        listener_set("b", http("http", port=81)),
    )
    for name in ("listener http", "listener tcp"):
        assert verdict(found, "ListenerSet default/a", "Accepted", name) == (
            "False",
            "ProtocolConflict",
        )
    assert verdict(found, "ListenerSet default/b", "Accepted", "listener")[0] == "False"
    assert [one["id"] for one in found.ir["listeners"]] == ["default/edge/http"]


def test_a_conflict_does_not_tell_who_has_what_is_asked_for() -> None:
    found = run(
        gateway(http("private-name", "a.example")),
        listener_set("team", http("mine", "a.example"), namespace="other"),
    )
    text = str(status(found, "ListenerSet other/team").to_json())
    assert "private-name" not in text


def test_a_gateway_that_is_not_accepted_takes_its_sets_along() -> None:
    found = run(
        gateway(more="addresses: [{type: example.com/odd, value: x}]"),
        listener_set("team", http("a", port=81)),
    )
    rows = [
        (one.status, one.reason) for one in status(found, "ListenerSet default/team").conditions
    ]
    assert rows == [("False", "ParentNotAccepted"), ("False", "ParentNotProgrammed")]
    assert status(found, GATEWAY).attached_listener_sets == 0
    assert found.ir["listeners"] == []


def test_a_waypoint_has_its_own_listener_only() -> None:
    waypoint = gateway("{name: proxy, port: 15088, protocol: istio.io/PROXY}").replace(
        "kgateway\n", "kgateway-waypoint\n"
    )
    found = run(waypoint, listener_set("team", http("a"), "{name: b, port: 1, protocol: TCP}"))
    for name in ("listener a", "listener b"):
        outcome = verdict(found, "ListenerSet default/team", "Accepted", name)
        assert outcome == ("False", "Invalid")
    assert [one["id"] for one in found.ir["listeners"]] == ["default/edge/proxy"]
    assert codes(found) == ["KGW412"]


# === References ===


def test_a_set_needs_a_gateway() -> None:
    found = run(gateway(), listener_set("team", http("a"), parent="edgy"))
    (finding,) = found.findings
    assert (finding.code, finding.hint) == ("KGW305", "did you mean `edge`?")
    rows = [
        (one.reason, one.message) for one in status(found, "ListenerSet default/team").conditions
    ]
    assert rows == [
        ("ParentNotAccepted", "Gateway default/edgy not found"),
        ("ParentNotProgrammed", "Gateway default/edgy not found"),
    ]


def test_a_set_of_another_controllers_gateway_is_left_alone() -> None:
    found = run(
        gateway().replace("kgateway\n", "somebody-elses\n"),
        listener_set("team", http("a")),
        route("teams", SET),
        BACKEND,
    )
    assert [str(key) for key in found.statuses] == ["HTTPRoute default/teams"]
    assert status(found, "HTTPRoute default/teams").parents == ()


def test_a_set_that_is_not_valid_says_so() -> None:
    broken = listener_set("team", http("a"), http("a", port=81))
    found, findings = run_all(gateway(), broken)
    rows = [
        (one.status, one.reason) for one in status(found, "ListenerSet default/team").conditions
    ]
    assert rows == [("False", "Invalid"), ("False", "Invalid")]
    assert [one.message for one in findings] == ["Listener name must be unique within the Gateway"]


# === Routes ===


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("{name: edge, sectionName: sets}", "NoMatchingParent"),
        (SET.replace("team", "teem"), "NoMatchingParent"),
        (SET.replace("team}", "team, sectionName: http}"), "NoMatchingParent"),
        (SET.replace("team}", "team, sectionName: sets, port: 80}"), "NoMatchingParent"),
        (SET.replace("team}", "team, sectionName: sets, port: 81}"), "Accepted"),
        (SET.replace("team}", "team, port: 81}"), "Accepted"),
        (SET, "Accepted"),
    ],
)
def test_a_route_reaches_the_listeners_of_the_parent_that_it_names(ref: str, reason: str) -> None:
    found = run(
        gateway(), listener_set("team", http("sets", port=81)), route("route", ref), BACKEND
    )
    assert verdict(found, "HTTPRoute default/route", "Accepted")[1] == reason
    (parent,) = status(found, "HTTPRoute default/route").parents
    assert parent.ref.keys() - {"sectionName", "port"} <= {"group", "kind", "name"}
    sets = status(found, "ListenerSet default/team").listeners[0]
    assert sets.attached_routes == (reason == "Accepted")
    assert status(found, GATEWAY).listeners[0].attached_routes == 0


def test_a_route_has_nowhere_to_go_at_a_set_that_may_not_join() -> None:
    found = run(
        gateway(allowed="{from: None}"),
        listener_set("team", http("a")),
        route("route", SET),
        BACKEND,
    )
    assert verdict(found, "HTTPRoute default/route", "Accepted") == ("False", "NoMatchingParent")
    assert verdict(found, "HTTPRoute default/route", "ResolvedRefs")[0] == "True"


def test_same_means_the_namespace_of_the_set() -> None:
    ref = SET.replace("team", "team, namespace: other")
    found = run(
        gateway(),
        listener_set("team", http("a", port=81), namespace="other"),
        route("gateways", ref),
        route("sets", SET, namespace="other"),
    )
    assert verdict(found, "HTTPRoute default/gateways", "Accepted") == (
        "False",
        "NotAllowedByListeners",
    )
    assert verdict(found, "HTTPRoute other/sets", "Accepted")[0] == "True"


# === Policies ===


@pytest.mark.parametrize(("section", "limited"), [("", True), ("a", True), ("b", False)])
def test_a_policy_may_be_for_a_set(section: str, limited: bool) -> None:
    name = f", sectionName: {section}" if section else ""
    found = run(
        gateway(http("a", "own.example")),
        listener_set("team", http("a", "set.example"), http("b", "b.example")),
        route("own", "{name: edge}"),
        route("teams", SET.replace("team}", "team, sectionName: a}")),
        BACKEND,
        f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: limit}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: ListenerSet, name: team{name}}}]
  rateLimit: {{local: {{tokenBucket: {{maxTokens: 1, fillInterval: 1s}}}}}}
""",
    )
    filters = {one["name"]: one["filters"] for one in found.ir["routes"].values()}
    assert bool(filters["default/teams/0/0"]) == limited
    assert filters["default/own/0/0"] == []
    (ancestor,) = status(found, "TrafficPolicy default/limit").ancestors
    assert (ancestor.ref["kind"], ancestor.ref["name"]) == ("ListenerSet", "team")


def test_a_policy_for_a_listener_of_the_gateway_is_not_for_a_sets_of_that_name() -> None:
    found = run(
        gateway(http("a", "own.example")),
        listener_set("team", http("a", "set.example")),
        route("own", "{name: edge}"),
        route("teams", SET),
        BACKEND,
        """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: limit}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge, sectionName: a}]
  rateLimit: {local: {tokenBucket: {maxTokens: 1, fillInterval: 1s}}}
""",
    )
    filters = {one["name"]: one["filters"] for one in found.ir["routes"].values()}
    assert filters["default/own/0/0"] != []
    assert filters["default/teams/0/0"] == []
