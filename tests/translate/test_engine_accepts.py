"""The engine takes what is translated, and finds nothing to replace in it."""

from __future__ import annotations

import json

import pytest
from tests.translate.support import EDGE, EXAMPLES, MESH, load
from tests.translate.test_resilience import RICH

from kgw._native.engine import IR_VERSION, Engine
from kgw.translate import VERSION, Options, translate

SCENARIO = tuple(one.read_text() for one in sorted(EXAMPLES.glob("*.yaml")))
BROKEN = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: broken}
spec:
  parentRefs: [{name: edge}]
  rules:
  - {matches: [{path: {type: RegularExpression, value: "("}}]}
  - {filters: [{type: ExtensionRef, extensionRef: {group: x.example, kind: Thing, name: z}}]}
  - {matches: [{path: {value: /b}}], backendRefs: [{name: none, port: 80}]}
  - matches: [{path: {value: /m}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: none, port: 80}}}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {value: /c}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /d}}
"""

REFUSED = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: Refused}
spec:
  parentRefs: [{name: edge}, {group: "", kind: Service, name: web}]
  hostnames: [a.example, "not a host"]
  rules: [{timeouts: {request: 180sec}}]
"""


def test_both_sides_mean_the_same_version() -> None:
    assert VERSION == IR_VERSION


@pytest.mark.parametrize(
    "texts",
    [
        SCENARIO,
        (MESH, EDGE.partition("---")[0], RICH),
        (EDGE, BROKEN),
        (MESH, EDGE.partition("---")[0], REFUSED),
    ],
    ids=["scenario", "rich", "broken", "refused"],
)
def test_the_engine_serves_a_translation(texts: tuple[str, ...]) -> None:
    ports = dict.fromkeys(
        ("default/kgateway-waypoint/proxy", "default/way/proxy", "default/edge/http"), 0
    )
    ir = translate(load(*texts).resources, Options(bind=("127.0.0.1",), ports=ports)).ir
    engine = Engine(workers=1)
    engine.start(json.dumps(ir).encode())
    try:
        assert engine.problems() == []
        assert engine.addresses().keys() == {one["id"] for one in ir["listeners"]}
    finally:
        engine.drain()
        engine.join(5.0)
