"""A Service with several endpoints, each a backend of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.engine.harness import Upstream


def service(upstreams: Iterable[Upstream | str], *, name: str = "web", port: str = "http") -> str:
    """The manifests of a Service that has these backends, or addresses of this machine."""
    text = f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  clusterIP: 10.96.7.1
  ports: [{{name: {port}, port: 80}}]
"""
    for number, upstream in enumerate(upstreams):
        address = upstream if isinstance(upstream, str) else upstream.address
        host, _, own = address.rpartition(":")
        text += f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{number}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: {json.dumps([host])}, conditions: {{ready: true}}}}]
ports: [{{name: {port}, port: {own}}}]
"""
    return text
