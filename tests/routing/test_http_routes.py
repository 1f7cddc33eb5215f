"""Tables of HTTPRoutes: they decide as the proxy does."""

from __future__ import annotations

import http.client
import random
from typing import Any
from urllib.parse import urlsplit

import pytest

import kgw
from kgw import api
from kgw.errors import ConfigError
from kgw.routing import Route, RouteRule, RouteTable, canonical_path, routes_of


def http_route(name: str, *rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    if "created" in spec:
        metadata["creationTimestamp"] = spec.pop("created")
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": {"parentRefs": [{"name": "web"}], "rules": list(rules), **spec},
    }


USERS = http_route(
    "users",
    {
        "name": "api",
        "matches": [
            {"path": {"type": "PathPrefix", "value": "/users"}, "method": "GET"},
            {
                "path": {"type": "RegularExpression", "value": "/u/(?P<id>[0-9]+)"},
                "headers": [{"name": "X-Version", "type": "RegularExpression", "value": "v[12]"}],
                "queryParams": [{"name": "full", "value": "1"}],
            },
        ],
        "backendRefs": [{"name": "users", "port": 80, "weight": 3}],
    },
    {"backendRefs": [{"name": "rest", "port": 80}]},
    hostnames=["shop.example", "*.shop.example"],
)


def model(raw: dict[str, Any]) -> api.HTTPRoute:
    (resource,) = kgw.Config.from_objects([raw]).resources
    assert isinstance(resource, api.HTTPRoute)
    return resource


@pytest.mark.parametrize("form", [dict, model])
def test_a_match_names_the_rule_its_match_and_its_backends(form: Any) -> None:
    table = RouteTable.from_objects([form(USERS)])
    found = table.match("/users/7", host="shop.example")
    assert found is not None
    one = found.value
    assert isinstance(one, RouteRule)
    assert (one.route.name, one.rule_index, one.match_index) == ("users", 0, 0)
    assert [(ref.name, ref.port, ref.weight) for ref in one.backend_refs] == [("users", 80, 3)]
    assert (str(one), found.suffix) == ("shop/users/api/0", "/7")

    found = table.match("/u/42?full=1", host="a.shop.example", headers={"x-version": "v2"})
    assert found is not None
    assert (str(found.value), found.params) == ("shop/users/api/1", {"id": "42"})
    assert (found.hostname, len(table)) == ("*.shop.example", 3)

    found = table.match("/users", host="shop.example", method="POST")
    assert found is not None
    assert str(found.value) == "shop/users/1/0"
    assert "routes[0] shop/users: prefix /users on shop.example: the method does not match" in str(
        found.why
    )
    assert table.match("/users", host="other.example") is None


def test_the_value_is_the_callers() -> None:
    table = RouteTable.from_objects(
        [USERS], value=lambda one: [ref.name for ref in one.backend_refs]
    )
    found = table.match("/", host="shop.example")
    assert found is not None
    assert found.value == ["rest"]


def test_routes_of_objects_go_with_others() -> None:
    routes: list[Route[str] | tuple[str, str]] = [*routes_of([USERS], value=str), ("/", "others")]
    table = RouteTable(routes)
    found = table.match("/users", host="elsewhere")
    assert found is not None
    assert found.value == "others"


def test_hostnames_are_what_route_and_listener_have_in_common() -> None:
    def hosts(route: dict[str, Any], hostname: str | None) -> set[tuple[str, ...]]:
        return {tuple(made.hosts) for made in routes_of([route], hostname=hostname)}

    assert hosts(USERS, "*") == {("shop.example", "*.shop.example")}
    assert hosts(USERS, "*.Example") == {("shop.example", "*.shop.example")}
    assert hosts(USERS, "b.shop.example") == {("b.shop.example",)}
    assert hosts(USERS, "other.example") == set()
    assert hosts(USERS, None) == {("*",)}
    assert hosts(http_route("all", {}), "a.example") == {("a.example",)}


def test_of_several_definitions_the_last_is_used() -> None:
    (made,) = routes_of([USERS, http_route("users", {})])
    assert (made.path, made.name) == ("/", "shop/users")


@pytest.mark.parametrize(
    ("changed", "path", "message"),
    [
        ({"apiVersion": "v1", "kind": "Service", "spec": {}}, None, "is not an HTTPRoute"),
        ({"kind": "Nonsense"}, None, "is not an HTTPRoute"),
        ({"spec": {"rules": "none"}}, "spec.rules", "spec.rules"),
        (
            {"spec": {"rules": [{"matches": [{"path": {"value": "relative"}}]}]}},
            "spec.rules[0].matches[0].path.value",
            "must be an absolute path",
        ),
        (
            {
                "spec": {
                    "rules": [
                        {},
                        {"matches": [{"path": {"type": "RegularExpression", "value": "/("}}]},
                    ]
                }
            },
            "spec.rules[1].matches[0].path.value",
            "unclosed group",
        ),
        (
            {
                "spec": {
                    "rules": [
                        {
                            "matches": [
                                {
                                    "headers": [
                                        {"name": "a", "value": "[", "type": "RegularExpression"}
                                    ]
                                }
                            ]
                        }
                    ]
                }
            },
            "spec.rules[0].matches[0].headers",
            "unclosed character class",
        ),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], path: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=r".+") as caught:
        RouteTable.from_objects([{**USERS, **changed}])
    assert message in str(caught.value)
    assert caught.value.path == path
    assert caught.value.resource


