"""The walkthrough's four manifests, unchanged, and the cluster around them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.translate.support import EXAMPLES, load, status

from kgw.attach import services
from kgw.translate import translate

GOLDEN = Path(__file__).parents[1] / "data" / "ir" / "waypoint.json"


def scenario() -> list[str]:
    return [one.read_text() for one in sorted(EXAMPLES.glob("*.yaml"))]


def test_the_manifests_parse_without_a_finding() -> None:
    parsed = load(*scenario())
    assert parsed.findings == ()
    assert len(parsed.resources) == 10


def test_the_representation_is_the_golden_one() -> None:
    translation = translate(load(*scenario()).resources)
    assert translation.ir == json.loads(GOLDEN.read_text())


def test_only_a_hint_about_the_successor_is_found() -> None:
    translation = translate(load(*scenario()).resources)
    assert [(one.code, str(one.severity)) for one in translation.findings] == [("KGW601", "info")]


def test_every_condition_is_as_it_should_be() -> None:
    translation = translate(load(*scenario()).resources)
    wrong = [
        (str(key), what, one)
        for key, found in translation.statuses.items()
        for what, one in found.all_conditions()
        if (one.status == "True") == (one.type == "Conflicted")
    ]
    assert wrong == []
    assert [str(key) for key in translation.statuses] == [
        "HTTPListenerPolicy default/access-logging",
        "TrafficPolicy default/ratelimit",
        "Gateway default/kgateway-waypoint",
        "HTTPRoute default/ollama",
    ]


def test_the_gateway_has_its_address_and_counts_the_route() -> None:
    found = status(translate(load(*scenario()).resources), "Gateway default/kgateway-waypoint")
    assert found.to_json()["addresses"] == [{"type": "IPAddress", "value": "10.96.235.185"}]
    assert found.listeners[0].attached_routes == 1


def test_the_services_are_those_of_the_walkthrough() -> None:
    rows = services(load(*scenario()).resources)
    assert [(r.namespace, r.name, *r.vips, r.waypoint, r.endpoints) for r in rows] == [
        ("default", "client", "10.96.143.111", "kgateway-waypoint", "1/1"),
        ("default", "kgateway-waypoint", "10.96.235.185", "kgateway-waypoint", "1/1"),
        ("default", "ollama", "10.96.238.187", "kgateway-waypoint", "1/1"),
    ]


def test_the_order_of_files_makes_no_difference() -> None:
    texts = scenario()
    forward = translate(load(*texts).resources)
    backward = translate(load(*reversed(texts)).resources)
    assert json.dumps(forward.ir) == json.dumps(backward.ir)
    assert forward.statuses == backward.statuses
