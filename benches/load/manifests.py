"""A `Spec` as Kubernetes resources: what kgw reads, and any other Gateway API implementation."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from benches.load.spec import LOG_FIELDS, SERVICE_VIP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from benches.load.spec import Route, Spec

Object = dict[str, Any]

RULES = 16
"""How many rules an HTTPRoute may have."""

GATEWAY_API = "gateway.networking.k8s.io"
BUCKET = {"maxTokens": 10_000_000, "tokensPerFill": 10_000_000, "fillInterval": "1s"}


def write(spec: Spec, directory: Path, log: Path) -> None:
    """Writes the manifests into a directory, which is made if need be.

    The route that has the version is in a file of its own.
    """
    directory.mkdir(exist_ok=True)
    _prepare(directory / "fixed.yaml", fixed(spec, str(log)))()
    if spec.version:
        prepare_change(spec, directory)()


def prepare_change(spec: Spec, directory: Path) -> Callable[[], object]:
    """Returns what replaces the file with the route that has the version."""
    return _prepare(directory / "changing.yaml", [changing(spec)])


def _prepare(path: Path, objects: Iterable[Object]) -> Callable[[], object]:
    """Writes a file beside the directory; returns what moves it in: no half of it is ever read.

    Its documents are JSON, which is YAML.
    """
    fresh = path.parent.with_suffix(".fresh")
    fresh.write_text("\n---\n".join(json.dumps(one) for one in objects) + "\n")
    return partial(fresh.rename, path)


def fixed(spec: Spec, log: str) -> list[Object]:
    """Returns everything but the route that has the version; ``log`` is the access log's file."""
    return [_gateway(spec), *_service(spec), *_routes(spec), *_policies(spec, log)]


def changing(spec: Spec) -> Object:
    """Returns the route that has the version: the last of the table."""
    return _http_route(spec, "changing", spec.rules()[-1:], spec.version)


def _gateway(spec: Spec) -> Object:
    protocol = "istio.io/PROXY" if spec.proxy_protocol else "HTTP"
    return {
        "apiVersion": f"{GATEWAY_API}/v1",
        "kind": "Gateway",
        "metadata": {"name": "gw", "namespace": "default"},
        "spec": {
            "gatewayClassName": "kgateway-waypoint" if spec.proxy_protocol else "kgateway",
            "listeners": [{"name": "proxy", "port": spec.port, "protocol": protocol}],
        },
    }


def _service(spec: Spec) -> list[Object]:
    labels = {"istio.io/use-waypoint": "gw"} if spec.proxy_protocol else {}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "backend", "namespace": "default", "labels": labels},
            "spec": {
                "clusterIP": SERVICE_VIP,
                "ports": [{"port": 80, "targetPort": spec.backend}],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "backend-1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "backend"},
            },
            "addressType": "IPv4",
            "ports": [{"port": spec.backend}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        },
    ]


def _routes(spec: Spec) -> Iterator[Object]:
    rules = spec.rules()[:-1] if spec.version else spec.rules()
    if spec.bucket:
        for name, rule in zip(("limited", "unbound"), rules, strict=True):
            yield _http_route(spec, name, [rule])
        return
    size = 1 if spec.routes is not None and spec.routes.kind == "hosts" else RULES
    for start in range(0, len(rules), size):
        yield _http_route(spec, f"route-{start // size}", rules[start : start + size])


def _http_route(spec: Spec, name: str, rules: list[Route], version: str = "") -> Object:
    parent = {"name": "gw"}
    if spec.proxy_protocol:
        parent = {"name": "backend", "kind": "Service", "group": ""}
    filters: list[Object] = []
    if spec.waypoint:
        add = {"add": [{"name": "x-waypoint", "value": "kgw"}]}
        filters.append({"type": "RequestHeaderModifier", "requestHeaderModifier": add})
    if version:
        put = {"set": [{"name": "x-version", "value": version}]}
        filters.append({"type": "ResponseHeaderModifier", "responseHeaderModifier": put})
    shared: Object = {"backendRefs": [{"name": "backend", "port": 80}]}
    if filters:
        shared["filters"] = filters
    if spec.waypoint:
        shared["timeouts"] = {"request": "180s"}
    body: Object = {
        "parentRefs": [parent],
        "rules": [{"matches": [_match(rule)], **shared} for rule in rules],
    }
    if rules[0].host != "*" and not spec.proxy_protocol:  # a Service has none
        body["hostnames"] = [rules[0].host]
    return {
        "apiVersion": f"{GATEWAY_API}/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": body,
    }


def _match(route: Route) -> Object:
    match: Object = {"path": {"type": "PathPrefix", "value": route.prefix}}
    if route.regex is not None:
        match["path"] = {"type": "RegularExpression", "value": route.regex}
    if route.header is not None:
        name, value = route.header
        match["headers"] = [{"name": name, "value": value}]
    return match


def _policies(spec: Spec, log: str) -> Iterator[Object]:
    limited = "route-0" if spec.waypoint else "limited" if spec.bucket else ""
    if limited:
        yield {
            "apiVersion": "gateway.kgateway.dev/v1alpha1",
            "kind": "TrafficPolicy",
            "metadata": {"name": "limit", "namespace": "default"},
            "spec": {
                "targetRefs": [{"group": GATEWAY_API, "kind": "HTTPRoute", "name": limited}],
                "rateLimit": {"local": {"tokenBucket": BUCKET}},
            },
        }
    if spec.waypoint:
        yield {
            "apiVersion": "gateway.kgateway.dev/v1alpha1",
            "kind": "HTTPListenerPolicy",
            "metadata": {"name": "log", "namespace": "default"},
            "spec": {
                "targetRefs": [{"group": GATEWAY_API, "kind": "Gateway", "name": "gw"}],
                "accessLog": [{"fileSink": {"path": log, "jsonFormat": LOG_FIELDS}}],
            },
        }
