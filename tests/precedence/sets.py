"""Random sets of HTTPRoutes, and requests for them.

Names, hosts, paths and values come from small pools, so that routes overlap and tie. Each rule
marks its answers with its own name, so that it is seen which one was used.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import Any, Final

SEED: Final = int(os.environ.get("KGW_ROUTE_SETS_SEED", "20261123"))
"""What all sets follow from. Set ``KGW_ROUTE_SETS_SEED`` to try others, or one that failed."""

BACKENDS: Final = ("b0", "b1", "b2", "b3", "b4", "b5")
"""The Services, which are in both namespaces."""

NAMESPACES: Final = ("alpha", "beta")

_HOSTS: Final = ("a.example", "b.example", "x.a.example", "*.example", "*.a.example")
_PREFIXES: Final = ("/", "/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/a/b/c", "/b", "/A")
_EXACT: Final = ("/", "/a", "/a/", "/a/b", "/b", "/A")
_REGEXES: Final = ("/a/[a-z]+", "/.*", "/a(/b)?", "/[ab]/b", "/a.*", "(/a|/b).*")
_METHODS: Final = ("GET", "POST", "PUT", "HEAD")
_NAMES: Final = ("x-one", "X-Two", "x-three")
_PARAMETERS: Final = ("p", "P", "q")
_VALUES: Final = ("1", "2", "Two")
_VALUE_REGEXES: Final = ("[12]", "1|Two", "T.*", ".*")
_CREATED: Final = ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", "2025-06-01T12:00:00Z")
_REPLACEMENTS: Final = ("/", "/new", "/new/", "/x/y")


@dataclass(frozen=True)
class Request:
    """A request for a set."""

    method: str
    host: str
    target: str
    fields: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        fields = "".join(f" -H '{name}: {value}'" for name, value in self.fields)
        return f"{self.method} http://{self.host}{self.target}{fields}"

    @property
    def head(self) -> bytes:
        """The bytes of it."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.method in ("POST", "PUT"):
            lines.append("content-length: 0")
        return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True)
class RouteSet:
    """The routes of one Gateway, and requests for them."""

    number: int
    routes: list[dict[str, Any]]
    requests: list[Request] = field(default_factory=list)

    @property
    def gateway(self) -> str:
        """The name of its Gateway, in namespace ``alpha``."""
        return f"set-{self.number}"


def route_sets(count: int, requests: int) -> list[RouteSet]:
    """The first sets of `SEED`; each follows from its number alone."""
    return [_route_set(number, requests) for number in range(count)]


def _route_set(number: int, count: int) -> RouteSet:
    rng = random.Random(f"{SEED}/{number}")
    labels = [f"{space}/{name}" for space in NAMESPACES for name in ("r", "r-1", "s")]
    names = rng.sample(labels, rng.randint(1, 4))
    made = RouteSet(number, [_route(rng, number, name) for name in names])
    made.requests.extend(_request(rng, made) for _ in range(count))
    return made


def _route(rng: random.Random, number: int, label: str) -> dict[str, Any]:
    namespace, _, name = label.partition("/")
    metadata: dict[str, Any] = {"name": f"{name}-of-{number}", "namespace": namespace}
    if rng.random() < 0.7:
        metadata["creationTimestamp"] = rng.choice(_CREATED)
    spec: dict[str, Any] = {"parentRefs": [{"name": f"set-{number}", "namespace": "alpha"}]}
    if rng.random() < 0.7:
        spec["hostnames"] = rng.sample(_HOSTS, rng.randint(1, 2))
    spec["rules"] = [
        _rule(rng, f"{namespace}/{name}/{place}") for place in range(rng.randint(1, 3))
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": spec,
    }


def _rule(rng: random.Random, mark: str) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    matches = [_match(rng) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))]
    if matches:
        rule["matches"] = matches
    paths = [one.get("path", {"type": "PathPrefix"}) for one in matches]
    # A rule without matches has one that it does not write; with several no prefix is *the* one.
    prefix = len(paths) == 1 and paths[0]["type"] == "PathPrefix"
    filters: list[dict[str, Any]] = [
        {
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [{"name": "x-rule", "value": mark}]},
        }
    ]
    what = rng.random()
    if what < 0.25:
        filters.append({"type": "URLRewrite", "urlRewrite": _rewrite(rng, prefix=prefix)})
    elif what < 0.4:
        filters.append({"type": "RequestRedirect", "requestRedirect": _redirect(rng, prefix)})
    rule["filters"] = filters
    if filters[-1]["type"] != "RequestRedirect":
        rule["backendRefs"] = [{"name": rng.choice(BACKENDS), "port": 80}]
    return rule


def _match(rng: random.Random) -> dict[str, Any]:
    match: dict[str, Any] = {}
    kind = rng.random()
    if kind < 0.5:
        match["path"] = {"type": "PathPrefix", "value": rng.choice(_PREFIXES)}
    elif kind < 0.7:
        match["path"] = {"type": "Exact", "value": rng.choice(_EXACT)}
    elif kind < 0.85:
        match["path"] = {"type": "RegularExpression", "value": rng.choice(_REGEXES)}
    if rng.random() < 0.25:
        match["method"] = rng.choice(_METHODS)
    for member, names in (("headers", _NAMES), ("queryParams", _PARAMETERS)):
        chosen = rng.sample(names, rng.choice((0, 0, 0, 1, 1, 2)))
        if chosen:
            match[member] = [{"name": name, **_value(rng)} for name in chosen]
    return match


