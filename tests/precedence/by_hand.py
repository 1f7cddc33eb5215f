"""Sets of HTTPRoutes as a configuration of Envoy, written without any of kgw.

This is a second reading of the Gateway API: every match on its own, sorted by the clauses of
``HTTPRouteRule.matches``, in a virtual host for each hostname. Where regular expressions stand is
left to implementations; here they are behind exact paths and before prefixes, as in kgateway.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.precedence.sets import RouteSet

#: The port of the Gateways' listeners, whatever port is bound.
_PORT = 80

_MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    ".HttpConnectionManager"
)
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"

_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def bootstrap(sets: list[RouteSet], backends: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """A listener for each set, called as its Gateway is."""
    return {
        "admin": {"address": _address("127.0.0.1", 0)},
        "static_resources": {
            "listeners": [_listener(one) for one in sets],
            "clusters": [_cluster(name, *where) for name, where in backends.items()],
        },
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _cluster(name: str, host: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(host, port)}}
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _listener(one: RouteSet) -> dict[str, Any]:
    manager = {
        "@type": _MANAGER,
        "stat_prefix": one.gateway,
        "normalize_path": True,
        "merge_slashes": True,
        "route_config": {
            "name": one.gateway,
            "ignore_port_in_host_matching": True,
            "virtual_hosts": _virtual_hosts(one),
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    return {"name": one.gateway, "address": _address("127.0.0.1", 0), "filter_chains": [chain]}


def _virtual_hosts(one: RouteSet) -> list[dict[str, Any]]:
    by_host: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
    for route in one.routes:
        matches = [
            (_place(route, number, at, match), _route(rule, match))
            for number, rule in enumerate(route["spec"]["rules"])
            for at, match in enumerate(rule.get("matches", [{}]))
        ]
        for host in route["spec"].get("hostnames", ["*"]):
            by_host.setdefault(host, []).extend(matches)
    return [
        {
            "name": host,
            "domains": [host],
            "routes": [route for _, route in sorted(matches, key=lambda pair: pair[0])],
        }
        for host, matches in by_host.items()
    ]


def _place(route: dict[str, Any], rule: int, at: int, match: dict[str, Any]) -> tuple[Any, ...]:
    """What sorts a match: the Gateway API's clauses, one after the other."""
    path = match.get("path", {"type": "PathPrefix", "value": "/"})
    metadata = route["metadata"]
    return (
        ("Exact", "RegularExpression", "PathPrefix").index(path["type"]),
        -len(path["value"].rstrip("/")) if path["type"] == "PathPrefix" else 0,
        "method" not in match,
        -len(match.get("headers", ())),
        -len(match.get("queryParams", ())),
        metadata.get("creationTimestamp", "9999"),
        f"{metadata['namespace']}/{metadata['name']}",
        rule,
        at,
    )


def _route(rule: dict[str, Any], match: dict[str, Any]) -> dict[str, Any]:
    path = match.get("path", {"type": "PathPrefix", "value": "/"})
    found: dict[str, Any] = {"match": _match(match, path)}
    for one in rule["filters"]:
        match one["type"]:
            case "ResponseHeaderModifier":
                found["response_headers_to_add"] = [
                    {"header": {"key": it["name"], "value": it["value"]}}
                    for it in one["responseHeaderModifier"]["set"]
                ]
            case "RequestRedirect":
                found["redirect"] = _redirect(one["requestRedirect"], path["value"])
            case "URLRewrite":
                given = one["urlRewrite"]
                found["route"] = {}
                if "hostname" in given:
                    found["route"]["host_rewrite_literal"] = given["hostname"]
                if "path" in given:
                    found["route"]["regex_rewrite"] = _rewrite(given["path"], path["value"])
    if "redirect" not in found:
        found.setdefault("route", {})["cluster"] = rule["backendRefs"][0]["name"]
    return found


def _match(match: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
    value = path["value"]
    found: dict[str, Any]
    if path["type"] == "Exact":
        found = {"path": value}
    elif path["type"] == "RegularExpression":
        found = {"safe_regex": {"regex": value}}
    elif value.rstrip("/"):
        found = {"path_separated_prefix": value.rstrip("/")}
    else:
        found = {"prefix": "/"}
    headers = [
        {"name": one["name"], "string_match": _string(one)} for one in match.get("headers", ())
    ]
    if "method" in match:
        headers.append({"name": ":method", "string_match": {"exact": match["method"]}})
    if headers:
        found["headers"] = headers
    if "queryParams" in match:
        found["query_parameters"] = [
            {"name": one["name"], "string_match": _string(one)} for one in match["queryParams"]
        ]
    return found


def _string(one: dict[str, str]) -> dict[str, Any]:
    if one.get("type") == "RegularExpression":
        return {"safe_regex": {"regex": one["value"]}}
    return {"exact": one["value"]}


def _rewrite(path: dict[str, str], prefix: str) -> dict[str, Any]:
    """The table of ``HTTPPathModifier`` as one substitution; Envoy keeps the query out of it."""
    if path["type"] == "ReplaceFullPath":
        return {"pattern": {"regex": "^.*$"}, "substitution": path["replaceFullPath"]}
    start = re.escape(prefix.rstrip("/"))
    end = path["replacePrefixMatch"].rstrip("/")
    if end:
        return {"pattern": {"regex": f"^{start}(/.*)?$"}, "substitution": f"{end}\\1"}
    return {"pattern": {"regex": f"^{start}/?(.*)$"}, "substitution": "/\\1"}


def _redirect(given: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {"response_code": _CODES[given.get("statusCode", 302)]}
    scheme = given.get("scheme")
    # The port is the filter's, else that of its scheme, else that of the listener.
    default = {"http": 80, "https": 443}.get(scheme or "", _PORT)
    found["port_redirect"] = given.get("port", default)
    if scheme is not None:
        found["scheme_redirect"] = scheme
    if "hostname" in given:
        found["host_redirect"] = given["hostname"]
    if "path" in given:
        found["regex_rewrite"] = _rewrite(given["path"], prefix)
    return found
