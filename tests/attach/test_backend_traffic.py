"""XBackendTrafficPolicies: which one holds, what it comes to, and what its status says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.translate.support import EDGE, MESH, ROUTE, actions, load, run, run_all, status

from kgw._native.engine import Engine
from kgw.translate import Options, translate

if TYPE_CHECKING:
    from kgw.translate import Translation

WEB = "kube_default_web_80"


def policy(
    spec: str = "retryConstraint: {}",
    name: str = "a",
    *,
    target: str = "{group: '', kind: Service, name: web}",
    created: str = "2024-01-01",
) -> str:
    return f"""
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {{name: {name}, generation: 3, creationTimestamp: {created}T00:00:00Z}}
spec:
  targetRefs: [{target}]
  {spec}
"""


def budget(found: Translation) -> Any:
    return found.ir["clusters"][WEB].get("retry_budget")


def verdicts(found: Translation, name: str = "a") -> list[tuple[str, str, str, str]]:
    return [
        (what, one.type, one.status, one.reason)
        for what, one in status(found, f"XBackendTrafficPolicy default/{name}").all_conditions()
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("retryConstraint: {}", (20, 10_000, 10, 1_000)),
        ("retryConstraint: {budget: {percent: 0}}", (0, 10_000, 10, 1_000)),
        (
            "retryConstraint: {budget: {interval: 1m}, minRetryRate: {count: 3, interval: 5s}}",
            (20, 60_000, 3, 5_000),
        ),
    ],
)
def test_a_budget(spec: str, expected: tuple[int, ...]) -> None:
    found = run(EDGE, ROUTE, policy(spec))
    given = budget(found)
    assert given.pop("id") == "Service default/web"
    assert tuple(given.values()) == expected
    assert verdicts(found) == [("Gateway default/edge", "Accepted", "True", "Accepted")]


def test_without_one_there_is_no_budget() -> None:
    assert budget(run(EDGE, ROUTE)) is None
    assert budget(run(EDGE, ROUTE, policy("sessionPersistence: {}"))) is None


def test_the_ports_of_a_service_share_its_budget() -> None:
    ports = EDGE.replace(
        "ports: [{name: http, port: 80}]",
        "ports: [{name: http, port: 80}, {name: admin, port: 81}]",
    )
    both = ROUTE.replace(
        "backendRefs: [{name: web, port: 80}]",
        "backendRefs: [{name: web, port: 80}, {name: web, port: 81}]",
    )
    found = run(ports, both, policy())
    budgets = [one["retry_budget"] for one in found.ir["clusters"].values()]
    assert len(budgets) == 2
    assert budgets[0] == budgets[1]


@pytest.mark.parametrize(
    "spec",
    [
        "retryConstraint: {budget: {percent: 101}}",
        "retryConstraint: {budget: {interval: 999ms}}",
        "retryConstraint: {budget: {interval: 61m}}",
        "retryConstraint: {minRetryRate: {count: 0}}",
        "retryConstraint: {minRetryRate: {interval: 0s}}",
        "retryConstraint: {minRetryRate: {interval: 61m}}",
        "sessionPersistence: {type: Other}",
    ],
)
def test_what_an_api_server_refuses_has_no_effect(spec: str) -> None:
    found, _ = run_all(EDGE, ROUTE, policy(spec), policy("retryConstraint: {}", "b"))
    assert verdicts(found)[0][2:] == ("False", "Invalid")
    # Nor is it in the way of another.
    assert budget(found)["percent"] == 20
    assert verdicts(found, "b")[0][2:] == ("True", "Accepted")


def test_the_oldest_holds() -> None:
    younger = policy("retryConstraint: {budget: {percent: 1}}", "a", created="2025-01-01")
    older = policy("retryConstraint: {budget: {percent: 2}}", "z")
    found, findings = run_all(EDGE, ROUTE, younger, older)
    assert budget(found)["percent"] == 2
    assert verdicts(found, "z")[0][2:] == ("True", "Accepted")
    assert verdicts(found, "a")[0][2:] == ("False", "Conflicted")
    assert "KGW411" in [one.code for one in findings]


@pytest.mark.parametrize(
    ("target", "reason", "code"),
    [
        ("{group: '', kind: Service, name: wbe}", "TargetNotFound", "KGW302"),
        ("{group: x.io, kind: Service, name: web}", "Invalid", "KGW309"),
        ("{group: '', kind: Secret, name: web}", "Invalid", "KGW309"),
    ],
)
def test_a_target_that_is_none(target: str, reason: str, code: str) -> None:
    found, findings = run_all(EDGE, ROUTE, policy(target=target))
    assert verdicts(found)[0][1:] == ("Accepted", "False", reason)
    assert code in [one.code for one in findings]
    assert budget(found) is None


def test_a_service_that_nothing_uses_is_its_own_ancestor() -> None:
    found, _ = run_all(EDGE, policy())
    assert verdicts(found) == [("Service default/web", "Accepted", "True", "Accepted")]


# === Sessions ===

TWO = ROUTE.replace(
    "rules: [{backendRefs: [{name: web, port: 80}]}]",
    "rules: [{name: one, backendRefs: [{name: web, port: 80}, {name: api, port: 80}]}, "
    "{matches: [{path: {value: /two}}], backendRefs: [{name: web, port: 80}]}]",
)
API = """
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 80}]}
"""


def sessions(found: Translation) -> list[Any]:
    return [action.get("sessions", []) for _, action in sorted(actions(found).items())]


def test_each_rule_has_sessions_of_its_own_with_a_service_that_has_them() -> None:
    found = run(EDGE, API, TWO, policy("sessionPersistence: {cookie: {name: s}}"))
    (second,), (first,) = sessions(found)
    assert first["scope"] != second["scope"]
    assert first["backends"] == second["backends"] == [0]
    assert first["token"] == second["token"] == {"type": "cookie", "name": "s", "path": "/"}


def test_the_sessions_of_a_rule_go_first() -> None:
    own = TWO.replace("rules: [{name: one,", "rules: [{name: one, sessionPersistence: OWN,")
    own = own.replace("OWN", "{type: Header, header: {name: x-s}, absoluteTimeout: 1h}")
    found = run(EDGE, API, own, policy("sessionPersistence: {cookie: {name: s}}"))
    assert sessions(found)[1] == [
        {
            "scope": "HTTPRoute/default/route/one",
            "backends": [0, 1],
            "token": {"type": "header", "name": "x-s"},
            "absolute_timeout_ms": 3_600_000,
        }
    ]


def test_generated_names_are_unique_and_stay() -> None:
    found = run(EDGE, API, TWO, policy("sessionPersistence: {}"))
    (second,), (first,) = sessions(found)
    names = {first["token"]["name"], second["token"]["name"]}
    assert len(names) == 2
    again = run(EDGE, API, TWO, policy("sessionPersistence: {}"))
    assert sessions(again) == sessions(found)


def test_a_service_without_routes_has_sessions_through_its_waypoint() -> None:
    found = run(MESH, policy("sessionPersistence: {cookie: {name: s}}"))
    by_name = actions(found)
    (session,) = by_name["default/web:80"]["sessions"]
    assert session["backends"] == [0]
    assert session["scope"] != by_name["default/web:81"]["sessions"][0]["scope"]
    assert "sessions" not in by_name["default/api:80"]


def test_the_engine_takes_all_of_it() -> None:
    own = TWO.replace(
        "rules: [{name: one,",
        "rules: [{name: one, retry: {codes: [500]}, sessionPersistence: {}, ",
    )
    spec = "sessionPersistence: {cookie: {name: s}}\n  retryConstraint: {}"
    options = Options(bind=("127.0.0.1",), ports={"default/edge/http": 0})
    ir = translate(load(EDGE, API, own, policy(spec)).resources, options).ir
    engine = Engine(workers=1)
    engine.start(json.dumps(ir).encode())
    try:
        assert engine.problems() == []
    finally:
        engine.drain()
        engine.join(5.0)
