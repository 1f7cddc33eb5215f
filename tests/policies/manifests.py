"""One Gateway with one route to one service: what policies are attached to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.testing import Answer, Gateway

BASE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  rules:
  - name: api
    matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: api, port: 80}]
  - name: rest
    backendRefs: [{name: api, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {ports: [{name: http, port: 80}]}
"""


def policy(
    spec: dict[str, Any],
    name: str = "policy",
    *,
    kind: str = "HTTPRoute",
    target: str = "web",
    section: str | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A TrafficPolicy on the route, or on something else."""
    ref = {"group": "gateway.networking.k8s.io", "kind": kind, "name": target}
    if section is not None:
        ref["sectionName"] = section
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"targetRefs": [ref], **spec},
    }


def extension(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A GatewayExtension."""
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "GatewayExtension",
        "metadata": {"name": name},
        "spec": spec,
    }


def after(gateway: Gateway, url: str = "/", *, step: float = 0.25, most: float = 60) -> Answer:
    """The answer to a request that the gateway itself lets wait: time goes on in steps."""
    pending = gateway.start("GET", url)
    end = gateway.clock.now + most
    while not pending.answered and gateway.clock.now < end:
        gateway.clock.advance(step)
    return pending.answer()


def listener_policy(settings: dict[str, Any]) -> dict[str, Any]:
    """A ListenerPolicy on the Gateway."""
    ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "ListenerPolicy",
        "metadata": {"name": "edge"},
        "spec": {"targetRefs": [ref], "default": settings},
    }


def secret(
    name: str,
    data: dict[str, str],
    *,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "stringData": data,
    }


def grant(namespace: str, kind: str) -> dict[str, Any]:
    """A ReferenceGrant for TrafficPolicies of the namespace ``default``."""
    group = "gateway.kgateway.dev"
    return {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "policies", "namespace": namespace},
        "spec": {
            "from": [{"group": group, "kind": "TrafficPolicy", "namespace": "default"}],
            "to": [{"group": "", "kind": kind}],
        },
    }
