"""What routes do with requests: redirect, rewrite, change fields, choose by weight and host."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.engine.harness import Setup, always, direct, forward, get, ok, rule, serving


def one_route(action: dict[str, Any], filters: list[dict[str, Any]] | None = None) -> Setup:
    route = {"name": "default", "action": action, "filters": filters or []}
    return Setup(routes={"default": route})


@pytest.mark.parametrize(
    ("redirect", "location"),
    [
        ({"status": 302}, "http://ollama:{port}/old/path?q=1"),
        ({"status": 301, "scheme": "https"}, "https://ollama/old/path?q=1"),
        ({"status": 308, "hostname": "new.example", "port": 80}, "http://new.example/old/path?q=1"),
        ({"status": 307, "port": 8443, "scheme": "https"}, "https://ollama:8443/old/path?q=1"),
        ({"status": 303, "port": 80, "path": {"full": "/new"}}, "http://ollama/new?q=1"),
        (
            {"status": 302, "port": 80, "path": {"prefix": {"from": "/old", "to": "/new"}}},
            "http://ollama/new/path?q=1",
        ),
    ],
)
def test_redirects(redirect: dict[str, Any], location: str) -> None:
    with serving(one_route({"type": "redirect"} | redirect)) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/old/path?q=1", host="ollama:99") + get("/old/path?q=1"))
        for _ in range(2):
            response = client.read_response()
            assert response.status == redirect["status"]
            assert response["location"] == location.format(port=gateway.port)
            assert response.body == b""
        assert upstream.connections == 0


@pytest.mark.parametrize(
    ("rewrite", "path", "forwarded"),
    [
        ({"path": {"full": "/new"}}, "/old/x?q=/old", "/new?q=/old"),
        ({"path": {"prefix": {"from": "/old", "to": "/new"}}}, "/old/x?q", "/new/x?q"),
        ({"path": {"prefix": {"from": "/old", "to": "/"}}}, "/old?q", "/?q"),
        ({"path": {"prefix": {"from": "/old", "to": "/"}}}, "/old/", "/"),
    ],
)
def test_path_rewrites(rewrite: dict[str, Any], path: str, forwarded: str) -> None:
    with serving(one_route(forward("c", rewrite=rewrite))) as (gateway, _):
        seen = json.loads(gateway.get(path, "x-envoy-original-path: forged").body)
        assert seen["line"] == f"GET {forwarded} HTTP/1.1"
        fields = [value for name, value in seen["headers"] if name == "x-envoy-original-path"]
        assert fields == [path]


def test_host_rewrites() -> None:
    with serving(one_route(forward("c", rewrite={"hostname": "new.example"}))) as (gateway, _):
        seen = json.loads(gateway.get("/p", host="old.example:80").body)
        assert seen["line"] == "GET /p HTTP/1.1"
        hosts = [value for name, value in seen["headers"] if name.lower() == "host"]
        assert hosts == ["new.example"]
        assert dict(seen["headers"])["x-envoy-original-host"] == "old.example:80"
        assert "x-envoy-original-path" not in dict(seen["headers"])


def test_request_fields_are_removed_set_and_added() -> None:
    change = {
        "type": "request_headers",
        "remove": ["x-gone"],
        "set": [["x-set", "new"], ["x-fresh", "1"]],
        "add": [["x-more", "2"]],
    }
    with serving(one_route(forward("c"), [change])) as (gateway, _):
        request = get("/", "X-Gone: 1", "x-set: a", "x-more: 1", "X-Set: b", "x-gone: 2")
        fields = json.loads(gateway.ask(request).body)["headers"]
        kept = [
            (n.lower(), v)
            for n, v in fields
            if n.lower() in ("x-gone", "x-set", "x-more", "x-fresh")
        ]
        assert kept == [("x-set", "new"), ("x-more", "1"), ("x-fresh", "1"), ("x-more", "2")]


RESPONSE_CHANGE = {
    "type": "response_headers",
    "remove": ["x-gone"],
    "set": [["x-set", "new"]],
    "add": [["x-more", "2"]],
}


def test_response_fields_are_removed_set_and_added() -> None:
    answer = ok(b"ok", "x-gone: 1", "x-set: old", "x-more: 1")
    with serving(one_route(forward("c"), [RESPONSE_CHANGE]), always(answer)) as (gateway, _):
        fields = [(n, v) for n, v in gateway.get().headers if n.startswith("x-")]
        assert [f for f in fields if not f[0].startswith("x-envoy-")] == [
            ("x-set", "new"),
            ("x-more", "1"),
            ("x-more", "2"),
        ]


@pytest.mark.parametrize(
    "action",
    [
        {"type": "direct", "status": 403, "body": "no"},
        {"type": "redirect", "status": 302},
        forward("empty"),
        forward(),
    ],
)
def test_response_fields_are_set_on_local_replies_too(action: dict[str, Any]) -> None:
    setup = one_route(action, [RESPONSE_CHANGE])
    setup.clusters = {"empty": {"endpoints": []}}
    with serving(setup) as (gateway, _):
        response = gateway.get()
        assert (response["x-set"], response["x-more"]) == ("new", "2")


def test_backends_have_field_changes_of_their_own() -> None:
    backend = {
        "cluster": "c",
        "weight": 1,
        "filters": [
            {"type": "request_headers", "set": [["x-backend", "c"], ["x-both", "backend"]]},
            {"type": "response_headers", "set": [["x-backend", "c"], ["x-both", "backend"]]},
        ],
    }
    filters = [
        {"type": "request_headers", "set": [["x-both", "route"]]},
        {"type": "response_headers", "set": [["x-both", "route"]]},
    ]
    with serving(one_route(forward() | {"backends": [backend]}, filters)) as (gateway, _):
        response = gateway.get()
        seen = dict(json.loads(response.body)["headers"])
        assert (seen["x-backend"], seen["x-both"]) == ("c", "backend")
        assert (response["x-backend"], response["x-both"]) == ("c", "route")


def weighted(**weights: int) -> Setup:
    clusters: dict[str, Any] = {name: {"endpoints": []} for name in weights}
    backends = [{"cluster": name, "weight": weight} for name, weight in weights.items()]
    setup = one_route(forward() | {"backends": backends})
    setup.clusters = clusters
    return setup


def test_weights_share_the_requests() -> None:
    with (
        serving(script=always(ok(b"one"))) as (_, one),
        serving(script=always(ok(b"other"))) as (_, other),
    ):
        setup = weighted(one=1, other=3, never=0)
        setup.clusters["one"]["endpoints"] = [one.address]
        setup.clusters["other"]["endpoints"] = [other.address]
        setup.endpoints = [one.address]
        with serving(setup) as (gateway, _):
            client = gateway.connect()
            client.send(get() * 1000)
            bodies = [client.read_response().body for _ in range(1000)]
    assert set(bodies) == {b"one", b"other"}
    # Nine standard deviations (13.7 each) around a quarter of a thousand.
    assert 127 < bodies.count(b"one") < 373


def test_an_unresolved_backends_share_is_500() -> None:
    backends = [{"cluster": "c", "weight": 1}, {"cluster": None, "weight": 1}]
    setup = one_route(forward() | {"backends": backends})
    with serving(setup, always(ok())) as (gateway, _):
        client = gateway.connect()
        client.send(get() * 400)
        statuses = [client.read_response().status for _ in range(400)]
    assert set(statuses) == {200, 500}
    assert 110 < statuses.count(500) < 290


def test_weights_of_zero_are_no_backend() -> None:
    with serving(weighted(c=0)) as (gateway, _):
        assert gateway.get().status == 500
    with serving(weighted(c=0, d=0)) as (gateway, _):
        assert gateway.get().status == 500


def test_hosts_are_told_apart() -> None:
    routes = {name: direct(200, name) for name in ("exact", "suffix", "any")}
    hosts = [
        {"hostname": "a.example", "rules": [rule("/", "exact")]},
        {"hostname": "*.example", "rules": [rule("/", "suffix")]},
        {"hostname": "*", "rules": [rule("/", "any")]},
    ]
    with serving(Setup(routes=routes, hosts=hosts)) as (gateway, _):
        for host, found in [
            ("a.example", b"exact"),
            ("A.Example:8080", b"exact"),
            ("b.example", b"suffix"),
            ("a.b.example", b"suffix"),
            ("example", b"any"),
        ]:
            assert gateway.get(host=host).body == found, host


def test_matches_of_path_method_field_and_query() -> None:
    routes = {name: direct(200, name) for name in ("all", "exact", "put", "field", "query", "re")}
    rules = [
        rule("/", "all"),
        rule("/p", "exact", kind="exact"),
        rule("/m", "put", method="PUT"),
        rule("/m", "field", headers=[{"name": "X-V", "value": {"exact": "1"}}]),
        rule("/m", "query", query=[{"name": "q", "value": {"regex": "[a-c]+"}}]),
        rule("/re/[0-9]+", "re", kind="regex"),
    ]
    with serving(Setup(routes=routes, rules=rules)) as (gateway, _):
        for request, found in [
            (get("/p?x"), b"exact"),
            (get("/p/"), b"all"),
            (get("/m"), b"all"),
            (b"PUT /m HTTP/1.1\r\nhost: a\r\n\r\n", b"put"),
            (get("/m/n", "x-v: 1"), b"field"),
            (get("/m/n", "x-v: 2"), b"all"),
            (get("/m?q=abc"), b"query"),
            (get("/m?q=abx"), b"all"),
            (get("/mm?q=abc"), b"all"),
            (get("/re/123"), b"re"),
            (get("/re/12x"), b"all"),
        ]:
            assert gateway.ask(request).body == found, request


def test_paths_are_normalised_before_they_are_matched_and_forwarded() -> None:
    setup = Setup(
        routes={"default": {"name": "default", "action": forward("c")}, "a": direct(403, "no")},
        rules=[rule("/", "default"), rule("/admin", "a")],
    )
    with serving(setup) as (gateway, _):
        for path in (
            "/admin",
            "/x/../admin",
            "//admin/",
            "/%61dmin",
            "/./admin/x",
            "/x/%2e%2e/admin",
        ):
            assert gateway.get(path).status == 403, path
        seen = json.loads(gateway.get("/a/./b//c/../%7e?q=//x/../y").body)
        assert seen["line"] == "GET /a/b/~?q=//x/../y HTTP/1.1"
