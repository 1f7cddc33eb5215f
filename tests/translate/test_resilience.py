"""Whatever a manifest says, it is parsed, translated and reported; nothing raises."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.translate.support import EDGE, EXAMPLES, MESH

from kgw._native import manifest
from kgw.api import parse_all
from kgw.diagnostics import CODES
from kgw.source.memory import RawObject
from kgw.translate import translate

RICH = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rich}
spec:
  parentRefs: [{name: edge}, {group: "", kind: Service, name: web, port: 80}]
  hostnames: [a.example, "*.example"]
  rules:
  - name: one
    matches:
    - path: {type: RegularExpression, value: "/a.*"}
      headers: [{name: a, value: b}]
      queryParams: [{name: a, value: b}]
      method: GET
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: a, value: b}], remove: [c]}
    - {type: URLRewrite, urlRewrite: {hostname: b.example}}
    backendRefs: [{name: web, port: 80, weight: 3}, {name: api, port: 80}]
    timeouts: {request: 10s, backendRequest: 1s}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: policy}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: rich, sectionName: one}]
  rateLimit: {local: {tokenBucket: {maxTokens: 3, tokensPerFill: 3, fillInterval: 60s}}}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: log}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  default: {httpSettings: {accessLog: [{fileSink: {path: /dev/stdout, jsonFormat: {a: b}}}]}}
"""


def objects() -> list[Any]:
    texts = [MESH, EDGE.partition("---")[0], RICH]
    texts += [one.read_text() for one in sorted(EXAMPLES.glob("*.yaml"))]
    return [one.value for text in texts for one in manifest.parse(text)[0]]


OBJECTS = objects()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a value."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [found for key, item in items for found in [(*path, key), *places(item, (*path, key))]]


PLACES = places(OBJECTS)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=8),
        st.sampled_from(
            ["", "/", "none", "None", "Gateway", "HTTPRoute", "Service", "edge", "10s"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["name", "kind", "port", "value", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.none() | VALUES), min_size=1, max_size=4))
def test_any_change_of_any_field_is_survived(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    changed = copy.deepcopy(OBJECTS)
    for path, value in changes:
        parent: Any = changed
        for step in path[:-1]:
            try:
                parent = parent[step]
            except (KeyError, IndexError, TypeError):
                break
        if isinstance(parent, dict) or (isinstance(parent, list) and isinstance(path[-1], int)):
            try:
                parent[path[-1]] = value
            except IndexError:
                continue
    raws = [RawObject(one) for one in changed if isinstance(one, dict)]
    parsed = parse_all(raws)
    translation = translate(parsed.resources)
    json.dumps(translation.ir)
    for status in translation.statuses.values():
        json.dumps(status.to_json())
    for finding in (*parsed.findings, *translation.findings):
        assert finding.code in CODES
        assert finding.message
