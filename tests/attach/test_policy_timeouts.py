"""The time-out of requests that a TrafficPolicy sets, and what goes before it."""

from __future__ import annotations

import pytest
from tests.attach.test_policies import GATEWAY, LISTENER, RULE, WHOLE, policy
from tests.translate.support import EDGE, MESH, ROUTE, actions, codes, run, run_all, verdict

ROUTES = ROUTE.replace(
    "rules: [{backendRefs: [{name: web, port: 80}]}]",
    "rules: [{name: one, backendRefs: [{name: web, port: 80}]}, "
    "{name: two, matches: [{path: {value: /two}}], backendRefs: [{name: web, port: 80}]}]",
)


def timeout(name: str, target: str, request: str) -> str:
    text = policy(name, target)
    head = text[: text.index("rateLimit")]
    return f"{head}timeouts: {{request: {request}}}}}\n"


def seconds(*texts: str) -> list[float]:
    """The time-outs of the routes, by name."""
    found = actions(run(*texts))
    return [found[name]["request_timeout_ms"] / 1000 for name in sorted(found)]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([GATEWAY], [1, 1]),
        ([GATEWAY, LISTENER], [2, 2]),
        ([GATEWAY, LISTENER, WHOLE], [3, 3]),
        ([GATEWAY, LISTENER, WHOLE, RULE], [3, 4]),
        ([RULE], [15, 1]),
    ],
)
def test_the_more_specific_target_wins(targets: list[str], expected: list[float]) -> None:
    texts = [timeout(f"p{n}", target, f"{n}s") for n, target in enumerate(targets, 1)]
    assert seconds(EDGE, ROUTES, *texts) == expected


def test_none_is_a_time_out_too() -> None:
    assert seconds(EDGE, ROUTE, timeout("a", GATEWAY, "1s"), timeout("b", WHOLE, "0s")) == [0]


@pytest.mark.parametrize(
    ("own", "expected"),
    [("{request: 9s}", 9), ("{request: 0s}", 0), ("{backendRequest: 8s}", 8), ("{}", 1)],
)
def test_the_time_out_of_a_rule_goes_first(own: str, expected: float) -> None:
    route = ROUTE.replace("port: 80}]}]", f"port: 80}}], timeouts: {own}}}]")
    assert seconds(EDGE, route, timeout("a", WHOLE, "1s")) == [expected]


def test_a_service_without_routes_has_the_time_out_of_its_waypoint() -> None:
    assert set(seconds(MESH, timeout("a", "kind: Gateway, name: way", "3s"))) == {3}


def test_a_policy_with_a_limit_does_not_hide_the_time_out_of_another() -> None:
    texts = (policy("a", WHOLE, created="2023-01-01"), timeout("b", WHOLE, "3s"))
    assert seconds(EDGE, ROUTE, *texts) == [3]
    found = run(EDGE, ROUTE, *texts)
    assert verdict(found, "TrafficPolicy default/b", "Attached") == ("True", "Merged")
    older = timeout("older", WHOLE, "4s").replace("2024-01-01", "2022-01-01")
    found = run(EDGE, ROUTE, older, *texts)
    assert verdict(found, "TrafficPolicy default/b", "Attached") == ("False", "Overridden")
    assert codes(found) == ["KGW411"]


def test_the_idle_time_out_of_a_route_is_the_actions() -> None:
    text = timeout("a", WHOLE, "1s").replace("request: 1s", "streamIdle: 1s")
    found, findings = run_all(EDGE, ROUTE, text)
    assert not findings
    action = actions(found)["default/route/0/0"]
    assert (action["stream_idle_timeout_ms"], action["request_timeout_ms"]) == (1000, 15_000)
