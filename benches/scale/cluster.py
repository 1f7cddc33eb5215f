"""The resources of a large cluster, as files.

Twenty namespaces share everything evenly. A rule leads to a Service of its namespace, one in ten
to one of the next namespace, for which there is a ReferenceGrant. What is changed has its own file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Object = dict[str, Any]

GATEWAY_API: Final = "gateway.networking.k8s.io"
NAMESPACES: Final = 20
RULES: Final = 10
ENDPOINTS: Final = 3
PER_FILE: Final = 100
"""Objects in one file."""
HOST: Final = "scale.example"


@dataclass(frozen=True)
class Cluster:
    """How much there is, and where."""

    directory: Path
    port: int
    """The port of the Gateway's listener."""
    backend: int
    """The port of all endpoints."""
    routes: int = 10_000
    services: int = 2_000

    def write(self) -> None:
        """Writes all files."""
        self.directory.mkdir(parents=True)
        self.put("gateway", [self.gateway()])
        every = {
            "routes": (self.route(number) for number in range(1, self.routes)),
            "services": (self.service(number) for number in range(1, self.services)),
            "slices": (self.slice(number) for number in range(1, self.services)),
        }
        for name, objects in every.items():
            for number, some in enumerate(_groups(objects)):
                self.put(f"{name}-{number:03}", some)
        self.put("grants", [grant(number) for number in range(NAMESPACES) if number != 1])
        for name, made in (
            ("one-route", self.route(0)),
            ("one-service", self.service(0)),
            ("one-slice", self.slice(0)),
            ("grant-of-next", grant(1)),
            ("one-policy", self.policy("v0")),
        ):
            self.put(name, [made])

    def put(self, name: str, objects: Iterable[Object]) -> None:
        """Writes a file beside the directory and moves it in: no half of it is ever read."""
        fresh = self.directory.with_suffix(".fresh")
        fresh.write_text("---\n".join("\n".join(_lines(one)) + "\n" for one in objects))
        fresh.rename(self.directory / f"{name}.yaml")

    # === Objects ===

    def gateway(self, *more: Object) -> Object:
        """The Gateway; it may have more listeners."""
        allowed = {"namespaces": {"from": "All"}}
        one = {"name": "http", "port": self.port, "protocol": "HTTP", "allowedRoutes": allowed}
        spec = {"gatewayClassName": "kgateway", "listeners": [one, *more]}
        return _object(f"{GATEWAY_API}/v1", "Gateway", "gateway", 0, spec)

    def route(self, number: int, version: str = "v0") -> Object:
        """An HTTPRoute of ten rules; its answers carry the version."""
        rules = []
        for rule in range(RULES):
            ref: Object = {"name": self._service(number, rule), "port": 80}
            if rule == RULES - 1:
                ref["namespace"] = _namespace(number + 1)
                ref["name"] = self._service(number + 1, rule)
            header = {"set": [{"name": "x-version", "value": version}]}
            modifier = {"type": "ResponseHeaderModifier", "responseHeaderModifier": header}
            rules.append(
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": _path(number, rule)}}],
                    "filters": [modifier] if rule % 2 == 0 else [],
                    "backendRefs": [ref],
                    "timeouts": {"request": "30s"},
                }
            )
        spec = {
            "parentRefs": [{"name": "gateway", "namespace": _namespace(0)}],
            "hostnames": [HOST],
            "rules": rules,
        }
        return _object(f"{GATEWAY_API}/v1", "HTTPRoute", f"route-{number}", number, spec)

    def service(self, number: int, port: int = 80) -> Object:
        """A Service."""
        spec = {
            "clusterIP": f"10.96.{number // 250}.{number % 250 + 1}",
            "ports": [{"name": "http", "port": port, "targetPort": self.backend}],
        }
        return _object("v1", "Service", f"service-{number}", number, spec)

    def slice(self, number: int, backend: int | None = None) -> Object:
        """The endpoints of a Service."""
        made = _object("discovery.k8s.io/v1", "EndpointSlice", f"service-{number}-1", number, None)
        made["metadata"]["labels"] = {"kubernetes.io/service-name": f"service-{number}"}
        made["addressType"] = "IPv4"
        made["endpoints"] = [
            {"addresses": [f"127.0.0.{one + 1}"], "conditions": {"ready": True}}
            for one in range(ENDPOINTS)
        ]
        made["ports"] = [{"name": "http", "port": backend or self.backend}]
        return made

    def policy(self, version: str) -> Object:
        """A TrafficPolicy of one route, with a limit that is never reached."""
        fill = 1_000_000 + int(version[1:])
        bucket = {"maxTokens": fill, "tokensPerFill": fill, "fillInterval": "1s"}
        spec = {
            "targetRefs": [{"group": GATEWAY_API, "kind": "HTTPRoute", "name": "route-0"}],
            "rateLimit": {"local": {"tokenBucket": bucket}},
        }
        return _object("gateway.kgateway.dev/v1alpha1", "TrafficPolicy", "limit", 0, spec)

    def _service(self, route: int, rule: int) -> str:
        """A Service of the namespace of a route."""
        own = self.services // NAMESPACES
        number = (route // NAMESPACES * 7 + rule) % own
        return f"service-{number * NAMESPACES + route % NAMESPACES}"


def first_path(rule: int = 0) -> str:
    """The path of a rule of the first route, which leads to the first Service with rule 0."""
    return _path(0, rule)


def _path(route: int, rule: int) -> str:
    return f"/team-{route % 97}/api-{route}/v{rule}"


def _namespace(number: int) -> str:
    return f"ns-{number % NAMESPACES}"


def grant(number: int) -> Object:
    """Routes of the namespace before may refer to Services of this one."""
    source = {"group": GATEWAY_API, "kind": "HTTPRoute", "namespace": _namespace(number - 1)}
    spec = {"from": [source], "to": [{"group": "", "kind": "Service"}]}
    return _object(f"{GATEWAY_API}/v1beta1", "ReferenceGrant", "before", number, spec)


def _object(version: str, kind: str, name: str, number: int, spec: Object | None) -> Object:
    made: Object = {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": _namespace(number)},
    }
    if spec is not None:
        made["spec"] = spec
    return made


def _lines(value: Object, indent: str = "") -> Iterator[str]:
    """An object in YAML's block style, as people and their tools write it."""
    for key, one in value.items():
        yield from _member(f"{indent}{key}:", one, indent + "  ")


def _member(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield head
        yield from _lines(value, indent)
    elif isinstance(value, list) and value:
        yield head
        for one in value:
            first, *rest = _lines(one, indent) if isinstance(one, dict) else [indent + one]
            yield f"{indent[:-2]}- {first[len(indent) :]}"
            yield from rest
    else:
        yield f"{head} {json.dumps(value)}"


def _groups(objects: Iterable[Object]) -> Iterator[list[Object]]:
    group: list[Object] = []
    for one in objects:
        group.append(one)
        if len(group) == PER_FILE:
            yield group
            group = []
    if group:
        yield group
