"""What is broken does not take down the rest, and says what is wrong with it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer
from tests.scenario.stage import EDGE, ask, route

import kgw
from kgw import diagnostics

if TYPE_CHECKING:
    from tests.scenario.stage import Stage

REPLACED = b"invalid route configuration detected and replaced with a direct response."

UNREADABLE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: unreadable}
spec: {parentRefs: [{name: edge}], rules: not a list}
"""


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (
            "filters: [{type: ExtensionRef, extensionRef: "
            "{group: gateway.kgateway.dev, kind: TrafficPolicy, name: nowhere}}]",
            "KGW307",
        ),
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: x.y, kind: Z, name: z}}]",
            "KGW502",
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: "
            "{set: [{name: Host, value: x}]}}]",
            "KGW407",
        ),
    ],
    ids=["a policy that is missing", "a kind that is unknown", "a protected field"],
)
def test_a_rule_that_cannot_be_used_answers_500_and_the_others_live(
    stage: Stage, part: str, code: str
) -> None:
    stage.service("web")
    rules = f"""
    - matches: [{{path: {{value: /broken}}}}]
      {part}
      backendRefs: [{{name: web, port: 80}}]
    - matches: [{{path: {{value: /}}}}]
      backendRefs: [{{name: web, port: 80}}]
    """
    scene = stage.serve(EDGE, route(rules), strict=False)
    [error] = stage.config(EDGE, route(rules)).errors
    assert (error.code, error.resource) == (code, "HTTPRoute default/r")
    assert error.field.startswith("spec.rules[0].filters[0]")
    broken = scene.get("/broken/x")
    assert (broken.status, broken.body) == (500, REPLACED)
    assert scene.get("/whole").backend == "web"


def test_a_broken_regular_expression_costs_its_match_alone(stage: Stage) -> None:
    stage.service("web")
    rules = """
    - matches:
      - path: {type: RegularExpression, value: "/broken/(x"}
      - path: {value: /whole}
      backendRefs: [{name: web, port: 80}]
    """
    config = stage.config(EDGE, route(rules))
    [error] = config.errors
    assert error.code == "KGW406"
    assert error.field == "spec.rules[0].matches[0].path.value"
    scene = stage.run(config)
    assert scene.get("/whole").backend == "web"
    assert scene.get("/broken/(x").status == 404


def test_a_route_that_cannot_be_read_leaves_the_others(stage: Stage) -> None:
    stage.service("web")
    whole = route("- backendRefs: [{name: web, port: 80}]")
    scene = stage.serve(EDGE, whole, UNREADABLE, strict=False)
    assert scene.get().backend == "web"
    with pytest.raises(kgw.ConfigError) as caught:
        stage.config(EDGE, whole, UNREADABLE).raise_for_errors()
    assert caught.value.resource == "HTTPRoute default/unreadable"
    assert "03.yaml:" in str(caught.value)
    assert "^" in str(caught.value)


def test_a_misspelt_field_is_kept_warned_about_and_corrected(stage: Stage) -> None:
    stage.service("web")
    rules = "- backendRefs: [{name: web, port: 80}]\n  timeout: {request: 1s}"
    config = stage.config(EDGE, route(rules))
    assert config.errors == ()
    [warning] = config.warnings
    assert warning.field == "spec.rules[0].timeout"
    assert "did you mean `timeouts`" in diagnostics.render(warning)
    assert stage.run(config).get().backend == "web"


def test_a_listener_that_cannot_be_served_leaves_the_others(stage: Stage) -> None:
    stage.service("web")
    gateway = EDGE.replace("protocol: HTTP}", "protocol: HTTP}, {name: t, port: 99, protocol: XYZ}")
    scene = stage.serve(gateway, route("- backendRefs: [{name: web, port: 80}]"), strict=False)
    assert list(scene.proxy.addresses) == ["default/edge/http"]
    assert scene.get().backend == "web"


def test_a_new_configuration_that_cannot_be_read_changes_nothing(stage: Stage) -> None:
    stage.service("web")
    stage.write(EDGE, route("- backendRefs: [{name: web, port: 80}]"))
    with kgw.Proxy(stage.directory, bind="127.0.0.1:0", workers=1) as proxy:
        address = proxy.addresses["default/edge/http"][0]
        stage.write(EDGE, UNREADABLE)
        with pytest.raises(kgw.ConfigError, match="unreadable"):
            proxy.apply(stage.directory)
        with socket.create_connection(address, 10) as sock:
            assert ask(Peer(sock)).backend == "web"
