"""What is written over a present status: only what differs, and nothing of anybody else's."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.translate.support import EDGE, ROUTE, run, status

from kgw.attach.publishing import TYPES, conditions, update
from kgw.attach.status import CONTROLLER, Status

THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
ROUTES = "HTTPRoute default/route"
GATEWAY = "Gateway default/edge"

FOREIGN = {
    "type": "example.com/Checked",
    "status": "True",
    "reason": "Fine",
    "message": "",
    "observedGeneration": 7,
    "lastTransitionTime": THEN,
}


def written(wanted: Status, present: dict[str, Any] | None = None, now: str = THEN) -> Any:
    found = update(present, wanted, now)
    assert found is not None
    return found


def test_a_first_status_is_written_whole() -> None:
    wanted = status(run(EDGE, ROUTE), GATEWAY)
    found = written(wanted)
    times = {one.pop("lastTransitionTime") for one in found["conditions"]}
    for listener in found["listeners"]:
        times |= {one.pop("lastTransitionTime") for one in listener["conditions"]}
    assert times == {THEN}
    assert found == wanted.to_json()


def test_the_same_is_not_written_again() -> None:
    for manifests, name in (((EDGE, ROUTE), ROUTES), ((EDGE, ROUTE), GATEWAY)):
        wanted = status(run(*manifests), name)
        assert update(written(wanted), wanted, NOW) is None


def test_the_order_of_conditions_is_no_difference() -> None:
    wanted = status(run(EDGE), GATEWAY)
    present = written(wanted)
    present["conditions"].reverse()
    assert update(present, wanted, NOW) is None


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    good = status(run(EDGE, ROUTE), ROUTES)
    present = written(good)
    newer = status(
        run(EDGE, ROUTE.replace("{name: route}", "{name: route, generation: 2}")), ROUTES
    )
    found = written(newer, present, NOW)
    (parent,) = found["parents"]
    assert {one["observedGeneration"] for one in parent["conditions"]} == {2}
    assert {one["lastTransitionTime"] for one in parent["conditions"]} == {THEN}
    bad = status(run(EDGE, ROUTE.replace("name: web", "name: nobody")), ROUTES)
    (parent,) = written(bad, present, NOW)["parents"]
    times = {one["type"]: one["lastTransitionTime"] for one in parent["conditions"]}
    assert times["ResolvedRefs"] == NOW
    assert times["Accepted"] == THEN


def test_the_defaults_of_an_api_server_are_replaced() -> None:
    pending = {
        "type": "Accepted",
        "status": "Unknown",
        "reason": "Pending",
        "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }
    found = written(status(run(EDGE), GATEWAY), {"conditions": [pending]}, NOW)
    assert [one["type"] for one in found["conditions"]].count("Accepted") == 1
    assert found["conditions"][0]["lastTransitionTime"] == NOW
    assert found["conditions"][0]["observedGeneration"] == 1


def test_what_others_say_stays() -> None:
    wanted = status(run(EDGE, ROUTE), ROUTES)
    other = {
        "parentRef": {"name": "edge"},
        "controllerName": "example.com/other",
        "conditions": [FOREIGN],
    }
    present = written(wanted, {"parents": [deepcopy(other)], "note": "kept"})
    assert present["note"] == "kept"
    assert present["parents"][0] == other
    present["parents"][1]["conditions"].insert(0, FOREIGN)
    assert update(present, wanted, NOW) is None
    left = written(Status(), present, NOW)
    assert left == {"parents": [other], "note": "kept"}


def test_a_foreign_condition_of_a_gateway_and_its_listeners_stays() -> None:
    wanted = status(run(EDGE), GATEWAY)
    present = written(wanted)
    present["conditions"].append(FOREIGN)
    present["listeners"][0]["conditions"].append(FOREIGN)
    assert update(present, wanted, NOW) is None


def test_what_does_not_hold_any_more_is_taken_away() -> None:
    default = EDGE.replace("listeners:", "defaultScope: All\n  listeners:")
    present = written(status(run(default), GATEWAY))
    assert "DefaultGateway" in {one["type"] for one in present["conditions"]}
    found = written(status(run(EDGE), GATEWAY), present, NOW)
    assert "DefaultGateway" not in {one["type"] for one in found["conditions"]}
    assert {one["lastTransitionTime"] for one in found["conditions"]} == {THEN}


def test_a_listener_that_is_gone_is_gone() -> None:
    two = EDGE.replace("protocol: HTTP}]", "protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]")
    present = written(status(run(two), GATEWAY))
    found = written(status(run(EDGE), GATEWAY), present, NOW)
    assert [one["name"] for one in found["listeners"]] == ["http"]
    assert {one["lastTransitionTime"] for one in found["listeners"][0]["conditions"]} == {THEN}


def test_a_parent_that_is_gone_is_gone() -> None:
    two = ROUTE.replace(
        "[{name: edge}]",
        "[{name: edge, namespace: default, port: 80}, {name: edge, sectionName: http}]",
    )
    present = written(status(run(EDGE, two), ROUTES))
    one = ROUTE.replace("[{name: edge}]", "[{name: edge, sectionName: http}]")
    found = written(status(run(EDGE, one), ROUTES), present, NOW)
    (parent,) = found["parents"]
    assert (parent["parentRef"]["name"], parent["parentRef"]["sectionName"]) == ("edge", "http")
    assert {one["lastTransitionTime"] for one in parent["conditions"]} == {THEN}


def test_a_policy_has_no_more_ancestors_than_it_may() -> None:
    policy = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: limit}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  rateLimit: {local: {tokenBucket: {maxTokens: 1, fillInterval: 1s}}}
"""
    wanted = status(run(EDGE, ROUTE, policy), "TrafficPolicy default/limit")
    others = [
        {"ancestorRef": {"name": str(number)}, "controllerName": "example.com/other"}
        for number in range(16)
    ]
    assert update({"ancestors": others}, wanted, NOW) is None
    found = written(wanted, {"ancestors": others[:15]}, NOW)
    assert len(found["ancestors"]) == 16
    assert found["ancestors"][-1]["controllerName"] == CONTROLLER


def test_every_condition_that_is_written_is_known_as_ones_own() -> None:
    package = Path(__file__).parents[2] / "python" / "kgw" / "attach"
    code = "".join(file.read_text() for file in package.glob("*.py"))
    written = set(re.findall(r"\.condition\(\s*\"([\w./]+)\"", code))
    assert {"Accepted", "SupportedVersion", "kgateway.dev/Programmed"} <= written
    assert written <= TYPES
    assert conditions(None, [], NOW) == []