# === Side by side with the proxy ===

GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "gatewayClassName": "kgateway",
        "listeners": [
            {"name": "all", "port": 80, "protocol": "HTTP"},
            {"name": "narrow", "port": 81, "protocol": "HTTP", "hostname": "*.example"},
        ],
    },
}
LISTENERS = {"all": "*", "narrow": "*.example"}

HOSTS = ["a.example", "b.example", "*.example", "*.a.example", "example", "a.other", "*.other"]
PATHS = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/b"]
REGEXES = ["/a/.*", "/[ab]+", "/a/(b|c)(/.*)?", "/.*"]


def some_routes(chance: random.Random, count: int) -> list[dict[str, Any]]:
    """HTTPRoutes whose rules each redirect to a host of their own."""
    made = []
    for number in range(count):
        rules = []
        for place in range(chance.randint(1, 3)):
            redirect = {"hostname": f"rule-{number}-{place}", "statusCode": 302}
            rule: dict[str, Any] = {
                "filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]
            }
            if chance.random() < 0.9:
                rule["matches"] = [some_match(chance) for _ in range(chance.randint(1, 3))]
            rules.append(rule)
        spec: dict[str, Any] = {}
        if chance.random() < 0.8:
            spec["hostnames"] = chance.sample(HOSTS, chance.randint(1, 3))
        if chance.random() < 0.5:
            spec["created"] = f"2026-01-0{chance.randint(1, 3)}T00:00:00Z"
        made.append(http_route(f"r{number}", *rules, **spec))
    return made


def some_match(chance: random.Random) -> dict[str, Any]:
    kind = chance.choice(["Exact", "PathPrefix", "PathPrefix", "RegularExpression"])
    paths = REGEXES if kind == "RegularExpression" else PATHS
    match: dict[str, Any] = {"path": {"type": kind, "value": chance.choice(paths)}}
    if chance.random() < 0.3:
        match["method"] = chance.choice(["GET", "POST"])
    if chance.random() < 0.3:
        names = chance.sample(["x-a", "X-B"], chance.randint(1, 2))
        match["headers"] = [{"name": name, "value": chance.choice("12")} for name in names]
    if chance.random() < 0.3:
        names = chance.sample(["p", "q"], chance.randint(1, 2))
        match["queryParams"] = [{"name": name, "value": chance.choice("12")} for name in names]
    return match


def some_request(chance: random.Random) -> tuple[str, str, str, dict[str, str]]:
    host = chance.choice(["a.example", "B.Example", "c.a.example", "example", "a.other", "z"])
    path = chance.choice([*PATHS, "/a/", "//a//b", "/a/x/../b", "/%61/b", "/c", "/a/c/d", "/ab/b"])
    query = chance.choice(["", "?p=1", "?q=2&p=1", "?p=2&p=1", "?q=1"])
    headers = {name: chance.choice("12") for name in ("x-a", "x-b") if chance.random() < 0.5}
    return chance.choice(["GET", "GET", "POST"]), host, path + query, headers


def answered(address: tuple[str, int], request: tuple[str, str, str, dict[str, str]]) -> str | None:
    """The rule that the proxy chose: the host that it redirects to."""
    method, host, target, headers = request
    connection = http.client.HTTPConnection(*address, timeout=20)
    try:
        connection.request(method, target, headers={"host": host, **headers})
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status == 404:
        return None
    assert answer.status == 302
    return urlsplit(answer.headers["location"]).hostname


@pytest.mark.parametrize("seed", range(4))
def test_decides_as_the_proxy_does(seed: int) -> None:
    chance = random.Random(seed)
    routes = some_routes(chance, 12)
    chosen = set()
    with kgw.Proxy([GATEWAY, *routes], bind="127.0.0.1:0", workers=1) as proxy:
        for listener, hostname in LISTENERS.items():
            address = proxy.addresses[f"shop/web/{listener}"][0]
            table = RouteTable.from_objects(
                routes,
                value=lambda one: f"rule-{one.route.name[1:]}-{one.rule_index}",
                hostname=hostname,
            )
            for _ in range(150):
                request = some_request(chance)
                method, host, target, headers = request
                found = table.match(
                    canonical_path(target), host=host, method=method, headers=headers
                )
                expected = None if found is None else found.value
                why = table.explain(
                    canonical_path(target), host=host, method=method, headers=headers
                )
                assert answered(address, request) == expected, f"{listener}: {why}"
                assert (why.selected and why.selected.value) == expected
                chosen.add(expected)
    assert len(chosen) > 8, "many rules were chosen"
