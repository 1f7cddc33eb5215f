"""Manifests of rate limits that are kept elsewhere."""

from __future__ import annotations

import json
from typing import Any

from tests.policies.manifests import extension, policy
from tests.scenario.stage import route

#: One backend behind one route.
ROUTE = route("- backendRefs: [{name: web, port: 80}]")


def service(name: str, address: str, namespace: str = "default") -> str:
    """A Service whose only endpoint is at an address."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{clusterIP: 10.96.3.1, ports: [{{name: whatever, port: 9000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: whatever, port: {address.rpartition(":")[2]}}}]
"""


def by(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A descriptor."""
    return {"entries": list(entries), **more}


def header(name: str) -> dict[str, Any]:
    """An entry of a header field."""
    return {"type": "Header", "header": name}


def limited(*descriptors: dict[str, Any], hits: dict[str, Any] | None = None) -> str:
    """A policy on the route that is limited by an extension."""
    more = {} if hits is None else {"hitsAddend": hits}
    limit = {"extensionRef": {"name": "limiter"}, "descriptors": list(descriptors), **more}
    return json.dumps(policy({"rateLimit": {"global": limit}}, "limit", target="r"))


def provider(kind: str, settings: dict[str, Any] | None = None, **more: Any) -> str:
    """The extension: a service that is called, or a Redis server."""
    backend = {"backendRef": {"name": "limiter", "port": 9000}, **(settings or {})}
    spec = {"rateLimit": {kind: backend, "domain": "shop", **more}}
    return json.dumps(extension("limiter", spec))
