"""ListenerPolicy and its predecessor HTTPListenerPolicy: access logs and settings of listeners."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.scenario.stage import EDGE, MESH_NAMESPACE, WAYPOINT, log_lines, route

from kgw import diagnostics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenario.stage import Stage

TO_WEB = route("- backendRefs: [{name: web, port: 80}]")


def listener_policy(settings: str, *, gateway: str = "edge", kind: str = "ListenerPolicy") -> str:
    """A policy in the shape of either kind."""
    fields = f"default: {{httpSettings: {{{settings}}}}}" if kind == "ListenerPolicy" else settings
    return f"""
apiVersion: gateway.kgateway.dev/v1alpha1
kind: {kind}
metadata: {{name: settings}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: {gateway}}}]
  {fields}
"""


@pytest.mark.parametrize("kind", ["ListenerPolicy", "HTTPListenerPolicy"])
def test_a_line_of_text_for_each_request(stage: Stage, tmp_path: Path, kind: str) -> None:
    stage.service("web")
    log = tmp_path / "access.log"
    line = '%REQ(:METHOD)% %REQ(:PATH)% "%REQ(USER-AGENT)%" %RESPONSE_CODE%\\n'
    sink = f"accessLog: [{{fileSink: {{path: {log}, stringFormat: {json.dumps(line)}}}}}]"
    scene = stage.serve(EDGE, TO_WEB, listener_policy(sink.replace("\\\\n", "\\n"), kind=kind))
    scene.get("/a?b=c", "user-agent: curl/8.12.1")
    scene.get("/d")
    assert log_lines(log, 2) == ['GET /a?b=c "curl/8.12.1" 200', 'GET /d "-" 200']


def test_the_successor_logs_what_the_walkthroughs_policy_logs(stage: Stage, tmp_path: Path) -> None:
    stage.service("web", "10.0.0.1")
    log = tmp_path / "access.log"
    shape = "{code: '%RESPONSE_CODE%', path: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%', a: {b: x}}"
    sink = f"accessLog: [{{fileSink: {{path: {log}, jsonFormat: {shape}}}}}]"
    scene = stage.serve(WAYPOINT, MESH_NAMESPACE, listener_policy(sink, gateway="way"))
    scene.call("10.0.0.1", "/x")
    assert log_lines(log, 1) == ['{"a":{"b":"x"},"code":200,"path":"/x"}']


def test_a_rewritten_path_is_logged_as_it_came(stage: Stage, tmp_path: Path) -> None:
    stage.service("web")
    log = tmp_path / "access.log"
    shape = "{came: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%', went: '%REQ(:PATH)%'}"
    sink = f"accessLog: [{{fileSink: {{path: {log}, jsonFormat: {shape}}}}}]"
    rules = """
    - matches: [{path: {value: /a}}]
      filters:
      - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}
      backendRefs: [{name: web, port: 80}]
    """
    scene = stage.serve(EDGE, route(rules), listener_policy(sink))
    assert scene.get("/a/x").target == "/b/x"
    assert json.loads(log_lines(log, 1)[0]) == {"came": "/a/x", "went": "/b/x"}


@pytest.mark.parametrize(
    ("rules", "status", "flags"),
    [
        ("- backendRefs: [{name: web, port: 80}]", 200, "-"),
        ("- matches: [{path: {value: /else}}]\n  backendRefs: [{name: web, port: 80}]", 404, "NR"),
        ("- backendRefs: [{name: unready, port: 80}]", 503, "UH"),
        ("- backendRefs: [{name: gone, port: 80}]", 503, "UF"),
    ],
)
def test_the_flags_say_why(
    stage: Stage, tmp_path: Path, rules: str, status: int, flags: str
) -> None:
    stage.service("web")
    stage.service("unready", ready=False)
    stage.service("gone").close()
    log = tmp_path / "access.log"
    shape = "{code: '%RESPONSE_CODE%', flags: '%RESPONSE_FLAGS%'}"
    sink = f"accessLog: [{{fileSink: {{path: {log}, jsonFormat: {shape}}}}}]"
    scene = stage.serve(EDGE, route(rules), listener_policy(sink))
    assert scene.get().status == status
    logged = json.loads(log_lines(log, 1)[0])
    assert logged["code"] == status
    assert logged["flags"].split(",")[0] == flags


def test_an_unknown_operator_is_named_where_it_stands_and_the_requests_are_served(
    stage: Stage, tmp_path: Path
) -> None:
    stage.service("web")
    bad = "accessLog: [{fileSink: {path: /dev/null, jsonFormat: {a: '%RESPONSE_KODE%'}}}, "
    good = f"{{fileSink: {{path: {tmp_path / 'access.log'}, stringFormat: '%PROTOCOL%'}}}}]"
    manifests = EDGE, TO_WEB, listener_policy(bad + good)
    config = stage.config(*manifests)
    [error] = config.errors
    assert error.code == "KGW408"
    assert "RESPONSE_KODE" in error.message
    assert error.field == "spec.default.httpSettings.accessLog[0].fileSink.jsonFormat.a"
    rendered = diagnostics.render(error)
    assert "03.yaml:7:" in rendered
    assert "^" in rendered
    scene = stage.run(config)
    assert scene.get().backend == "web"
    assert not (tmp_path / "access.log").exists(), "a policy that is not valid sets nothing"


def test_the_servers_name_can_be_chosen(stage: Stage) -> None:
    stage.service("web")
    scene = stage.serve(EDGE, TO_WEB, listener_policy("serverName: envoy"))
    assert scene.get().sent("server") == ["envoy"]
    scene.apply(EDGE, TO_WEB)
    assert scene.get().sent("server") == ["kgw"]


def test_the_settings_of_a_port_hold_for_that_port(stage: Stage) -> None:
    stage.service("web")
    gateway = EDGE.replace(
        "protocol: HTTP}", "protocol: HTTP}, {name: admin, port: 9090, protocol: HTTP}"
    )
    policy = listener_policy("serverName: usual") + (
        "  perPort: [{port: 9090, listener: {httpSettings: {serverName: admin}}}]\n"
    )
    scene = stage.serve(gateway, TO_WEB, policy)
    assert scene.get().sent("server") == ["usual"]
    assert scene.get(listener="default/edge/admin").sent("server") == ["admin"]


def test_options_of_a_listener_by_annotation(stage: Stage) -> None:
    stage.service("web")
    options = "kgw.dev/headers-with-underscores: Reject, kgw.dev/request-id-in-response: 'true'"
    annotated = EDGE.replace("{name: edge}", f"{{name: edge, annotations: {{{options}}}}}")
    scene = stage.serve(annotated, TO_WEB)
    assert scene.get("/", "a_b: c").status == 400
    assert len(scene.get().sent("x-request-id")) == 1
    scene.apply(EDGE, TO_WEB)
    assert scene.get("/", "a_b: c").received("a_b") == ["c"]
    assert scene.get().sent("x-request-id") == []


@pytest.mark.parametrize(("hops", "client"), [(0, "127.0.0.1"), (1, "10.0.0.3")])
def test_the_proxies_in_front_that_are_believed(stage: Stage, hops: int, client: str) -> None:
    stage.service("web")
    scene = stage.serve(EDGE, TO_WEB, listener_policy(f"xffNumTrustedHops: {hops}"))
    answer = scene.get("/", "x-forwarded-for: 203.0.113.1, 10.0.0.3")
    assert answer.received("x-envoy-external-address") == [client]


@pytest.mark.parametrize(
    ("transformation", "expected"),
    [("Overwrite", "kgw"), ("AppendIfAbsent", "kgw"), ("PassThrough", None)],
)
def test_the_servers_field_of_answers(
    stage: Stage, transformation: str, expected: str | None
) -> None:
    stage.service("web")
    policy = listener_policy(f"serverHeaderTransformation: {transformation}")
    scene = stage.serve(EDGE, TO_WEB, policy)
    assert scene.get().sent("server") == ([expected] if expected else [])
