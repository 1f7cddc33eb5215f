"""Manifests as text in, resources and translations out."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgw._native import manifest
from kgw.api import parse_all
from kgw.source.memory import Origin, RawObject
from kgw.translate import Options, translate

if TYPE_CHECKING:
    from kgw.api import Parsed
    from kgw.attach import Condition, Status
    from kgw.diagnostics import Finding
    from kgw.translate import Translation

EXAMPLES = Path(__file__).parents[2] / "examples" / "waypoint"

#: A waypoint for the namespace `default`, and two Services with an endpoint each.
MESH = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way}
spec:
  gatewayClassName: kgateway-waypoint
  listeners: [{name: proxy, port: 15088, protocol: istio.io/PROXY}]
---
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio.io/use-waypoint: way}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIPs: [10.0.0.1, "fd00::1"]
  ports: [{name: http, port: 80}, {name: http-admin, port: 81}]
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.1.0.2]}
- {addresses: [10.1.0.1], conditions: {ready: true}}
- {addresses: [10.1.0.3], conditions: {ready: false}}
ports: [{name: http, port: 8080}, {name: http-admin, port: 8081}]
"""

#: A plain Gateway on port 80 and a Service.
EDGE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
"""

#: A route of that Gateway to that Service.
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
"""


def load(*texts: str) -> Parsed:
    """Parses manifests."""
    raws = []
    for number, text in enumerate(texts):
        documents, problems = manifest.parse(textwrap.dedent(text))
        assert not problems, [one.message for one in problems]
        raws += [
            RawObject(one.value, Origin(f"{number}.yaml", one.index, (), one)) for one in documents
        ]
    return parse_all(raws)


def run(*texts: str, options: Options | None = None) -> Translation:
    """Translates manifests that are valid one by one."""
    parsed = load(*texts)
    errors = [str(one) for one in parsed.findings if one.severity == "error"]
    assert not errors, errors
    return translate(parsed.resources, options)


def run_all(*texts: str) -> tuple[Translation, list[Finding]]:
    """Translates manifests, with the findings of parsing and translating."""
    parsed = load(*texts)
    translation = translate(parsed.resources)
    return translation, [*parsed.findings, *translation.findings]


def codes(translation: Translation) -> list[str]:
    """The codes of the findings, each once."""
    return sorted({one.code for one in translation.findings})


def status(translation: Translation, resource: str) -> Status:
    """The status of a resource, named as in `HTTPRoute default/route`."""
    return {str(key): one for key, one in translation.statuses.items()}[resource]


def condition(translation: Translation, resource: str, kind: str, about: str = "") -> Condition:
    """The one condition of a type, about the resource or what starts with `about`."""
    rows = [
        one
        for what, one in status(translation, resource).all_conditions()
        if one.type == kind and what.startswith(about)
    ]
    assert len(rows) == 1, rows
    return rows[0]


def verdict(translation: Translation, resource: str, kind: str, about: str = "") -> tuple[str, str]:
    """Status and reason of a condition."""
    found = condition(translation, resource, kind, about)
    return (found.status, found.reason)


def actions(translation: Translation) -> dict[str, Any]:
    """The actions of all routes by the routes' names."""
    return {one["name"]: one["action"] for one in translation.ir["routes"].values()}


def filters(translation: Translation) -> dict[str, Any]:
    """The filters of all routes by the routes' names."""
    return {one["name"]: one["filters"] for one in translation.ir["routes"].values()}


def hosts(translation: Translation, table: str) -> dict[str, list[str]]:
    """The routes of a table by hostname."""
    return {
        one["hostname"]: [rule["route"].partition("@")[0] for rule in one["rules"]]
        for one in translation.ir["route_tables"][table]["hosts"]
    }