def _value(rng: random.Random) -> dict[str, str]:
    if rng.random() < 0.25:
        return {"type": "RegularExpression", "value": rng.choice(_VALUE_REGEXES)}
    return {"value": rng.choice(_VALUES)}


def _path(rng: random.Random, *, prefix: bool) -> dict[str, str]:
    if prefix and rng.random() < 0.7:
        return {
            "type": "ReplacePrefixMatch",
            "replacePrefixMatch": rng.choice(_REPLACEMENTS),
        }
    return {"type": "ReplaceFullPath", "replaceFullPath": rng.choice(_REPLACEMENTS)}


def _rewrite(rng: random.Random, *, prefix: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if rng.random() < 0.5:
        found["hostname"] = "rewritten.example"
    if not found or rng.random() < 0.7:
        found["path"] = _path(rng, prefix=prefix)
    return found


def _redirect(rng: random.Random, prefix: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if rng.random() < 0.4:
        found["scheme"] = rng.choice(("http", "https"))
    if rng.random() < 0.4:
        found["hostname"] = "elsewhere.example"
    if rng.random() < 0.4:
        found["port"] = rng.choice((80, 443, 8443))
    if rng.random() < 0.5:
        found["path"] = _path(rng, prefix=prefix)
    if rng.random() < 0.5:
        found["statusCode"] = rng.choice((301, 302, 303, 307, 308))
    return found


# === Requests ===


def _request(rng: random.Random, made: RouteSet) -> Request:
    """A request that is much like what one of the matches asks for, and sometimes is not."""
    route = rng.choice(made.routes)
    rule = rng.choice(route["spec"]["rules"])
    match = rng.choice(rule.get("matches", [{}]))
    wanted = match.get("path", {"type": "PathPrefix", "value": "/"})
    path = wanted["value"]
    if wanted["type"] == "RegularExpression":
        path = rng.choice(("/a", "/a/b", "/b/b", "/a/bc", "/ba"))
    else:
        ends = ("", "", "", "/", "/b", "/b/c", "c", "//b", "/./b", "/b/../c", "/%62", "/B")
        path = path.rstrip("/") + rng.choice(ends)
        path = path if path.startswith("/") else f"/{path}"
    fields = [
        (_cased(rng, one["name"]), _fitting(rng, one))
        for one in match.get("headers", ())
        if rng.random() < 0.85
    ]
    more = rng.sample(_NAMES, rng.choice((0, 0, 1)))
    fields += [(_cased(rng, name), rng.choice(_VALUES)) for name in more]
    parameters = [
        f"{one['name']}={_fitting(rng, one)}"
        for one in match.get("queryParams", ())
        if rng.random() < 0.85
    ]
    parameters += [
        rng.choice((f"{name}={rng.choice(_VALUES)}", name, f"{name}="))
        for name in rng.sample(_PARAMETERS, rng.choice((0, 0, 1, 2)))
    ]
    target = path + (f"?{'&'.join(parameters)}" if parameters else "")
    method = match.get("method") if rng.random() < 0.8 else None
    return Request(method or rng.choice(_METHODS), _host(rng, route), target, tuple(fields))


def _host(rng: random.Random, route: dict[str, Any]) -> str:
    host: str = rng.choice(route["spec"].get("hostnames", _HOSTS))
    if rng.random() < 0.15:
        host = rng.choice((*_HOSTS, "example", "other.test", "deep.x.a.example"))
    host = host.replace("*", rng.choice(("www", "x", "one.two")))
    if rng.random() < 0.1:
        host = host.upper()
    return f"{host}:8080" if rng.random() < 0.1 else host


def _cased(rng: random.Random, name: str) -> str:
    return rng.choice((name, name.lower(), name.upper()))


def _fitting(rng: random.Random, one: dict[str, str]) -> str:
    """A value that a predicate asks for, most of the time."""
    if one.get("type") == "RegularExpression" or rng.random() < 0.1:
        return rng.choice(_VALUES)
    return one["value"]


# === Manifests ===


def manifests(sets: list[RouteSet], backends: dict[str, tuple[str, int]]) -> list[dict[str, Any]]:
    """All of it as Kubernetes objects: a Gateway for each set, and the Services."""
    found: list[dict[str, Any]] = []
    for namespace in NAMESPACES:
        for name, (host, port) in backends.items():
            metadata = {"name": name, "namespace": namespace}
            spec: dict[str, Any] = {"ports": [{"port": 80}]}
            found.append(
                {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
            )
            labels = {"kubernetes.io/service-name": name}
            found.append(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {**metadata, "labels": labels},
                    "addressType": "IPv4",
                    "ports": [{"port": port}],
                    "endpoints": [{"addresses": [host]}],
                }
            )
    for one in sets:
        listener = {
            "name": "http",
            "port": 80,
            "protocol": "HTTP",
            "allowedRoutes": {"namespaces": {"from": "All"}},
        }
        found.append(
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": {"name": one.gateway, "namespace": "alpha"},
                "spec": {"gatewayClassName": "kgateway", "listeners": [listener]},
            }
        )
        found += one.routes
    return found
