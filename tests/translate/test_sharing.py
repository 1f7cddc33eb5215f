"""Equal parts of routes are read and translated once; nobody sees that they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.translate.support import EDGE, ROUTE, actions, codes, run

from kgw.api import HTTPRoute, parse
from kgw.config import Config
from kgw.source import RawObject, parse_text
from kgw.translate.encoding import encoded

BACKENDS = "backendRefs: [{name: web, port: 80}]"


def route(name: str, *rules: str) -> str:
    text = ROUTE.replace(f"rules: [{{{BACKENDS}}}]", f"rules: [{', '.join(rules)}]")
    assert text != ROUTE
    return text.replace("{name: route}", f"{{name: {name}}}", 1)


def rule(path: str, rest: str) -> str:
    return f"{{matches: [{{path: {{type: PathPrefix, value: {path}}}}}], {rest}}}"


def parsed(text: str) -> HTTPRoute:
    (raw,), _ = parse_text(text, "routes.yaml")
    resource, _ = parse(raw)
    assert isinstance(resource, HTTPRoute)
    return resource


def test_equal_parts_of_routes_that_were_read_are_one() -> None:
    set_header = (
        "filters: [{type: RequestHeaderModifier, "
        "requestHeaderModifier: {set: [{name: x-a, value: b}]}}]"
    )
    rest = f"{BACKENDS}, {set_header}, timeouts: {{request: 3s}}"
    one, two = (parsed(route(name, rule(f"/{name}", rest))).spec.rules[0] for name in "ab")
    assert one != two
    assert one.filters is two.filters
    assert one.backend_refs is two.backend_refs
    assert one.timeouts is two.timeouts


def test_a_number_and_a_boolean_are_not_equal() -> None:
    good = f"{{{BACKENDS}}}".replace("80", "1")
    assert parsed(route("a", good)).spec.rules[0].backend_refs[0].port == 1
    (raw,), _ = parse_text(route("b", good.replace("1", "true")), "routes.yaml")
    _, findings = parse(raw)
    assert [one.code for one in findings] == ["KGW205"]


def test_what_is_made_in_python_names_its_fields_as_python_does() -> None:
    spelled: dict[str, Any] = {"type": "CORS", "cors": {"allow_origins": ["https://a.example"]}}
    written = parsed(
        route("a", f"{{{BACKENDS}, filters: [{{type: CORS, cors: {{allow_origins: [x]}}}}]}}")
    )
    cors = written.spec.rules[0].filters[0].cors
    assert cors is not None
    assert cors.allow_origins == ()
    made = HTTPRoute.model_validate(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "metadata": {"name": "a"},
            "spec": {"rules": [{"filters": [spelled]}]},
        }
    )
    cors = made.spec.rules[0].filters[0].cors
    assert cors is not None
    assert cors.allow_origins == ("https://a.example",)


def test_data_of_other_types_is_read_as_it_is() -> None:
    (raw,), _ = parse_text(route("a", f"{{{BACKENDS}}}, {{}}"), "routes.yaml")
    value = raw.object
    value["spec"]["rules"][0]["backendRefs"] = [{"name": object(), "port": 80}]
    _, findings = parse(RawObject(value, raw.origin))
    assert [one.code for one in findings] == ["KGW205"]


@pytest.mark.parametrize("place", ["rule", "backend"])
def test_a_rewrite_that_rules_share_replaces_the_prefix_of_each(place: str) -> None:
    rewrite = (
        "filters: [{type: URLRewrite, urlRewrite: "
        "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]"
    )
    rest = {
        "rule": f"{BACKENDS}, {rewrite}",
        "backend": f"backendRefs: [{{name: web, port: 80, {rewrite}}}]",
    }[place]
    found = run(EDGE, route("a", rule("/one", rest), rule("/two", rest)))
    replaced = [
        (action["rewrite"] if place == "rule" else action["backends"][0]["filters"][0])["path"]
        for action in actions(found).values()
    ]
    assert replaced == [
        {"prefix": {"from": "/one", "to": "/new"}},
        {"prefix": {"from": "/two", "to": "/new"}},
    ]


def test_what_is_said_about_a_filter_is_said_of_each_rule_that_has_it() -> None:
    filters = (
        "filters: [{type: RequestHeaderModifier, "
        'requestHeaderModifier: {set: [{name: x-a, value: "%REQ(:path)%"}]}}]'
    )
    rest = f"{BACKENDS}, {filters}"
    found = run(EDGE, route("a", rule("/one", rest), rule("/two", rest)))
    assert codes(found) == ["KGW507"]
    assert [one.path[:3] for one in found.findings] == [("spec", "rules", 0), ("spec", "rules", 1)]


def test_rules_with_equal_backends_differ_in_their_filters() -> None:
    def changing(name: str) -> str:
        modifier = f"responseHeaderModifier: {{remove: [{name}]}}"
        return f"{BACKENDS}, filters: [{{type: ResponseHeaderModifier, {modifier}}}]"

    found = run(
        EDGE,
        route(
            "a",
            rule("/one", changing("x-a")),
            rule("/two", changing("x-b")),
            rule("/three", BACKENDS),
            rule("/four", changing("x-a")),
        ),
    )
    removed = [
        [one["remove"] for one in made["filters"]] for _, made in sorted(found.ir["routes"].items())
    ]
    assert removed == [[["x-a"]], [["x-b"]], [], [["x-a"]]]


def test_what_routes_share_is_encoded_as_if_it_were_not_shared() -> None:
    texts = (
        f"{{name: 'é \\u2028 \"', {BACKENDS}}}",
        f"{{name: b, {BACKENDS}, timeouts: {{request: 3s}}}}",
        f"{{name: c, {BACKENDS}, filters: [{{type: RequestRedirect, requestRedirect: {{}}}}]}}",
    )
    manifests = [EDGE, *(route(name, rule("/a", BACKENDS), *texts) for name in "ab")]
    config = Config.from_objects(raw.object for raw in parse_text("---\n".join(manifests), "a")[0])
    assert config.ir["routes"]
    plain = json.dumps(config.ir, separators=(",", ":"), ensure_ascii=False).encode()
    assert config.ir_bytes == plain
    assert encoded({"routes": {}, "a": [1.5, None, True, "\t"]}) == (
        b'{"routes":{},"a":[1.5,null,true,"\\t"]}'
    )
